//! The usage recorded since the last flush.

use std::{
    hash::BuildHasher as _,
    mem,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crossbeam_utils::CachePadded;
use hashbrown::{DefaultHashBuilder, HashTable};
use tollgate_core::usage::UsageCount;

use crate::memory::lock;

/// Counts by key and hour. All counts of a key are in one shard, behind one lock, which is held only to find and increase a
/// count.
pub(super) struct Counts {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    hasher: DefaultHashBuilder,
    capacity: usize,
    // The number of entries. Changes when entries are added or removed, not with each use.
    length: AtomicUsize,
    dropped: AtomicU64,
}

type Shard = HashTable<Entry>;

/// Enough that two cores rarely use the same shard.
const SHARDS: usize = 64;

const SECONDS_PER_HOUR: u64 = 3_600;

/// The use of a key in one hour. A flush sets it to 0 but keeps the entry, so that the next use does not copy the key again. The
/// next flush drops entries that are still 0.
struct Entry {
    key: Box<str>,
    // Hours since the Unix epoch.
    hour: u64,
    requests: u64,
    last_used_at: SystemTime,
}

/// The result of recording a use.
pub(super) enum Recorded {
    Counted,
    /// Counted. With this entry, half of the capacity is used.
    HalfFull,
    Dropped,
}

impl Recorded {
    #[inline]
    pub(super) fn is_half_full_now(&self) -> bool {
        matches!(self, Self::HalfFull)
    }
}

impl Counts {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| CachePadded::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            capacity,
            length: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(super) fn record(&self, key: &str, now: SystemTime) -> Recorded {
        let hour = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / SECONDS_PER_HOUR;
        let hash = self.hasher.hash_one(key);
        let Some(shard) = self.shard(hash) else { return Recorded::Dropped };
        let mut shard = lock(shard);
        match shard.find_mut(hash, |entry| entry.hour == hour && *entry.key == *key) {
            Some(entry) => {
                entry.requests = entry.requests.saturating_add(1);
                entry.last_used_at = entry.last_used_at.max(now);
                Recorded::Counted
            }
            None => self.record_first(
                &mut shard,
                hash,
                Entry { key: key.into(), hour, requests: 1, last_used_at: now },
            ),
        }
    }

    /// Whether half of the capacity is used. The other half is for uses during a flush.
    pub(super) fn is_half_full(&self) -> bool {
        self.length.load(Ordering::Relaxed) >= self.half()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The recorded use of one key.
    pub(super) fn of(&self, key: &str) -> Vec<UsageCount> {
        let hash = self.hasher.hash_one(key);
        let Some(shard) = self.shard(hash) else { return Vec::new() };
        let shard = lock(shard);
        let its = shard.iter_hash(hash).filter(|entry| *entry.key == *key && entry.requests > 0);
        its.map(|entry| entry.count(entry.key.clone())).collect()
    }

    /// The number of recorded uses. Does not lock, because access is exclusive.
    pub(super) fn uses(&mut self) -> u64 {
        let shards =
            self.shards.iter_mut().map(|shard| shard.get_mut().unwrap_or_else(PoisonError::into_inner));
        let entries = shards.flat_map(|shard| shard.iter());
        entries.fold(0, |sum, entry| entry.requests.saturating_add(sum))
    }

    /// Takes all recorded uses, in ascending order.
    pub(super) fn take(&self) -> Vec<UsageCount> {
        let mut counts = Vec::new();
        let is_half_full = self.is_half_full();
        for shard in &self.shards {
            if is_half_full {
                self.take_entries(shard, &mut counts);
            } else {
                self.take_counts(shard, &mut counts);
            }
        }
        counts.sort_unstable_by(|one, other| (&one.key, one.hour).cmp(&(&other.key, other.hour)));
        counts
    }

    /// Takes a shard's counts, and keeps the entries.
    fn take_counts(&self, shard: &Mutex<Shard>, counts: &mut Vec<UsageCount>) {
        let mut shard = lock(shard);
        let before = shard.len();
        shard.retain(|entry| {
            let is_used = entry.requests > 0;
            if is_used {
                counts.push(entry.count(entry.key.clone()));
                entry.requests = 0;
            }
            is_used
        });
        self.length.fetch_sub(before - shard.len(), Ordering::Relaxed);
    }

    /// Takes a shard's entries, which frees its capacity.
    fn take_entries(&self, shard: &Mutex<Shard>, counts: &mut Vec<UsageCount>) {
        let entries = mem::take(&mut *lock(shard));
        self.length.fetch_sub(entries.len(), Ordering::Relaxed);
        let used = entries.into_iter().filter(|entry| entry.requests > 0);
        counts.extend(used.map(|mut entry| {
            let key = mem::take(&mut entry.key);
            entry.count(key)
        }));
    }

    #[cold]
    fn record_first(&self, shard: &mut Shard, hash: u64, entry: Entry) -> Recorded {
        let one_more = |length| (length < self.capacity).then_some(length + 1);
        let Ok(before) = self.length.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Recorded::Dropped;
        };
        shard.insert_unique(hash, entry, |entry| self.hasher.hash_one(&*entry.key));
        if before + 1 == self.half() { Recorded::HalfFull } else { Recorded::Counted }
    }

    fn half(&self) -> usize {
        self.capacity.div_ceil(2).max(1)
    }

    /// Always `Some`: the number is less than the number of shards.
    #[inline]
    fn shard(&self, hash: u64) -> Option<&Mutex<Shard>> {
        // Other bits than those that select the place in a table.
        let number = usize::try_from(hash >> 32 & (SHARDS as u64 - 1)).ok()?;
        self.shards.get(number).map(|shard| &**shard)
    }
}

impl Entry {
    fn count(&self, key: Box<str>) -> UsageCount {
        let begin = UNIX_EPOCH.checked_add(Duration::from_secs(self.hour.saturating_mul(SECONDS_PER_HOUR)));
        UsageCount::new(key, begin.unwrap_or(UNIX_EPOCH), self.requests, self.last_used_at)
    }
}
