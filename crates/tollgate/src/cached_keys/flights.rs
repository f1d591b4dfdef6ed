//! Which questions are under way.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tollgate_core::{Digest, Pending};

use super::{
    Found,
    flight::{Flight, Passenger},
    news::{AsOf, News},
    table::Digests,
};

/// Questions that are under way. Held weakly: one that nobody waits for any more is given up.
#[derive(Default)]
pub(super) struct Flights(Mutex<UnderWay>);

#[derive(Default)]
struct UnderWay {
    by_digests: HashMap<Digests, Departed>,
    next: u64,
}

struct Departed {
    number: u64,
    as_of: AsOf,
    flight: Weak<Flight>,
}

impl Flights {
    /// Joins the question for these digests that is under way, or begins one; but never joins one that began before the newest
    /// change, whose answer may not know of it.
    pub(super) fn board(
        self: &Arc<Self>,
        digests: &[Digest],
        news: &News,
        begin: impl FnOnce(AsOf, Ticket) -> Pending<Found>,
    ) -> Passenger {
        let mut under_way = self.lock();
        // Under the lock, so that the newest state of all who come this way is the one that is joined.
        let as_of = news.as_of_now();
        if let Some(departed) = under_way.by_digests.get(digests)
            && departed.as_of == as_of
            && let Some(flight) = departed.flight.upgrade()
        {
            return flight.board();
        }
        under_way.next += 1;
        let number = under_way.next;
        let ticket = Ticket { flights: Arc::clone(self), digests: digests.into(), number };
        let flight = Flight::new(begin(as_of, ticket));
        let departed = Departed { number, as_of, flight: Arc::downgrade(&flight) };
        under_way.by_digests.insert(digests.into(), departed);
        flight.board()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().by_digests.len()
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a question holds while it is under way, however it ends.
pub(super) struct Ticket {
    flights: Arc<Flights>,
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
        let mut under_way = self.flights.lock();
        // It may be a later question's by now.
        if under_way.by_digests.get(&self.digests).is_some_and(|departed| departed.number == self.number) {
            under_way.by_digests.remove(&self.digests);
        }
    }
}
