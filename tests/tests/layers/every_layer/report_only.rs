//! Report-only mode does not change the request: it continues as if the layer were absent.

use http::StatusCode;
use tests::suite::{Backend, Directory, Inner, Stack, erase, send, with_key};
use tollgate::{
    CredentialLayer, DenialKind, EntitlementLayer, PerWindow as _, Plan, Policy, Principal, Quota,
    RateLimitLayer, RequestContext, ScopeLayer, Scopes, Tollgate, VerifyLayer, layers::ReportOnly,
    limit::Subject, scope,
};
use tower::{Layer as _, ServiceBuilder};

fn directory() -> Directory {
    let principal =
        Principal::new("ada").with_scopes(Scopes::new(["read"]).unwrap()).with_plan(Plan::active("pro"));
    Directory::new(&Backend::prompt()).with("key", principal)
}

/// One limit shared by all callers.
fn shared_limit(quota: Quota) -> RateLimitLayer {
    RateLimitLayer::from_policies([
        Policy::new("all", quota).with_subject(Subject::custom(|_, _| Some("all".into())))
    ])
    .unwrap()
}

/// The status, and the principal and tier that the inner service sees.
async fn seen_inside(stack: &mut Stack, inner: &Inner) -> (StatusCode, String, String) {
    let reply = send(stack, with_key("key")).await;
    if inner.calls() == 0 {
        return (reply.status(), String::new(), String::new());
    }
    let inside = inner.take_last();
    let context = RequestContext::of(inside.extensions()).unwrap();
    let id = context.principal().map_or("no principal", |principal| principal.id()).to_owned();
    let tier = context.plan().map_or("none", |plan| plan.tier()).to_owned();
    (reply.status(), id, tier)
}

fn ada() -> (StatusCode, String, String) {
    (StatusCode::OK, "ada".to_owned(), "pro".to_owned())
}

#[tokio::test]
async fn a_later_layer_still_gets_the_principal_after_an_earlier_one_reports() {
    for quota in [9.per_minute(), 0.per_minute()] {
        let inner = Inner::new();
        let builder = Tollgate::builder()
            .verify(directory())
            .rate_limit(shared_limit(quota.clone()))
            .entitlement(EntitlementLayer::new())
            .scope(scope("read"));
        let mut stack = erase(builder.report_only(&ReportOnly::new()).build().unwrap().layer(inner.clone()));
        assert_eq!(seen_inside(&mut stack, &inner).await, ada(), "{quota}");
    }
}

#[tokio::test]
async fn a_reported_refusal_does_not_make_a_valid_key_anonymous() {
    for quota in [9.per_minute(), 0.per_minute()] {
        let inner = Inner::new();
        let report = ReportOnly::new();
        let layers = ServiceBuilder::new()
            .layer(shared_limit(quota.clone()).with_report_only(&report))
            .layer(CredentialLayer::new().with_report_only(&report))
            .layer(VerifyLayer::new(directory()).with_report_only(&report))
            .layer(EntitlementLayer::new().with_report_only(&report))
            // This layer enforces.
            .layer(ScopeLayer::new(scope("read")).unwrap());
        let mut stack = erase(layers.service(inner.clone()));
        assert_eq!(seen_inside(&mut stack, &inner).await, ada(), "{quota}");
    }
}

#[tokio::test]
async fn a_request_is_reported_once_even_if_several_layers_would_refuse_it() {
    let report = ReportOnly::new();
    let layers = ServiceBuilder::new()
        .layer(CredentialLayer::new().with_report_only(&report))
        .layer(VerifyLayer::new(directory()).with_report_only(&report))
        .layer(EntitlementLayer::new().with_report_only(&report))
        .layer(ScopeLayer::new(scope("read")).unwrap().with_report_only(&report));
    let reply = send(&mut erase(layers.service(Inner::new())), tests::suite::get("/", &[])).await;
    assert_eq!((reply.status(), report.refusals()), (StatusCode::OK, 1));
}

#[tokio::test]
async fn a_waived_refusal_is_not_a_misconfiguration_for_an_enforcing_limit() {
    let layers = ServiceBuilder::new()
        .layer(CredentialLayer::new())
        .layer(VerifyLayer::new(Directory::default()).with_report_only(&ReportOnly::new()))
        .layer(RateLimitLayer::new(9.per_minute()));
    let reply = send(&mut erase(layers.service(Inner::new())), with_key("unknown")).await;
    assert_ne!(reply.kind(), Some(DenialKind::Misconfigured), "any caller could fill the log with errors");
}

#[tokio::test]
async fn an_enforcing_layer_refuses_a_waived_request() {
    let layers = ServiceBuilder::new()
        .layer(CredentialLayer::new())
        .layer(VerifyLayer::new(Directory::default()).with_report_only(&ReportOnly::new()))
        .layer(ScopeLayer::new(scope("read")).unwrap());
    let inner = Inner::new();
    let reply = send(&mut erase(layers.service(inner.clone())), with_key("unknown")).await;
    assert_eq!((reply.status(), inner.calls()), (StatusCode::UNAUTHORIZED, 0));
}
