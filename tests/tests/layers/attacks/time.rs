//! Delays at the right place neither extend a key's life nor reset a counter.

use std::{
    future::Ready,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::SystemTime,
};

use http::{Request, Response};
use tests::suite::{
    Backend, Directory, Failure, Inner, Latch, Reply, SlowEntitlements, SlowLimiter, Stack, at, erase,
    is_ready_now, limit_by_key, send, with_key,
};
use tollgate::{
    CredentialLayer, DenialKind, EntitlementLayer, PerWindow as _, Plan, PlanLayer, Principal,
    RateLimitLayer, RequestContext, RequestIdLayer, ScopeLayer, Tollgate, VerifyLayer,
    clock::{Clock, ManualClock},
    layers::ReportOnly,
    scope::Requirement,
};
use tower::{Layer as _, Service as _, ServiceBuilder, ServiceExt as _};

use super::Keys;

const EXPIRY: u64 = 60;

fn expiring() -> VerifyLayer {
    VerifyLayer::new(Directory::default().with("key", Principal::new("ada").with_expiry(at(EXPIRY))))
}

/// A service between two layers that delays the call, such as a buffer that collects the body.
fn delayed(inner: Stack, meanwhile: impl Fn() + Clone + Send + Sync + 'static) -> Stack {
    Stack::new(tower::service_fn(move |request: Request<String>| {
        let (inner, meanwhile) = (inner.clone(), meanwhile.clone());
        async move {
            meanwhile();
            inner.oneshot(request).await
        }
    }))
}

/// The attacker sends the body so slowly that the key expires while a buffer between two layers collects it.
#[tokio::test]
async fn refuses_a_key_that_expires_in_a_buffer_before_its_verification() {
    let (clock, inner) = (ManualClock::at(at(0)), Inner::new());
    let hands = clock.clone();
    let inside = erase((CredentialLayer::new(), expiring()).layer(inner.clone()));
    let delayed = delayed(inside, move || hands.set(at(EXPIRY)));
    let mut stack = erase(RequestIdLayer::new().with_clock(clock).layer(delayed));
    let reply = send(&mut stack, with_key("key")).await;
    assert_eq!((reply.kind(), inner.calls()), (Some(DenialKind::KeyExpired), 0));
}

/// The attacker holds requests in a buffer between two layers, so that they carry an old instant, and releases one before each
/// fast request. A counter that stepped back to the old window would start the new window from zero each time.
#[tokio::test]
async fn a_buffer_between_layers_does_not_reset_a_counter() {
    let (clock, inner) = (ManualClock::at(at(0)), Inner::new());
    let hands = clock.clone();
    let layers = (
        CredentialLayer::new(),
        VerifyLayer::new(Directory::default().with("key", Principal::new("ada"))),
        RateLimitLayer::new(5.per_second()),
    );
    let delayed = delayed(erase(layers.layer(inner.clone())), move || hands.set(at(150)));
    let mut stack = erase(RequestIdLayer::new().with_clock(clock.clone()).layer(delayed));
    for _ in 0..100 {
        for began in [0, 150] {
            clock.set(at(began));
            send(&mut stack, with_key("key")).await;
        }
    }
    assert_eq!(inner.calls(), 5, "of 200 requests in one second");
}

/// The attacker sends a request that panics in the inner service, then a delayed request on the same thread.
#[tokio::test]
async fn an_instant_does_not_outlive_a_panic() {
    let (clock, inner) = (ManualClock::at(at(0)), Inner::new());
    let panics = tower::service_fn(|_: Request<String>| -> Ready<Result<Response<String>, Failure>> {
        panic!("intended panic")
    });
    let broken = RequestIdLayer::new().with_clock(clock.clone()).layer(panics);
    let hands = clock.clone();
    let inside = erase((CredentialLayer::new(), expiring()).layer(inner.clone()));
    let delayed = delayed(inside, move || {
        let call = AssertUnwindSafe(|| drop(broken.clone().call(with_key("key"))));
        assert!(catch_unwind(call).is_err());
        hands.set(at(EXPIRY));
    });
    let mut stack = erase(RequestIdLayer::new().with_clock(clock).layer(delayed));
    let reply = send(&mut stack, with_key("key")).await;
    assert_eq!((reply.kind(), inner.calls()), (Some(DenialKind::KeyExpired), 0));
}

/// A clock that counts how often it is read.
#[derive(Clone, Default)]
struct CountingClock(Arc<AtomicUsize>);

impl Clock for CountingClock {
    fn now(&self) -> SystemTime {
        self.0.fetch_add(1, Ordering::Relaxed);
        at(0)
    }
}

#[tokio::test]
async fn layers_share_one_instant_unless_the_request_waits() {
    let clock = CountingClock::default();
    let inside = || {
        let verify = VerifyLayer::new(Directory::default().with("key", Principal::new("ada")));
        erase((verify, RateLimitLayer::new(5.per_second())).layer(Inner::new()))
    };
    let outside = (RequestIdLayer::new().with_clock(clock.clone()), CredentialLayer::new());
    for (stack, readings) in
        [(erase(outside.layer(inside())), 1), (erase(outside.layer(delayed(inside(), || {}))), 2)]
    {
        clock.0.store(0, Ordering::Relaxed);
        assert!(send(&mut { stack }, with_key("key")).await.denial().is_none());
        assert_eq!(clock.0.load(Ordering::Relaxed), readings);
    }
}

/// The attacker's request waits behind the verifier while its key is revoked.
#[tokio::test]
async fn refuses_a_key_that_is_revoked_while_a_later_layer_waits() {
    let keys = Keys::new();
    let tollgate = || Tollgate::builder().verify(keys.verifier());
    let around =
        |guard: Stack| erase((CredentialLayer::new(), VerifyLayer::new(keys.verifier())).layer(guard));
    for waiting_layer in ["a limit", "the limit of a stack", "plans", "the plans of a stack"] {
        let (latch, inner) = (Latch::shut(), Inner::new());
        let slow = Backend::slow(&latch);
        let limit = limit_by_key(9.per_minute(), SlowLimiter::new(&slow));
        let plans = PlanLayer::new(SlowEntitlements(slow));
        let mut stack = match waiting_layer {
            "a limit" => around(erase(limit.layer(inner.clone()))),
            "plans" => around(erase(plans.layer(inner.clone()))),
            "the limit of a stack" => {
                erase(tollgate().rate_limit(limit).build().unwrap().layer(inner.clone()))
            }
            _ => erase(tollgate().plan(plans).build().unwrap().layer(inner.clone())),
        };
        let key = keys.issue(Principal::new("ada").with_plan(Plan::active("pro")));
        assert!(is_ready_now(&mut stack));
        let mut response = pin!(stack.call(with_key(&key)));
        assert!(response.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());

        assert!(keys.store.revoke("ada"));
        latch.open();
        let reply = Reply::read(response.await.unwrap()).await;
        assert_eq!((reply.kind(), inner.calls()), (Some(DenialKind::KeyRevoked), 0), "{waiting_layer}");
    }
}

/// The same attack, where the layer that waits is in report-only mode: it may waive its own refusals only.
#[tokio::test]
async fn a_report_only_layer_that_waits_does_not_admit_a_key_that_is_revoked_meanwhile() {
    let keys = Keys::new();
    for is_built in [true, false] {
        let (latch, inner, report) = (Latch::shut(), Inner::new(), ReportOnly::new());
        let limit =
            limit_by_key(9.per_minute(), SlowLimiter::new(&Backend::slow(&latch))).with_report_only(&report);
        let mut stack = if is_built {
            let tollgate = Tollgate::builder().verify(keys.verifier()).rate_limit(limit).build().unwrap();
            erase(tollgate.layer(inner.clone()))
        } else {
            let layers = (CredentialLayer::new(), (VerifyLayer::new(keys.verifier()), limit));
            erase(layers.layer(inner.clone()))
        };
        let key = keys.issue(Principal::new("ada"));
        assert!(is_ready_now(&mut stack));
        let mut response = pin!(stack.call(with_key(&key)));
        assert!(response.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());

        assert!(keys.store.revoke("ada"));
        latch.open();
        let reply = Reply::read(response.await.unwrap()).await;
        assert_eq!((reply.kind(), inner.calls()), (Some(DenialKind::KeyRevoked), 0), "built: {is_built}");
        assert_eq!(report.refusals(), 0);
    }
}

/// A whole stack in report-only mode admits such a key, but does not authenticate it.
#[tokio::test]
async fn a_report_only_stack_authenticates_no_key_that_is_revoked_while_it_waits() {
    let (keys, latch, inner, report) = (Keys::new(), Latch::shut(), Inner::new(), ReportOnly::new());
    let limit = limit_by_key(9.per_minute(), SlowLimiter::new(&Backend::slow(&latch)));
    let tollgate = Tollgate::builder().verify(keys.verifier()).rate_limit(limit).report_only(&report);
    let mut stack = erase(tollgate.build().unwrap().layer(inner.clone()));
    let key = keys.issue(Principal::new("ada"));
    assert!(is_ready_now(&mut stack));
    let mut response = pin!(stack.call(with_key(&key)));
    assert!(response.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());

    assert!(keys.store.revoke("ada"));
    latch.open();
    let reply = Reply::read(response.await.unwrap()).await;
    assert_eq!((reply.kind(), inner.calls(), report.refusals()), (None, 1, 1));
    let inside = inner.take_last();
    assert!(RequestContext::of(inside.extensions()).unwrap().principal().is_none());
    assert_eq!(reply.header("x-ratelimit-remaining"), "8", "the limit has decided all the same");
}

/// The same attack, with the wait between two layers.
#[tokio::test]
async fn refuses_a_key_that_is_revoked_between_two_layers() {
    type Guard = fn(Inner) -> Stack;

    let keys = Keys::new();
    let behind = |guard: Guard, inner: Inner| {
        let store = keys.store.clone();
        let layers = ServiceBuilder::new()
            .layer(CredentialLayer::new())
            .layer(VerifyLayer::new(keys.verifier()))
            .map_request(move |request: Request<String>| {
                assert!(store.revoke("ada"));
                request
            });
        erase(layers.service(guard(inner)))
    };
    // Each layer would allow the request.
    let guards: [(&str, Guard); 3] = [
        ("RateLimitLayer", |inner| erase(RateLimitLayer::new(9.per_minute()).layer(inner))),
        ("EntitlementLayer", |inner| erase(EntitlementLayer::new().layer(inner))),
        ("ScopeLayer", |inner| erase(ScopeLayer::new(Requirement::none()).unwrap().layer(inner))),
    ];
    for (name, guard) in guards {
        let inner = Inner::new();
        let key = keys.issue(Principal::new("ada").with_plan(Plan::active("pro")));
        let reply = send(&mut behind(guard, inner.clone()), with_key(&key)).await;
        assert_eq!((reply.kind(), inner.calls()), (Some(DenialKind::KeyRevoked), 0), "{name}");
    }
}
