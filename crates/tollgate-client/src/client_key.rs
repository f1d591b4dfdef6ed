//! The key that a client sends.

use std::fmt;

use bytes::Bytes;
use http::HeaderValue;
use tollgate_core::key::ApiKey;
use zeroize::Zeroizing;

use crate::ConfigurationError;

/// The key that a client sends. `Debug` does not show it, and its memory is wiped on drop.
///
/// ```
/// use tollgate_client::ClientKey;
///
/// let key = ClientKey::from("sk_live_a1B2c3D4".to_owned());
/// assert_eq!(format!("{key:?}"), "ClientKey(..)");
/// ```
#[derive(Clone)]
pub struct ClientKey(Zeroizing<String>);

impl ClientKey {
    /// The key as a sensitive header value. Clones share its memory, which is wiped when the last of them is dropped.
    pub(crate) fn into_header_value(self) -> Result<HeaderValue, ConfigurationError> {
        if self.0.is_empty() {
            return Err(ConfigurationError::new("the key is empty: read it from where it is stored"));
        }
        if !self.0.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigurationError::new(
                "the key contains a space, a line break or another character that is not visible ASCII: trim it if it was read from a file",
            ));
        }
        sensitive(self.0)
    }
}

/// A sensitive header value whose memory is wiped.
pub(crate) fn sensitive(text: Zeroizing<String>) -> Result<HeaderValue, ConfigurationError> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text))
        .map_err(|_| ConfigurationError::new("the credential is not a valid header value"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl From<&str> for ClientKey {
    fn from(key: &str) -> Self {
        key.to_owned().into()
    }
}

impl From<String> for ClientKey {
    fn from(key: String) -> Self {
        Self(Zeroizing::new(key))
    }
}

impl From<Zeroizing<String>> for ClientKey {
    fn from(key: Zeroizing<String>) -> Self {
        Self(key)
    }
}

impl From<&ApiKey> for ClientKey {
    fn from(key: &ApiKey) -> Self {
        key.expose_secret().into()
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_keys_that_no_header_should_carry() {
        for key in ["", "sk_live_1\n", "sk live", "sk\u{e9}", "sk\0", "sk\t"] {
            let error = ClientKey::from(key).into_header_value().unwrap_err().to_string();
            assert!(key.is_empty() || !error.contains(key), "{error}");
        }
    }

    #[test]
    fn the_header_value_is_sensitive_and_not_copied_by_clones() {
        let value = ClientKey::from("sk_live_1").into_header_value().unwrap();
        assert!(value.is_sensitive());
        assert_eq!(value.as_bytes().as_ptr(), value.clone().as_bytes().as_ptr());
        assert_eq!(format!("{value:?}"), "Sensitive");
    }
}
