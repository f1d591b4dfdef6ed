//! Tollgate's six layers, each by itself.

use axum::Router;
use tollgate::{CredentialLayer, EntitlementLayer, RateLimitLayer, RequestIdLayer, ScopeLayer, scope};
use tower::ServiceBuilder;

use super::verifiers;
use crate::{
    cast::{self, Scenario},
    drive::{Answers, Driven, Handler, Stack},
};

/// The layers, whose type would take a page to write down.
macro_rules! layers {
    ($scenario:expr, $windows:expr) => {
        ServiceBuilder::new()
            .layer(RequestIdLayer::new().with_uuids_only())
            .layer(CredentialLayer::new())
            .layer(verifiers::of($scenario))
            .layer(RateLimitLayer::new($scenario.quota($windows)))
            .layer(EntitlementLayer::new())
            .layer(ScopeLayer::new(scope(cast::SCOPE)).unwrap())
    };
}

pub(super) fn build<A: Answers>(scenario: Scenario, windows: usize) -> Box<dyn Stack> {
    Box::new(Driven(layers!(scenario, windows).service(Handler::<A>::new())))
}

pub(super) fn on(router: Router, scenario: Scenario) -> Router {
    router.layer(layers!(scenario, 1))
}
