//! The endpoints, and what each one requires.

use axum::{
    Json,
    extract::{DefaultBodyLimit, Path, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use serde_json::{Map, Value};
use support::clock::ServiceClock;
use tollgate::{ConfigurationError, ScopeLayer, scope};
use tollgate_axum::RecordedRouter;

use crate::{
    body::JsonObject,
    error, market,
    scans::{self, Accounts},
    tiers,
};

/// Limits memory, because scans are kept there.
const MAX_BODY_BYTES: usize = 64 * 1024;

pub(crate) fn router(clock: ServiceClock) -> Result<RecordedRouter, ConfigurationError> {
    // Each method requires its scope itself, so that the router answers 405 for a method that a path does not have.
    let (read, write) = (ScopeLayer::new(scope("read"))?, ScopeLayer::new(scope("write"))?);
    let pro = tiers::at_least(tiers::PRO)?;

    let status = get(async move || Json(market::status(clock.timestamp())));
    let market = RecordedRouter::new()
        .route("/misc/market-status", status.route_layer(read.clone()))
        .route("/technicals/{symbol}", get(technicals).route_layer(pro).route_layer(read.clone()));
    let scans = get(scans::list).route_layer(read).merge(post(scans::save).route_layer(write.clone()));
    let account = RecordedRouter::new()
        .route("/scans", scans)
        .route("/scans/{id}", delete(scans::remove).route_layer(write.clone()))
        .route("/settings", put(replace_settings).route_layer(write))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Accounts::default());
    Ok(RecordedRouter::new()
        .nest("/api/v2", market.merge(account))
        .fallback(async || error::not_found())
        .method_not_allowed_fallback(async || error::method_not_allowed()))
}

async fn technicals(symbol: Result<Path<String>, PathRejection>) -> Response {
    match symbol {
        Ok(Path(symbol)) => Json(market::technicals(&symbol)).into_response(),
        // A symbol that cannot be decoded is unknown.
        Err(_) => error::not_found(),
    }
}

/// Returns the settings. They are not stored, because no endpoint reads them.
async fn replace_settings(JsonObject(settings): JsonObject) -> Json<Map<String, Value>> {
    Json(settings)
}
