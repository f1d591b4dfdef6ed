//! The REST endpoints, and the scope of each.

use axum::{
    Json,
    extract::{Path, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::StatusCode;
use serde_json::Value;
use support::Shutdown;
use tollgate::scope::{ScopeMap, scope};
use tollgate_axum::RecordedRouter;

use crate::{
    error,
    market::{self, Instrument},
    socket,
};

/// The scope that each path requires, for any method: the router answers 405 for a method that the path does not have.
///
/// An unlisted path is denied, so a route that is missing here stays closed.
pub(crate) fn scopes() -> ScopeMap {
    ScopeMap::new()
        .any("/api/market/v1/instruments", scope("metadata:read"))
        .any("/api/market/v1/instruments/{symbol}", scope("metadata:read"))
        .any("/api/market/v1/market-status", scope("metadata:read"))
        .any("/api/market/v1/prices/latest", scope("prices:read"))
        .any("/api/market/v1/candles/{symbol}", scope("candles:read"))
        .any("/api/market/v1/states/{symbol}", scope("states:read"))
        .any("/api/market/v1/setups/current", scope("states:read"))
        .any("/api/market/v1/alerts/in-force", scope("alerts:read"))
        .any("/api/market/v1/alerts/simultaneous-breaks", scope("alerts:read"))
        .any(socket::PATH, scope("ws:connect"))
}

pub(crate) fn router(shutdown: Shutdown) -> RecordedRouter {
    let rest = RecordedRouter::new()
        .route("/instruments", get(async || Json(market::instruments())))
        .route("/instruments/{symbol}", get(async |path: Symbol| view(path, Instrument::describe)))
        .route("/market-status", get(async || Json(market::status())))
        .route("/prices/latest", get(async || Json(market::latest_prices())))
        .route("/candles/{symbol}", get(async |path: Symbol| view(path, Instrument::candles)))
        .route("/states/{symbol}", get(async |path: Symbol| view(path, Instrument::state)))
        .route("/setups/current", get(async || Json(market::setups())))
        .route("/alerts/in-force", get(async || Json(market::alerts_in_force())))
        .route("/alerts/simultaneous-breaks", get(async || Json(market::simultaneous_breaks())));
    RecordedRouter::new()
        .nest("/api/market/v1", rest)
        // HTTP/1.1 opens a WebSocket by GET, HTTP/2 by CONNECT (RFC 8441).
        .route(socket::PATH, any(socket::connect))
        .with_state(shutdown)
        .fallback(async || error::not_found())
        .method_not_allowed_fallback(async || {
            error::response(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
        })
}

/// A symbol in a path. A symbol that cannot be decoded is unknown.
type Symbol = Result<Path<String>, PathRejection>;

fn view(symbol: Symbol, view: fn(&Instrument) -> Value) -> Response {
    match symbol.ok().and_then(|Path(symbol)| market::find(&symbol)) {
        Some(instrument) => Json(view(instrument)).into_response(),
        None => error::not_found(),
    }
}
