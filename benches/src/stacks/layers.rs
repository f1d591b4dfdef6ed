//! Each of Tollgate's layers alone, or with only the layers that it needs.

use tollgate::{CredentialLayer, EntitlementLayer, RateLimitLayer, RequestIdLayer, ScopeLayer};
use tower::{Layer, ServiceBuilder};

use super::verifiers;
use crate::{
    cast::{self, Scenario},
    drive::{Bare, Driven, Handler, Stack},
};

pub(super) fn request_id(_scenario: Scenario) -> Box<dyn Stack> {
    Box::new(Driven(RequestIdLayer::new().with_uuids_only().layer(Handler::<Bare>::new())))
}

pub(super) fn credential(_scenario: Scenario) -> Box<dyn Stack> {
    Box::new(Driven(CredentialLayer::new().layer(Handler::<Bare>::new())))
}

pub(super) fn verify(scenario: Scenario) -> Box<dyn Stack> {
    Box::new(Driven(CredentialLayer::new().layer(verifiers::of(scenario).layer(Handler::<Bare>::new()))))
}

pub(super) fn rate_limit(scenario: Scenario) -> Box<dyn Stack> {
    let service = ServiceBuilder::new()
        .layer(CredentialLayer::new())
        .layer(verifiers::of(scenario))
        .layer(RateLimitLayer::new(scenario.quota(1)))
        .service(Handler::<Bare>::new());
    Box::new(Driven(service))
}

pub(super) fn entitlement(scenario: Scenario) -> Box<dyn Stack> {
    let service = ServiceBuilder::new()
        .layer(CredentialLayer::new())
        .layer(verifiers::of(scenario))
        .layer(EntitlementLayer::new())
        .service(Handler::<Bare>::new());
    Box::new(Driven(service))
}

pub(super) fn scope(scenario: Scenario) -> Box<dyn Stack> {
    let service = ServiceBuilder::new()
        .layer(CredentialLayer::new())
        .layer(verifiers::of(scenario))
        .layer(ScopeLayer::new(tollgate::scope(cast::SCOPE)).unwrap())
        .service(Handler::<Bare>::new());
    Box::new(Driven(service))
}
