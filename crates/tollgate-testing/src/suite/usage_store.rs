//! The suite for usage stores.

use std::time::{Duration, SystemTime};

use tollgate::usage::{UsageBatch, UsageCount, UsageQuery, UsageStore};

use super::run_cases;
use crate::at;

pub(super) const HOUR: Duration = Duration::from_secs(3_600);

/// The identifiers of the keys that [`usage_store`] uses.
pub const KNOWN_KEYS: [&str; 2] = ["ada", "bob"];

/// Runs the suite for usage stores: batches, their numbers, and queries.
///
/// A store that knows keys must know the [`KNOWN_KEYS`], and no key `cyd`: the function that opens it issues them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // In a test of its own, with your store in place of `MemoryUsage`:
/// tollgate_testing::suite::usage_store(async || tollgate::usage::MemoryUsage::new()).await;
/// # }
/// ```
///
/// # Panics
/// If the store does not conform.
pub async fn usage_store<S: UsageStore>(open: impl AsyncFn() -> S) {
    run_cases!(
        "usage_store",
        open(),
        [
            the_counts_of_all_writers_are_added_by_key_and_hour,
            a_batch_is_added_once_and_no_earlier_one_after_it,
            a_query_returns_the_hours_that_begin_within_its_span,
            the_number_of_the_last_batch_is_each_writers_own,
            concurrent_batches_are_all_added,
        ]
    );
}

fn count(key: &str, hour: u32, requests: u64) -> UsageCount {
    let hour = at(0) + hour * HOUR;
    UsageCount::new(key, hour, requests, hour + Duration::from_secs(7))
}

async fn add(store: &impl UsageStore, writer: u128, number: u64, counts: impl Into<Vec<UsageCount>>) {
    if let Err(error) = store.add(UsageBatch::new(writer, number, counts.into())).await {
        panic!("a batch was not added: {error:#}");
    }
}

/// A key's requests by hour, of the hours that begin at `from` or later and before `until`.
pub(super) async fn used(
    store: &(impl UsageStore + ?Sized),
    key: &str,
    from: SystemTime,
    until: SystemTime,
) -> Vec<(SystemTime, u64)> {
    let stored = store.usage(&UsageQuery::new(key, from, until)).await.unwrap();
    stored.hours.iter().map(|hour| (hour.hour, hour.requests)).collect()
}

/// A key's requests by the hours after [`midnight`](crate::midnight).
async fn all_used(store: &impl UsageStore, key: &str) -> Vec<(u64, u64)> {
    let used = used(store, key, at(0), at(0) + 99 * HOUR).await;
    let hour = |hour: SystemTime| hour.duration_since(at(0)).unwrap().as_secs() / 3_600;
    used.into_iter().map(|(of, requests)| (hour(of), requests)).collect()
}

async fn last_number(store: &impl UsageStore, writer: u128) -> u64 {
    let query = UsageQuery::new("ada", at(0), at(0)).with_writer(writer);
    store.usage(&query).await.unwrap().last_number
}

async fn the_counts_of_all_writers_are_added_by_key_and_hour(store: &impl UsageStore) {
    add(store, 1, 1, [count("ada", 0, 3), count("ada", 1, 1), count("bob", 0, 9)]).await;
    add(store, 2, 1, [count("ada", 0, 10)]).await;
    assert_eq!(all_used(store, "ada").await, [(0, 13), (1, 1)]);
    assert_eq!(all_used(store, "bob").await, [(0, 9)]);
    assert_eq!(all_used(store, "cyd").await, [], "a key without usage has no hours");
    let large = u64::from(u32::MAX) + 1;
    add(store, 1, 2, [count("bob", 5, large)]).await;
    assert_eq!(all_used(store, "bob").await, [(0, 9), (5, large)], "counts have more than 32 bits");
}

async fn a_batch_is_added_once_and_no_earlier_one_after_it(store: &impl UsageStore) {
    for number in [2, 2, 1, 3] {
        add(store, 1, number, [count("ada", 5, number)]).await;
    }
    assert_eq!(all_used(store, "ada").await, [(5, 5)], "of the batches 2, 2, 1, 3 only 2 and 3 are added");
    add(store, 1, 4, []).await;
    assert_eq!(last_number(store, 1).await, 4, "an empty batch has a number, too");
}

async fn a_query_returns_the_hours_that_begin_within_its_span(store: &impl UsageStore) {
    add(store, 1, 1, (1..=4).map(|hour| count("ada", hour, u64::from(hour))).collect::<Vec<_>>()).await;
    let (hour, moment) = (|number: u32| at(0) + number * HOUR, Duration::from_secs(1));
    assert_eq!(used(store, "ada", hour(2), hour(4)).await, [(hour(2), 2), (hour(3), 3)]);
    assert_eq!(used(store, "ada", hour(2) + moment, hour(3) + moment).await, [(hour(3), 3)]);
    assert_eq!(used(store, "ada", hour(3), hour(3)).await, [], "an empty span");
    assert_eq!(used(store, "ada", hour(4), hour(2)).await, [], "a span that ends before it begins is empty");
}

async fn the_number_of_the_last_batch_is_each_writers_own(store: &impl UsageStore) {
    for (writer, number) in [(1, 1), (u128::MAX, 1), (1, 2)] {
        add(store, writer, number, [count("ada", 0, 1)]).await;
    }
    for (writer, expected) in [(1, 2), (u128::MAX, 1), (3, 0)] {
        assert_eq!(last_number(store, writer).await, expected, "of writer {writer}");
    }
    let query = UsageQuery::new("ada", at(0), at(1)).with_writer(1);
    let stored = store.usage(&query).await.unwrap();
    assert_eq!((stored.hours.len(), stored.last_number), (1, 2), "hours and number in one answer");
    let stored = store.usage(&UsageQuery::new("ada", at(0), at(1))).await.unwrap();
    assert_eq!(stored.last_number, 0, "the number is 0 if no writer was asked for");
}

/// The same batches from several writers at once, each of them added twice.
async fn concurrent_batches_are_all_added(store: &impl UsageStore) {
    let add_all = async |writer: u128| {
        for number in 1..=10 {
            add(store, writer, number, [count("ada", 0, 1), count("bob", 0, 2)]).await;
            tokio::task::yield_now().await;
            add(store, writer, number, [count("ada", 0, 1), count("bob", 0, 2)]).await;
        }
    };
    tokio::join!(add_all(1), add_all(2), add_all(3), add_all(4));
    assert_eq!((all_used(store, "ada").await, all_used(store, "bob").await), (vec![(0, 40)], vec![(0, 80)]));
}
