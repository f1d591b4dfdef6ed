//! Counts usage in memory, and flushes it to a store.

mod counts;
#[cfg(feature = "tokio")]
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

#[cfg(feature = "tokio")]
pub use flushing::UsageFlushing;

/// Counts how often each key is used, by the hour, and when it was used last: in memory, until a flush adds that to a
/// [`UsageStore`].
///
/// Clones are the same recorder.
#[cfg_attr(feature = "tokio", doc = "```")]
#[cfg_attr(not(feature = "tokio"), doc = "```ignore")]
/// use tollgate::{
///     KeyFormat, KeyVerifier, MemoryKeys, Tollgate,
///     usage::{MemoryUsage, UsageRecorder},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let usage = UsageRecorder::new(MemoryUsage::new());
/// let flushing = usage.spawn()?; // with the feature `tokio`: every ten seconds
/// let verifier = KeyVerifier::new(KeyFormat::new("sk")?, MemoryKeys::new());
/// let tollgate = Tollgate::builder().verify(verifier).usage(usage.clone()).build()?;
/// // serve, until it is time to end
/// flushing.shutdown().await?;
/// # let _ = tollgate;
/// # Ok(())
/// # }
/// ```
///
/// On other runtimes, or with a schedule of your own, [flush](Self::flush) whenever you like:
///
/// ```
/// # use tollgate::usage::UsageRecorder;
/// # async fn ticks() {}
/// async fn keep_flushing(usage: UsageRecorder) {
///     loop {
///         ticks().await; // of a timer; perhaps raced against usage.wait_until_crowded()
///         if let Err(error) = usage.flush().await {
///             eprintln!("tried again at the next tick: {error}");
///         }
///     }
/// }
/// ```
#[derive(Clone)]
pub struct UsageRecorder(Arc<Inner>);

struct Inner {
    counts: Counts,
    crowded: Event,
    // Locked before a shard of the counts, and never while somebody waits.
    sending: Mutex<Sending>,
    writer: u128,
    store: Box<dyn UsageStore>,
}

/// How far the batches are.
#[derive(Default)]
struct Sending {
    // The number of the last batch that was made.
    number: u64,
    // That one, as long as nobody knows that it was added.
    pending: Option<UsageBatch>,
    // How many of the dropped uses the log has told of.
    told: u64,
}

impl UsageRecorder {
    /// How many keys and hours are counted between two flushes at most, unless chosen otherwise.
    pub const DEFAULT_CAPACITY: usize = 100_000;

    /// Counts for this store.
    pub fn new(store: impl UsageStore) -> Self {
        Self::with_capacity(store, Self::DEFAULT_CAPACITY)
    }

    /// Counts for this store so many keys and hours at most between two flushes. Nothing is reserved.
    pub fn with_capacity(store: impl UsageStore, keys: usize) -> Self {
        // Whoever guesses it gains nothing: it only has to be one that nobody else has.
        let random = RandomState::new();
        let [high, low] = [0, 1].map(|half| u128::from(random.hash_one(half)));
        Self(Arc::new(Inner {
            counts: Counts::with_capacity(keys),
            crowded: Event::new(),
            sending: Mutex::default(),
            writer: high << 64 | low,
            store: Box::new(store),
        }))
    }

    /// Adds to the store what was noted before this was first polled.
    ///
    /// It may be dropped half-way, and nothing is lost. Two at once do not wait for each other, or one that nobody polls any
    /// more would keep all others waiting: they add the same batch, which counts once.
    ///
    /// # Errors
    /// [`Unavailable`] if the store is: what it was given is kept, and added again by the next flush.
    pub async fn flush(&self) -> Result<(), Unavailable> {
        while let Some(Unsent { batch, is_newest }) = self.unsent() {
            let number = batch.number;
            self.0.store.add(batch).wait().await?;
            self.confirm(number);
            if is_newest {
                break;
            }
        }
        Ok(())
    }

    /// Waits until half of the room for keys and hours is used, on any runtime: then it is better to flush now than to wait for
    /// the next tick.
    pub async fn wait_until_crowded(&self) {
        while !self.0.counts.are_crowded() {
            // Listening comes before the second look, or what happened between the two would be missed.
            let listener = self.0.crowded.listen();
            if !self.0.counts.are_crowded() {
                listener.await;
            }
        }
    }

    /// How often a key was used in each hour that begins at `from` or later, and before `until`: what the store has, by whomever
    /// it was counted, and what this recorder has not flushed yet. The earliest hour first; hours without use are left out.
    ///
    /// No use is told twice, and none vanishes, whatever flushes do meanwhile.
    ///
    /// # Errors
    /// [`Unavailable`] if the store cannot be reached.
    pub async fn usage(
        &self,
        key: &str,
        from: SystemTime,
        until: SystemTime,
    ) -> Result<Vec<HourlyUsage>, Unavailable> {
        // Before the store is asked: what is flushed meanwhile, the store's answer tells by its number.
        let unflushed = self.unflushed(key);
        let query = UsageQuery::new(key, from, until).with_writer(self.0.writer);
        let stored = self.0.store.usage(&query).wait().await?;

        let mut hours: BTreeMap<_, _> = stored.hours.iter().map(|hour| (hour.hour, hour.requests)).collect();
        for (number, count) in unflushed {
            if number > stored.last_number && count.hour >= from && count.hour < until {
                let requests = hours.entry(count.hour).or_default();
                *requests = count.requests.saturating_add(*requests);
            }
        }
        Ok(hours.into_iter().map(|(hour, requests)| HourlyUsage::new(hour, requests)).collect())
    }

    /// How many uses were never counted, since there was no room for their keys.
    pub fn dropped(&self) -> u64 {
        self.0.counts.dropped()
    }

    /// The batch that is to be added next: the one whose fate is not known, or else a new one. `None` if there is nothing to
    /// add.
    fn unsent(&self) -> Option<Unsent> {
        let mut sending = lock(&self.0.sending);
        if let Some(batch) = sending.pending.clone() {
            return Some(Unsent { batch, is_newest: false });
        }
        let counts = self.0.counts.take();
        self.0.tell_dropped(&mut sending);
        if counts.is_empty() {
            return None;
        }
        sending.number = sending.number.saturating_add(1);
        let batch = UsageBatch::new(self.0.writer, sending.number, counts);
        // Before anybody waits: whatever happens to the flush then, the batch is here.
        sending.pending = Some(batch.clone());
        Some(Unsent { batch, is_newest: true })
    }

    fn confirm(&self, number: u64) {
        // Another flush may have confirmed it, and have made the next one.
        let _added = lock(&self.0.sending).pending.take_if(|pending| pending.number == number);
    }

    /// What is not in the store for certain, each count with the number of its batch.
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

/// A batch on its way to the store.
struct Unsent {
    batch: UsageBatch,
    // Whether it was made just now.
    is_newest: bool,
}

impl Inner {
    fn tell_dropped(&self, sending: &mut Sending) {
        let dropped = self.counts.dropped();
        let uses = dropped.saturating_sub(sending.told);
        if uses > 0 {
            sending.told = dropped;
            tracing::warn!(
                target: "tollgate",
                uses,
                "usage was dropped, since there was no room for more keys: flush more often, or allow for more keys"
            );
        }
    }
}

impl Drop for Inner {
    /// Says what is lost. To flush it here would be to wait, perhaps on a thread that has a runtime's other tasks to do.
    fn drop(&mut self) {
        let mut sending = mem::take(self.sending.get_mut().unwrap_or_else(PoisonError::into_inner));
        self.tell_dropped(&mut sending);
        let uses = self.counts.uses();
        let counts = sending.pending.iter().flat_map(|batch| batch.counts.iter());
        let unconfirmed = counts.fold(0_u64, |sum, count| sum.saturating_add(count.requests));
        if uses > 0 || unconfirmed > 0 {
            tracing::warn!(
                target: "tollgate",
                uses,
                unconfirmed,
                "usage was not flushed, and is lost, but for what is unconfirmed, which the store may have: call `flush` of \
                 `UsageRecorder`, or `shutdown` of `UsageFlushing`, before the last clone of the recorder goes"
            );
        }
    }
}

impl UsageSink for UsageRecorder {
    fn record(&self, usage: &Usage<'_>) {
        if self.0.counts.record(usage.principal.id(), usage.now).is_crowded_now() {
            self.0.crowded.notify(usize::MAX);
        }
    }
}

impl fmt::Debug for UsageRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageRecorder").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}
