//! The bounds of what is kept.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tollgate_core::{
    credits::{Excess, Idempotency, SettleAction},
    key::Digest,
    manage::Actor,
};

use super::*;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(2_000_000_000)
}

fn done<T, E: fmt::Debug>(answer: Answer<Result<T, E>>) -> T {
    let Answer::Now(outcome) = answer else { panic!("answers at once") };
    outcome.unwrap()
}

fn grant(credits: &MemoryCredits, new: NewGrant) -> Grant {
    done(credits.grant(Command::new(new, Actor::new("root"), now())))
}

fn reserve(credits: &MemoryCredits, key: &str, now: SystemTime) -> Reserved {
    let request = ReserveRequest::new("acme", 1, now + Duration::from_secs(60), now)
        .with_idempotency(Idempotency::new(key, Digest::of("scan")));
    done(credits.reserve(&request))
}

/// Reserves and charges one credit.
fn charge(credits: &MemoryCredits, key: &str, now: SystemTime) {
    let reserved = reserve(credits, key, now);
    let Reserved::Held(held) = reserved else { panic!("expected a reservation, got {reserved:?}") };
    let commit = SettleAction::Commit { actual: 1, excess: Excess::Cap };
    assert_eq!(done(credits.settle(&SettleRequest::new("acme", held.id, commit, now))).charged, 1);
}

#[test]
fn the_check_is_exact_although_old_entries_are_dropped() {
    let credits = MemoryCredits::new();
    for number in 0..3 {
        grant(&credits, NewGrant::new("acme", 4_000).with_id(number.to_string()));
    }
    for number in 0..11_000_u64 {
        charge(&credits, &number.to_string(), now());
    }
    let check = done(credits.check("acme"));
    assert_eq!((check.available, check.net_by_ledger, check.agrees), (1_000, 1_000, true));

    let mut numbers = Vec::new();
    let mut query = LedgerQuery::new("acme");
    loop {
        let page = done(credits.ledger(&query));
        numbers.extend(page.items.iter().map(|entry| entry.number));
        let Some(next) = page.next else { break };
        query = query.with_after(next);
    }
    assert_eq!(numbers, (1_004..=11_003).rev().collect::<Vec<_>>(), "the latest 10,000 can be read");
}

#[test]
fn of_the_reservations_that_have_ended_the_latest_100_000_are_known() {
    let credits = MemoryCredits::new();
    grant(&credits, NewGrant::new("acme", 1_000_000));
    for number in 0..=100_000_u64 {
        charge(&credits, &number.to_string(), now() + Duration::from_millis(number));
    }
    let later = now() + Duration::from_secs(1_000);
    assert!(matches!(reserve(&credits, "1", later), Reserved::Repeated(_)));
    assert!(matches!(reserve(&credits, "0", later), Reserved::Held(_)), "the oldest one is forgotten");
}

#[test]
fn of_the_grants_that_have_ended_the_latest_1_000_are_known() {
    let credits = MemoryCredits::new();
    let new = |number: u64| NewGrant::new("acme", 1).with_id(number.to_string());
    for number in 0..=1_000 {
        let granted = grant(&credits, new(number));
        let at = now() + Duration::from_millis(number);
        let command = Command::new(WithdrawGrant::new("acme", granted.id), Actor::new("root"), at);
        done(credits.withdraw(command));
    }
    assert_eq!(grant(&credits, new(1)).remaining, 0, "it is not made again");
    assert_eq!(grant(&credits, new(0)).remaining, 1, "the oldest one is forgotten");
}
