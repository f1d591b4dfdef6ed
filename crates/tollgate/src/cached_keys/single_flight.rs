//! Single flight: concurrent requests for one key share one lookup.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tollgate_core::{answer::Pending, key::Digest};

use super::{
    Found,
    event_count::{AsOf, EventCount},
    shared_lookup::{SharedLookup, Waiter},
    table::Digests,
};

/// The lookups in progress. They are held weakly: one without waiters is cancelled.
#[derive(Default)]
pub(super) struct SingleFlight(Mutex<Lookups>);

#[derive(Default)]
struct Lookups {
    by_digests: HashMap<Digests, Entry>,
    next: u64,
}

struct Entry {
    number: u64,
    as_of: AsOf,
    lookup: Weak<SharedLookup>,
}

impl SingleFlight {
    /// Joins the lookup of these digests that is in progress, or begins one. A lookup that began before the newest event is not
    /// joined, since its answer may be older than the event.
    pub(super) fn join(
        self: &Arc<Self>,
        digests: &[Digest],
        events: &EventCount,
        begin: impl FnOnce(AsOf, Ticket) -> Pending<Found>,
    ) -> Waiter {
        let mut lookups = self.lock();
        // Read under the lock, so that a later caller never sees an older state.
        let as_of = events.as_of_now();
        if let Some(entry) = lookups.by_digests.get(digests)
            && entry.as_of == as_of
            && let Some(lookup) = entry.lookup.upgrade()
        {
            return lookup.join();
        }
        lookups.next += 1;
        let number = lookups.next;
        let ticket = Ticket { single_flight: Arc::clone(self), digests: digests.into(), number };
        let lookup = SharedLookup::new(begin(as_of, ticket));
        let entry = Entry { number, as_of, lookup: Arc::downgrade(&lookup) };
        lookups.by_digests.insert(digests.into(), entry);
        lookup.join()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().by_digests.len()
    }

    fn lock(&self) -> MutexGuard<'_, Lookups> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by a lookup. Dropped with it, it removes the lookup from the list.
pub(super) struct Ticket {
    single_flight: Arc<SingleFlight>,
    digests: Digests,
    number: u64,
}

impl Ticket {
    pub(super) fn digests(&self) -> &Digests {
        &self.digests
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut lookups = self.single_flight.lock();
        // The entry may belong to a later lookup by now.
        if lookups.by_digests.get(&self.digests).is_some_and(|entry| entry.number == self.number) {
            lookups.by_digests.remove(&self.digests);
        }
    }
}
