//! During a wait, the time and the principal can change.

use std::{pin::pin, time::Duration};

use http::StatusCode;
use tests::suite::{
    Backend, Directory, Inner, Latch, Reply, SlowLimiter, Stack, World, at, erase, is_pending, is_ready_now,
    limit_by_key, with_key,
};
use tollgate::{
    CredentialLayer, DenialKind, PerWindow as _, Principal, Tollgate, VerifyLayer,
    clock::ManualClock,
    store::{EndReason, EndSignal},
};
use tower::{Layer as _, Service as _, ServiceBuilder};

/// A verifier and a limiter behind it. One of them waits.
struct Slow {
    clock: ManualClock,
    signal: EndSignal,
    latch: Latch,
    inner: Inner,
    stack: Stack,
}

#[derive(Clone, Copy, Debug)]
enum Waits {
    Verifier,
    Limiter,
}

#[derive(Clone, Copy, Debug)]
enum Built {
    Separately,
    AsOneStack,
}

impl Slow {
    /// The key expires after 60 seconds.
    fn new(waits: Waits, built: Built) -> Self {
        let World { clock, .. } = World::new();
        let (signal, latch, inner) = (EndSignal::new(), Latch::shut(), Inner::new());
        let slow = Backend::slow(&latch);
        let (verifier, limiter) = match waits {
            Waits::Verifier => (slow, Backend::prompt()),
            Waits::Limiter => (Backend::prompt(), slow),
        };
        let principal = Principal::new("ada").with_expiry(at(60)).with_end_signal(signal.clone());
        let verify = VerifyLayer::new(Directory::new(&verifier).with("key", principal));
        let limit = limit_by_key(9.per_minute(), SlowLimiter::new(&limiter));
        let stack = match built {
            Built::Separately => erase(
                ServiceBuilder::new()
                    .layer(CredentialLayer::new().with_clock(clock.clone()))
                    .layer(verify.with_clock(clock.clone()))
                    .layer(limit.with_clock(clock.clone()))
                    .service(inner.clone()),
            ),
            Built::AsOneStack => {
                let tollgate = Tollgate::builder().verify(verify).rate_limit(limit).clock(clock.clone());
                erase(tollgate.build().unwrap().layer(inner.clone()))
            }
        };
        Self { clock, signal, latch, inner, stack }
    }

    /// Sends a request, runs `meanwhile` while it waits, and returns the reply.
    async fn send(&mut self, meanwhile: impl FnOnce(&ManualClock, &EndSignal)) -> Reply {
        assert!(is_ready_now(&mut self.stack));
        let mut response = pin!(self.stack.call(with_key("key")));
        assert!(is_pending(response.as_mut()));
        meanwhile(&self.clock, &self.signal);
        self.latch.open();
        Reply::read(response.await.unwrap()).await
    }
}

const ALL: [(Waits, Built); 4] = [
    (Waits::Verifier, Built::Separately),
    (Waits::Verifier, Built::AsOneStack),
    (Waits::Limiter, Built::Separately),
    (Waits::Limiter, Built::AsOneStack),
];

#[tokio::test]
async fn a_key_that_is_valid_after_the_wait_passes() {
    for (waits, built) in ALL {
        let mut slow = Slow::new(waits, built);
        let reply = slow.send(|clock, _| clock.advance(Duration::from_millis(59_999))).await;
        assert_eq!((reply.status(), slow.inner.calls()), (StatusCode::OK, 1), "{waits:?} {built:?}");
    }
}

async fn expires(waits: Waits, built: Built) {
    let mut slow = Slow::new(waits, built);
    let reply = slow.send(|clock, _| clock.advance(Duration::from_mins(1))).await;
    assert_eq!((reply.status(), reply.kind()), (StatusCode::UNAUTHORIZED, Some(DenialKind::KeyExpired)));
    assert_eq!(slow.inner.calls(), 0);
}

async fn ends(waits: Waits, built: Built) {
    for (reason, kind) in [
        (EndReason::Revoked, DenialKind::KeyRevoked),
        (EndReason::TenantSuspended, DenialKind::TenantSuspended),
        (EndReason::Expired, DenialKind::KeyExpired),
    ] {
        let mut slow = Slow::new(waits, built);
        let reply = slow.send(|_, signal| signal.end(reason)).await;
        assert_eq!((reply.status(), reply.kind()), (kind.status(), Some(kind)));
        assert_eq!(slow.inner.calls(), 0);
    }
}

#[tokio::test]
async fn refuses_a_key_that_expires_while_the_verifier_waits() {
    expires(Waits::Verifier, Built::Separately).await;
    expires(Waits::Verifier, Built::AsOneStack).await;
}

#[tokio::test]
async fn refuses_a_principal_that_ends_while_the_verifier_waits() {
    ends(Waits::Verifier, Built::Separately).await;
    ends(Waits::Verifier, Built::AsOneStack).await;
}

#[tokio::test]
async fn refuses_a_key_that_expires_while_a_later_layer_waits() {
    expires(Waits::Limiter, Built::AsOneStack).await;
    expires(Waits::Limiter, Built::Separately).await;
}

#[tokio::test]
async fn refuses_a_principal_that_ends_while_a_later_layer_waits() {
    ends(Waits::Limiter, Built::AsOneStack).await;
    ends(Waits::Limiter, Built::Separately).await;
}
