//! Request bodies, and identifiers in paths.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Request},
};
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, NOT_FOUND};

/// A body that is a JSON object with the fields of `T`, with any content type. Another body is answered with 400, or 413 if it is
/// too large. Unknown fields are ignored.
pub(crate) struct Object<T = Map<String, Value>>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Object<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| Error::Status(rejection.status(), rejection.body_text().into()))?;
        // First an object, because a structure could be read from an array, too.
        let object: Map<String, Value> = serde_json::from_slice(&bytes)
            .map_err(|problem| Error::bad_request(format!("The body must be a JSON object: {problem}.")))?;
        serde_json::from_value(object.into())
            .map(Self)
            .map_err(|problem| Error::bad_request(format!("The body is not valid: {problem}.")))
    }
}

/// The identifier in a path. One that cannot be decoded is unknown.
pub(crate) struct Id(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::<String>::from_request_parts(head, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| NOT_FOUND)
    }
}
