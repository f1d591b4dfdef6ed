//! The usage layer: alone, in the built stack, and behind layers that wait.
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

/// Records each principal and the instant of its use, in seconds after the start of the test, or 0.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<(String, u64)>>>);

impl UsageSink for Recorded {
    fn record(&self, usage: &Usage<'_>) {
        let second = usage.now.duration_since(at(0)).unwrap_or_default().as_secs();
        self.0.lock().unwrap().push((usage.principal.id().to_owned(), second));
    }
}

impl Recorded {
    fn take(&self) -> Vec<(String, u64)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// How many were recorded, all of this one.
    fn of(&self, id: &str) -> usize {
        let recorded = self.take();
        assert!(recorded.iter().all(|(recorded, _)| recorded == id), "{recorded:?}");
        recorded.len()
    }
}

fn directory(backend: &Backend) -> Directory {
    let may = |id: &str| Principal::new(id).with_scopes(Scopes::new(["read"]).unwrap());
    Directory::new(backend)
        .with("ada", may("ada").with_plan(Plan::active("pro")))
        .with("bob", may("bob").with_plan(Plan::lapsed("pro")))
        .with("cyd", Principal::new("cyd").with_plan(Plan::active("pro")))
}

fn tollgate(how: How, clock: &ManualClock, sink: &Recorded, inner: Inner) -> Stack {
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
async fn allowed_requests_are_recorded_and_refused_ones_are_not() {
    for how in How::BOTH {
        let (clock, recorded) = (ManualClock::at(at(7)), Recorded::default());
        let mut stack = tollgate(how, &clock, &recorded, Inner::new());
        assert_eq!(send(&mut stack, with_key("ada")).await.status(), StatusCode::OK);
        assert_eq!(recorded.take(), [("ada".to_owned(), 7)], "by the request's own instant");

        for (key, kind) in [
            ("unknown", DenialKind::KeyUnknown),
            ("bob", DenialKind::EntitlementInactive),
            ("cyd", DenialKind::ScopeMissing),
        ] {
            assert_eq!(send(&mut stack, with_key(key)).await.kind(), Some(kind), "{how:?}");
        }
        assert_eq!(send(&mut stack, get("/", &[])).await.kind(), Some(DenialKind::CredentialMissing));
        assert_eq!(recorded.take(), []);

        for _ in 0..5 {
            send(&mut stack, with_key("ada")).await;
        }
        assert_eq!(recorded.of("ada"), 2, "as many as the limit has let through");
    }
}

#[tokio::test]
async fn an_outer_layer_records_requests_that_inner_layers_refuse() {
    let recorded = Recorded::default();
    let mut stack = erase(
        ServiceBuilder::new()
            .layer(CredentialLayer::new())
            .layer(VerifyLayer::new(directory(&Backend::prompt())))
            .layer(UsageLayer::new(recorded.clone()))
            .layer(EntitlementLayer::new())
            .service(Inner::new()),
    );
    assert_eq!(send(&mut stack, with_key("bob")).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(recorded.of("bob"), 1);
    assert_eq!(send(&mut stack, with_key("unknown")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(recorded.take(), []);
}

#[tokio::test]
async fn requests_without_a_principal_pass_and_are_not_recorded() {
    let recorded = Recorded::default();
    let report = ReportOnly::new();
    let optional = CredentialLayer::new().with_anonymous().dangerous_preflights();
    let verify = || VerifyLayer::new(directory(&Backend::prompt()));
    let builder = ServiceBuilder::new().layer(optional).layer(verify().with_report_only(&report));
    let mut stack = erase(builder.layer(UsageLayer::new(recorded.clone())).service(Inner::new()));

    let preflight = Request::options("/jobs")
        .header("origin", "https://example.org")
        .header("access-control-request-method", "GET");
    for request in [get("/", &[]), preflight.body(String::new()).unwrap(), with_key("unknown")] {
        assert_eq!(send(&mut stack, request).await.status(), StatusCode::OK);
    }
    assert_eq!(
        (report.refusals(), recorded.take()),
        (1, vec![]),
        "the last request continues without a principal"
    );
    assert_eq!(send(&mut stack, with_key("ada")).await.status(), StatusCode::OK);
    assert_eq!(recorded.of("ada"), 1);
}

#[tokio::test]
async fn requests_that_are_allowed_in_report_only_mode_are_recorded() {
    let (recorded, report) = (Recorded::default(), ReportOnly::new());
    let builder = Tollgate::builder().verify(directory(&Backend::prompt())).rate_limit(0.per_minute());
    let tollgate = builder.usage(recorded.clone()).report_only(&report).build().unwrap();
    let mut stack = erase(tollgate.layer(Inner::new()));
    assert_eq!(send(&mut stack, with_key("ada")).await.status(), StatusCode::OK);
    assert_eq!((report.refusals(), recorded.of("ada")), (1, 1));
}

#[tokio::test]
async fn a_request_that_has_waited_is_recorded_when_it_continues() {
    let (clock, recorded, latch) = (ManualClock::at(at(0)), Recorded::default(), Latch::shut());
    let signal = EndSignal::new();
    let principal = Principal::new("ada").with_end_signal(signal.clone());
    let slow = Directory::new(&Backend::slow(&latch)).with("ada", principal);
    let builder = Tollgate::builder().verify(slow).usage(recorded.clone()).clock(clock.clone());
    let mut stack = erase(builder.build().unwrap().layer(Inner::new()));

    assert!(is_ready_now(&mut stack));
    let mut waits = Box::pin(stack.call(with_key("ada")));
    assert!(is_pending(waits.as_mut()));
    assert_eq!(recorded.take(), []);
    clock.set(at(9));
    latch.open();
    assert_eq!(waits.await.unwrap().status(), StatusCode::OK);
    assert_eq!(recorded.take(), [("ada".to_owned(), 9)]);

    signal.end(tollgate::store::EndReason::Revoked);
    assert_eq!(send(&mut stack, with_key("ada")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(recorded.take(), []);
}

#[tokio::test]
async fn a_second_usage_layer_in_a_stack_is_an_error() {
    let builder = Tollgate::builder().verify(directory(&Backend::prompt()));
    let error = builder.usage(Recorded::default()).usage(Recorded::default()).build().unwrap_err();
    assert!(error.to_string().contains("two of UsageLayer"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_usage_store_in_memory_conforms() {
    tollgate_testing::suite::usage_store(async || tollgate::usage::MemoryUsage::new()).await;
}
