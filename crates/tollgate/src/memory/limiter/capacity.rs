//! The limit on the number of subjects.

use super::sync::{AtomicUsize, Ordering};

/// The number of subjects in all shards, and its maximum.
pub(super) struct Capacity {
    used: AtomicUsize,
    max: usize,
    // The shard that is swept next when all capacity is used.
    next_shard: AtomicUsize,
}

impl Capacity {
    pub(super) fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max, next_shard: AtomicUsize::new(0) }
    }

    #[cfg(all(test, tollgate_loom))]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.max
    }

    /// The number of the next shard to sweep. Increases without end.
    pub(super) fn next_shard(&self) -> usize {
        self.next_shard.fetch_add(1, Ordering::Relaxed)
    }

    /// Reserves capacity for one subject, if there is any left.
    pub(super) fn reserve(&self) -> bool {
        let one_more = |used| (used < self.max).then_some(used + 1);
        // `Relaxed` is enough: no other data depends on this number.
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Counts one more subject, even beyond the maximum.
    pub(super) fn reserve_beyond_max(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    /// Releases the capacity of dropped subjects.
    pub(super) fn release(&self, subjects: usize) {
        if subjects > 0 {
            self.used.fetch_sub(subjects, Ordering::Relaxed);
        }
    }
}
