//! Messages against credits. The timers are paused, so that waits take no time.

use std::{pin::pin, time::Duration};

use tests::suite::{
    Call::{self, Fails, FailsLater, Hangs, HangsUndone, LosesAnswer, Prompt, Slow},
    FaultyCredits, Log, is_pending,
};
use tokio::time::{Instant, sleep, timeout};
use tollgate::{CredentialLayer, CreditsLayer, store::EndReason};

use super::*;

const MOMENT: Duration = Duration::from_millis(20);
const COST: u64 = 2;

/// Lets all settlements end.
async fn settled() {
    sleep(Duration::from_mins(3)).await;
}

fn layer(credits: &FaultyCredits) -> MessageLayer {
    // What a request costs does not matter.
    MessageLayer::from_credits(CreditsLayer::new(credits.clone(), 1_000_000), COST)
}

#[tokio::test]
async fn each_message_costs_so_many_credits() {
    let credits = FaultyCredits::granted("acme", 10);
    let api = Api::charging(layer(&credits));
    let meter = api.open("ada").await;
    assert_eq!(credits.account("acme"), (10, 0, 0), "the layer itself charges nothing");
    assert_eq!((kind(meter.charge(0).await), credits.reservations()), (None, 0));
    assert_eq!(kind(meter.charge(1).await), None);
    assert_eq!(kind(meter.charge(2).await), None);
    assert_eq!(credits.account("acme"), (4, 0, 0), "charged, and nothing is reserved");
    for (count, needed) in [(3, 6), (u64::MAX, u64::MAX)] {
        let denial = meter.charge(count).await.unwrap_err();
        let shortage = denial.shortage().unwrap();
        assert_eq!((denial.kind(), denial.status().as_u16()), (DenialKind::CreditsExhausted, 402));
        assert_eq!((shortage.available, shortage.needed), (4, needed));
    }
    assert_eq!(kind(api.open("bob").await.charge(2).await), None, "of the same account");
    assert_eq!(kind(meter.charge(1).await), Some(DenialKind::CreditsExhausted));
    assert_eq!(credits.account("acme"), (0, 0, 0));
}

#[tokio::test]
async fn a_clone_of_the_stacks_layer_charges_the_same_account() {
    let credits = FaultyCredits::granted("wallet", 100);
    let clone = CreditsLayer::new(credits.clone(), 10).with_account(|_| Some("wallet".into()));
    let layer = MessageLayer::from_credits(clone.clone(), COST);
    let api = Api::new(|builder| builder.credits(clone).messages(layer));
    let meter = api.open("ada").await;
    assert_eq!(kind(meter.charge(3).await), None);
    assert_eq!(credits.account("wallet"), (84, 0, 0));
}

#[tokio::test]
async fn a_cost_of_zero_charges_nothing() {
    let credits = FaultyCredits::default();
    let free = MessageLayer::from_credits(CreditsLayer::new(credits.clone(), 1), 0);
    let meter = Api::charging(free).open("ada").await;
    assert_eq!((kind(meter.charge(7).await), credits.reservations()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn of_concurrent_messages_exactly_as_many_pass_as_there_are_credits() {
    for (reserve, settle) in [(Prompt, Prompt), (Slow(MOMENT), Slow(MOMENT))] {
        let credits = FaultyCredits::granted("acme", 101).reserving(reserve).settling(settle);
        let api = Api::charging(layer(&credits));
        let (ada, bob) = (api.open("ada").await, api.open("bob").await);
        let meters = [ada, bob];
        let tasks: Vec<_> = (0..200).map(|task| tokio::spawn(meters[task % 2].charge(1))).collect();
        let mut passed = 0;
        for task in tasks {
            passed += usize::from(task.await.unwrap().is_ok());
        }
        assert_eq!((passed, credits.account("acme")), (50, (1, 0, 0)));
    }
}

#[tokio::test]
async fn limits_come_first_and_have_counted_what_the_credits_refuse() {
    let credits = FaultyCredits::granted("acme", 2 * COST);
    let api = Api::charging(layer(&credits).with_rate_limit(3.per_minute()));
    let meter = api.open("ada").await;
    for expected in [None, None, Some(DenialKind::CreditsExhausted), Some(DenialKind::RateLimited)] {
        assert_eq!(kind(meter.charge(1).await), expected);
    }
    assert_eq!(credits.reservations(), 3, "what the limits refuse asks no backend of credits");
}

#[tokio::test]
async fn a_caller_without_an_account_is_refused() {
    let credits = FaultyCredits::granted("acme", 10);
    let anonymous = CredentialLayer::new().with_anonymous();
    let layer = layer(&credits).with_rate_limit(9.per_minute());
    let api = Api::new(|builder| builder.credential(anonymous).messages(layer));
    let meter = api.open_by(from("192.0.2.1")).await;
    assert_eq!(kind(meter.charge(1).await), Some(DenialKind::CredentialMissing));

    let nameless = CreditsLayer::new(credits.clone(), 1).with_account(|_| None);
    let meter = Api::charging(MessageLayer::from_credits(nameless, COST)).open("ada").await;
    let denial = meter.charge(3).await.unwrap_err();
    assert_eq!((denial.kind(), denial.shortage().unwrap().needed), (DenialKind::CreditsExhausted, 6));
    assert_eq!(credits.reservations(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_does_not_answer_refuses_with_503_within_the_deadline() {
    for call in [Fails, FailsLater, Hangs, HangsUndone] {
        let credits = FaultyCredits::granted("acme", 10).reserving(call);
        let layer = CreditsLayer::new(credits.clone(), 1).with_deadline(Duration::from_secs(1));
        let meter = Api::charging(MessageLayer::from_credits(layer, COST)).open("ada").await;
        let begun = Instant::now();
        assert_eq!(kind(meter.charge(1).await), Some(DenialKind::Unavailable), "{call:?}");
        assert!(begun.elapsed() <= Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}

/// The next settlements go so, and the ones after them are prompt.
const SETTLEMENTS: [&[Call]; 7] =
    [&[], &[Slow(MOMENT)], &[Fails], &[FailsLater, FailsLater], &[LosesAnswer], &[Hangs], &[HangsUndone]];

#[tokio::test(start_paused = true)]
async fn a_charge_that_passes_is_charged_once_however_its_settlement_goes() {
    for reserve in [Prompt, Slow(MOMENT)] {
        for settlements in SETTLEMENTS {
            let credits = FaultyCredits::granted("acme", 1_000).reserving(reserve);
            let meter = Api::charging(layer(&credits)).open("ada").await;
            for _ in 0..20 {
                let _ = credits.clone().settling_next(settlements.iter().copied());
                assert_eq!(kind(meter.charge(1).await), None);
            }
            settled().await;
            assert_eq!(credits.account("acme"), (1_000 - 20 * COST, 0, 0), "{reserve:?} {settlements:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_charge_waits_until_its_credits_are_settled() {
    let credits = FaultyCredits::granted("acme", 10).settling(Slow(MOMENT));
    let meter = Api::charging(layer(&credits)).open("ada").await;
    let mut charge = pin!(meter.charge(1));
    assert!(is_pending(charge.as_mut()));
    assert_eq!(credits.account("acme"), (8, 2, 0));
    assert_eq!((kind(charge.await), credits.account("acme")), (None, (8, 0, 0)));
}

/// The caller hangs up at each point at which a charge waits.
#[tokio::test(start_paused = true)]
async fn a_dropped_charge_is_charged_once_or_not_at_all() {
    // The reservation is there after one moment, and is settled after two.
    for (after, charged) in [(MOMENT / 2, 0), (MOMENT * 3 / 2, COST), (MOMENT * 3, COST)] {
        for settlements in SETTLEMENTS {
            let credits = FaultyCredits::granted("acme", 10)
                .reserving(Slow(MOMENT))
                .settling_next(settlements.iter().copied());
            let meter = Api::charging(layer(&credits)).open("ada").await;
            let _ = timeout(after, meter.charge(1)).await;
            settled().await;
            assert_eq!(credits.account("acme"), (10 - charged, 0, 0), "{after:?} {settlements:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_arrives_for_a_charge_that_nobody_polls_is_released() {
    let credits = FaultyCredits::granted("acme", 10).reserving(Slow(MOMENT));
    let meter = Api::charging(layer(&credits)).open("ada").await;
    {
        let mut charge = pin!(meter.charge(1));
        assert!(is_pending(charge.as_mut()));
        sleep(MOMENT * 2).await;
        assert_eq!(credits.account("acme"), (8, 2, 0));
    }
    settled().await;
    assert_eq!(credits.account("acme"), (10, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn two_hundred_dropped_charges_leave_no_reservation() {
    let credits = FaultyCredits::granted("acme", 100_000).reserving(Slow(MOMENT));
    let meter = Api::charging(layer(&credits)).open("ada").await;
    for round in 0..200 {
        drop(meter.charge(1));
        assert!(timeout(MOMENT * (round % 10) / 10, meter.charge(1)).await.is_err());
    }
    settled().await;
    assert_eq!(credits.account("acme"), (100_000, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_reset_while_the_backend_hangs_leave_a_bounded_number_of_tasks() {
    let credits = FaultyCredits::granted("acme", 1_000_000).reserving(HangsUndone);
    let api = Api::charging(layer(&credits));
    for _ in 0..200 {
        let meter = api.open("ada").await;
        for _ in 0..50 {
            assert!(is_pending(pin!(meter.charge(1)).as_mut()));
        }
    }
    let meter = api.open("bob").await;
    let begun = Instant::now();
    assert_eq!(kind(meter.charge(1).await), Some(DenialKind::Unavailable));
    assert_eq!((begun.elapsed(), credits.reservations()), (Duration::ZERO, 10_000));
    settled().await;
    let _ = credits.clone().reserving(Prompt);
    assert_eq!(kind(meter.charge(1).await), None, "the tasks have ended");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_ends_while_the_backend_answers_is_not_charged() {
    let credits = FaultyCredits::granted("acme", 10).reserving(Slow(MOMENT));
    let api = Api::charging(layer(&credits));
    let meter = api.open("ada").await;
    let mut charge = pin!(meter.charge(1));
    assert!(is_pending(charge.as_mut()));
    api.end.end(EndReason::Revoked);
    assert_eq!(kind(charge.await), Some(DenialKind::KeyRevoked));
    settled().await;
    assert_eq!(credits.account("acme"), (10, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_application_may_wait_for_the_settlements_of_messages() {
    let credits = FaultyCredits::granted("acme", 10).settling_next([FailsLater, FailsLater]);
    let clone = CreditsLayer::new(credits.clone(), 1);
    let meter = Api::charging(MessageLayer::from_credits(clone.clone(), COST)).open("ada").await;
    assert_eq!(kind(meter.charge(1).await), None);
    assert_eq!(credits.account("acme"), (8, 2, 0));
    clone.wait_until_settled().await;
    assert_eq!(credits.account("acme"), (8, 0, 0));
}

#[tokio::test]
async fn messages_that_cost_credits_need_a_verify_layer() {
    let credits = FaultyCredits::granted("acme", 10);
    // Its limits would not need one.
    let by_address = Policy::new("address", 9.per_minute()).with_subject(by_address());
    let limits = RateLimitLayer::from_policies([by_address]).unwrap();
    let layer = layer(&credits).with_rate_limit(limits);
    let log = Log::start();
    let reply = send(&mut erase(layer.layer(Inner::new())), from("192.0.2.1")).await;
    assert_eq!(reply.kind(), Some(DenialKind::Misconfigured));
    let detail = log.refusals()[0].field("detail").unwrap().to_owned();
    assert!(detail.starts_with("MessageLayer ran before any VerifyLayer"), "{detail}");
}
