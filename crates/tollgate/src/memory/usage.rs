//! Usage in memory.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    usage::{HourlyUsage, StoredUsage, UsageBatch, UsageCount, UsageQuery, UsageStore},
};

use super::lock;

/// A usage store in memory: for tests and demonstrations, and for services that may lose their usage when they end.
///
/// Clones share their state. For each key it keeps the hours of the last [90 days](Self::KEPT) before its last use, which take about
/// 20 bytes each.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
///
/// use tollgate::usage::{MemoryUsage, UsageBatch, UsageCount, UsageQuery, UsageStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tollgate::denial::Unavailable> {
/// let store = MemoryUsage::new();
/// let hour = UNIX_EPOCH + Duration::from_secs(3_600);
/// let batch = UsageBatch::new(42, 1, [UsageCount::new("key_1", hour, 7, hour)]);
/// store.add(batch.clone()).await?;
/// store.add(batch).await?; // a repeated batch changes nothing
///
/// let query = UsageQuery::new("key_1", hour, hour + Duration::from_secs(3_600));
/// assert_eq!(store.usage(&query).await?.hours[0].requests, 7);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct MemoryUsage(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    keys: HashMap<Box<str>, KeyUsage>,
    // The number of each writer's last batch. There is one writer for each recorder that this process has made.
    writers: HashMap<u128, u64>,
}

struct KeyUsage {
    hours: BTreeMap<SystemTime, u64>,
    last_used_at: SystemTime,
}

impl MemoryUsage {
    /// How long the hours before a key's last use are kept: 90 days.
    pub const KEPT: Duration = Duration::from_secs(90 * 24 * 3_600);

    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The last use of a key, as far as it was added.
    pub fn last_used_at(&self, key: &str) -> Option<SystemTime> {
        lock(&self.0).keys.get(key).map(|usage| usage.last_used_at)
    }

    /// Removes the usage of a key.
    pub fn forget(&self, key: &str) {
        lock(&self.0).keys.remove(key);
    }

    /// Adds a batch's counts of the keys that are known.
    pub(crate) fn add_known(&self, batch: &UsageBatch, is_known: impl Fn(&str) -> bool) {
        let mut inner = lock(&self.0);
        let last = inner.writers.entry(batch.writer).or_default();
        if batch.number <= *last {
            return;
        }
        *last = batch.number;
        for count in batch.counts.iter().filter(|count| is_known(&count.key)) {
            inner.add(count);
        }
    }
}

impl UsageStore for MemoryUsage {
    /// Adds the usage of every key, since this store knows no keys.
    fn add(&self, batch: UsageBatch) -> Answer<Result<(), Unavailable>> {
        self.add_known(&batch, |_| true);
        Answer::Now(Ok(()))
    }

    fn usage(&self, query: &UsageQuery<'_>) -> Answer<Result<StoredUsage, Unavailable>> {
        let inner = lock(&self.0);
        let writer = query.writer.and_then(|writer| inner.writers.get(&writer));
        Answer::Now(Ok(StoredUsage::new(inner.hours(query), writer.copied().unwrap_or_default())))
    }
}

impl Inner {
    fn add(&mut self, count: &UsageCount) {
        let new = || KeyUsage { hours: BTreeMap::new(), last_used_at: count.last_used_at };
        let usage = self.keys.entry(count.key.clone()).or_insert_with(new);
        let requests = usage.hours.entry(count.hour).or_default();
        *requests = requests.saturating_add(count.requests);
        usage.last_used_at = usage.last_used_at.max(count.last_used_at);
        if let Some(oldest) = usage.last_used_at.checked_sub(MemoryUsage::KEPT) {
            while usage.hours.first_entry().is_some_and(|hour| *hour.key() < oldest) {
                usage.hours.pop_first();
            }
        }
    }

    fn hours(&self, query: &UsageQuery<'_>) -> Vec<HourlyUsage> {
        let Some(usage) = self.keys.get(query.key).filter(|_| query.from < query.until) else {
            return Vec::new();
        };
        let hours = usage.hours.range(query.from..query.until);
        hours.map(|(hour, requests)| HourlyUsage::new(*hour, *requests)).collect()
    }
}

impl fmt::Debug for MemoryUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryUsage").field("keys", &lock(&self.0).keys.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn hour(number: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(number * 3_600)
    }

    fn count(key: &str, number: u64, requests: u64, seconds: u64) -> UsageCount {
        UsageCount::new(key, hour(number), requests, hour(number) + Duration::from_secs(seconds))
    }

    fn used(store: &MemoryUsage, key: &str, from: SystemTime, until: SystemTime) -> Vec<(SystemTime, u64)> {
        let Answer::Now(Ok(stored)) = store.usage(&UsageQuery::new(key, from, until)) else {
            panic!("answers at once")
        };
        stored.hours.iter().map(|hour| (hour.hour, hour.requests)).collect()
    }

    fn last_number(store: &MemoryUsage, writer: u128) -> u64 {
        let query = UsageQuery::new("ada", hour(0), hour(0)).with_writer(writer);
        let Answer::Now(Ok(stored)) = store.usage(&query) else { panic!("answers at once") };
        stored.last_number
    }

    fn add(store: &MemoryUsage, writer: u128, number: u64, counts: Vec<UsageCount>) {
        assert!(matches!(store.add(UsageBatch::new(writer, number, counts)), Answer::Now(Ok(()))));
    }

    #[test]
    fn adds_the_counts_of_all_writers_by_key_and_hour() {
        let store = MemoryUsage::new();
        add(&store, 1, 1, vec![count("ada", 5, 3, 7), count("ada", 6, 1, 0), count("bob", 5, 9, 9)]);
        add(&store, 2, 1, vec![count("ada", 5, 10, 2)]);
        assert_eq!(used(&store, "ada", hour(0), hour(9)), [(hour(5), 13), (hour(6), 1)]);
        assert_eq!(used(&store, "bob", hour(0), hour(9)), [(hour(5), 9)]);
        assert_eq!(used(&store, "cyd", hour(0), hour(9)), []);
    }

    #[test]
    fn a_batch_is_added_once_and_no_earlier_one_after_it() {
        let store = MemoryUsage::new();
        for number in [2, 2, 1, 3] {
            add(&store, 1, number, vec![count("ada", 5, number, 0)]);
        }
        assert_eq!(used(&store, "ada", hour(0), hour(9)), [(hour(5), 5)]);
        assert_eq!([last_number(&store, 1), last_number(&store, 2)], [3, 0]);
    }

    #[test]
    fn a_last_use_only_moves_forward() {
        let store = MemoryUsage::new();
        add(&store, 1, 1, vec![count("ada", 6, 1, 40)]);
        add(&store, 2, 1, vec![count("ada", 6, 1, 20), count("ada", 5, 1, 0)]);
        assert_eq!(store.last_used_at("ada"), Some(hour(6) + Duration::from_secs(40)));
        assert_eq!(store.last_used_at("bob"), None);
    }

    #[test]
    fn returns_the_hours_that_begin_within_a_span() {
        let store = MemoryUsage::new();
        add(&store, 1, 1, (1..=4).map(|number| count("ada", number, number, 0)).collect());
        let moment = Duration::from_nanos(1);
        assert_eq!(used(&store, "ada", hour(2), hour(4)), [(hour(2), 2), (hour(3), 3)]);
        assert_eq!(used(&store, "ada", hour(2) + moment, hour(3) + moment), [(hour(3), 3)]);
        assert_eq!(used(&store, "ada", hour(3), hour(3)), []);
        assert_eq!(used(&store, "ada", hour(4), hour(2)), [], "a span that ends before it begins is empty");
    }

    #[test]
    fn drops_hours_that_are_long_past_and_keys_that_are_removed() {
        let store = MemoryUsage::new();
        let kept = 90 * 24;
        add(&store, 1, 1, vec![count("ada", 4, 1, 0), count("ada", 5, 1, 0), count("ada", 6, 1, 0)]);
        add(&store, 1, 2, vec![count("ada", kept + 5, 1, 0)]);
        let hours = used(&store, "ada", hour(0), hour(kept + 9));
        assert_eq!(hours, [(hour(5), 1), (hour(6), 1), (hour(kept + 5), 1)]);
        store.forget("ada");
        assert_eq!(used(&store, "ada", hour(0), hour(kept + 9)), []);
        assert_eq!(store.last_used_at("ada"), None);
    }

    #[test]
    fn drops_the_usage_of_unknown_keys() {
        let store = MemoryUsage::new();
        let batch = UsageBatch::new(1, 1, [count("ada", 5, 1, 0), count("bob", 5, 1, 0)]);
        store.add_known(&batch, |key| key == "ada");
        assert_eq!(used(&store, "bob", hour(0), hour(9)), []);
        assert_eq!(used(&store, "ada", hour(0), hour(9)), [(hour(5), 1)]);
        assert_eq!(last_number(&store, 1), 1);
    }
}
