//! A layer in report-only mode opens no door that another layer, already in force, keeps shut.

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

use crate::{everybody, preflight};

/// Uses up a limit that only reports, and comes again with an invented key.
#[tokio::test]
async fn a_limit_on_trial_leaves_the_verifier_behind_it_in_force() {
    let (inner, report) = (Inner::new(), ReportOnly::new());
    let layers = ServiceBuilder::new()
        .layer(CredentialLayer::new())
        .layer(everybody(1.per_day()).with_report_only(&report))
        .layer(VerifyLayer::new(Directory::default()));
    let mut stack = erase(layers.service(inner.clone()));
    for _ in 0..3 {
        assert_eq!(send(&mut stack, with_key("invented")).await.kind(), Some(DenialKind::KeyUnknown));
    }
    assert_eq!((report.refusals(), inner.calls()), (2, 0));
}

/// Is within every limit in force, but past one on trial. The limit behind it has no say in this request.
#[tokio::test]
async fn a_limit_on_trial_makes_no_other_limit_refuse() {
    let (inner, report) = (Inner::new(), ReportOnly::new());
    let elsewhere = Policy::new("exports", 0.per_day()).with_subject(Subject::custom(|_, _| None));
    let layers = ServiceBuilder::new()
        .layer(everybody(0.per_day()).with_report_only(&report))
        .layer(RateLimitLayer::from_policies([elsewhere]).unwrap());
    let mut stack = erase(layers.service(inner.clone()));
    assert_eq!(send(&mut stack, with_key("any")).await.status(), StatusCode::OK);
    assert_eq!((report.refusals(), inner.calls()), (1, 1));
}

/// Presents to the verifier in force what the one on trial has waved through.
#[tokio::test]
async fn a_verifier_on_trial_leaves_the_one_behind_it_in_force() {
    let inner = Inner::new();
    let on_trial = VerifyLayer::new(Directory::default()).with_report_only(&ReportOnly::new());
    let in_force = VerifyLayer::new(Directory::default().with("key", Principal::new("ada")));
    let layers = ServiceBuilder::new().layer(CredentialLayer::new()).layer(on_trial).layer(in_force);
    let mut stack = erase(layers.service(inner.clone()));
    assert_eq!(send(&mut stack, with_key("invented")).await.kind(), Some(DenialKind::KeyUnknown));
    assert_eq!(inner.calls(), 0);
    assert_eq!(send(&mut stack, with_key("key")).await.status(), StatusCode::OK);
}

/// Comes with a key that is known, but no good: its scopes must not count.
#[tokio::test]
async fn a_bad_key_that_a_verifier_on_trial_lets_through_has_no_scopes() {
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

/// The same, where a handler asks who is calling and no guard does.
#[tokio::test]
async fn a_handler_behind_a_stack_on_trial_does_not_meet_the_owner_of_an_expired_key() {
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

/// Reads at a proxied upstream the keys of all who are over a limit that only reports.
#[tokio::test]
async fn a_limit_on_trial_does_not_keep_keys_in_the_request() {
    let directory = Directory::default().with("key", Principal::new("ada"));
    let stack = Tollgate::builder().verify(directory).credential(CredentialLayer::new().with_removal());
    let report = ReportOnly::new();
    for stack in [stack.clone(), stack.report_only(&report)] {
        let inner = Inner::new();
        let limit = everybody(0.per_day()).with_report_only(&report);
        let layers = ServiceBuilder::new().layer(limit).layer(stack.build().unwrap());
        assert_eq!(send(&mut erase(layers.service(inner.clone())), with_key("key")).await.kind(), None);
        assert!(!inner.take_last().headers().contains_key("authorization"));
    }
}

/// Waits for the deployment that forgets a layer while another one is on trial.
#[tokio::test]
async fn a_limit_on_trial_does_not_hide_that_a_layer_is_missing() {
    let inner = Inner::new();
    let without_credentials = ServiceBuilder::new()
        .layer(everybody(0.per_day()).with_report_only(&ReportOnly::new()))
        .layer(VerifyLayer::new(Directory::default()));
    let mut stack = erase(without_credentials.service(inner.clone()));
    assert_eq!(send(&mut stack, with_key("invented")).await.kind(), Some(DenialKind::Misconfigured));
    assert_eq!(inner.calls(), 0);
}

/// Comes with whatever is bad to a stack of which one layer is on trial.
#[tokio::test]
async fn a_layer_on_trial_within_a_built_stack_is_the_only_one() {
    let (inner, report) = (Inner::new(), ReportOnly::new());
    let reader = Principal::new("ada").with_scopes(Scopes::new(["read"]).unwrap());
    let stack = Tollgate::builder()
        .verify(Directory::default().with("reader", reader).with("powerless", Principal::new("bob")))
        .rate_limit(everybody(0.per_day()).with_report_only(&report))
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
