//! Tollgate's six layers, as its builder stacks them.

use axum::Router;
use tollgate::{
    CredentialLayer, EntitlementLayer, RequestIdLayer, ScopeLayer, Tollgate, VerifyLayer,
    layers::TollgateBuilder, scope,
};
use tower::Layer;

use super::verifiers;
use crate::{
    cast::{self, Scenario},
    drive::{Answers, Bare, Driven, Handler, Stack},
};

pub(super) fn build<A: Answers>(scenario: Scenario, windows: usize) -> Box<dyn Stack> {
    Box::new(Driven(layer(scenario, windows).layer(Handler::<A>::new())))
}

pub(super) fn on(router: Router, scenario: Scenario) -> Router {
    router.layer(layer(scenario, 1))
}

/// The same, where a `Dispatch` tells keys and tokens apart.
pub(super) fn dispatch(scenario: Scenario) -> Box<dyn Stack> {
    let layer = builder(verifiers::dispatch(), scenario, 1).build().unwrap();
    Box::new(Driven(layer.layer(Handler::<Bare>::new())))
}

fn layer(scenario: Scenario, windows: usize) -> Tollgate {
    builder(verifiers::of(scenario), scenario, windows).build().unwrap()
}

pub(super) fn builder(verify: VerifyLayer, scenario: Scenario, windows: usize) -> TollgateBuilder {
    with_scope(verify, scenario, windows, ScopeLayer::new(scope(cast::SCOPE)).unwrap())
}

/// The same, with scopes by route.
pub(super) fn with_scope(
    verify: VerifyLayer,
    scenario: Scenario,
    windows: usize,
    scopes: ScopeLayer,
) -> TollgateBuilder {
    Tollgate::builder()
        .request_id(RequestIdLayer::new().with_uuids_only())
        .credential(CredentialLayer::new())
        .verify(verify)
        .rate_limit(scenario.quota(windows))
        .entitlement(EntitlementLayer::new())
        .scope(scopes)
}
