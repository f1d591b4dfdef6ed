//! Rules that the suite in `tollgate-testing` cannot reach, or that would take a database too long.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::{
    bounds::{MAX_IDEMPOTENCY_KEY_BYTES, MAX_OPEN_RESERVATIONS},
    credits::{Idempotency, NewGrant, ReserveRequest, Reserved, SettleAction, SettleRequest},
    key::Digest,
    manage::{Actor, Command},
};

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(2_000_000_000)
}

fn later() -> SystemTime {
    now() + Duration::from_secs(60)
}

/// An account with this many credits.
fn account(amount: u64) -> Account {
    let mut account = Account::default();
    let command = Command::new(NewGrant::new("acme", amount), Actor::new("root"), now());
    account.grant(&command, "g1").unwrap();
    account.take_changes();
    account
}

fn reserve(account: &mut Account, number: u128) -> Reserved {
    let request = ReserveRequest::new("acme", 1, later(), now());
    account.reserve(&request, ReservationId::from_number(number), None).unwrap()
}

#[test]
fn open_reservations_are_bounded() {
    let most = u128::from(MAX_OPEN_RESERVATIONS);
    let mut account = account(10_000);
    for number in 0..most {
        assert!(matches!(reserve(&mut account, number), Reserved::Held(_)));
    }
    assert_eq!(reserve(&mut account, most), Reserved::TooManyOpen);
    let held = account.take_changes().reservations.remove(0);
    account.settle(&SettleRequest::new("acme", held.id, SettleAction::Release, now()), Some(held));
    assert!(matches!(reserve(&mut account, most), Reserved::Held(_)));
}

#[test]
fn a_long_idempotency_key_is_not_stored() {
    let mut account = account(10);
    for (length, is_stored) in [(MAX_IDEMPOTENCY_KEY_BYTES, true), (MAX_IDEMPOTENCY_KEY_BYTES + 1, false)] {
        let key = "k".repeat(length);
        let request = ReserveRequest::new("acme", 1, later(), now())
            .with_idempotency(Idempotency::new(&key, Digest::of("scan")));
        assert_eq!(account.reserve(&request, ReservationId::from_number(1), None).is_ok(), is_stored);
    }
}

/// A backend loads the reservations that are due, and then the one that the call is about: the same one twice.
#[test]
fn a_reservation_that_is_loaded_twice_is_returned_once() {
    let mut account = account(10);
    reserve(&mut account, 1);
    let held = account.take_changes().reservations.remove(0);
    account.advance(later(), [held.clone()]);
    account.settle(&SettleRequest::new("acme", held.id, SettleAction::Release, later()), Some(held));
    assert_eq!(account.balance(), Balance::new(10, 0));
    let changes = account.take_changes();
    assert_eq!(changes.entries.len(), 1, "{changes:?}");
    let [stored] = &changes.reservations[..] else { panic!("one version is stored: {changes:?}") };
    assert_eq!(stored.state, ReservationState::Released { at: later() });
}

/// A backend may keep accounts loaded.
#[test]
fn a_changed_grant_is_returned_once() {
    let mut account = account(10);
    let changed: Vec<_> = account.take_changed_grants().into_iter().map(|one| one.grant.remaining).collect();
    assert_eq!(changed, [10]);
    assert!(account.take_changed_grants().is_empty());
    reserve(&mut account, 1);
    assert_eq!(account.take_changed_grants().len(), 1);
}

#[test]
fn a_check_finds_every_difference() {
    let mut account = account(10);
    let ledger = [(Some("g1".into()), 10)];
    assert!(account.check(ledger.clone()).agrees);
    let wrong: [&[(Option<GrantId>, i64)]; 7] = [
        &[],
        &[(Some("g1".into()), 9)],
        &[(Some("g1".into()), -10)],
        &[(Some("g2".into()), 10)],
        &[(Some("g1".into()), 10), (Some("g2".into()), 1)],
        &[(Some("g1".into()), 10), (None, -1)],
        &[(Some("g1".into()), 10), (Some("g1".into()), 10)],
    ];
    for sums in wrong {
        let check = account.check(sums.iter().cloned());
        assert!(!check.agrees, "{sums:?}");
        assert_eq!(check.net_by_ledger, sums.iter().map(|(_, sum)| sum).sum::<i64>());
    }
    account.owed = 3;
    assert!(!account.check(ledger.clone()).agrees, "the debt is not in the ledger");
    assert!(account.check(ledger.into_iter().chain([(None, -3)])).agrees);
}
