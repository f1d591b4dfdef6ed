//! What is noted of whoever uses the API: alone, in the built stack, and behind what waits.
#![expect(clippy::unwrap_used, reason = "whatever goes wrong in a test fails it")]

mod recorder;

use std::sync::{Arc, Mutex};

use http::{Request, StatusCode};
use tests::{
    hosts::How,
    suite::{
        Backend, Directory, Inner, Latch, Stack, at, erase, get, is_pending, is_ready_now, send, with_key,
    },
};
use tollgate::{
    CredentialLayer, DenialKind, EntitlementLayer, PerWindow as _, Plan, Principal, RateLimitLayer, Scopes,
    Tollgate, UsageLayer, VerifyLayer,
    clock::ManualClock,
    layers::ReportOnly,
    scope,
    store::EndSignal,
    usage::{Usage, UsageSink},
};
use tower::{Layer as _, Service as _, ServiceBuilder};

/// Remembers whose use was noted, and when: in seconds of the day that tests are on, or 0.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<(String, u64)>>>);

impl UsageSink for Noted {
    fn record(&self, usage: &Usage<'_>) {
        let second = usage.now.duration_since(at(0)).unwrap_or_default().as_secs();
        self.0.lock().unwrap().push((usage.principal.id().to_owned(), second));
    }
}

impl Noted {
    fn take(&self) -> Vec<(String, u64)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// How many were noted, all of this one.
    fn of(&self, id: &str) -> usize {
        let noted = self.take();
        assert!(noted.iter().all(|(noted, _)| noted == id), "{noted:?}");
        noted.len()
    }
}

fn directory(backend: &Backend) -> Directory {
    let may = |id: &str| Principal::new(id).with_scopes(Scopes::new(["read"]).unwrap());
    Directory::new(backend)
        .with("ada", may("ada").with_plan(Plan::active("pro")))
        .with("bob", may("bob").with_plan(Plan::lapsed("pro")))
        .with("cyd", Principal::new("cyd").with_plan(Plan::active("pro")))
}

fn tollgate(how: How, clock: &ManualClock, sink: &Noted, inner: Inner) -> Stack {
    let limit = RateLimitLayer::new(3.per_minute());
    let verify = VerifyLayer::new(directory(&Backend::prompt()));
    match how {
        How::Built => {
            let tollgate = Tollgate::builder()
                .usage(sink.clone())
                .verify(verify)
                .rate_limit(limit)
                .entitlement(EntitlementLayer::new())
                .scope(scope("read"))
                .clock(clock.clone());
            erase(tollgate.build().unwrap().layer(inner))
        }
        How::Separate => erase(
            ServiceBuilder::new()
                .layer(CredentialLayer::new().with_clock(clock.clone()))
                .layer(verify)
                .layer(limit)
                .layer(EntitlementLayer::new())
                .layer(tollgate::ScopeLayer::new(scope("read")).unwrap())
                .layer(UsageLayer::new(sink.clone()))
                .service(inner),
        ),
    }
}

#[tokio::test]
async fn what_is_let_through_is_noted_and_what_is_refused_is_not() {
    for how in How::BOTH {
        let (clock, noted) = (ManualClock::at(at(7)), Noted::default());
        let mut stack = tollgate(how, &clock, &noted, Inner::new());
        assert_eq!(send(&mut stack, with_key("ada")).await.status(), StatusCode::OK);
        assert_eq!(noted.take(), [("ada".to_owned(), 7)], "by the request's own instant");

        for (key, kind) in [
            ("nobody", DenialKind::KeyUnknown),
            ("bob", DenialKind::EntitlementInactive),
            ("cyd", DenialKind::ScopeMissing),
        ] {
            assert_eq!(send(&mut stack, with_key(key)).await.kind(), Some(kind), "{how:?}");
        }
        assert_eq!(send(&mut stack, get("/", &[])).await.kind(), Some(DenialKind::CredentialMissing));
        assert_eq!(noted.take(), []);

        for _ in 0..5 {
            send(&mut stack, with_key("ada")).await;
        }
        assert_eq!(noted.of("ada"), 2, "as many as the limit has let through");
    }
}

#[tokio::test]
async fn further_out_it_notes_what_is_refused_further_in() {
    let noted = Noted::default();
    let mut stack = erase(
        ServiceBuilder::new()
            .layer(CredentialLayer::new())
            .layer(VerifyLayer::new(directory(&Backend::prompt())))
            .layer(UsageLayer::new(noted.clone()))
            .layer(EntitlementLayer::new())
            .service(Inner::new()),
    );
    assert_eq!(send(&mut stack, with_key("bob")).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(noted.of("bob"), 1);
    assert_eq!(send(&mut stack, with_key("nobody")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(noted.take(), []);
}

#[tokio::test]
async fn nobody_is_not_noted_and_passes() {
    let noted = Noted::default();
    let report = ReportOnly::new();
    let optional = CredentialLayer::new().with_anonymous().dangerous_preflights();
    let verify = || VerifyLayer::new(directory(&Backend::prompt()));
    let builder = ServiceBuilder::new().layer(optional).layer(verify().with_report_only(&report));
    let mut stack = erase(builder.layer(UsageLayer::new(noted.clone())).service(Inner::new()));

    let preflight = Request::options("/jobs")
        .header("origin", "https://example.org")
        .header("access-control-request-method", "GET");
    for request in [get("/", &[]), preflight.body(String::new()).unwrap(), with_key("nobody")] {
        assert_eq!(send(&mut stack, request).await.status(), StatusCode::OK);
    }
    assert_eq!((report.refusals(), noted.take()), (1, vec![]), "the last one goes on as nobody");
    assert_eq!(send(&mut stack, with_key("ada")).await.status(), StatusCode::OK);
    assert_eq!(noted.of("ada"), 1);
}

#[tokio::test]
async fn what_is_let_through_in_report_only_mode_is_noted() {
    let (noted, report) = (Noted::default(), ReportOnly::new());
    let builder = Tollgate::builder().verify(directory(&Backend::prompt())).rate_limit(0.per_minute());
    let tollgate = builder.usage(noted.clone()).report_only(&report).build().unwrap();
    let mut stack = erase(tollgate.layer(Inner::new()));
    assert_eq!(send(&mut stack, with_key("ada")).await.status(), StatusCode::OK);
    assert_eq!((report.refusals(), noted.of("ada")), (1, 1));
}

#[tokio::test]
async fn a_request_that_has_waited_is_noted_when_it_goes_on() {
    let (clock, noted, latch) = (ManualClock::at(at(0)), Noted::default(), Latch::shut());
    let signal = EndSignal::new();
    let principal = Principal::new("ada").with_end_signal(signal.clone());
    let slow = Directory::new(&Backend::slow(&latch)).with("ada", principal);
    let builder = Tollgate::builder().verify(slow).usage(noted.clone()).clock(clock.clone());
    let mut stack = erase(builder.build().unwrap().layer(Inner::new()));

    assert!(is_ready_now(&mut stack));
    let mut waits = Box::pin(stack.call(with_key("ada")));
    assert!(is_pending(waits.as_mut()));
    assert_eq!(noted.take(), []);
    clock.set(at(9));
    latch.open();
    assert_eq!(waits.await.unwrap().status(), StatusCode::OK);
    assert_eq!(noted.take(), [("ada".to_owned(), 9)]);

    signal.end(tollgate::store::EndReason::Revoked);
    assert_eq!(send(&mut stack, with_key("ada")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(noted.take(), []);
}

#[tokio::test]
async fn a_second_one_in_a_stack_is_an_error() {
    let builder = Tollgate::builder().verify(directory(&Backend::prompt()));
    let error = builder.usage(Noted::default()).usage(Noted::default()).build().unwrap_err();
    assert!(error.to_string().contains("two of UsageLayer"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_usage_store_in_memory_conforms() {
    tollgate_testing::suite::usage_store(async || tollgate::usage::MemoryUsage::new()).await;
}
