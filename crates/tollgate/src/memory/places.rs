//! Places of requests in flight, in this process.

use std::{
    array,
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    in_flight::{Place, PlaceRequest, Places},
};

use super::{Fingerprint, Fingerprinter, lock};

/// More shards than most machines have cores.
const SHARDS: usize = 64;

/// A table of this capacity is not shrunk.
const SMALL: usize = 64;

/// Counts the requests in flight in this process.
///
/// # Memory
///
/// There is one entry of about 24 bytes for each subject that has a request in flight, and none for other subjects. So the number of
/// entries is bounded by the requests in flight, which the server limits. After a flood of subjects the tables shrink.
///
/// A clone is a handle of the same counts.
#[derive(Clone)]
pub struct MemoryPlaces(Arc<Table>);

struct Table {
    fingerprinter: Fingerprinter,
    shards: [Mutex<Counts>; SHARDS],
}

/// The number of requests in flight, by name and subject. Has an entry only for a subject with a request in flight.
type Counts = HashMap<Fingerprint, u32>;

impl MemoryPlaces {
    /// All places are free.
    pub fn new() -> Self {
        Self(Arc::new(Table {
            fingerprinter: Fingerprinter::new(),
            shards: array::from_fn(|_| Mutex::default()),
        }))
    }
}

impl Places for MemoryPlaces {
    fn take(&self, request: &PlaceRequest<'_>) -> Answer<Result<Option<Place>, Unavailable>> {
        let of = self.0.fingerprinter.of(request.name, request.subject);
        let place = self.0.take(of, request.limit).then(|| {
            let table = Arc::clone(&self.0);
            Place::new(move || table.free(of))
        });
        Answer::Now(Ok(place))
    }
}

impl Table {
    /// Counts one more request in flight, unless the subject has as many as the limit says.
    fn take(&self, of: Fingerprint, limit: u32) -> bool {
        let mut counts = self.counts(of);
        let taken = counts.get(&of).copied().unwrap_or(0);
        if taken >= limit {
            return false;
        }
        counts.insert(of, taken + 1);
        true
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

impl Default for MemoryPlaces {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryPlaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPlaces").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::SystemTime};

    use super::*;

    fn len(places: &MemoryPlaces) -> usize {
        places.0.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }

    fn take(places: &MemoryPlaces, subject: &str, limit: u32) -> Option<Place> {
        let request = PlaceRequest::new("key", subject, subject, limit, SystemTime::UNIX_EPOCH);
        let Answer::Now(taken) = places.take(&request) else { return None };
        taken.unwrap()
    }

    #[test]
    fn a_subject_takes_as_many_places_as_it_has() {
        let places = MemoryPlaces::new();
        let taken: Vec<_> = (0..3).map(|_| take(&places, "key_1", 3).unwrap()).collect();
        assert!(take(&places, "key_1", 3).is_none());
        assert!(take(&places, "key_2", 3).is_some(), "another subject has its own");
        assert!(take(&places, "key_1", 4).is_some(), "a larger limit admits more");
        drop(taken);
        assert_eq!(len(&places), 0);
    }

    #[test]
    fn a_limit_of_zero_keeps_no_entry() {
        let places = MemoryPlaces::new();
        assert!(take(&places, "key_1", 0).is_none());
        assert_eq!(len(&places), 0);
    }

    #[test]
    fn a_place_is_freed_once() {
        let places = MemoryPlaces::new();
        let (one, two) = (take(&places, "key_1", 2).unwrap(), take(&places, "key_1", 2).unwrap());
        one.free();
        one.free();
        drop(one);
        assert!(take(&places, "key_1", 1).is_none(), "the other place is still taken");
        drop(two);
        assert_eq!(len(&places), 0);
    }

    #[test]
    fn the_table_shrinks_after_a_flood() {
        let places = MemoryPlaces::new();
        let flood: Vec<_> =
            (0..50_000).map(|number| take(&places, &number.to_string(), 1).unwrap()).collect();
        assert_eq!(len(&places), 50_000);
        drop(flood);
        let capacity: usize = places.0.shards.iter().map(|shard| shard.lock().unwrap().capacity()).sum();
        assert!(capacity <= SHARDS * 2 * SMALL, "{capacity}");
    }

    #[test]
    fn no_place_is_lost_and_none_is_given_twice_across_threads() {
        let places = MemoryPlaces::new();
        let most = Mutex::new((0_u32, 0_u32));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let Some(place) = take(&places, "key_1", 3) else { continue };
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
