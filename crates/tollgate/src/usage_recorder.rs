//! Counts usage in memory, and flushes it to a store.

mod counts;
mod flushing;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher as _, RandomState},
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use event_listener::Event;
use tollgate_core::{
    denial::Unavailable,
    usage::{HourlyUsage, Usage, UsageBatch, UsageCount, UsageQuery, UsageSink, UsageStore},
};

use self::counts::Counts;
use crate::memory::lock;

pub use flushing::UsageFlushing;

/// Counts how often each key is used per hour, and when it was last used. Counts are kept in memory until a flush adds them to a
/// [`UsageStore`].
///
/// Clones share their counts.
///
/// ```
/// use tollgate::{
///     KeyFormat, KeyVerifier, MemoryKeys, Tollgate,
///     usage::{MemoryUsage, UsageRecorder},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let usage = UsageRecorder::new(MemoryUsage::new());
/// let flushing = usage.spawn()?; // flushes every 10 seconds
/// let verifier = KeyVerifier::new(KeyFormat::new("sk")?, MemoryKeys::new());
/// let tollgate = Tollgate::builder().verify(verifier).usage(usage.clone()).build()?;
/// // serve requests until the shutdown
/// flushing.shutdown().await?;
/// # let _ = tollgate;
/// # Ok(())
/// # }
/// ```
///
/// On other runtimes, or with your own schedule, call [`flush`](Self::flush):
///
/// ```
/// # use tollgate::usage::UsageRecorder;
/// # async fn ticks() {}
/// async fn keep_flushing(usage: UsageRecorder) {
///     loop {
///         ticks().await; // a timer; can be combined with usage.wait_until_half_full()
///         if let Err(error) = usage.flush().await {
///             eprintln!("will be retried at the next tick: {error}");
///         }
///     }
/// }
/// ```
#[derive(Clone)]
pub struct UsageRecorder(Arc<Inner>);

struct Inner {
    counts: Counts,
    half_full: Event,
    // Locked before a shard of the counts, and never held across an await.
    sending: Mutex<Sending>,
    writer: u128,
    store: Box<dyn UsageStore>,
}

/// The state of the batches.
#[derive(Default)]
struct Sending {
    // The number of the last batch.
    number: u64,
    // The last batch, until the store has confirmed it.
    pending: Option<UsageBatch>,
    // The number of dropped uses that have been logged.
    logged: u64,
}

impl UsageRecorder {
    /// The default maximum number of entries, one per key and hour, between two flushes.
    pub const DEFAULT_CAPACITY: usize = 100_000;

    /// A recorder for this store.
    pub fn new(store: impl UsageStore) -> Self {
        Self::with_capacity(store, Self::DEFAULT_CAPACITY)
    }

    /// A recorder with a maximum number of entries, one per key and hour, between two flushes. Allocates nothing yet.
    pub fn with_capacity(store: impl UsageStore, keys: usize) -> Self {
        // Must be unique, but need not be secret.
        let random = RandomState::new();
        let [high, low] = [0, 1].map(|half| u128::from(random.hash_one(half)));
        Self(Arc::new(Inner {
            counts: Counts::with_capacity(keys),
            half_full: Event::new(),
            sending: Mutex::default(),
            writer: high << 64 | low,
            store: Box::new(store),
        }))
    }

    /// Adds to the store all uses recorded before the first poll.
    ///
    /// Cancel-safe: dropping this future loses no usage. Concurrent flushes do not wait for each other, so a flush that is no
    /// longer polled does not block others. They add the same batch, which the store counts once.
    ///
    /// # Errors
    /// [`Unavailable`] if the store is unavailable. The batch is kept, and the next flush adds it again.
    pub async fn flush(&self) -> Result<(), Unavailable> {
        while let Some(Unsent { batch, is_newest }) = self.unsent() {
            let number = batch.number;
            self.0.store.add(batch).await?;
            self.confirm(number);
            if is_newest {
                break;
            }
        }
        Ok(())
    }

    /// Waits until half of the maximum number of entries is used. Works on any runtime. Flush then, before the next tick.
    pub async fn wait_until_half_full(&self) {
        while !self.0.counts.is_half_full() {
            // Listens before the second check, so that no change between the two is missed.
            let listener = self.0.half_full.listen();
            if !self.0.counts.is_half_full() {
                listener.await;
            }
        }
    }

    /// The number of requests with a key in each hour that begins at or after `from` and before `until`. It includes what all
    /// recorders have flushed to the store, and what this recorder has not flushed yet. Earliest hour first; hours without
    /// use are omitted.
    ///
    /// The result is exact during concurrent flushes: each use is counted once.
    ///
    /// # Errors
    /// [`Unavailable`] if the store cannot be reached.
    pub async fn usage(
        &self,
        key: &str,
        from: SystemTime,
        until: SystemTime,
    ) -> Result<Vec<HourlyUsage>, Unavailable> {
        // Read before the store: if a flush happens in between, the number in the store's answer shows it.
        let unflushed = self.unflushed(key);
        let query = UsageQuery::new(key, from, until).with_writer(self.0.writer);
        let stored = self.0.store.usage(&query).await?;

        let mut hours: BTreeMap<_, _> = stored.hours.iter().map(|hour| (hour.hour, hour.requests)).collect();
        for (number, count) in unflushed {
            if number > stored.last_number && count.hour >= from && count.hour < until {
                let requests = hours.entry(count.hour).or_default();
                *requests = count.requests.saturating_add(*requests);
            }
        }
        Ok(hours.into_iter().map(|(hour, requests)| HourlyUsage::new(hour, requests)).collect())
    }

    /// The number of uses that were not counted because the maximum number of entries was reached.
    pub fn dropped(&self) -> u64 {
        self.0.counts.dropped()
    }

    /// The next batch to add: the unconfirmed one, or else a new one. `None` if there is nothing to add.
    fn unsent(&self) -> Option<Unsent> {
        let mut sending = lock(&self.0.sending);
        if let Some(batch) = sending.pending.clone() {
            return Some(Unsent { batch, is_newest: false });
        }
        let counts = self.0.counts.take();
        self.0.log_dropped(&mut sending);
        if counts.is_empty() {
            return None;
        }
        sending.number = sending.number.saturating_add(1);
        let batch = UsageBatch::new(self.0.writer, sending.number, counts);
        // Stored before the first await: if the flush is cancelled, the batch is not lost.
        sending.pending = Some(batch.clone());
        Some(Unsent { batch, is_newest: true })
    }

    fn confirm(&self, number: u64) {
        // A concurrent flush may have confirmed it already, and created the next batch.
        let _added = lock(&self.0.sending).pending.take_if(|pending| pending.number == number);
    }

    /// The counts that the store has not confirmed, each with the number of its batch.
    fn unflushed(&self, key: &str) -> Vec<(u64, UsageCount)> {
        let (pending, number, counts) = {
            let sending = lock(&self.0.sending);
            (sending.pending.clone(), sending.number, self.0.counts.of(key))
        };
        let counts = counts.into_iter().map(|count| (number.saturating_add(1), count));
        let Some(batch) = pending else { return counts.collect() };
        let first = batch.counts.partition_point(|count| *count.key < *key);
        let its = batch.counts.iter().skip(first).take_while(|count| *count.key == *key);
        its.map(|count| (number, count.clone())).chain(counts).collect()
    }
}

/// A batch to be sent to the store.
struct Unsent {
    batch: UsageBatch,
    // Whether it was just created.
    is_newest: bool,
}

impl Inner {
    fn log_dropped(&self, sending: &mut Sending) {
        let dropped = self.counts.dropped();
        let uses = dropped.saturating_sub(sending.logged);
        if uses > 0 {
            sending.logged = dropped;
            tracing::warn!(
                target: "tollgate",
                uses,
                "usage dropped, too many keys between two flushes: flush more often or increase the capacity of UsageRecorder"
            );
        }
    }
}

impl Drop for Inner {
    /// Logs lost usage. It does not flush, because that would block a thread that may run other tasks of a runtime.
    fn drop(&mut self) {
        let mut sending = mem::take(self.sending.get_mut().unwrap_or_else(PoisonError::into_inner));
        self.log_dropped(&mut sending);
        let uses = self.counts.uses();
        let counts = sending.pending.iter().flat_map(|batch| batch.counts.iter());
        let unconfirmed = counts.fold(0_u64, |sum, count| sum.saturating_add(count.requests));
        if uses > 0 || unconfirmed > 0 {
            tracing::warn!(
                target: "tollgate",
                uses,
                unconfirmed,
                "usage lost, it was not flushed (the store may have added the unconfirmed part): call `UsageRecorder::flush` or \
                 `UsageFlushing::shutdown` before the last clone of the recorder is dropped"
            );
        }
    }
}

impl UsageSink for UsageRecorder {
    fn record(&self, usage: &Usage<'_>) {
        if self.0.counts.record(usage.principal.id(), usage.now).is_half_full_now() {
            self.0.half_full.notify(usize::MAX);
        }
    }
}

impl fmt::Debug for UsageRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageRecorder").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}
