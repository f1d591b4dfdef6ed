//! One lookup that several requests wait for.

use std::{
    collections::HashMap,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use tollgate_core::{answer::Pending, denial::Unavailable};

use super::Found;

/// A lookup that several waiters share. The waiter that is polled polls the lookup, so that it needs no task of its own. If that
/// waiter is dropped, another one continues. If all are dropped, the lookup is cancelled.
///
/// It differs from `futures_util`'s `Shared` in two cases. If a waiter is woken while it polls, wakes the others, and is dropped
/// before it polls again, `Shared` leaves the others waiting. If the lookup panics, `Shared` panics in every waiter; here the
/// others get an error.
pub(super) struct SharedLookup {
    state: Mutex<State>,
    // Not in `state`: the lookup keeps its waker, and would never be dropped if that held the lookup.
    waiters: Arc<Waiters>,
}

enum State {
    Pending(Pending<Found>),
    /// A waiter is polling the lookup, without the lock.
    Polled,
    Done(Found),
}

/// The wakers of the waiters.
#[derive(Default)]
struct Waiters(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    wakers: HashMap<u64, Waker>,
    next: u64,
    // Since the lookup was last polled.
    was_woken: bool,
}

impl SharedLookup {
    pub(super) fn new(lookup: Pending<Found>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Pending(lookup)), waiters: Arc::default() })
    }

    /// Adds a waiter.
    pub(super) fn join(self: Arc<Self>) -> Waiter {
        Waiter { shared: self, slot: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, found: Found) {
        *self.state() = State::Done(found);
        self.waiters.wake_all();
    }
}

/// The future of a [`SharedLookup`]'s result.
pub(super) struct Waiter {
    shared: Arc<SharedLookup>,
    slot: Option<u64>,
}

impl Future for Waiter {
    type Output = Found;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Found> {
        let this = &mut *self;
        let waiters = &this.shared.waiters;
        // Before the state is read, so that a change in between wakes this waiter, too.
        waiters.set_waker(&mut this.slot, context.waker());
        let lookup = {
            let mut state = this.shared.state();
            match mem::replace(&mut *state, State::Polled) {
                State::Pending(lookup) => lookup,
                State::Polled => return Poll::Pending,
                State::Done(found) => {
                    *state = State::Done(found.clone());
                    return Poll::Ready(found);
                }
            }
        };
        let polled = Polling::new(&this.shared, lookup).poll();
        // Other waiters that were woken meanwhile found the state `Polled`, and this one may be dropped before it is polled again.
        if polled.is_pending() && waiters.lock().was_woken {
            waiters.set_waker(&mut this.slot, context.waker());
            waiters.wake_all();
        }
        polled
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            // Dropped without the lock: a waker may run code of its own.
            let waker = self.shared.waiters.lock().wakers.remove(&slot);
            drop(waker);
        }
    }
}

/// The lookup while it is polled. If it panics, the other waiters get an error.
struct Polling<'f> {
    shared: &'f SharedLookup,
    lookup: Option<Pending<Found>>,
}

impl<'f> Polling<'f> {
    fn new(shared: &'f SharedLookup, lookup: Pending<Found>) -> Self {
        shared.waiters.lock().was_woken = false;
        Self { shared, lookup: Some(lookup) }
    }

    fn poll(mut self) -> Poll<Found> {
        let waker = Waker::from(Arc::clone(&self.shared.waiters));
        let Some(lookup) = &mut self.lookup else { return Poll::Pending };
        let polled = lookup.as_mut().poll(&mut Context::from_waker(&waker));
        let lookup = self.lookup.take();
        match &polled {
            Poll::Ready(found) => {
                // Its resources are released before the other waiters continue.
                drop(lookup);
                self.shared.finish(found.clone());
            }
            Poll::Pending => {
                if let Some(lookup) = lookup {
                    *self.shared.state() = State::Pending(lookup);
                }
            }
        }
        polled
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        if self.lookup.is_some() {
            self.shared.finish(Err(Unavailable::new("the key store panicked during a lookup")));
        }
    }
}

impl Waiters {
    fn set_waker(&self, slot: &mut Option<u64>, waker: &Waker) {
        let mut slots = self.lock();
        let number = *slot.get_or_insert_with(|| {
            slots.next += 1;
            slots.next
        });
        let replaced = match slots.wakers.get_mut(&number) {
            Some(current) if current.will_wake(waker) => None,
            Some(current) => Some(mem::replace(current, waker.clone())),
            None => slots.wakers.insert(number, waker.clone()),
        };
        drop(slots);
        drop(replaced);
    }

    fn wake_all(&self) {
        let wakers = mem::take(&mut self.lock().wakers);
        // A woken task may run at once, so no lock may be held.
        wakers.into_values().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Waiters {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.lock().was_woken = true;
        self.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::oneshot;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll(waiter: &mut Waiter, wakes: &Arc<Wakes>) -> Poll<Found> {
        Pin::new(waiter).poll(&mut Context::from_waker(&Waker::from(Arc::clone(wakes))))
    }

    #[test]
    fn a_waiter_is_woken_and_answered_after_another_is_dropped() {
        let (answer, answered) = oneshot::channel::<Found>();
        let shared_lookup = SharedLookup::new(Box::pin(async { answered.await.unwrap() }));
        let (mut one, mut two) = (Arc::clone(&shared_lookup).join(), shared_lookup.join());
        let (first, second) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
        assert!(poll(&mut one, &first).is_pending());
        assert!(poll(&mut two, &second).is_pending());
        assert!(poll(&mut two, &second).is_pending(), "it keeps its slot");
        drop(one);
        answer.send(Ok(None)).unwrap();
        assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (0, 1));
        assert!(poll(&mut two, &second).is_ready());
    }

    #[test]
    fn a_waiter_that_is_woken_while_another_polls_is_woken_again() {
        let other = Arc::new(Mutex::new(None::<Waiter>));
        let (polled_inside, wakes) = (Arc::clone(&other), Arc::<Wakes>::default());
        let woken = Arc::clone(&wakes);
        let lookup = std::future::poll_fn(move |context| {
            let Some(other) = &mut *polled_inside.lock().unwrap() else { return Poll::Ready(Ok(None)) };
            context.waker().wake_by_ref();
            assert!(poll(other, &woken).is_pending(), "the first waiter is polling");
            Poll::Pending
        });
        let shared_lookup = SharedLookup::new(Box::pin(lookup));
        *other.lock().unwrap() = Some(Arc::clone(&shared_lookup).join());
        let mut first = shared_lookup.join();
        assert!(poll(&mut first, &Arc::default()).is_pending());
        drop(first);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        let mut other = other.lock().unwrap().take().unwrap();
        assert!(poll(&mut other, &wakes).is_ready());
    }

    #[test]
    fn a_look_up_that_yields_is_polled_once_at_a_time() {
        // As tokio's resources do when a task's budget is used up: polled in a loop, they would yield forever.
        let lookup = std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::Pending
        });
        let wakes = Arc::default();
        assert!(poll(&mut SharedLookup::new(Box::pin(lookup)).join(), &wakes).is_pending());
        assert!(wakes.0.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn a_look_up_that_panics_is_unavailable_for_the_other_waiters() {
        let shared_lookup = SharedLookup::new(Box::pin(async { panic!("in the store") }));
        let (mut one, mut two) = (Arc::clone(&shared_lookup).join(), shared_lookup.join());
        let wakes = Arc::default();
        assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut one, &wakes))).is_err());
        assert!(matches!(poll(&mut two, &wakes), Poll::Ready(Err(_))));
    }
}
