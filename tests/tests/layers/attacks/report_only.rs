//! A layer in report-only mode never lets a request past another layer that enforces.

use axum::{Router, body::Body, routing::get};
use http::StatusCode;
use tests::suite::{Directory, Inner, at, erase, send, with_key};
use tollgate::{
    CredentialLayer, DenialKind, Environment, PerWindow as _, Policy, Principal, RateLimitLayer, ScopeLayer,
    Scopes, Tollgate, VerifyLayer,
    clock::ManualClock,
    layers::ReportOnly,
    limit::Subject,
    scope,
    store::{EndReason, EndSignal},
};
use tollgate_axum::Authenticated;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};

use super::{preflight, shared_limit};

/// The attacker exceeds a report-only limit, with an invented key.
#[tokio::test]
async fn a_report_only_limit_does_not_disable_the_verifier_behind_it() {
    let (inner, report) = (Inner::new(), ReportOnly::new());
    let layers = ServiceBuilder::new()
        .layer(CredentialLayer::new())
        .layer(shared_limit(1.per_day()).with_report_only(&report))
        .layer(VerifyLayer::new(Directory::default()));
    let mut stack = erase(layers.service(inner.clone()));
    for _ in 0..3 {
        assert_eq!(send(&mut stack, with_key("invented")).await.kind(), Some(DenialKind::KeyUnknown));
    }
    assert_eq!((report.refusals(), inner.calls()), (2, 0));
}

/// The request exceeds a report-only limit only. The enforced limit behind it does not apply to this request.
#[tokio::test]
async fn a_report_only_limit_does_not_make_another_limit_refuse() {
    let (inner, report) = (Inner::new(), ReportOnly::new());
    let elsewhere = Policy::new("exports", 0.per_day()).with_subject(Subject::custom(|_, _| None));
    let layers = ServiceBuilder::new()
        .layer(shared_limit(0.per_day()).with_report_only(&report))
        .layer(RateLimitLayer::from_policies([elsewhere]).unwrap());
    let mut stack = erase(layers.service(inner.clone()));
    assert_eq!(send(&mut stack, with_key("any")).await.status(), StatusCode::OK);
    assert_eq!((report.refusals(), inner.calls()), (1, 1));
}

/// The attacker's key passes a report-only verifier, and reaches one that enforces.
#[tokio::test]
async fn a_report_only_verifier_does_not_disable_the_verifier_behind_it() {
    let inner = Inner::new();
    let report_only = VerifyLayer::new(Directory::default()).with_report_only(&ReportOnly::new());
    let enforced = VerifyLayer::new(Directory::default().with("key", Principal::new("ada")));
    let layers = ServiceBuilder::new().layer(CredentialLayer::new()).layer(report_only).layer(enforced);
    let mut stack = erase(layers.service(inner.clone()));
    assert_eq!(send(&mut stack, with_key("invented")).await.kind(), Some(DenialKind::KeyUnknown));
    assert_eq!(inner.calls(), 0);
    assert_eq!(send(&mut stack, with_key("key")).await.status(), StatusCode::OK);
}

/// The attacker sends a known but invalid key to a report-only verifier. The scopes of the key must not count.
#[tokio::test]
async fn an_invalid_key_that_passes_a_report_only_verifier_has_no_scopes() {
    let almighty = |id: &str| Principal::new(id).with_scopes(Scopes::all());
    let revoked = EndSignal::new();
    revoked.end(EndReason::Revoked);
    let directory = Directory::default()
        .with("expired", almighty("ada").with_environment(Environment::Live).with_expiry(at(0)))
        .with("revoked", almighty("bob").with_environment(Environment::Live).with_end_signal(revoked))
        .with("elsewhere", almighty("cyd").with_environment(Environment::Test));
    let verify = VerifyLayer::new(directory).with_environment(Environment::Live);

    let (inner, report) = (Inner::new(), ReportOnly::new());
    let layers = ServiceBuilder::new()
        .layer(CredentialLayer::new().with_clock(ManualClock::at(at(1))))
        .layer(verify.with_report_only(&report))
        .layer(ScopeLayer::new(scope("admin")).unwrap());
    let mut stack = erase(layers.service(inner.clone()));
    for key in ["expired", "revoked", "elsewhere"] {
        assert_eq!(send(&mut stack, with_key(key)).await.status(), StatusCode::UNAUTHORIZED, "{key}");
    }
    assert_eq!((report.refusals(), inner.calls()), (3, 0));
}

/// The same attack on a handler that reads the principal, without another layer.
#[tokio::test]
async fn a_handler_behind_a_report_only_stack_does_not_get_the_principal_of_an_expired_key() {
    let directory = Directory::default().with("expired", Principal::new("ada").with_expiry(at(0)));
    let stack = Tollgate::builder()
        .verify(directory)
        .clock(ManualClock::at(at(1)))
        .report_only(&ReportOnly::new())
        .build()
        .unwrap();
    let whoami = async |caller: Authenticated| caller.id().to_owned();
    let app = Router::new().route("/jobs", get(whoami)).layer(stack);
    let response = app.oneshot(with_key("expired").map(Body::from)).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

/// The attacker reads, at a proxied upstream, the keys of callers that exceed a report-only limit.
#[tokio::test]
async fn a_report_only_limit_does_not_leave_keys_in_the_request() {
    let directory = Directory::default().with("key", Principal::new("ada"));
    let stack = Tollgate::builder().verify(directory).credential(CredentialLayer::new().with_removal());
    let report = ReportOnly::new();
    for stack in [stack.clone(), stack.report_only(&report)] {
        let inner = Inner::new();
        let limit = shared_limit(0.per_day()).with_report_only(&report);
        let layers = ServiceBuilder::new().layer(limit).layer(stack.build().unwrap());
        assert_eq!(send(&mut erase(layers.service(inner.clone())), with_key("key")).await.kind(), None);
        assert!(!inner.take_last().headers().contains_key("authorization"));
    }
}

/// The attacker waits for a deployment that lacks a layer while another layer only reports.
#[tokio::test]
async fn a_report_only_limit_does_not_hide_a_missing_layer() {
    let inner = Inner::new();
    let without_credentials = ServiceBuilder::new()
        .layer(shared_limit(0.per_day()).with_report_only(&ReportOnly::new()))
        .layer(VerifyLayer::new(Directory::default()));
    let mut stack = erase(without_credentials.service(inner.clone()));
    assert_eq!(send(&mut stack, with_key("invented")).await.kind(), Some(DenialKind::Misconfigured));
    assert_eq!(inner.calls(), 0);
}

/// The attacker sends invalid requests of every kind to a stack in which one layer only reports.
#[tokio::test]
async fn the_other_layers_of_a_built_stack_still_enforce() {
    let (inner, report) = (Inner::new(), ReportOnly::new());
    let reader = Principal::new("ada").with_scopes(Scopes::new(["read"]).unwrap());
    let stack = Tollgate::builder()
        .verify(Directory::default().with("reader", reader).with("powerless", Principal::new("bob")))
        .rate_limit(shared_limit(0.per_day()).with_report_only(&report))
        .scope(scope("read"))
        .build()
        .unwrap();
    let mut stack = erase(stack.layer(inner.clone()));
    assert_eq!(send(&mut stack, with_key("invented")).await.kind(), Some(DenialKind::KeyUnknown));
    assert_eq!(send(&mut stack, with_key("powerless")).await.kind(), Some(DenialKind::ScopeMissing));
    assert_eq!(send(&mut stack, preflight("/jobs")).await.kind(), Some(DenialKind::CredentialMissing));
    assert_eq!(inner.calls(), 0);
    assert_eq!(send(&mut stack, with_key("reader")).await.kind(), None);
    assert_eq!((report.refusals(), inner.calls()), (2, 1));
}
