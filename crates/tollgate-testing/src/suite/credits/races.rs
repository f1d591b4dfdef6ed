//! Calls at the same time.

use std::{sync::Arc, time::Duration};

use tollgate::{
    credits::{
        CreditAdmin, EntryKind, Excess, Idempotency, NewGrant, ReserveRequest, Reserved, SettleAction,
        SettleRequest, Settlement,
    },
    key::Digest,
    manage::Command,
};

use super::setup::{HOLD, Setup, root};
use crate::{at, suite::soon};

/// Runs a call in so many tasks at the same time.
async fn at_the_same_time<T, F>(
    setup: &Setup,
    tasks: usize,
    call: impl Fn(Arc<dyn CreditAdmin>, usize) -> F,
) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> =
        (0..tasks).map(|number| tokio::spawn(call(Arc::clone(&setup.credits), number))).collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap());
    }
    outcomes
}

pub(super) async fn of_concurrent_reservations_as_many_succeed_as_there_are_credits(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 60)).await;
    setup.grant(NewGrant::new("acme", 40).with_expiry(at(9_000))).await;
    let held = at_the_same_time(setup, 20, async |credits, _| {
        let mut held = Vec::new();
        for _ in 0..10 {
            let request = ReserveRequest::new("acme", 1, at(0) + HOLD, at(0));
            match credits.reserve(&request).await.unwrap() {
                Reserved::Held(reservation) => held.push(reservation.id),
                Reserved::Insufficient(shortage) => assert_eq!(shortage.available, 0),
                other => panic!("expected a reservation or too few credits, got {other:?}"),
            }
            tokio::task::yield_now().await;
        }
        held
    });
    let held: Vec<_> = held.await.into_iter().flatten().collect();
    assert_eq!(held.len(), 100, "of 200 concurrent reservations, with 100 credits");
    assert_eq!(setup.amounts("acme").await, [0, 100, 0]);

    let credits = held.len() as u64;
    let settled = at_the_same_time(setup, held.len(), move |credits, number| {
        let id = held[number];
        async move {
            let action = if number % 2 == 0 {
                SettleAction::Release
            } else {
                SettleAction::Commit { actual: 1, excess: Excess::Cap }
            };
            credits.settle(&SettleRequest::new("acme", id, action, at(0))).await.unwrap().charged
        }
    });
    let charged: u64 = settled.await.iter().sum();
    assert_eq!(charged, credits / 2);
    assert_eq!(setup.amounts("acme").await, [50, 0, 0]);
}

pub(super) async fn concurrent_settlements_of_a_reservation_have_the_same_result(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 1_000)).await;
    let mut available = 1_000;
    for round in 0..10 {
        let id = setup.hold("acme", 20).await;
        // Half of the rounds race with the expiry, too.
        let now = if round % 2 == 0 { setup.now() } else { setup.now() + HOLD };
        let settlements = at_the_same_time(setup, 9, move |credits, number| async move {
            let actual = number as u64 + 1;
            let action = match number % 3 {
                0 => SettleAction::Release,
                1 => SettleAction::Commit { actual, excess: Excess::TakeAvailable },
                _ => SettleAction::Commit { actual: actual + 20, excess: Excess::Owe(5) },
            };
            credits.settle(&SettleRequest::new("acme", id, action, now)).await.unwrap()
        });
        let settlements: Vec<Settlement> = settlements.await;
        // If a release was first, each commit reports its own cost as uncharged.
        let first = settlements[0].charged;
        assert!(settlements.iter().all(|settlement| settlement.charged == first), "{settlements:?}");
        let same = settlements.iter().all(|settlement| settlement.uncharged == settlements[0].uncharged);
        assert!(same || first == 0, "{settlements:?}");
        available -= settlements[0].charged;
        assert_eq!(setup.amounts("acme").await, [available, 0, 0]);
    }
}

pub(super) async fn concurrent_requests_with_one_idempotency_key_reserve_once(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 100)).await;
    let outcomes = at_the_same_time(setup, 20, async |credits, _| {
        let idempotency = Idempotency::new("key", Digest::of("scan"));
        let request = ReserveRequest::new("acme", 1, at(0) + HOLD, at(0)).with_idempotency(idempotency);
        credits.reserve(&request).await.unwrap()
    });
    let outcomes = outcomes.await;
    let held = outcomes.iter().filter(|outcome| matches!(outcome, Reserved::Held(_))).count();
    let in_progress = outcomes.iter().filter(|outcome| **outcome == Reserved::InProgress).count();
    assert_eq!((held, in_progress), (1, 19), "{outcomes:?}");
    assert_eq!(setup.amounts("acme").await, [99, 1, 0]);
}

pub(super) async fn concurrent_grants_with_one_identifier_are_made_once(setup: &Setup) {
    // The first grant of the account: databases have to create its row at the same time.
    at_the_same_time(setup, 20, async |credits, _| {
        let invoice = NewGrant::new("acme", 10).with_id("invoice_17");
        credits.grant(Command::new(invoice, root(), at(0))).await.unwrap();
    })
    .await;
    assert_eq!(setup.changes("acme").await, [(EntryKind::Granted, 10)]);
    assert_eq!(setup.available("acme").await, 10);
}

/// The caller disconnects, at any moment.
pub(super) async fn a_cancelled_call_is_made_completely_or_not_at_all(setup: &Setup) {
    setup.grant(NewGrant::new("acme", 1_000)).await;
    let mut available = 1_000;
    for micros in (0..2_000).step_by(100) {
        let cancelled = ReserveRequest::new("acme", 7, setup.now() + HOLD, setup.now());
        let reserving = setup.credits.reserve(&cancelled).into_future();
        let _ = tokio::time::timeout(Duration::from_micros(micros), reserving).await;
        let id = setup.hold("acme", 5).await;
        let commit = SettleAction::Commit { actual: 3, excess: Excess::Cap };
        let request = SettleRequest::new("acme", id, commit, setup.now());
        let _ =
            tokio::time::timeout(Duration::from_micros(micros), setup.credits.settle(&request).into_future())
                .await;
        let settlement = setup.credits.settle(&request).await.unwrap();
        assert_eq!(settlement, Settlement::new(id, 3, 0));
        available -= 3;
        setup.advance(60);
        // A reservation that was not known to its caller expires, whenever it was made.
        let settled = async {
            while setup.balance("acme").await.available != available {
                tokio::task::yield_now().await;
            }
        };
        soon("cancelled reservations give their credits back", settled).await;
    }
    assert_eq!(setup.amounts("acme").await, [available, 0, 0]);
}
