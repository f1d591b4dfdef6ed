//! How often each subject asks, to find the busy ones.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Leases, Name, subject::LEASE_LENGTH};

/// Counts requests in slots of 100 ms, without an entry for each subject: subjects with the same place count together, which lends to
/// some of them a little too early.
pub(super) struct Pace {
    // The number of the slot of time, and the requests in it.
    places: Box<[AtomicU64]>,
}

const PLACES: usize = 4_096;
const COUNT_BITS: u32 = 24;

/// How many requests in 100 ms make a subject busy.
const BUSY: u64 = 10;

/// What a subject borrows first, in `Leases::Always`.
pub(super) const FIRST_LEASE: u64 = 10;

impl Pace {
    pub(super) fn new() -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }

    /// How much to borrow at this request, if the subject has no lease yet.
    pub(super) fn first_lease(&self, mode: Leases, name: Name, now: u64) -> Option<u64> {
        match mode {
            Leases::Off => None,
            Leases::Always => Some(FIRST_LEASE),
            Leases::Auto => Some(self.count(name, now)).filter(|count| *count > BUSY),
        }
    }

    /// The number of requests in the present slot of time, with this one.
    fn count(&self, name: Name, now: u64) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
        let Some(place) = self.places.get((name >> 64) as usize % PLACES) else { return 0 };
        let slot = (now / LEASE_LENGTH) << COUNT_BITS;
        // Lost updates only delay a lease.
        let before = place.load(Ordering::Relaxed);
        let after = if before & !((1 << COUNT_BITS) - 1) == slot { before + 1 } else { slot + 1 };
        place.store(after, Ordering::Relaxed);
        after & ((1 << COUNT_BITS) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLIS: u64 = 1_000_000;

    #[test]
    fn a_subject_is_busy_from_its_eleventh_request_in_100_ms_on() {
        let pace = Pace::new();
        let first = |name, at| pace.first_lease(Leases::Auto, name, at * MILLIS);
        for at in 0..10 {
            assert_eq!(first(7, at), None);
        }
        assert_eq!(first(7, 10), Some(11));
        assert_eq!(first(1 << 64, 10), None, "another subject");
        assert_eq!(first(7, 100), None, "another slot of time");
    }

    #[test]
    fn the_mode_decides() {
        let pace = Pace::new();
        assert_eq!(pace.first_lease(Leases::Always, 7, 0), Some(FIRST_LEASE));
        for _ in 0..100 {
            assert_eq!(pace.first_lease(Leases::Off, 7, 0), None);
        }
    }
}
