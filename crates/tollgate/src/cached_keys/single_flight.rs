//! Which questions are under way.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tollgate_core::{answer::Pending, key::Digest};

use super::{
    Found,
    events::{AsOf, Events},
    shared_lookup::{SharedLookup, Waiter},
    table::Digests,
};

/// Questions that are under way. Held weakly: one that nobody waits for any more is given up.
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
    shared_lookup: Weak<SharedLookup>,
}

impl SingleFlight {
    /// Joins the question for these digests that is under way, or begins one; but never joins one that began before the newest
    /// change, whose answer may not know of it.
    pub(super) fn join(
        self: &Arc<Self>,
        digests: &[Digest],
        events: &Events,
        begin: impl FnOnce(AsOf, Ticket) -> Pending<Found>,
    ) -> Waiter {
        let mut lookups = self.lock();
        // Under the lock, so that the newest state of all who come this way is the one that is joined.
        let as_of = events.as_of_now();
        if let Some(entry) = lookups.by_digests.get(digests)
            && entry.as_of == as_of
            && let Some(shared_lookup) = entry.shared_lookup.upgrade()
        {
            return shared_lookup.join();
        }
        lookups.next += 1;
        let number = lookups.next;
        let ticket = Ticket { single_flight: Arc::clone(self), digests: digests.into(), number };
        let shared_lookup = SharedLookup::new(begin(as_of, ticket));
        let entry = Entry { number, as_of, shared_lookup: Arc::downgrade(&shared_lookup) };
        lookups.by_digests.insert(digests.into(), entry);
        shared_lookup.join()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().by_digests.len()
    }

    fn lock(&self) -> MutexGuard<'_, Lookups> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a question holds while it is under way, however it ends.
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
        // It may be a later question's by now.
        if lookups.by_digests.get(&self.digests).is_some_and(|entry| entry.number == self.number) {
            lookups.by_digests.remove(&self.digests);
        }
    }
}
