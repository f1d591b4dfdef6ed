//! Request bodies: any JSON object.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    response::Response,
};
use http::StatusCode;
use serde_json::{Map, Value};

use crate::error;

/// A body that is a JSON object, with any content type. Another body is answered with 400, or 413 if it is too large.
pub(crate) struct JsonObject(pub(crate) Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for JsonObject {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| error::response(rejection.status(), &rejection.body_text()))?;
        serde_json::from_slice(&bytes).map(Self).map_err(|problem| {
            error::response(StatusCode::BAD_REQUEST, &format!("The body must be a JSON object: {problem}"))
        })
    }
}
