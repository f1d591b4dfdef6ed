//! Webhooks, and their test.
//!
//! ```text
//! > POST /v1/webhooks {"url":"https://example.com/hook"}
//! < 201 {"id":"webhook_…"}
//! > POST /v1/webhooks/webhook_…/test
//! < 200 {"id":"webhook_…","event":{"type":"webhook.test"}}
//! ```
//!
//! Nothing is sent: the answer is the event that would be. A service that sends it must not let callers reach addresses of its own
//! network.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    body::JsonObject,
    error,
    organization::{OfOrganizations, Organization},
};

pub(crate) type Webhooks = OfOrganizations<Map<String, Value>>;

pub(crate) async fn create(
    organization: Organization,
    State(webhooks): State<Webhooks>,
    JsonObject(webhook): JsonObject,
) -> Response {
    let id = format!("webhook_{}", Uuid::new_v4().simple());
    webhooks.add(&organization, id.clone(), webhook);
    (StatusCode::CREATED, Json(json!({ "id": id }))).into_response()
}

pub(crate) async fn test(
    organization: Organization,
    State(webhooks): State<Webhooks>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    match id {
        Ok(Path(id)) if webhooks.find(&organization, &id).is_some() => {
            Json(json!({ "id": id, "event": { "type": "webhook.test" } })).into_response()
        }
        _ => error::not_found(),
    }
}
