//! Who lets time pass in the right place neither gets past an end nor gets a window twice.

use std::{
    pin::pin,
    task::{Context, Waker},
};

use http::Request;
use tests::suite::{
    Backend, Directory, Inner, Latch, Reply, SlowEntitlements, SlowLimiter, Stack, at, erase, is_ready_now,
    send, with_key,
};
use tollgate::{
    CredentialLayer, DenialKind, EntitlementLayer, ManualClock, PerWindow as _, Plan, Principal,
    RateLimitLayer, RequestIdLayer, Requirement, ScopeLayer, Tollgate, VerifyLayer,
};
use tower::{Layer as _, Service as _, ServiceBuilder};

use crate::Keys;

const EXPIRY: u64 = 60;

fn expiring() -> VerifyLayer {
    VerifyLayer::new(Directory::default().with("key", Principal::new("ada").with_expiry(at(EXPIRY))))
}

/// Sends the body so slowly that the key has expired when a buffer between two layers has all of it.
#[tokio::test]
async fn a_key_that_expires_in_a_buffer_before_its_verification_is_refused() {
    let (clock, inner) = (ManualClock::at(at(0)), Inner::new());
    let hands = clock.clone();
    let layers = ServiceBuilder::new()
        .layer(RequestIdLayer::new().with_clock(clock))
        .map_request(move |request: Request<String>| {
            hands.set(at(EXPIRY));
            request
        })
        .layer(CredentialLayer::new())
        .layer(expiring());
    let reply = send(&mut erase(layers.service(inner.clone())), with_key("key")).await;
    assert_eq!((reply.kind(), inner.calls()), (Some(DenialKind::KeyExpired), 0));
}

/// Holds requests back in a buffer between two layers, so that they bring an old instant with them, and lets one of them
/// go before each quick request: whenever the counter steps back to the old window, the new one begins afresh.
#[tokio::test]
async fn a_buffer_between_layers_resets_no_counter() {
    let (clock, inner) = (ManualClock::at(at(0)), Inner::new());
    let hands = clock.clone();
    let layers = ServiceBuilder::new()
        .layer(RequestIdLayer::new().with_clock(clock.clone()))
        .map_request(move |request: Request<String>| {
            hands.set(at(150));
            request
        })
        .layer(CredentialLayer::new())
        .layer(VerifyLayer::new(Directory::default().with("key", Principal::new("ada"))))
        .layer(RateLimitLayer::new(5.per_second()));
    let mut stack = erase(layers.service(inner.clone()));
    for _ in 0..100 {
        for began in [0, 150] {
            clock.set(at(began));
            send(&mut stack, with_key("key")).await;
        }
    }
    assert_eq!(inner.calls(), 5, "of 200 that were all counted within one second");
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
        ("ScopeLayer", |inner| erase(ScopeLayer::new(Requirement::none()).layer(inner))),
    ];
    for (name, guard) in guards {
        let inner = Inner::new();
        let key = keys.issue(Principal::new("ada").with_plan(Plan::active("pro")));
        let reply = send(&mut behind(guard, inner.clone()), with_key(&key)).await;
        assert_eq!((reply.kind(), inner.calls()), (Some(DenialKind::KeyRevoked), 0), "{name}");
    }
}
