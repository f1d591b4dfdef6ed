//! Application code that runs while a layer handles a request cannot break the layer.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, request};
use tests::suite::{Inner, erase, get, send, with_key};
use tollgate::{
    Answer, CredentialLayer, Denial, PerWindow as _, Plan, PlanLayer, Policy, Principal, RateLimitLayer,
    RequestContext, RequestIdLayer, ScopeLayer, Tollgate, VerifyLayer, denial::Unavailable,
    layers::ReportOnly, limit::Subject, respond::Respond, scope, verify::Entitlements,
};
use tower::Layer as _;

use super::Keys;

/// A responder that takes all extensions of the request.
struct Greedy;

impl Respond for Greedy {
    fn respond(&self, _denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        drop(mem::take(&mut request.extensions));
        Response::builder().status(418).body(Bytes::new()).unwrap()
    }
}

#[tokio::test]
async fn a_responder_that_takes_the_extensions_does_not_remove_response_headers() {
    let tollgate = Tollgate::builder().verify(Keys::new().verifier()).responder(Greedy).build().unwrap();
    let reply = send(&mut erase(tollgate.layer(Inner::new())), get("/", &[])).await;
    assert_eq!(reply.status(), 418);
    assert!(reply.headers().contains_key("x-request-id"));
}

#[tokio::test]
async fn a_layer_answers_a_misconfiguration_with_its_own_responder() {
    // A `VerifyLayer` outside is missing.
    let layer = ScopeLayer::new(scope("read")).unwrap().with_responder(Greedy);
    let reply = send(&mut erase(layer.layer(Inner::new())), get("/", &[])).await;
    assert_eq!(reply.status(), 418);
}

#[tokio::test]
async fn application_functions_see_other_extensions_but_not_the_request_context() {
    for has_other_extensions in [false, true] {
        let seen = Arc::new(AtomicUsize::new(0));
        let saw = Arc::clone(&seen);
        let subject = Subject::custom(move |head, _| {
            assert_eq!(head.extensions.get::<u8>().is_some(), has_other_extensions);
            assert!(RequestContext::of(head.extensions).and_then(RequestContext::request_id).is_none());
            saw.fetch_add(1, Ordering::Relaxed);
            Some("all".into())
        });
        let limit = RateLimitLayer::from_policies([Policy::new("all", 5.per_minute()).with_subject(subject)])
            .unwrap();
        let inner = Inner::new();
        let mut request: Request<String> = get("/", &[]);
        if has_other_extensions {
            request.extensions_mut().insert(7_u8);
        }
        send(&mut erase((RequestIdLayer::new(), limit).layer(inner.clone())), request).await;
        assert_eq!((seen.load(Ordering::Relaxed), inner.calls()), (1, 1));
    }
}

/// Answers nothing.
struct NoPlans;

impl Entitlements for NoPlans {
    fn plan(&self, _principal: &Arc<Principal>) -> Answer<Result<Option<Arc<Plan>>, Unavailable>> {
        Answer::Now(Err(Unavailable::new("billing is down")))
    }
}

/// A plan layer in report-only mode has a backend that is down.
#[tokio::test]
async fn a_layer_in_report_only_mode_changes_no_limit() {
    let (keys, report) = (Keys::new(), ReportOnly::new());
    let key = keys.issue(Principal::new("ada").with_plan(Plan::active("pro")));
    let layers = (
        CredentialLayer::new(),
        VerifyLayer::new(keys.verifier()),
        PlanLayer::new(NoPlans).with_report_only(&report),
        RateLimitLayer::from_policies(
            [Policy::new("key", 1.per_minute()).with_tier("pro", 600.per_minute())],
        )
        .unwrap(),
    );
    let reply = send(&mut erase(layers.layer(Inner::new())), with_key(&key)).await;
    assert_eq!(reply.headers()["x-ratelimit-limit"], "600");
    assert_eq!(report.refusals(), 1);
}
