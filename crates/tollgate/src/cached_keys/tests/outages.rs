//! The cache while the store is down.

use std::time::Duration;

use tollgate_core::store::EndReason;

use super::*;

fn stale_for_a_minute() -> (ManualStore, CachedKeys) {
    cached_as(|keys| keys.dangerous_serve_stale_for(Duration::from_secs(60)))
}

#[test]
fn by_default_a_key_is_refused_when_its_time_is_up() {
    let (store, keys) = cached();
    keys.ask_of(&store, 1, 0, active(1, 1));
    assert!(keys.ask_of(&store, 1, 30_000, down()).is_unavailable());
    store.notify(&StoreEvent::Disconnected);
    assert!(keys.ask_of(&store, 1, 0, down()).is_unavailable());
}

#[test]
fn a_failure_is_not_cached() {
    let (store, keys) = cached();
    assert!(keys.ask_of(&store, 1, 0, down()).is_unavailable());
    assert_eq!(keys.ask_of(&store, 1, 0, active(1, 1)).generation(), Some(1));
}

#[test]
fn a_stale_key_is_served_for_the_set_time_after_its_last_confirmation() {
    let (store, keys) = stale_for_a_minute();
    keys.ask_of(&store, 1, 10_000, active(1, 1));
    assert_eq!(keys.ask_of(&store, 1, 40_000, down()).generation(), Some(1));
    assert_eq!(keys.ask_of(&store, 1, 69_999, down()).generation(), Some(1), "serving it does not renew it");
    assert!(keys.ask_of(&store, 1, 70_000, down()).is_unavailable());
    assert!(keys.ask_of(&store, 1, 9_999, down()).is_unavailable(), "a clock that was set back");
}

#[test]
fn a_stale_key_is_served_after_a_disconnection_and_a_reconnection() {
    let (store, keys) = stale_for_a_minute();
    keys.ask_of(&store, 1, 0, active(1, 1));
    store.notify(&StoreEvent::Disconnected);
    assert_eq!(keys.ask_of(&store, 1, 1, down()).generation(), Some(1), "the store is asked first");
    assert_eq!(keys.ask_of(&store, 1, 2, active(1, 2)).generation(), Some(2));
    assert_eq!(keys.ask_of(&store, 1, 3, down()).generation(), Some(2), "and asked again the next time");
    assert_eq!(
        keys.ask_of(&store, 1, 60_001, down()).generation(),
        Some(2),
        "the store has confirmed it again"
    );
    store.notify(&StoreEvent::Connected);
    assert_eq!(keys.ask_of(&store, 1, 60_001, down()).generation(), Some(2));
    assert!(keys.ask_of(&store, 1, 60_002, down()).is_unavailable());
}

#[test]
fn a_stale_key_is_not_served_after_an_event_or_another_answer_about_it() {
    type End = fn(&ManualStore, &CachedKeys);
    let ends: [End; 4] = [
        |store, _| store.notify(&change_of(1, 2)),
        |store, _| store.notify(&StoreEvent::Tenant { tenant: "acme".into(), generation: 2, end: None }),
        |store, keys| drop(keys.ask_of(store, 1, 1, revoked(1, 2))),
        |store, keys| drop(keys.ask_of(store, 1, 1, Ok(None))),
    ];
    for end in ends {
        let (store, keys) = stale_for_a_minute();
        keys.ask_of(&store, 1, 0, active(1, 1));
        store.notify(&StoreEvent::Disconnected);
        end(&store, &keys);
        assert!(keys.ask_of(&store, 1, 2, down()).is_unavailable());
    }
}

#[test]
fn a_stale_key_that_is_revoked_during_the_lookup_is_not_served() {
    let (store, keys) = stale_for_a_minute();
    keys.ask_of(&store, 1, 0, active(1, 1));
    let mut request = keys.request(1, 30_000);
    store.notify(&change_of(1, 2));
    store.oldest().answer(down());
    assert!(request.is_unavailable());
}

#[test]
fn a_stale_key_is_served_neither_past_its_expiry_nor_after_its_signal() {
    let (store, keys) = stale_for_a_minute();
    keys.ask_of(&store, 1, 0, found(principal(1).with_expiry(at(40_000)), KeyStatus::Active, 1));
    assert_eq!(keys.ask_of(&store, 1, 39_999, down()).generation(), Some(1));
    assert!(keys.ask_of(&store, 1, 40_000, down()).is_unavailable());

    let ending = principal(2);
    let signal = ending.end_signal().clone();
    keys.ask_of(&store, 2, 0, found(ending, KeyStatus::Active, 1));
    signal.end(EndReason::Revoked);
    assert!(keys.ask_of(&store, 2, 1, down()).is_unavailable());
}

#[test]
fn a_store_that_does_not_answer_is_asked_once_a_second() {
    let (store, keys) = stale_for_a_minute();
    keys.ask_of(&store, 1, 0, active(1, 1));
    for key in 11..=15 {
        keys.ask_of(&store, key, 30_000, down());
    }
    let asked = store.asked();
    assert!(keys.request(20, 30_999).is_unavailable());
    assert_eq!(keys.request(1, 30_999).generation(), Some(1), "stale, and at once");
    assert_eq!(store.asked(), asked);
    assert!(keys.ask_of(&store, 20, 31_000, down()).is_unavailable());
    assert!(keys.request(20, 31_999).is_unavailable());
    keys.ask_of(&store, 20, 32_000, active(20, 1));
    keys.ask_of(&store, 21, 32_000, Ok(None));
}

/// Regression: a probe was cancelled with the last request that waited for it, so callers that hang up kept the breaker open.
#[test]
fn a_probe_is_answered_although_its_request_was_dropped() {
    let (store, keys) = cached();
    // A lookup that began before the breaker opened, and that the probe joins.
    let before = keys.request(20, 900);
    let joined = store.oldest();
    (11..=15).for_each(|key| drop(keys.ask_of(&store, key, 0, down())));
    let probe = keys.request(20, 1_000);
    drop((before, probe));
    assert!(!joined.is_cancelled());
    joined.answer(down());
    assert!(keys.request(21, 1_999).is_unavailable());

    drop(keys.request(21, 2_000));
    assert!(keys.request(22, 2_001).is_unavailable(), "one probe a second");
    store.oldest().answer(Ok(None));
    keys.ask_of(&store, 22, 2_001, active(22, 1));
    assert_eq!(keys.0.lookups.len(), 0);
}

#[test]
fn further_probes_do_not_wait_for_one_that_is_not_answered() {
    let (store, keys) = cached();
    (11..=15).for_each(|key| drop(keys.ask_of(&store, key, 0, down())));
    drop(keys.request(20, 1_000));
    let stuck = store.oldest();
    drop(keys.request(21, 2_000));
    store.oldest().answer(Ok(None));
    keys.ask_of(&store, 22, 2_001, active(22, 1));
    assert!(!stuck.is_cancelled());
    let_deadlines_pass();
    assert!(stuck.is_cancelled(), "it has failed");
    assert_eq!(keys.0.lookups.len(), 0);
}

/// Regression: every request for the key joined the lookup, and failed when its deadline had passed, although the store was back.
#[test]
fn a_lookup_that_takes_too_long_is_not_joined() {
    let (store, keys) = cached();
    let mut stuck = keys.request(1, 0);
    let lost = store.oldest();
    let mut joined = keys.request(1, 999);
    keys.ask_of(&store, 1, 1_000, active(1, 1));
    assert_eq!(keys.request(1, 1_001).generation(), Some(1), "cached");
    assert!(stuck.poll().is_none() && joined.poll().is_none());
    lost.answer(down());
    assert!(stuck.is_unavailable() && joined.is_unavailable());
    assert_eq!(keys.0.lookups.len(), 0);
}

/// Regression: requests waited for it without end.
#[test]
fn a_store_that_never_answers_is_unavailable_after_the_deadline() {
    let (store, keys) = stale_for_a_minute();
    keys.ask_of(&store, 1, 0, active(1, 1));
    let mut stale = keys.request(1, 30_000);
    let mut requests: Vec<_> = (11..=14).map(|key| keys.request(key, 30_000)).collect();
    assert!(stale.poll().is_none());
    let_deadlines_pass();
    assert_eq!(stale.generation(), Some(1));
    assert!(requests.iter_mut().all(Request::is_unavailable));
    assert_eq!(keys.0.lookups.len(), 0);
    let asked = store.asked();
    assert!(keys.request(20, 30_000).is_unavailable(), "the breaker is open");
    assert_eq!(store.asked(), asked);
}

#[test]
fn a_store_that_panics_is_unavailable_for_all_requests() {
    struct Panics;

    impl KeyStore for Panics {
        fn find(&self, _lookup: &KeyLookup<'_>) -> Answer<Found> {
            panic!("in the store")
        }

        fn subscribe(&self, _listener: Weak<dyn StoreListener>) -> Subscription {
            Subscription::trust_for(Duration::ZERO)
        }
    }

    let keys = CachedKeys::new(Panics);
    let (mut one, mut two) = (keys.request(1, 0), keys.request(1, 0));
    assert!(one.is_unavailable() && two.is_unavailable());
    assert_eq!(keys.0.lookups.len(), 0);
}

#[test]
fn outside_a_runtime_the_store_is_not_asked() {
    let (store, keys) = cached();
    keys.ask_of(&store, 1, 0, active(1, 1));
    let find = |key| keys.find(&KeyLookup::new(&[digest(key)], at(0)));
    assert!(matches!(find(1), Answer::Now(Ok(Some(_)))), "it is cached");
    assert!(matches!(find(2), Answer::Now(Err(_))));
    assert_eq!(store.asked(), 1);
}

#[test]
fn cached_keys_work_while_the_store_is_down() {
    let (store, keys) = cached();
    keys.ask_of(&store, 1, 0, active(1, 1));
    (11..=15).for_each(|key| drop(keys.ask_of(&store, key, 1, down())));
    assert_eq!(keys.request(1, 29_999).generation(), Some(1));
}
