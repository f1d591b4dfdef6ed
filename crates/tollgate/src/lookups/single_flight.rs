//! Single flight: concurrent requests for one key share one lookup, which runs in a task of its own.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::{Duration, SystemTime},
};

use tokio::{runtime::Handle, sync::watch};
use tollgate_core::{answer::Pending, denial::Unavailable, key::Digest};

use super::{
    circuit_breaker::Admitted,
    event_count::{AsOf, EventCount},
    table::Digests,
};

/// A lookup that has been in progress for longer is not joined: its answer may have been lost, and the backend may be back.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The lookups in progress, each of which is answered with a `T` or an `E`. A lookup that no request waits for any more is cancelled,
/// so that it does not delay others in the queues of the backend. A probe is not cancelled: its answer closes the circuit breaker.
pub(crate) struct SingleFlight<T, E>(Mutex<Lookups<T, E>>);

struct Lookups<T, E> {
    by_digests: HashMap<Digests, Entry<T, E>>,
    next: u64,
}

struct Entry<T, E> {
    number: u64,
    as_of: AsOf,
    began: SystemTime,
    answer: Sender<T, E>,
    // Waits for a probe's answer even if all requests are dropped.
    probe: Option<Waiter<T, E>>,
}

/// A request's share in a lookup.
pub(crate) struct Waiter<T, E>(watch::Receiver<Option<Result<T, E>>>);

type Sender<T, E> = watch::Sender<Option<Result<T, E>>>;

impl<T, E> Default for SingleFlight<T, E> {
    fn default() -> Self {
        Self(Mutex::new(Lookups { by_digests: HashMap::new(), next: 0 }))
    }
}

impl<T, E> SingleFlight<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: Clone + From<Unavailable> + Send + Sync + 'static,
{
    /// Joins the lookup of these digests that is in progress at `now`, or begins one. A lookup that began before the newest event is
    /// not joined, since its answer may be older than the event, nor one that takes too long.
    pub(crate) fn join(
        self: &Arc<Self>,
        digests: &[Digest],
        events: &EventCount,
        admitted: Admitted,
        now: SystemTime,
        runtime: &Handle,
        begin: impl FnOnce(AsOf) -> Pending<Result<T, E>>,
    ) -> Waiter<T, E> {
        let mut lookups = self.lock();
        // Read under the lock, so that a later caller never sees an older state.
        let as_of = events.as_of_now();
        if let Some(entry) = lookups.by_digests.get_mut(digests)
            && entry.as_of == as_of
            && now.duration_since(entry.began).is_ok_and(|age| age < MAX_AGE)
        {
            return entry.join(admitted);
        }
        lookups.next += 1;
        let ticket =
            Ticket { single_flight: Arc::clone(self), digests: digests.into(), number: lookups.next };
        let answer = watch::Sender::new(None);
        let mut entry =
            Entry { number: ticket.number, as_of, began: now, answer: answer.clone(), probe: None };
        let waiter = entry.join(admitted);
        let replaced = lookups.by_digests.insert(digests.into(), entry);
        // A runtime that is shutting down drops a new task at once, and the ticket takes the lock.
        drop(lookups);
        drop(replaced);
        runtime.spawn(ticket.run(begin(as_of), answer));
        waiter
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().by_digests.len()
    }
}

impl<T, E> SingleFlight<T, E> {
    fn lock(&self) -> MutexGuard<'_, Lookups<T, E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, E> Entry<T, E> {
    fn join(&mut self, admitted: Admitted) -> Waiter<T, E> {
        if admitted == Admitted::AsProbe {
            self.probe = Some(Waiter(self.answer.subscribe()));
        }
        Waiter(self.answer.subscribe())
    }
}

impl<T: Clone, E: Clone + From<Unavailable>> Waiter<T, E> {
    /// Waits for the answer.
    pub(crate) async fn answer(mut self) -> Result<T, E> {
        let answer = self.0.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        answer.unwrap_or_else(|| {
            let detail = "a lookup ended without an answer: its backend has panicked, or the tokio runtime was shut down";
            Err(Unavailable::new(detail).into())
        })
    }
}

/// Held by a lookup. Dropped with it, it removes the lookup from the list.
struct Ticket<T, E> {
    single_flight: Arc<SingleFlight<T, E>>,
    digests: Digests,
    number: u64,
}

impl<T, E> Ticket<T, E> {
    /// Runs a lookup until it is answered, or until no waiter is left.
    async fn run(self, mut lookup: Pending<Result<T, E>>, answer: Sender<T, E>) {
        loop {
            let mut abandoned = pin!(answer.closed());
            let found = poll_fn(|context| match lookup.as_mut().poll(context) {
                Poll::Ready(found) => Poll::Ready(Some(found)),
                Poll::Pending => abandoned.as_mut().poll(context).map(|()| None),
            });
            if let Some(found) = found.await {
                // Its resources are released, and it cannot be joined any more, before the requests continue.
                drop((lookup, self));
                answer.send_replace(Some(found));
                return;
            }
            if self.ends_abandoned(&answer) {
                return;
            }
        }
    }

    /// Removes the lookup if no waiter is left, so that no request can join it any more. Returns whether it did.
    fn ends_abandoned(&self, answer: &Sender<T, E>) -> bool {
        let mut lookups = self.single_flight.lock();
        // Under the lock, because a request may have joined just now.
        let is_abandoned = answer.receiver_count() == 0;
        let removed = if is_abandoned { lookups.remove(self) } else { None };
        drop(lookups);
        drop(removed);
        is_abandoned
    }
}

impl<T, E> Lookups<T, E> {
    fn remove(&mut self, ticket: &Ticket<T, E>) -> Option<Entry<T, E>> {
        // The entry may belong to a later lookup by now.
        let is_own = self.by_digests.get(&ticket.digests).is_some_and(|entry| entry.number == ticket.number);
        if is_own { self.by_digests.remove(&ticket.digests) } else { None }
    }
}

impl<T, E> Drop for Ticket<T, E> {
    fn drop(&mut self) {
        let removed = self.single_flight.lock().remove(self);
        drop(removed);
    }
}
