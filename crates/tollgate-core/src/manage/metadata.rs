//! The application's own data, stored with a key.

use std::{error::Error, fmt, str::FromStr, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::bounds::MAX_METADATA_BYTES;

/// The application's own data, stored with a key: a JSON object, converted from and to a type of the application.
///
/// A store attaches it to the principal as an [extension](crate::verify::Principal::extension):
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tollgate_core::{manage::Metadata, verify::Principal};
///
/// #[derive(Serialize, Deserialize, PartialEq, Debug)]
/// struct Project {
///     region: String,
///     team: u32,
/// }
///
/// let metadata = Metadata::of(&Project { region: "eu".into(), team: 7 })?;
/// let principal = Principal::new("key_1").with_extension(metadata); // as a store does
///
/// let project: Project = principal.extension::<Metadata>().unwrap().read()?;
/// assert_eq!(project.team, 7);
/// # Ok::<(), tollgate_core::manage::InvalidMetadata>(())
/// ```
///
/// `Debug` shows the names and hides the values.
#[derive(Clone, Default, PartialEq)]
pub struct Metadata(Option<Arc<Map<String, Value>>>);

impl Metadata {
    /// The maximum length in bytes, as compact JSON: 16 KiB.
    pub const MAX_BYTES: usize = MAX_METADATA_BYTES;

    /// No data: an empty object.
    pub fn none() -> Self {
        Self::default()
    }

    /// Converts a value to metadata.
    ///
    /// # Errors
    /// [`InvalidMetadata`] if the value is not an object, cannot be serialized, or is longer than [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, InvalidMetadata> {
        match serde_json::to_value(value) {
            Ok(Value::Object(object)) => Self::of_object(object),
            Ok(_) => Err(InvalidMetadata("metadata must be a JSON object: use a struct or a map".into())),
            Err(error) => {
                Err(InvalidMetadata(format!("the value cannot be serialized as JSON: {error}").into()))
            }
        }
    }

    fn of_object(object: Map<String, Value>) -> Result<Self, InvalidMetadata> {
        if object.is_empty() {
            return Ok(Self::none());
        }
        let metadata = Self(Some(Arc::new(object)));
        if metadata.to_string().len() > Self::MAX_BYTES {
            return Err(InvalidMetadata(
                "metadata is longer than 16 KiB: store larger data elsewhere, by the key's id".into(),
            ));
        }
        Ok(metadata)
    }

    /// Converts the metadata to a type of the application.
    ///
    /// # Errors
    /// [`InvalidMetadata`] if it does not match the type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, InvalidMetadata> {
        let object = self.0.as_deref().cloned().unwrap_or_default();
        serde_json::from_value(Value::Object(object))
            .map_err(|error| InvalidMetadata(format!("the metadata does not match the type: {error}").into()))
    }

    /// Whether there is no data.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for Metadata {
    /// Writes compact JSON, which [`from_str`](FromStr::from_str) parses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("{}"),
            Some(object) => f.write_str(&serde_json::to_string(&**object).map_err(|_| fmt::Error)?),
        }
    }
}

impl FromStr for Metadata {
    type Err = InvalidMetadata;

    /// # Errors
    /// [`InvalidMetadata`] if `json` is not a JSON object, or is longer than [`MAX_BYTES`](Self::MAX_BYTES).
    fn from_str(json: &str) -> Result<Self, InvalidMetadata> {
        match serde_json::from_str(json) {
            Ok(object) => Self::of_object(object),
            Err(error) => Err(InvalidMetadata(format!("metadata must be a JSON object: {error}").into())),
        }
    }
}

impl Serialize for Metadata {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            None => Map::new().serialize(serializer),
            Some(object) => object.serialize(serializer),
        }
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metadata")?;
        f.debug_set().entries(self.0.iter().flat_map(|object| object.keys())).finish()
    }
}

/// The value is not valid metadata, or does not match the expected type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidMetadata(Box<str>);

impl fmt::Display for InvalidMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for InvalidMetadata {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn written_metadata_is_read_back() {
        let metadata = Metadata::of(&BTreeMap::from([("region", "eu"), ("password", "hunter2")])).unwrap();
        assert_eq!(metadata.to_string().parse(), Ok(metadata.clone()));
        assert_eq!(metadata.read::<BTreeMap<String, String>>().unwrap()["region"], "eu");
        assert_eq!("{}".parse(), Ok(Metadata::none()));
        assert!(!format!("{metadata:?}").contains("hunter2"));
        assert!(metadata.read::<BTreeMap<String, u32>>().is_err());
    }

    #[test]
    fn metadata_is_an_object_of_bounded_size() {
        for json in ["", "[]", "1", "null", "{", "\"{}\""] {
            let error = json.parse::<Metadata>().unwrap_err().to_string();
            assert!(error.contains("object"), "{json}: {error}");
        }
        assert!(Metadata::of(&7).is_err());
        let long = |length: usize| Metadata::of(&BTreeMap::from([("a", "x".repeat(length))]));
        assert!(long(Metadata::MAX_BYTES - 8).is_ok());
        assert!(long(Metadata::MAX_BYTES - 7).is_err());
    }
}
