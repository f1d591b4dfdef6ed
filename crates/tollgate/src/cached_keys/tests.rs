//! The behaviour of the cache.

mod interleavings;
mod manual_store;
mod outages;

use std::sync::Mutex;

use tollgate_core::{
    key::PepperId,
    store::{EndReason, EndSignal},
    verify::Principal,
};

use self::manual_store::*;
use super::*;

#[test]
fn a_cached_key_is_answered_at_once() {
    let (store, keys) = cached();
    keys.ask_of(&store, 1, 0, active(1, 7));
    assert_eq!(keys.request(1, 29_999).generation(), Some(7));
    assert_eq!(store.asked(), 1);
}

#[test]
fn an_entrys_time_is_not_extended_by_use_or_by_a_clock_that_is_set_back() {
    let (store, keys) = cached();
    keys.ask_of(&store, 1, 50_000, active(1, 1));
    assert!(keys.request(1, 60_000).poll().is_some());
    assert!(keys.request(1, 79_999).poll().is_some());
    keys.ask_of(&store, 1, 80_000, active(1, 1));
    keys.ask_of(&store, 1, 79_999, active(1, 1));
}

#[test]
fn a_key_is_not_cached_as_active_past_its_expiry_and_its_refusal_is_cached() {
    let (store, keys) = cached();
    let expiring = || found(principal(1).with_expiry(at(10_000)), KeyStatus::Active, 1);
    keys.ask_of(&store, 1, 0, expiring());
    assert!(keys.request(1, 9_999).poll().is_some());
    keys.ask_of(&store, 1, 10_000, expiring());
    let Some(Ok(Some(record))) = keys.request(1, 14_999).poll().cloned() else {
        panic!("the refusal is cached")
    };
    assert_eq!(record.principal().ended(at(14_999)), Some(EndReason::Expired));
    keys.ask_of(&store, 1, 15_000, expiring());
}

#[test]
fn caches_at_most_its_capacity_and_the_keys_that_are_used() {
    let (store, keys) = cached_as(|keys| keys.with_capacity(1_000));
    for key in 0..100 {
        keys.ask_of(&store, key, 0, active(key, 1));
    }
    for key in 100..20_000 {
        keys.ask_of(&store, key, 0, active(key, 1));
        assert!(keys.request(key % 100, 0).poll().is_some(), "{} is used all the time", key % 100);
    }
    let cached = keys.0.active.len();
    assert!((900..=1_000).contains(&cached), "{cached} keys are cached");
}

#[test]
fn entries_that_are_not_fresh_are_evicted_before_used_ones() {
    let (store, keys) = cached_as(|keys| keys.with_capacity(200));
    for key in 0..200 {
        keys.ask_of(&store, key, 20_000 * (key % 2), active(key, 1));
        (0..3).for_each(|_| assert!(keys.request(key, 20_000 * (key % 2)).poll().is_some()));
    }
    for key in 200..300 {
        keys.ask_of(&store, key, 40_000, active(key, 1));
    }
    for key in (1..200).step_by(2) {
        assert!(keys.request(key, 40_000).poll().is_some(), "{key} is still fresh");
    }
}

#[test]
fn a_capacity_of_a_few_entries_or_none_is_kept() {
    for capacity in [0, 1, 3] {
        let (store, keys) = cached_as(|keys| keys.with_capacity(capacity).with_refusal_capacity(capacity));
        for key in 0..50 {
            keys.ask_of(&store, key, 0, active(key, 1));
            keys.ask_of(&store, 1_000 + key, 0, Ok(None));
        }
        assert_eq!((keys.0.active.len(), keys.0.refused.len()), (capacity, capacity));
    }
}

#[test]
fn neither_invented_nor_revoked_keys_evict_active_ones() {
    let (store, keys) = cached_as(|keys| keys.with_capacity(100).with_refusal_capacity(1_000));
    for key in 0..100 {
        keys.ask_of(&store, key, 0, active(key, 1));
    }
    for key in 1_000..4_000 {
        keys.ask_of(&store, key, 0, Ok(None));
        keys.ask_of(&store, 10_000 + key, 0, revoked(10_000 + key, 1));
    }
    assert!((0..100).all(|key| keys.request(key, 0).poll().is_some()));
    assert!(keys.0.refused.len() <= 1_000);
}

#[test]
fn a_flood_of_one_refused_key_asks_once_in_five_seconds() {
    let suspended = found(principal(3), KeyStatus::TenantSuspended, 1);
    for (key, refusal) in [(1, Ok(None)), (2, revoked(2, 1)), (3, suspended)] {
        let (store, keys) = cached();
        keys.ask_of(&store, key, 0, refusal.clone());
        // Invented keys do not evict it, since it is used.
        for invented in 100..20_100 {
            keys.ask_of(&store, invented, 1, Ok(None));
            assert!(keys.request(key, 4_999).poll().is_some());
        }
        keys.ask_of(&store, key, 5_000, refusal);
    }
}

#[test]
fn concurrent_requests_for_one_key_share_one_lookup() {
    for answer in [active(1, 1), Ok(None), down()] {
        let (store, keys) = cached();
        let mut waiters: Vec<_> = (0..10).map(|millis| keys.request(1, millis)).collect();
        assert!(waiters.iter_mut().all(|request| request.poll().is_none()));
        assert_eq!(store.asked(), 1);
        store.oldest().answer(answer.clone());
        for request in &mut waiters {
            let shared = request.poll().expect("all requests are answered");
            assert_eq!(format!("{shared:?}"), format!("{answer:?}"));
        }
        assert_eq!(keys.0.lookups.len(), 0);
    }
}

#[test]
fn different_keys_do_not_wait_for_each_other() {
    let (store, keys) = cached();
    let (mut one, mut two) = (keys.request(1, 0), keys.request(2, 0));
    let _first = store.oldest();
    store.oldest().answer(active(2, 2));
    assert_eq!((one.poll().is_none(), two.generation()), (true, Some(2)));
}

#[test]
fn the_other_requests_are_answered_if_the_first_is_dropped() {
    let (store, keys) = cached();
    let first = keys.request(1, 0);
    let mut second = keys.request(1, 0);
    drop(first);
    store.oldest().answer(active(1, 3));
    assert_eq!((second.generation(), store.asked()), (Some(3), 1));
}

#[test]
fn a_lookup_is_cancelled_when_all_requests_are_dropped() {
    let (store, keys) = cached();
    let (first, second) = (keys.request(1, 0), keys.request(1, 0));
    let lookup = store.oldest();
    drop(first);
    assert!(!lookup.is_cancelled());
    drop(second);
    assert!(lookup.is_cancelled());
    assert_eq!(keys.0.lookups.len(), 0);
    keys.ask_of(&store, 1, 0, active(1, 1));
}

#[test]
fn a_request_that_comes_when_all_others_were_dropped_joins_or_asks_anew() {
    let (store, keys) = cached();
    drop(keys.request(1, 0));
    // The lookup is not cancelled yet: its task has not run.
    let mut late = keys.request(1, 0);
    store.oldest().answer(active(1, 2));
    assert_eq!(late.generation(), Some(2));
    assert_eq!(keys.0.lookups.len(), 0);
}

#[test]
fn a_request_after_an_event_does_not_join_an_earlier_lookup() {
    for change in [change_of(1, 2), change_of(9, 2), StoreEvent::Disconnected, StoreEvent::Connected] {
        let (store, keys) = cached();
        let mut before = keys.request(1, 0);
        store.notify(&change);
        let mut after = keys.request(1, 0);
        assert_eq!(store.asked(), 2, "{change:?}");
        store.oldest().answer(active(1, 1));
        assert_eq!((before.generation(), after.generation()), (Some(1), None));
        let mut joined = keys.request(1, 0);
        assert_eq!(store.asked(), 2, "the later lookup is joined, and the earlier answer is not cached");
        store.oldest().answer(active(1, 2));
        assert_eq!((after.generation(), joined.generation()), (Some(2), Some(2)));
    }
}

#[test]
fn a_lookup_in_progress_during_an_event_is_not_cached() {
    for answer in [active(1, 1), Ok(None), revoked(1, 1)] {
        let (store, keys) = cached();
        let mut before = keys.request(1, 0);
        store.notify(&change_of(1, 2));
        store.oldest().answer(answer);
        assert!(before.poll().is_some());
        keys.ask_of(&store, 1, 0, active(1, 2));
        assert_eq!(keys.request(1, 0).generation(), Some(2));
    }
}

#[test]
fn an_event_removes_older_entries_of_its_key_only() {
    let (store, keys) = cached();
    for key in 1..=3 {
        keys.ask_of(&store, key, 0, active(key, 10 * key));
    }
    store.notify(&change_of(2, 20));
    assert_eq!(keys.request(2, 0).generation(), Some(20), "its generation is not older than the event");
    store.notify(&change_of(2, 21));
    keys.ask_of(&store, 2, 0, active(2, 21));
    assert_eq!((keys.request(1, 0).generation(), keys.request(3, 0).generation()), (Some(10), Some(30)));
}

#[test]
fn an_event_removes_all_entries_of_one_principal() {
    let (store, keys) = cached_as(|keys| keys.with_capacity(50_000));
    // Even after some of them were evicted, replaced or removed.
    for round in 1..=3 {
        for key in 0..200 {
            keys.ask_of(&store, key, 40_000 * round, active(5, round));
        }
    }
    keys.ask_of(&store, 1_000, 120_000, active(6, 1));
    assert_eq!(keys.0.active.len(), 201);
    store.notify(&change_of(5, 4));
    assert_eq!(keys.0.active.len(), 1);
    assert!(keys.request(1_000, 120_000).poll().is_some());
}

#[test]
fn an_event_of_a_tenant_removes_its_keys_only() {
    let (store, keys) = cached();
    let of = |key, tenant: &str, generation| {
        found(Principal::new(format!("key_{key}")).with_tenant(tenant), KeyStatus::Active, generation)
    };
    keys.ask_of(&store, 1, 0, of(1, "acme", 1));
    keys.ask_of(&store, 2, 0, of(2, "acme", 2));
    keys.ask_of(&store, 3, 0, of(3, "globex", 1));
    keys.ask_of(&store, 4, 0, found(Principal::new("key_4"), KeyStatus::Active, 1));
    store.notify(&StoreEvent::Tenant { tenant: "acme".into(), generation: 2, end: None });
    keys.ask_of(&store, 1, 0, of(1, "acme", 2));
    for key in 1..=4 {
        assert!(keys.request(key, 0).poll().is_some(), "{key}");
    }
}

#[test]
fn any_event_removes_all_refusals() {
    let changes = [
        change_of(9, 1),
        StoreEvent::Tenant { tenant: "acme".into(), generation: 1, end: None },
        StoreEvent::Disconnected,
    ];
    for change in changes {
        let (store, keys) = cached();
        keys.ask_of(&store, 1, 0, Ok(None));
        keys.ask_of(&store, 2, 0, revoked(2, 1));
        store.notify(&change);
        keys.ask_of(&store, 1, 0, active(1, 1));
        keys.ask_of(&store, 2, 0, active(2, 2));
    }
}

#[test]
fn caches_nothing_while_the_store_is_not_connected() {
    let store = ManualStore::default();
    let keys = CachedKeys::new(store.clone());
    for _ in 0..2 {
        for answer in [active(1, 1), active(1, 1), Ok(None), Ok(None), revoked(1, 2)] {
            keys.ask_of(&store, 1, 0, answer);
        }
        let asked = store.asked();
        let waiters = [keys.request(1, 0), keys.request(1, 0)];
        assert_eq!(store.asked(), asked + 1, "concurrent requests still share one lookup");
        drop(waiters);

        store.notify(&StoreEvent::Connected);
        keys.ask_of(&store, 1, 0, active(1, 1));
        keys.ask_of(&store, 2, 0, Ok(None));
        assert!(keys.request(1, 0).poll().is_some() && keys.request(2, 0).poll().is_some());
        store.notify(&StoreEvent::Disconnected);
        assert_eq!((keys.0.active.len(), keys.0.refused.len()), (0, 0));
    }
}

#[test]
fn a_store_without_events_is_trusted_for_the_time_that_it_states() {
    let store = ManualStore::trusted_for(Duration::from_secs(3));
    let keys = CachedKeys::new(store.clone());
    keys.ask_of(&store, 1, 0, active(1, 0));
    keys.ask_of(&store, 2, 0, Ok(None));
    assert!(keys.request(1, 2_999).poll().is_some() && keys.request(2, 2_999).poll().is_some());
    keys.ask_of(&store, 1, 3_000, revoked(1, 0));
    assert!(
        keys.request(1, 3_000).poll().is_some(),
        "a constant generation does not keep the newer answer out"
    );
    keys.ask_of(&store, 1, 6_000, active(1, 0));
    keys.ask_of(&store, 2, 3_000, Ok(None));
}

#[test]
fn the_caches_own_times_are_the_upper_limit_of_a_stores_statement() {
    let store = ManualStore::trusted_for(Duration::from_secs(3_600));
    let keys = CachedKeys::new(store.clone()).with_ttl(Duration::from_secs(10));
    keys.ask_of(&store, 1, 0, active(1, 0));
    keys.ask_of(&store, 2, 0, Ok(None));
    keys.ask_of(&store, 1, 10_000, active(1, 0));
    keys.ask_of(&store, 2, 5_000, Ok(None));

    let store = ManualStore::trusted_for(Duration::ZERO);
    let keys = CachedKeys::new(store.clone());
    (0..3).for_each(|_| drop(keys.ask_of(&store, 1, 0, active(1, 0))));
}

#[test]
fn a_cache_passes_the_statement_of_its_store_on() {
    let listener: Arc<dyn StoreListener> = Arc::new(|_: &StoreEvent| {});
    let time = Duration::from_secs(3);
    for (store, expected) in [(ManualStore::default(), None), (ManualStore::trusted_for(time), Some(time))] {
        let keys = CachedKeys::new(store).with_capacity(5);
        assert_eq!(keys.subscribe(Arc::downgrade(&listener)).trusted_for(), expected);
    }
}

#[test]
fn a_principal_whose_signal_was_sent_is_not_answered_from_the_cache() {
    let (store, keys) = cached();
    let signal = EndSignal::new();
    let with_signal = || found(principal(1).with_end_signal(signal.clone()), KeyStatus::Active, 1);
    keys.ask_of(&store, 1, 0, with_signal());
    signal.end(EndReason::Revoked);
    keys.ask_of(&store, 1, 0, with_signal());
    keys.ask_of(&store, 1, 0, revoked(1, 2));
    assert!(keys.request(1, 0).poll().is_some(), "the refusal is cached");
}

#[test]
fn a_replica_that_lags_behind_does_not_replace_a_newer_entry() {
    let (store, keys) = cached();
    keys.ask_of(&store, 1, 10_000, active(1, 5));
    // At an earlier instant, at which the entry is not fresh.
    keys.ask_of(&store, 1, 9_999, active(1, 6));
    let (mut late, digests) = (keys.request(1, 50_000), [digest(1)]);
    keys.0.insert(
        keys.0.hashes.of(&digests),
        &digests.as_slice().into(),
        active(1, 7).unwrap().as_ref(),
        keys.0.events.as_of_now(),
        at(50_000),
    );
    store.oldest().answer(active(1, 6));
    assert_eq!(late.generation(), Some(6));
    assert_eq!(keys.request(1, 50_000).generation(), Some(7));
}

#[test]
fn an_entry_is_found_by_all_its_digests_together() {
    let (store, keys) = cached();
    let pepper = |id| Digest::from_parts([7; 32], Some(PepperId::new(id)));
    for (digests, generation) in [
        (&[pepper(1)][..], 1),
        (&[pepper(1), pepper(2)], 2),
        (&[pepper(2)], 3),
        (&[Digest::of("a")], 4),
        (&[], 5),
    ] {
        let mut request = keys.request_by(digests, 0);
        store.oldest().answer(active(generation, generation));
        assert_eq!(request.generation(), Some(generation));
    }
    assert_eq!(keys.request_by(&[pepper(1), pepper(2)], 0).generation(), Some(2));
    assert_eq!(keys.request_by(&[pepper(1)], 0).generation(), Some(1));
    assert_eq!(store.asked(), 5);
}

#[test]
fn listeners_of_the_cache_are_notified_after_the_cache_has_applied_the_event() {
    let (store, keys) = cached();
    keys.ask_of(&store, 1, 0, active(1, 1));
    let received = Arc::new(Mutex::new(Vec::new()));
    let listener: Arc<dyn StoreListener> = {
        let (keys, received) = (keys.clone(), Arc::clone(&received));
        Arc::new(move |event: &StoreEvent| {
            let is_cached = keys.request(1, 0).poll().is_some();
            received.lock().unwrap().push((event.clone(), is_cached));
        })
    };
    let _ = keys.subscribe(Arc::downgrade(&listener));
    store.notify(&change_of(1, 2));
    store.notify(&StoreEvent::Disconnected);
    let expected =
        [(StoreEvent::Connected, true), (change_of(1, 2), false), (StoreEvent::Disconnected, false)];
    assert_eq!(*received.lock().unwrap(), expected);

    let late: Arc<dyn StoreListener> = Arc::new(|_: &StoreEvent| panic!("the store is not connected"));
    let _ = keys.subscribe(Arc::downgrade(&late));
}

#[test]
fn the_values_of_the_application_are_dropped_without_a_lock() {
    /// Uses the cache when it is dropped.
    #[derive(Clone)]
    struct UsesCache(CachedKeys);

    impl Drop for UsesCache {
        fn drop(&mut self) {
            for key in 0..10 {
                drop(self.0.find(&KeyLookup::new(&[digest(key)], at(0))));
            }
        }
    }

    for change in [
        change_of(1, 9),
        StoreEvent::Tenant { tenant: "acme".into(), generation: 9, end: None },
        StoreEvent::Disconnected,
    ] {
        let (store, keys) = cached_as(|keys| keys.with_capacity(2));
        for key in [1, 2, 3, 4, 1] {
            let mut request = keys.request(key, 0);
            if request.poll().is_none() {
                let record =
                    found(principal(key).with_extension(UsesCache(keys.clone())), KeyStatus::Active, 1);
                store.oldest().answer(record);
                assert!(request.poll().is_some());
            }
        }
        store.notify(&change);
    }
}

#[test]
fn debug_shows_counts_and_no_digest() {
    let (store, keys) = cached();
    keys.ask_of(&store, 1, 0, active(1, 1));
    keys.ask_of(&store, 2, 0, Ok(None));
    let _waiting = keys.request(3, 0);
    assert_eq!(format!("{keys:?}"), "CachedKeys { active: 1, refused: 1, in_progress: 1, .. }");
}
