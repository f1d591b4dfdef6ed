//! The endpoints, and what each one asks for.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post, put},
};
use serde_json::{Map, Value};
use tollgate::{ScopeLayer, scope};

use crate::{
    body::JsonObject,
    clock::ServiceClock,
    error, market,
    scans::{self, Accounts},
    tiers,
};

/// Scans are kept in memory.
const MAX_BODY_BYTES: usize = 64 * 1024;

pub(crate) fn router(clock: ServiceClock) -> Router {
    let market = Router::new()
        .route("/misc/market-status", reads(get(async move || Json(market::status(clock.timestamp())))))
        .route("/technicals/{symbol}", reads(get(technicals).route_layer(tiers::at_least(tiers::PRO))));
    let account = Router::new()
        .route("/scans", reads(get(scans::list)).merge(writes(post(scans::save))))
        .route("/scans/{id}", writes(delete(scans::remove)))
        .route("/settings", writes(put(replace_settings)))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Accounts::default());
    Router::new()
        .nest("/api/v2", market.merge(account))
        .fallback(async || error::not_found())
        .method_not_allowed_fallback(async || error::method_not_allowed())
}

/// Asks for the scope beside the method that needs it, so that a method which a path does not have is the router's to
/// refuse.
fn reads<S: Clone + Send + Sync + 'static>(method: MethodRouter<S>) -> MethodRouter<S> {
    method.route_layer(ScopeLayer::new(scope("read")))
}

fn writes<S: Clone + Send + Sync + 'static>(method: MethodRouter<S>) -> MethodRouter<S> {
    method.route_layer(ScopeLayer::new(scope("write")))
}

async fn technicals(symbol: Result<Path<String>, PathRejection>) -> Response {
    match symbol {
        Ok(Path(symbol)) => Json(market::technicals(&symbol)).into_response(),
        // One that cannot be decoded is like one that nobody knows.
        Err(_) => error::not_found(),
    }
}

/// Answers the settings as they are now. They are kept nowhere, since no endpoint reads them.
async fn replace_settings(JsonObject(settings): JsonObject) -> Json<Map<String, Value>> {
    Json(settings)
}
