//! What the cache promises.

mod by_hand;
mod every_order;
mod outages;

use std::sync::Mutex;

use tollgate_core::{
    key::PepperId,
    store::{EndReason, EndSignal},
    verify::Principal,
};

use self::by_hand::*;
use super::*;

#[test]
fn a_known_key_is_answered_at_once() {
    let (store, keys) = cached();
    keys.ask_of(&store, 1, 0, active(1, 7));
    assert_eq!(keys.request(1, 29_999).generation(), Some(7));
    assert_eq!(store.asked(), 1);
}

#[test]
fn time_is_not_lengthened_by_use_nor_by_a_clock_that_is_set_back() {
    let (store, keys) = cached();
    keys.ask_of(&store, 1, 50_000, active(1, 1));
    assert!(keys.request(1, 60_000).poll().is_some());
    assert!(keys.request(1, 79_999).poll().is_some());
    keys.ask_of(&store, 1, 80_000, active(1, 1));
    keys.ask_of(&store, 1, 79_999, active(1, 1));
}

#[test]
fn a_key_is_not_kept_past_its_expiry_and_then_refused_from_memory() {
    let (store, keys) = cached();
    let expiring = || found(principal(1).with_expiry(at(10_000)), KeyStatus::Active, 1);
    keys.ask_of(&store, 1, 0, expiring());
    assert!(keys.request(1, 9_999).poll().is_some());
    keys.ask_of(&store, 1, 10_000, expiring());
    let Some(Ok(Some(record))) = keys.request(1, 14_999).poll().cloned() else { panic!("is kept") };
    assert_eq!(record.principal().ended(at(14_999)), Some(EndReason::Expired));
    keys.ask_of(&store, 1, 15_000, expiring());
}

#[test]
fn keeps_so_many_keys_and_those_that_are_used() {
    let (store, keys) = cached_as(|keys| keys.with_capacity(1_000));
    for key in 0..100 {
        keys.ask_of(&store, key, 0, active(key, 1));
    }
    for key in 100..20_000 {
        keys.ask_of(&store, key, 0, active(key, 1));
        assert!(keys.request(key % 100, 0).poll().is_some(), "{} is used all the time", key % 100);
    }
    let kept = keys.0.live.len();
    assert!((900..=1_000).contains(&kept), "{kept} are kept");
}

#[test]
fn what_is_over_goes_before_what_is_used() {
    let (store, keys) = cached_as(|keys| keys.with_capacity(200));
    for key in 0..200 {
        keys.ask_of(&store, key, 20_000 * (key % 2), active(key, 1));
        (0..3).for_each(|_| assert!(keys.request(key, 20_000 * (key % 2)).poll().is_some()));
    }
    for key in 200..300 {
        keys.ask_of(&store, key, 40_000, active(key, 1));
    }
    for key in (1..200).step_by(2) {
        assert!(keys.request(key, 40_000).poll().is_some(), "{key} is still good");
    }
}

#[test]
fn keeps_no_more_than_a_few_or_none() {
    for capacity in [0, 1, 3] {
        let (store, keys) = cached_as(|keys| keys.with_capacity(capacity).with_refused_capacity(capacity));
        for key in 0..50 {
            keys.ask_of(&store, key, 0, active(key, 1));
            keys.ask_of(&store, 1_000 + key, 0, Ok(None));
        }
        assert_eq!((keys.0.live.len(), keys.0.refused.len()), (capacity, capacity));
    }
}

#[test]
fn neither_invented_nor_revoked_keys_drive_good_ones_out() {
    let (store, keys) = cached_as(|keys| keys.with_capacity(100).with_refused_capacity(1_000));
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
        // Invented ones beside it do not drive it out, since it is used.
        for invented in 100..20_100 {
            keys.ask_of(&store, invented, 1, Ok(None));
            assert!(keys.request(key, 4_999).poll().is_some());
        }
        keys.ask_of(&store, key, 5_000, refusal);
    }
}

#[test]
fn a_crowd_asks_once_and_shares_the_answer() {
    for answer in [active(1, 1), Ok(None), down()] {
        let (store, keys) = cached();
        let mut waiters: Vec<_> = (0..10).map(|millis| keys.request(1, millis)).collect();
        assert!(waiters.iter_mut().all(|request| request.poll().is_none()));
        assert_eq!(store.asked(), 1);
        store.oldest().answer(answer.clone());
        for request in &mut waiters {
            let shared = request.poll().expect("all are answered");
            assert_eq!(format!("{shared:?}"), format!("{answer:?}"));
        }
        assert_eq!(keys.0.single_flight.len(), 0);
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
fn the_others_are_answered_if_the_one_that_began_has_gone() {
    let (store, keys) = cached();
    let first = keys.request(1, 0);
    let mut second = keys.request(1, 0);
    drop(first);
    store.oldest().answer(active(1, 3));
    assert_eq!((second.generation(), store.asked()), (Some(3), 1));
}

#[test]
fn a_question_is_given_up_when_all_have_gone() {
    let (store, keys) = cached();
    let (first, second) = (keys.request(1, 0), keys.request(1, 0));
    let question = store.oldest();
    drop(first);
    assert!(!question.is_given_up());
    drop(second);
    assert!(question.is_given_up());
    assert_eq!(keys.0.single_flight.len(), 0);
    keys.ask_of(&store, 1, 0, active(1, 1));
}

#[test]
fn who_comes_after_a_change_does_not_join_who_came_before() {
    for change in [change_of(1, 2), change_of(9, 2), StoreEvent::Disconnected, StoreEvent::Connected] {
        let (store, keys) = cached();
        let mut before = keys.request(1, 0);
        store.notify(&change);
        let mut after = keys.request(1, 0);
        assert_eq!(store.asked(), 2, "{change:?}");
        store.oldest().answer(active(1, 1));
        assert_eq!((before.generation(), after.generation()), (Some(1), None));
        let mut joined = keys.request(1, 0);
        assert_eq!(store.asked(), 2, "what was begun last is joined, and the first was not kept");
        store.oldest().answer(active(1, 2));
        assert_eq!((after.generation(), joined.generation()), (Some(2), Some(2)));
    }
}

#[test]
fn what_was_under_way_at_a_change_is_not_kept() {
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
fn a_change_removes_what_is_older_of_its_key_only() {
    let (store, keys) = cached();
    for key in 1..=3 {
        keys.ask_of(&store, key, 0, active(key, 10 * key));
    }
    store.notify(&change_of(2, 20));
    assert_eq!(keys.request(2, 0).generation(), Some(20), "it knows of the change");
    store.notify(&change_of(2, 21));
    keys.ask_of(&store, 2, 0, active(2, 21));
    assert_eq!((keys.request(1, 0).generation(), keys.request(3, 0).generation()), (Some(10), Some(30)));
}

#[test]
fn a_change_removes_all_that_prove_one_principal() {
    let (store, keys) = cached_as(|keys| keys.with_capacity(50_000));
    // Also after some of them were evicted, renewed or removed.
    for round in 1..=3 {
        for key in 0..200 {
            keys.ask_of(&store, key, 40_000 * round, active(5, round));
        }
    }
    keys.ask_of(&store, 1_000, 120_000, active(6, 1));
    assert_eq!(keys.0.live.len(), 201);
    store.notify(&change_of(5, 4));
    assert_eq!(keys.0.live.len(), 1);
    assert!(keys.request(1_000, 120_000).poll().is_some());
}

#[test]
fn a_change_of_a_tenant_removes_its_keys_only() {
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
fn any_change_may_be_of_a_key_that_was_unknown_or_refused() {
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
fn keeps_nothing_before_news_flow_and_after_they_were_lost() {
    let store = ByHand::default();
    let keys = CachedKeys::new(store.clone());
    for _ in 0..2 {
        for answer in [active(1, 1), active(1, 1), Ok(None), Ok(None), revoked(1, 2)] {
            keys.ask_of(&store, 1, 0, answer);
        }
        let asked = store.asked();
        let waiters = [keys.request(1, 0), keys.request(1, 0)];
        assert_eq!(store.asked(), asked + 1, "a crowd asks once all the same");
        drop(waiters);

        store.notify(&StoreEvent::Connected);
        keys.ask_of(&store, 1, 0, active(1, 1));
        keys.ask_of(&store, 2, 0, Ok(None));
        assert!(keys.request(1, 0).poll().is_some() && keys.request(2, 0).poll().is_some());
        store.notify(&StoreEvent::Disconnected);
        assert_eq!((keys.0.live.len(), keys.0.refused.len()), (0, 0));
    }
}

#[test]
fn a_principal_whose_signal_was_sent_is_asked_for_anew() {
    let (store, keys) = cached();
    let signal = EndSignal::new();
    let with_signal = || found(principal(1).with_end_signal(signal.clone()), KeyStatus::Active, 1);
    keys.ask_of(&store, 1, 0, with_signal());
    signal.end(EndReason::Revoked);
    keys.ask_of(&store, 1, 0, with_signal());
    keys.ask_of(&store, 1, 0, revoked(1, 2));
    assert!(keys.request(1, 0).poll().is_some(), "that is kept");
}

#[test]
fn a_replica_that_lags_behind_does_not_undo_what_is_known() {
    let (store, keys) = cached();
    keys.ask_of(&store, 1, 10_000, active(1, 5));
    // At an instant for which nothing is kept: what is answered is not fresh there.
    keys.ask_of(&store, 1, 9_999, active(1, 6));
    let (mut late, digests) = (keys.request(1, 50_000), [digest(1)]);
    keys.0.keep(
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
fn a_key_is_known_by_all_its_digests() {
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
fn whoever_watches_the_cache_is_told_when_it_has_obeyed() {
    let (store, keys) = cached();
    keys.ask_of(&store, 1, 0, active(1, 1));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener: Arc<dyn StoreListener> = {
        let (keys, heard) = (keys.clone(), Arc::clone(&heard));
        Arc::new(move |change: &StoreEvent| {
            let is_known = keys.request(1, 0).poll().is_some();
            heard.lock().unwrap().push((change.clone(), is_known));
        })
    };
    keys.subscribe(Arc::downgrade(&listener));
    store.notify(&change_of(1, 2));
    store.notify(&StoreEvent::Disconnected);
    let expected =
        [(StoreEvent::Connected, true), (change_of(1, 2), false), (StoreEvent::Disconnected, false)];
    assert_eq!(*heard.lock().unwrap(), expected);

    let late: Arc<dyn StoreListener> = Arc::new(|_: &StoreEvent| panic!("no news flow"));
    keys.subscribe(Arc::downgrade(&late));
}

#[test]
fn the_applications_data_is_dropped_when_no_lock_is_held() {
    /// Uses the cache when it is dropped.
    #[derive(Clone)]
    struct Nosy(CachedKeys);

    impl Drop for Nosy {
        fn drop(&mut self) {
            for key in 0..10 {
                drop(self.0.request(key, 0));
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
                let nosy = found(principal(key).with_extension(Nosy(keys.clone())), KeyStatus::Active, 1);
                store.oldest().answer(nosy);
                assert!(request.poll().is_some());
            }
        }
        store.notify(&change);
    }
}

#[test]
fn debug_counts_and_tells_no_digest() {
    let (store, keys) = cached();
    keys.ask_of(&store, 1, 0, active(1, 1));
    keys.ask_of(&store, 2, 0, Ok(None));
    let _waits = keys.request(3, 0);
    assert_eq!(format!("{keys:?}"), "CachedKeys { live: 1, refused: 1, under_way: 1, .. }");
}
