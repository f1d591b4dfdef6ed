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

fn reserve(credits: &MemoryCredits, amount: u64, key: &str) -> Reserved {
    let request = ReserveRequest::new("acme", amount, now() + Duration::from_secs(60), now())
        .with_idempotency(Idempotency::new(key, Digest::of("scan")));
    done(credits.reserve(&request))
}

fn commit(credits: &MemoryCredits, reserved: &Reserved, actual: u64) -> u64 {
    let Reserved::Held(held) = reserved else { panic!("expected a reservation, got {reserved:?}") };
    let commit = SettleAction::Commit { actual, excess: Excess::Cap };
    done(credits.settle(&SettleRequest::new("acme", held.id, commit, now()))).charged
}

#[test]
fn the_check_is_exact_although_old_entries_are_dropped() {
    let credits = MemoryCredits::new();
    for number in 0..3 {
        grant(&credits, NewGrant::new("acme", 4_000).with_id(number.to_string()));
    }
    for number in 0..11_000_u64 {
        commit(&credits, &reserve(&credits, 1, &number.to_string()), 1);
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
