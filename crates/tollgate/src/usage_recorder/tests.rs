mod background;
mod model;
mod store;

use std::{
    pin::{Pin, pin},
    task::{Context, Waker},
    thread,
    time::Duration,
};

use tollgate_core::verify::Principal;

use self::store::{Outcome, TestStore};
use super::*;
use crate::usage::MemoryUsage;

const HOUR: Duration = Duration::from_secs(3_600);

fn hour(number: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + HOUR * number
}

fn record(recorder: &UsageRecorder, key: &str, now: SystemTime) {
    recorder.record(&Usage::new(&Principal::new(key), now));
}

/// The usage of a key according to a recorder: the number of each hour, and the requests in it.
async fn used(recorder: &UsageRecorder, key: &str) -> Vec<(u32, u64)> {
    let hours = recorder.usage(key, hour(0), hour(1_000)).await.unwrap();
    hours.iter().map(hour_and_requests).collect()
}

/// The usage of a key according to its store.
async fn stored(store: &impl UsageStore, key: &str) -> Vec<(u32, u64)> {
    let query = UsageQuery::new(key, hour(0), hour(1_000));
    store.usage(&query).await.unwrap().hours.iter().map(hour_and_requests).collect()
}

fn hour_and_requests(hourly: &HourlyUsage) -> (u32, u64) {
    let seconds = hourly.hour.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(seconds % 3_600, 0, "hours begin on the hour");
    (u32::try_from(seconds / 3_600).unwrap(), hourly.requests)
}

fn is_pending<F: Future + ?Sized>(future: Pin<&mut F>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[tokio::test]
async fn counts_by_key_and_hour() {
    let store = MemoryUsage::new();
    let recorder = UsageRecorder::new(store.clone());
    let moment = Duration::from_nanos(1);
    for now in [hour(5), hour(6) - moment, hour(6), hour(5) + moment] {
        record(&recorder, "ada", now);
    }
    record(&recorder, "bob", hour(6));
    assert_eq!(stored(&store, "ada").await, []);
    assert_eq!(used(&recorder, "ada").await, [(5, 3), (6, 1)]);

    recorder.flush().await.unwrap();
    assert_eq!(stored(&store, "ada").await, [(5, 3), (6, 1)]);
    assert_eq!(stored(&store, "bob").await, [(6, 1)]);
    assert_eq!(store.last_used_at("ada"), Some(hour(6)), "the latest use, in any order");
    assert_eq!(used(&recorder, "ada").await, [(5, 3), (6, 1)]);
}

#[tokio::test]
async fn returns_the_hours_that_begin_within_the_range() {
    let recorder = UsageRecorder::new(MemoryUsage::new());
    for number in 1..=4 {
        record(&recorder, "ada", hour(number) + Duration::from_secs(9));
        if number == 2 {
            recorder.flush().await.unwrap();
        }
    }
    let hours = recorder.usage("ada", hour(2), hour(4)).await.unwrap();
    assert_eq!(hours.iter().map(hour_and_requests).collect::<Vec<_>>(), [(2, 1), (3, 1)]);
}

#[tokio::test]
async fn a_time_before_the_epoch_is_its_first_hour() {
    let recorder = UsageRecorder::new(MemoryUsage::new());
    record(&recorder, "ada", hour(0) - HOUR);
    assert_eq!(used(&recorder, "ada").await, [(0, 1)]);
}

#[tokio::test]
async fn adds_no_batch_without_new_usage() {
    let store = TestStore::default();
    let recorder = UsageRecorder::new(store.clone());
    recorder.flush().await.unwrap();
    record(&recorder, "ada", hour(1));
    recorder.flush().await.unwrap();
    recorder.flush().await.unwrap();
    assert_eq!(store.numbers(), [1]);
}

#[tokio::test]
async fn an_unconfirmed_batch_is_added_again_before_newer_ones() {
    for outcome in [Outcome::Lost, Outcome::ReplyLost] {
        let store = TestStore::default();
        let recorder = UsageRecorder::new(store.clone());
        record(&recorder, "ada", hour(1));
        store.next_is(outcome);
        assert!(recorder.flush().await.is_err());
        record(&recorder, "ada", hour(1));
        store.next_is(outcome);
        assert!(recorder.flush().await.is_err());
        assert_eq!(used(&recorder, "ada").await, [(1, 2)], "{outcome:?}");

        recorder.flush().await.unwrap();
        assert_eq!(stored(&store, "ada").await, [(1, 2)], "{outcome:?}");
        assert_eq!(store.numbers(), [1, 1, 1, 2], "{outcome:?}");
    }
}

#[tokio::test]
async fn batches_are_in_ascending_order() {
    let store = TestStore::default();
    let recorder = UsageRecorder::new(store.clone());
    for number in (0..500).rev() {
        record(&recorder, &format!("key_{}", number % 100), hour(number % 7));
    }
    recorder.flush().await.unwrap();
    let batch = store.batches().remove(0);
    assert!(batch.counts.is_sorted_by(|one, next| (&one.key, one.hour) < (&next.key, next.hour)));
    assert_eq!(batch.counts.iter().map(|count| count.requests).sum::<u64>(), 500);
}

#[tokio::test]
async fn dropping_a_running_flush_loses_nothing() {
    for outcome in [Outcome::Lost, Outcome::ReplyLost] {
        let store = TestStore::default();
        let recorder = UsageRecorder::new(store.clone());
        record(&recorder, "ada", hour(1));
        store.next_is(outcome);
        store.wait(true);
        assert!(is_pending(pin!(recorder.flush())));
        record(&recorder, "ada", hour(1));

        store.wait(false);
        assert_eq!(used(&recorder, "ada").await, [(1, 2)], "{outcome:?}");
        recorder.flush().await.unwrap();
        assert_eq!(stored(&store, "ada").await, [(1, 2)], "{outcome:?}");
    }
}

#[tokio::test]
async fn a_flush_that_is_no_longer_polled_does_not_block_others() {
    let store = TestStore::default();
    let recorder = UsageRecorder::new(store.clone());
    record(&recorder, "ada", hour(1));
    store.wait(true);
    let mut stalled = pin!(recorder.flush());
    assert!(is_pending(stalled.as_mut()));
    store.wait(false);
    record(&recorder, "ada", hour(1));
    recorder.flush().await.unwrap();
    assert_eq!(stored(&store, "ada").await, [(1, 2)]);

    stalled.await.unwrap();
    assert_eq!(stored(&store, "ada").await, [(1, 2)], "its batch arrived twice and late");
}

#[tokio::test]
async fn uses_beyond_the_capacity_are_dropped_until_a_flush() {
    let store = TestStore::default();
    let recorder = UsageRecorder::with_capacity(store.clone(), 3);
    for number in 0..5 {
        record(&recorder, &format!("key_{number}"), hour(1));
        record(&recorder, "key_0", hour(1));
    }
    assert_eq!(recorder.dropped(), 2);
    assert_eq!(used(&recorder, "key_0").await, [(1, 6)], "known keys are still counted");
    assert_eq!(used(&recorder, "key_4").await, []);

    store.next_is(Outcome::Lost);
    assert!(recorder.flush().await.is_err());
    for number in 4..9 {
        record(&recorder, &format!("key_{number}"), hour(1));
    }
    assert_eq!(recorder.dropped(), 4, "the capacity does not include a pending batch");
    recorder.flush().await.unwrap();
    assert_eq!(stored(&store, "key_4").await, [(1, 1)]);
    assert_eq!(stored(&store, "key_8").await, []);
    assert_eq!(recorder.0.counts.len(), 0, "all entries are dropped");
}

#[tokio::test]
async fn an_entry_unused_between_two_flushes_is_dropped() {
    let recorder = UsageRecorder::new(MemoryUsage::new());
    record(&recorder, "ada", hour(1));
    record(&recorder, "ada", hour(2));
    recorder.flush().await.unwrap();
    assert_eq!(recorder.0.counts.len(), 2);
    record(&recorder, "ada", hour(2));
    recorder.flush().await.unwrap();
    assert_eq!(recorder.0.counts.len(), 1);
    recorder.flush().await.unwrap();
    assert_eq!(recorder.0.counts.len(), 0);
    assert_eq!(used(&recorder, "ada").await, [(1, 1), (2, 2)]);
}

#[tokio::test]
async fn waits_until_half_of_the_capacity_is_used() {
    let recorder = UsageRecorder::with_capacity(MemoryUsage::new(), 5);
    let mut half_full = pin!(recorder.wait_until_half_full());
    record(&recorder, "key_1", hour(1));
    record(&recorder, "key_2", hour(1));
    record(&recorder, "key_2", hour(1));
    assert!(is_pending(half_full.as_mut()));
    record(&recorder, "key_3", hour(1));
    half_full.await;
    recorder.wait_until_half_full().await;
    recorder.flush().await.unwrap();
    assert!(is_pending(pin!(recorder.wait_until_half_full())));
}

#[tokio::test]
async fn concurrent_uses_and_flushes_count_exactly() {
    const EACH: u32 = 20_000;
    let store = MemoryUsage::new();
    let recorder = UsageRecorder::new(store.clone());
    thread::scope(|scope| {
        for own in ["ada", "bob"] {
            let recorder = &recorder;
            scope.spawn(move || {
                for number in 0..EACH {
                    record(recorder, own, hour(number % 3));
                    record(recorder, "both", hour(0));
                }
            });
        }
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut before = 0;
            for _ in 0..200 {
                runtime.block_on(recorder.flush()).unwrap();
                let now =
                    runtime.block_on(used(&recorder, "both")).first().map_or(0, |(_, requests)| *requests);
                assert!(before <= now, "never decreases");
                before = now;
            }
        });
    });
    recorder.flush().await.unwrap();
    for key in ["ada", "bob"] {
        let sum: u64 = stored(&store, key).await.iter().map(|(_, requests)| requests).sum();
        assert_eq!(sum, u64::from(EACH));
    }
    assert_eq!(stored(&store, "both").await, [(0, 2 * u64::from(EACH))]);
}
