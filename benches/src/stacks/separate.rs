//! Tollgate's six layers, each by itself.

use tollgate::{
    CredentialLayer, EntitlementLayer, RateLimitLayer, RequestIdLayer, ScopeLayer, VerifyLayer, scope,
};
use tower::ServiceBuilder;

use super::built::verifier;
use crate::{
    cast::{self, Scenario},
    drive::{Answers, Driven, Handler, Stack},
};

pub(super) fn build<A: Answers>(scenario: Scenario, windows: usize) -> Box<dyn Stack> {
    let service = ServiceBuilder::new()
        .layer(RequestIdLayer::new().with_uuids_only())
        .layer(CredentialLayer::new())
        .layer(VerifyLayer::new(verifier(scenario)))
        .layer(RateLimitLayer::new(scenario.quota(windows)))
        .layer(EntitlementLayer::new())
        .layer(ScopeLayer::new(scope(cast::SCOPE)).unwrap())
        .service(Handler::<A>::new());
    Box::new(Driven(service))
}
