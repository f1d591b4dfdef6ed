//! The endpoints: the scope and the cost of each.

use std::error::Error;

use axum::{
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use support::clock::ServiceClock;
use tollgate::{
    ConfigurationError,
    credits::{CreditCost, CreditCosts},
    scope::{Requirement, ScopeMap, scope},
};
use tollgate_axum::{RecordedRouter, RefusalLayer};
use tollgate_sql::SqlKeys;

use crate::{corpus, credits, error, keys, rotation};

/// Limits memory, because scans are kept there.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// The scopes of the contract. A session has all of them.
pub(crate) const SCOPES: [&str; 4] = ["scan", "batch", "read", "tests"];

/// The scope that each endpoint requires.
///
/// An unlisted path is denied, so a route that is missing here stays closed.
pub(crate) fn scopes() -> ScopeMap {
    ScopeMap::new()
        .post("/v1/scanner/scan", scope("scan"))
        .post("/v1/scanner/batch", scope("batch"))
        .post("/v1/scanner/tests", scope("tests"))
        .get("/v1/scanner/scans/{id}", scope("read"))
        .get("/v1/scanner/credits/balance", scope("read"))
        // Every key may replace itself.
        .post("/v1/scanner/keys/rotate", Requirement::none())
}

/// What each endpoint costs, in credits.
pub(crate) fn costs() -> Result<CreditCost, ConfigurationError> {
    CreditCosts::new().post("/v1/scanner/scan", 1).post("/v1/scanner/batch", 5).otherwise(0)
}

pub(crate) fn router(store: &SqlKeys, clock: ServiceClock) -> Result<RecordedRouter, Box<dyn Error>> {
    let scans = RecordedRouter::new()
        .route("/v1/scanner/scan", corpus::create("scan"))
        .route("/v1/scanner/batch", corpus::create("batch"))
        .route("/v1/scanner/tests", corpus::create("test"))
        .route("/v1/scanner/scans/{id}", get(corpus::show))
        .with_state(corpus::by_environment());
    let balance = RecordedRouter::new()
        .route("/v1/scanner/credits/balance", get(credits::balance))
        .with_state((store.credits(), clock.clone()));
    let rotation = RecordedRouter::new()
        .route("/v1/scanner/keys/rotate", post(rotation::rotate))
        .with_state(rotation::Rotations::new(keys::manager(store.clone(), clock)?));
    Ok(RecordedRouter::new()
        .merge(scans)
        .merge(balance)
        .merge(rotation)
        .fallback(async || error::not_found())
        .method_not_allowed_fallback(async || error::method_not_allowed())
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        // Handlers refuse with `?`, and are answered and logged like the layers.
        .layer(RefusalLayer::new()))
}
