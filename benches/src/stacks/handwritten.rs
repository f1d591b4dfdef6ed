//! What an experienced engineer writes by hand today: four `axum::middleware::from_fn`.
//!
//! One SHA-256, one window, and no lock held across an await. IDs are strings, and header names are literals, as in axum's examples.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    extract::{Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use dashmap::DashMap;
use http::{
    HeaderValue, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tower::ServiceBuilder;
use uuid::Uuid;

use crate::{
    cast::{self, Scenario},
    drive::{Bare, Driven, Handler, Stack},
};

/// The layers, whose type cannot be written down.
macro_rules! layers {
    ($scenario:expr) => {{
        let app = Arc::new(App::new($scenario));
        ServiceBuilder::new()
            .layer(from_fn(request_id))
            .layer(from_fn_with_state(Arc::clone(&app), authenticate))
            .layer(from_fn_with_state(app, rate_limit))
            .layer(from_fn(require_scope))
    }};
}

pub(super) fn build(scenario: Scenario) -> Box<dyn Stack> {
    Box::new(Driven(layers!(scenario).service(Handler::<Bare>::new())))
}

pub(super) fn on(router: Router, scenario: Scenario) -> Router {
    router.layer(layers!(scenario))
}

struct App {
    keys: DashMap<[u8; 32], Arc<ApiKey>>,
    counters: DashMap<String, Counter>,
    window: u64,
    limit: u64,
}

struct ApiKey {
    id: String,
    scopes: Vec<String>,
    has_subscription: bool,
}

#[derive(Default)]
struct Counter {
    window: u64,
    used: u64,
}

impl App {
    fn new(scenario: Scenario) -> Self {
        let keys = cast::keys().iter().map(|key| {
            let scopes = scenario.scopes().map(str::to_owned).to_vec();
            let record = ApiKey { id: Uuid::new_v4().to_string(), scopes, has_subscription: true };
            (Sha256::digest(key).into(), Arc::new(record))
        });
        let (window, limit) = scenario.limits(1)[0];
        Self { keys: keys.collect(), counters: DashMap::new(), window: window.into(), limit: limit.into() }
    }
}

#[derive(Clone, Copy)]
struct RequestId(Uuid);

async fn request_id(mut request: Request, next: Next) -> Response {
    let sent = request.headers().get("x-request-id").and_then(|value| value.to_str().ok());
    let id = sent.and_then(|text| Uuid::parse_str(text).ok()).unwrap_or_else(Uuid::new_v4);
    request.extensions_mut().insert(RequestId(id));
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

async fn authenticate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(key) = header.and_then(|text| text.strip_prefix("Bearer ")) else {
        return refuse(&request, StatusCode::UNAUTHORIZED, "missing_api_key", "Send your API key.");
    };
    let digest: [u8; 32] = Sha256::digest(key).into();
    let Some(record) = app.keys.get(&digest).map(|record| Arc::clone(&record)) else {
        let mut response =
            refuse(&request, StatusCode::UNAUTHORIZED, "invalid_api_key", "The API key is not valid.");
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    };
    request.extensions_mut().insert(record);
    next.run(request).await
}

async fn rate_limit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(key) = request.extensions().get::<Arc<ApiKey>>() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    #[expect(clippy::disallowed_methods, reason = "this stack has no clock of Tollgate's")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let window = now / app.window;
    let reset = (window + 1) * app.window;
    let remaining = {
        let mut counter = app.counters.entry(key.id.clone()).or_default();
        if counter.window != window {
            *counter = Counter { window, used: 0 };
        }
        if counter.used < app.limit {
            counter.used += 1;
            Some(app.limit - counter.used)
        } else {
            None
        }
    };
    let mut response = match remaining {
        Some(_) => next.run(request).await,
        None => refuse(&request, StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests."),
    };
    let headers = response.headers_mut();
    if remaining.is_none() {
        headers.insert(RETRY_AFTER, HeaderValue::from(reset - now));
    }
    headers.insert("x-ratelimit-limit", HeaderValue::from(app.limit));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(remaining.unwrap_or_default()));
    headers.insert("x-ratelimit-reset", HeaderValue::from(reset));
    response
}

async fn require_scope(request: Request, next: Next) -> Response {
    let key = request.extensions().get::<Arc<ApiKey>>();
    if !key.is_some_and(|key| key.has_subscription) {
        return refuse(&request, StatusCode::FORBIDDEN, "no_subscription", "A subscription is needed.");
    }
    if !key.is_some_and(|key| key.scopes.iter().any(|scope| scope == cast::SCOPE)) {
        return refuse(&request, StatusCode::FORBIDDEN, "missing_scope", "The API key lacks a scope.");
    }
    next.run(request).await
}

/// The same problem as Tollgate's.
fn refuse(request: &Request, status: StatusCode, code: &str, detail: &str) -> Response {
    let id = request.extensions().get::<RequestId>().map(|id| id.0.to_string());
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
