//! The endpoints.

use axum::{
    extract::DefaultBodyLimit,
    routing::{delete, get, post},
};
use tollgate::EntitlementLayer;
use tollgate_axum::RecordedRouter;

use crate::{
    App, alerts, billing,
    error::{METHOD_NOT_ALLOWED, NOT_FOUND},
    mfa, progress, scans, sign_in, targets,
};

/// Limits memory, because targets are kept there.
pub(crate) const MAX_BODY_BYTES: usize = 16 * 1024;

/// The routes that need no access token.
pub(crate) fn open(app: App) -> RecordedRouter {
    let auth = RecordedRouter::new()
        .route("/register", post(sign_in::register))
        .route("/login", post(sign_in::login))
        .route("/token/refresh", post(sign_in::refresh))
        .method_not_allowed_fallback(async || METHOD_NOT_ALLOWED);
    RecordedRouter::new()
        .nest("/api/v1/auth", auth)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(app)
}

/// All other routes. Where the contract names no method, the usual ones do the same. An account whose subscription has lapsed is refused with 403 where one is needed, and can still pay.
pub(crate) fn guarded(app: App) -> RecordedRouter {
    let auth = RecordedRouter::new()
        .route("/auth/mfa/setup", post(mfa::setup))
        .route("/auth/mfa/enable", post(mfa::enable))
        .route("/auth/mfa", delete(mfa::disable).post(mfa::disable));
    let billing = RecordedRouter::new()
        .route("/billing/status", get(billing::status))
        .route("/billing/checkout", post(billing::checkout))
        .route("/billing/portal", post(billing::portal).get(billing::portal))
        .route("/billing/change-plan", post(billing::change_plan).put(billing::change_plan));
    RecordedRouter::new()
        .nest("/api/v1", auth.merge(billing).merge(paid().route_layer(EntitlementLayer::new())))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(app)
        .fallback(async || NOT_FOUND)
        .method_not_allowed_fallback(async || METHOD_NOT_ALLOWED)
}

/// The routes that need an active subscription.
fn paid() -> RecordedRouter<App> {
    RecordedRouter::new()
        .route("/targets", get(targets::list).post(targets::add))
        // The contract names no method for an update. PUT and PATCH do the same: they change the fields that are sent.
        .route(
            "/targets/{id}",
            get(targets::show).patch(targets::update).put(targets::update).delete(targets::remove),
        )
        .route("/targets/{id}/scan", post(scans::trigger))
        .route("/scans", get(scans::list))
        .route("/scans/trigger-all", post(scans::trigger_all))
        .route("/scans/{id}", get(scans::show))
        .route("/scans/{id}/results", get(scans::results))
        .route("/scans/{id}/summary", get(scans::summary))
        .route("/alerts", get(alerts::list))
        .route("/alerts/{id}/acknowledge", post(alerts::acknowledge).put(alerts::acknowledge))
        .route("/alerts/{id}/resolve", post(alerts::resolve).put(alerts::resolve))
        .route("/score", get(progress::score))
        .route("/streak", get(progress::streak))
        .route("/achievements", get(progress::achievements))
}
