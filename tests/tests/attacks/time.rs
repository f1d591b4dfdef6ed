//! Who lets time pass in the right place neither gets past an end nor gets a window twice.

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
    is_ready_now, send, with_key,
};
use tollgate::{
    CredentialLayer, DenialKind, EntitlementLayer, PerWindow as _, Plan, Principal, RateLimitLayer,
    RequestIdLayer, ScopeLayer, Tollgate, VerifyLayer,
    clock::{Clock, ManualClock},
    scope::Requirement,
};
use tower::{Layer as _, Service as _, ServiceBuilder, ServiceExt as _};

use crate::Keys;

const EXPIRY: u64 = 60;

fn expiring() -> VerifyLayer {
    VerifyLayer::new(Directory::default().with("key", Principal::new("ada").with_expiry(at(EXPIRY))))
}

/// Something between two layers that takes its time before it calls on, such as a buffer that collects the body.
fn delayed(inner: Stack, meanwhile: impl Fn() + Clone + Send + Sync + 'static) -> Stack {
    Stack::new(tower::service_fn(move |request: Request<String>| {
        let (inner, meanwhile) = (inner.clone(), meanwhile.clone());
        async move {
            meanwhile();
            inner.oneshot(request).await
        }
    }))
}

/// Sends the body so slowly that the key has expired when a buffer between two layers has all of it.
#[tokio::test]
async fn a_key_that_expires_in_a_buffer_before_its_verification_is_refused() {
    let (clock, inner) = (ManualClock::at(at(0)), Inner::new());
    let hands = clock.clone();
    let inside = erase((CredentialLayer::new(), expiring()).layer(inner.clone()));
    let delayed = delayed(inside, move || hands.set(at(EXPIRY)));
    let mut stack = erase(RequestIdLayer::new().with_clock(clock).layer(delayed));
    let reply = send(&mut stack, with_key("key")).await;
    assert_eq!((reply.kind(), inner.calls()), (Some(DenialKind::KeyExpired), 0));
}

/// Holds requests back in a buffer between two layers, so that they bring an old instant with them, and lets one of them
/// go before each quick request: whenever the counter steps back to the old window, the new one begins afresh.
#[tokio::test]
async fn a_buffer_between_layers_resets_no_counter() {
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
    assert_eq!(inner.calls(), 5, "of 200 that were all counted within one second");
}

/// Sends a request that makes whatever is inside panic, and then one that was held back, on the same thread.
#[tokio::test]
async fn an_instant_does_not_outlive_a_panic() {
    let (clock, inner) = (ManualClock::at(at(0)), Inner::new());
    let panics = tower::service_fn(|_: Request<String>| -> Ready<Result<Response<String>, Failure>> {
        panic!("on purpose")
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
async fn layers_share_one_instant_for_as_long_as_nothing_waits() {
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

/// Keeps a request waiting behind the verifier until its key is revoked.
#[tokio::test]
async fn a_key_that_is_revoked_while_a_later_guard_waits_is_refused() {
    let keys = Keys::new();
    let tollgate = || Tollgate::builder().verify(keys.verifier());
    let around =
        |guard: Stack| erase((CredentialLayer::new(), VerifyLayer::new(keys.verifier())).layer(guard));
    for who_waits in ["a limit", "the limit of a stack", "entitlements", "the entitlements of a stack"] {
        let (latch, inner) = (Latch::shut(), Inner::new());
        let slow = Backend::slow(&latch);
        let limit = RateLimitLayer::new(9.per_minute()).with_limiter(SlowLimiter::new(&slow));
        let plans = EntitlementLayer::new().with_entitlements(SlowEntitlements(slow));
        let mut stack = match who_waits {
            "a limit" => around(erase(limit.layer(inner.clone()))),
            "entitlements" => around(erase(plans.layer(inner.clone()))),
            "the limit of a stack" => {
                erase(tollgate().rate_limit(limit).build().unwrap().layer(inner.clone()))
            }
            _ => erase(tollgate().entitlement(plans).build().unwrap().layer(inner.clone())),
        };
        let key = keys.issue(Principal::new("ada").with_plan(Plan::active("pro")));
        assert!(is_ready_now(&mut stack));
        let mut response = pin!(stack.call(with_key(&key)));
        assert!(response.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());

        assert!(keys.store.revoke("ada"));
        latch.open();
        let reply = Reply::read(response.await.unwrap()).await;
        assert_eq!((reply.kind(), inner.calls()), (Some(DenialKind::KeyRevoked), 0), "{who_waits}");
    }
}

/// The same, where it is not a guard that waits, but something that stands between two of them.
#[tokio::test]
async fn a_key_that_is_revoked_between_two_layers_gets_past_no_guard() {
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
    // Whatever the guard asks for is there.
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
