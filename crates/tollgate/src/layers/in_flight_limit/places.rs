//! Counts the requests of each subject that are in flight.

use std::{
    array,
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::memory::{Fingerprint, Fingerprinter, lock};

/// More shards than most machines have cores.
const SHARDS: usize = 64;

/// A table of this capacity is not shrunk.
const SMALL: usize = 64;

/// The number of requests in flight, by subject. It has an entry only for a subject with a request in flight, so its size is bounded
/// by the number of these requests.
pub(super) struct Places {
    fingerprinter: Fingerprinter,
    shards: [Mutex<Counts>; SHARDS],
}

type Counts = HashMap<Fingerprint, u32>;

impl Places {
    pub(super) fn new() -> Self {
        Self { fingerprinter: Fingerprinter::new(), shards: array::from_fn(|_| Mutex::default()) }
    }

    /// Takes a place among the `limit` that a subject has; `None` if all are taken.
    pub(super) fn take(self: &Arc<Self>, subject: &str, limit: u32) -> Option<Arc<Place>> {
        let of = self.fingerprinter.of("", subject);
        let mut counts = self.counts(of);
        let taken = counts.get(&of).copied().unwrap_or(0);
        if taken >= limit {
            return None;
        }
        counts.insert(of, taken + 1);
        drop(counts);
        Some(Arc::new(Place { places: Arc::clone(self), of, is_free: AtomicBool::new(false) }))
    }

    fn free(&self, of: Fingerprint) {
        let mut counts = self.counts(of);
        match counts.get_mut(&of) {
            Some(taken) if *taken > 1 => *taken -= 1,
            _ => {
                counts.remove(&of);
                // Returns the memory that a flood of subjects has allocated.
                if counts.capacity() > SMALL && counts.len() < counts.capacity() / 8 {
                    let twice = counts.len() * 2;
                    counts.shrink_to(twice.max(SMALL));
                }
            }
        }
    }

    fn counts(&self, of: Fingerprint) -> MutexGuard<'_, Counts> {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
        let shard = of.place() as usize % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "taken modulo the length")]
        let counts = &self.shards[shard];
        lock(counts)
    }
}

/// A place that a request has taken. It is free when it is [freed](Self::free) or dropped, whichever is first.
pub(crate) struct Place {
    places: Arc<Places>,
    of: Fingerprint,
    is_free: AtomicBool,
}

impl Place {
    pub(crate) fn free(&self) {
        if !self.is_free.swap(true, Ordering::AcqRel) {
            self.places.free(self.of);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.free();
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn len(places: &Places) -> usize {
        places.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }

    #[test]
    fn a_subject_takes_as_many_places_as_it_has() {
        let places = Arc::new(Places::new());
        let taken: Vec<_> = (0..3).map(|_| places.take("key_1", 3).unwrap()).collect();
        assert!(places.take("key_1", 3).is_none());
        assert!(places.take("key_2", 3).is_some(), "another subject has its own");
        assert!(places.take("key_1", 4).is_some(), "a larger limit admits more");
        drop(taken);
        assert_eq!(len(&places), 0);
    }

    #[test]
    fn a_limit_of_zero_keeps_no_entry() {
        let places = Arc::new(Places::new());
        assert!(places.take("key_1", 0).is_none());
        assert_eq!(len(&places), 0);
    }

    #[test]
    fn a_place_is_freed_once() {
        let places = Arc::new(Places::new());
        let (one, two) = (places.take("key_1", 2).unwrap(), places.take("key_1", 2).unwrap());
        one.free();
        one.free();
        drop(one);
        assert!(places.take("key_1", 1).is_none(), "the other place is still taken");
        drop(two);
        assert_eq!(len(&places), 0);
    }

    #[test]
    fn the_table_shrinks_after_a_flood() {
        let places = Arc::new(Places::new());
        let flood: Vec<_> = (0..50_000).map(|number| places.take(&number.to_string(), 1).unwrap()).collect();
        assert_eq!(len(&places), 50_000);
        drop(flood);
        let capacity: usize = places.shards.iter().map(|shard| shard.lock().unwrap().capacity()).sum();
        assert!(capacity <= SHARDS * 2 * SMALL, "{capacity}");
    }

    #[test]
    fn no_place_is_lost_and_none_is_given_twice_across_threads() {
        let places = Arc::new(Places::new());
        let most = Mutex::new((0_u32, 0_u32));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let Some(place) = places.take("key_1", 3) else { continue };
                        {
                            let mut most = most.lock().unwrap();
                            most.0 += 1;
                            most.1 = most.1.max(most.0);
                        }
                        thread::yield_now();
                        most.lock().unwrap().0 -= 1;
                        drop(place);
                    }
                });
            }
        });
        assert!(most.into_inner().unwrap().1 <= 3);
        assert_eq!(len(&places), 0);
    }
}
