//! How many subjects there may be.

use super::sync::{AtomicUsize, Ordering};

/// How many subjects there are in all shards, and how many there may be.
pub(super) struct Room {
    taken: AtomicUsize,
    most: usize,
    // Whose turn it is to make room.
    turn: AtomicUsize,
}

impl Room {
    pub(super) fn for_subjects(most: usize) -> Self {
        Self { taken: AtomicUsize::new(0), most, turn: AtomicUsize::new(0) }
    }

    #[cfg(all(test, tollgate_loom))]
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.most
    }

    /// The number of the shard whose turn it is to make room, without end.
    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes a place, if one is free.
    pub(super) fn take(&self) -> bool {
        let one_more = |taken| (taken < self.most).then_some(taken + 1);
        // Nothing else hangs on this number, so that its own order suffices.
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Takes a place beyond the last one.
    pub(super) fn take_beyond(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives places back.
    pub(super) fn give_back(&self, places: usize) {
        if places > 0 {
            self.taken.fetch_sub(places, Ordering::Relaxed);
        }
    }
}
