//! Messages of a caller whose key ends while its stream is open.

use std::{pin::pin, sync::Arc, time::Duration};

use tests::suite::{FaultyCredits, Latch, Log, SlowLimiter, is_pending, limit_by_key};
use tollgate::{
    Answer, CreditsLayer,
    credits::{CreditAdmin as _, MemoryCredits, NewGrant},
    manage::{Actor, Command},
    store::EndReason,
    verify::{Credential, RefusalText, Verify, VerifyRequest},
};

use super::*;

#[tokio::test]
async fn a_key_that_has_ended_is_refused_before_anything_is_charged() {
    for (reason, expected) in [
        (Some(EndReason::Revoked), DenialKind::KeyRevoked),
        (Some(EndReason::TenantSuspended), DenialKind::TenantSuspended),
        (None, DenialKind::KeyExpired),
    ] {
        let limits = RateLimitLayer::new(10.per_day());
        let credits = FaultyCredits::granted("acme", 10);
        let layer = MessageLayer::from_rate_limit(limits.clone())
            .with_credits(CreditsLayer::new(credits.clone(), 1), 1);
        let api = Api::charging(layer);
        let meter = api.open("ada").await;
        assert_eq!(kind(meter.charge(1).await), None);
        match reason {
            Some(reason) => api.end.end(reason),
            None => api.clock.advance(Duration::from_hours(1)),
        }
        let log = Log::start();
        for count in [1, 0] {
            assert_eq!(meter.charge(count).await.unwrap_err().kind(), expected);
        }
        let logged: Vec<_> = log.refusals();
        assert_eq!(logged.len(), 2);
        assert_eq!(logged[0].field("reason"), Some(expected.reason()));
        let peek = limits.peek(Principal::new("ada").with_tenant("acme"), at(0)).await.unwrap();
        assert_eq!((peek.windows()[0].remaining(), credits.account("acme")), (9, (9, 0, 0)));
        assert_eq!(kind(api.open("bob").await.charge(1).await), None, "only the streams of the key");
    }
}

#[tokio::test]
async fn a_key_that_ends_while_the_limiter_answers_is_refused_whatever_it_says() {
    let latch = Latch::shut();
    let credits = FaultyCredits::granted("acme", 10);
    let limits = limit_by_key(10.per_day(), SlowLimiter::new(&Backend::slow(&latch)));
    let layer = MessageLayer::from_rate_limit(limits).with_credits(CreditsLayer::new(credits.clone(), 1), 1);
    let api = Api::charging(layer);
    let meter = api.open("ada").await;
    let mut charge = pin!(meter.charge(1));
    assert!(is_pending(charge.as_mut()));
    api.end.end(EndReason::Revoked);
    latch.open();
    assert_eq!(kind(charge.await), Some(DenialKind::KeyRevoked));
    assert_eq!(credits.reservations(), 0);
}

#[tokio::test]
async fn credits_that_expire_while_the_limiter_answers_are_not_spent() {
    let latch = Latch::shut();
    let credits = MemoryCredits::new();
    let grant = NewGrant::new("acme", 10).with_expiry(at(60));
    let Answer::Now(Ok(_)) = credits.grant(Command::new(grant, Actor::new("billing"), at(0))) else {
        panic!("no grant")
    };
    let limits = limit_by_key(10.per_day(), SlowLimiter::new(&Backend::slow(&latch)));
    let layer = MessageLayer::from_rate_limit(limits).with_credits(CreditsLayer::new(credits, 1), 1);
    let api = Api::charging(layer);
    let meter = api.open("ada").await;
    let mut charge = pin!(meter.charge(1));
    assert!(is_pending(charge.as_mut()));
    api.clock.set(at(60));
    latch.open();
    assert_eq!(kind(charge.await), Some(DenialKind::CreditsExhausted));
}

/// A directory whose refusals have their own words.
struct Worded(Directory);

impl Verify for Worded {
    fn verify(&self, request: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        self.0.verify(request)
    }

    fn refusal_text(&self, _credential: &Credential) -> Option<Arc<RefusalText>> {
        Some(Arc::new(RefusalText::new("bad_key", "Ask for a new key.")))
    }
}

#[tokio::test]
async fn an_ended_key_is_refused_in_the_words_of_its_verifier() {
    let (end, inner, World { clock, .. }) = (EndSignal::new(), Inner::new(), World::new());
    let directory = Directory::default().with("ada", Principal::new("ada").with_end_signal(end.clone()));
    let tollgate = Tollgate::builder()
        .verify(Worded(directory))
        .messages(MessageLayer::from_rate_limit(10.per_day()))
        .clock(clock.clone())
        .build()
        .unwrap();
    let api = Api { stack: erase(tollgate.layer(inner.clone())), inner, clock, end };
    let meter = api.open("ada").await;
    api.end.end(EndReason::Revoked);
    let denial = meter.charge(1).await.unwrap_err();
    assert_eq!((denial.kind(), denial.code()), (DenialKind::KeyRevoked, "bad_key"));
}

#[tokio::test]
async fn a_meter_outlives_its_request_and_a_charge_outlives_its_meter() {
    let api = Api::charging(MessageLayer::from_rate_limit(1.per_day()));
    let charge = api.open("ada").await.charge(1);
    drop(api);
    assert_eq!(kind(tokio::spawn(charge).await.unwrap()), None);
}

#[tokio::test]
async fn the_meter_of_a_copied_context_charges_the_same_stream() {
    let api = Api::charging(MessageLayer::from_rate_limit(2.per_day()));
    api.send(by("ada")).await;
    let (request, mut part) = (api.inner.take_last(), Request::new(()));
    RequestContext::copy(request.extensions(), part.extensions_mut());
    for extensions in [request.extensions(), part.extensions()] {
        let meter = RequestContext::of(extensions).unwrap().messages().unwrap();
        assert_eq!(kind(meter.charge(1).await), None);
    }
    assert_eq!(kind(api.open("ada").await.charge(1).await), Some(DenialKind::RateLimited));
}
