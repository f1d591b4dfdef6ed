//! The endpoints: the permission and the cost of each.

use axum::{
    extract::{DefaultBodyLimit, State},
    routing::{MethodRouter, get, post},
};
use support::clock::ServiceClock;
use tollgate::{
    ConfigurationError,
    credits::{CreditCost, CreditCosts},
    scope::{ScopeMap, scope},
};
use tollgate_axum::{Credits, RecordedRouter, RefusalLayer};
use tollgate_sql::SqlCredits;

use crate::{
    body::JsonObject,
    credits, error,
    jobs::{self, Jobs, Kind},
    organization::Organization,
    webhooks::{self, Webhooks},
};

/// Limits memory, because jobs and webhooks are kept there.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// The permission that each endpoint requires.
///
/// An unlisted path is denied, so a route that is missing here stays closed.
pub(crate) fn permissions() -> ScopeMap {
    ScopeMap::new()
        .post("/v1/classify", scope("classify:create"))
        .post("/v1/scan", scope("scan:create"))
        .post("/v1/deep-scan", scope("scan:create"))
        .get("/v1/jobs/{id}", scope("jobs:read"))
        .get("/v1/jobs/{id}/results", scope("results:read"))
        .get("/v1/credits", scope("credits:read"))
        .post("/v1/webhooks", scope("webhooks:write"))
        .post("/v1/webhooks/{id}/test", scope("webhooks:write"))
}

/// What each endpoint costs, in credits.
pub(crate) fn costs() -> Result<CreditCost, ConfigurationError> {
    CreditCosts::new().post("/v1/classify", 1).post("/v1/scan", 5).post("/v1/deep-scan", 20).otherwise(0)
}

pub(crate) fn router(credits: SqlCredits, clock: ServiceClock) -> RecordedRouter {
    let jobs = RecordedRouter::new()
        .route("/v1/classify", create(Kind::Classify))
        .route("/v1/scan", create(Kind::Scan))
        .route("/v1/deep-scan", create(Kind::DeepScan))
        .route("/v1/jobs/{id}", get(jobs::show))
        .route("/v1/jobs/{id}/results", get(jobs::results))
        .with_state(Jobs::new(clock.clone()));
    let webhooks = RecordedRouter::new()
        .route("/v1/webhooks", post(webhooks::create))
        .route("/v1/webhooks/{id}/test", post(webhooks::test))
        .with_state(Webhooks::default());
    let credits =
        RecordedRouter::new().route("/v1/credits", get(credits::balance)).with_state((credits, clock));
    RecordedRouter::new()
        .merge(jobs)
        .merge(webhooks)
        .merge(credits)
        .fallback(async || error::not_found())
        .method_not_allowed_fallback(async || error::method_not_allowed())
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        // Handlers refuse with `?`, and are answered and logged like the layers.
        .layer(RefusalLayer::new())
}

fn create(kind: Kind) -> MethodRouter<Jobs> {
    post(async move |organization: Organization, cost: Credits, jobs: State<Jobs>, input: JsonObject| {
        jobs::create(kind, &organization, cost, jobs, input)
    })
}
