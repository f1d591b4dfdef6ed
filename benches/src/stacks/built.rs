//! Tollgate's six layers, as its builder stacks them.

use axum::Router;
use tollgate::{
    CredentialLayer, EntitlementLayer, KeyVerifier, MemoryKeys, Plan, Principal, RequestIdLayer, Scopes,
    Tollgate, scope,
};
use tower::Layer;

use crate::{
    cast::{self, Scenario},
    drive::{Answers, Driven, Handler, Stack},
};

pub(super) fn build<A: Answers>(scenario: Scenario, windows: usize) -> Box<dyn Stack> {
    Box::new(Driven(layer(scenario, windows).layer(Handler::<A>::new())))
}

pub(super) fn on(router: Router, scenario: Scenario) -> Router {
    router.layer(layer(scenario, 1))
}

fn layer(scenario: Scenario, windows: usize) -> Tollgate {
    Tollgate::builder()
        .request_id(RequestIdLayer::new().with_uuids_only())
        .credential(CredentialLayer::new())
        .verify(verifier(scenario))
        .rate_limit(scenario.quota(windows))
        .entitlement(EntitlementLayer::new())
        .scope(scope(cast::SCOPE))
        .build()
        .unwrap()
}

pub(super) fn verifier(scenario: Scenario) -> KeyVerifier {
    let keys = MemoryKeys::new();
    for (number, key) in cast::keys().iter().enumerate() {
        let principal = Principal::new(format!("key_{number}"))
            .with_tenant(format!("tenant_{number}"))
            .with_plan(Plan::active("pro"))
            .with_scopes(Scopes::new(scenario.scopes()).unwrap());
        keys.import(key, principal);
    }
    KeyVerifier::new(cast::format(), keys)
}
