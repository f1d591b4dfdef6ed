//! The peers combined: `tower-http`'s request IDs, its validation with a lookup, entitlement and scope, and `tower_governor` by the
//! key that was found.

use std::sync::Arc;

use axum::{Json, Router, body::Body, response::IntoResponse};
use dashmap::DashMap;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tower::ServiceBuilder;
use tower_governor::{GovernorError, key_extractor::KeyExtractor};
use tower_http::{
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    validate_request::{ValidateRequest, ValidateRequestHeaderLayer},
};

use super::governor;
use crate::{
    cast::{self, Scenario},
    drive::{Bare, Driven, Handler, Stack},
};

/// The layers, whose type would take a page to write down.
macro_rules! layers {
    ($scenario:expr) => {
        ServiceBuilder::new()
            .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
            .layer(PropagateRequestIdLayer::x_request_id())
            .layer(ValidateRequestHeaderLayer::custom(Guard::new($scenario)))
            .layer(governor::layer($scenario, ByKey).error_handler(over_limit))
    };
}

pub(super) fn build(scenario: Scenario) -> Box<dyn Stack> {
    Box::new(Driven(layers!(scenario).service(Handler::<Bare>::new())))
}

pub(super) fn on(router: Router, scenario: Scenario) -> Router {
    router.layer(layers!(scenario))
}

/// Finds the key, and checks its subscription and its scope.
#[derive(Clone)]
struct Guard {
    keys: Arc<DashMap<[u8; 32], Arc<ApiKey>>>,
}

struct ApiKey {
    id: String,
    scopes: Vec<String>,
    has_subscription: bool,
}

impl Guard {
    fn new(scenario: Scenario) -> Self {
        let digests = cast::keys().iter().map(|key| Sha256::digest(key).into());
        let records = (0..).map(|number: u32| {
            let scopes = scenario.scopes().map(str::to_owned).to_vec();
            Arc::new(ApiKey { id: format!("key_{number}"), scopes, has_subscription: true })
        });
        Self { keys: Arc::new(digests.zip(records).collect()) }
    }
}

impl ValidateRequest<Body> for Guard {
    type ResponseBody = Body;

    fn validate(&mut self, request: &mut Request<Body>) -> Result<(), Response<Body>> {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(key) = header.and_then(|text| text.strip_prefix("Bearer ")) else {
            return Err(refuse(request, StatusCode::UNAUTHORIZED, "missing_api_key", "Send your API key."));
        };
        let digest: [u8; 32] = Sha256::digest(key).into();
        let Some(record) = self.keys.get(&digest).map(|record| Arc::clone(&record)) else {
            let mut response =
                refuse(request, StatusCode::UNAUTHORIZED, "invalid_api_key", "The API key is not valid.");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Err(response);
        };
        if !record.has_subscription {
            return Err(refuse(
                request,
                StatusCode::FORBIDDEN,
                "no_subscription",
                "A subscription is needed.",
            ));
        }
        if !record.scopes.iter().any(|scope| scope == cast::SCOPE) {
            return Err(refuse(
                request,
                StatusCode::FORBIDDEN,
                "missing_scope",
                "The API key lacks a scope.",
            ));
        }
        request.extensions_mut().insert(record);
        Ok(())
    }
}

/// The same problem as Tollgate's.
fn refuse(request: &Request<Body>, status: StatusCode, code: &str, detail: &str) -> Response<Body> {
    let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok());
    problem(status, code, detail, id)
}

/// The same for the limiter. Its handler does not get the request, so the ID is missing.
fn over_limit(error: GovernorError) -> Response<Body> {
    let GovernorError::TooManyRequests { headers, .. } = error else { return error.into() };
    let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests.", None);
    response.headers_mut().extend(headers.unwrap_or_default());
    response
}

fn problem(status: StatusCode, code: &str, detail: &str, id: Option<&str>) -> Response<Body> {
    let problem = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
        "request_id": id,
    });
    let content_type = [(CONTENT_TYPE, "application/problem+json")];
    (status, content_type, Json(problem)).into_response()
}

/// Callers are distinguished by the key that was found.
#[derive(Clone, Copy)]
struct ByKey;

impl KeyExtractor for ByKey {
    type Key = String;

    fn extract<T>(&self, request: &Request<T>) -> Result<String, GovernorError> {
        let key = request.extensions().get::<Arc<ApiKey>>();
        key.map(|key| key.id.clone()).ok_or(GovernorError::UnableToExtractKey)
    }
}
