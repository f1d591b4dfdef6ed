//! One question that many wait for.

use std::{
    collections::HashMap,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use tollgate_core::{answer::Pending, denial::Unavailable};

use super::Found;

/// A question that is under way, for anybody who waits for it. Whoever is polled brings it forward, so that it needs no task of
/// its own; if that one goes away, the others do. When all have gone, so has the question.
///
/// Like `futures_util`'s `Shared`, but for two cases in which that leaves the others waiting or panics with them: one who is polling is
/// woken meanwhile, wakes all, and then goes away instead of polling again; the question panics.
pub(super) struct SharedLookup {
    state: Mutex<State>,
    // Apart from the question, which keeps its waker: a question that held itself would never go away.
    waiters: Arc<Waiters>,
}

enum State {
    Waits(Pending<Found>),
    /// Somebody is polling it, without a lock.
    Polled,
    Done(Found),
}

/// Whoever waits.
#[derive(Default)]
struct Waiters(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    waiting: HashMap<u64, Waker>,
    next: u64,
    // Since the question was polled.
    was_woken: bool,
}

impl SharedLookup {
    pub(super) fn new(question: Pending<Found>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Waits(question)), waiters: Arc::default() })
    }

    /// Waits with everybody else.
    pub(super) fn join(self: Arc<Self>) -> Waiter {
        Waiter { shared_lookup: self, slot: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, found: Found) {
        *self.state() = State::Done(found);
        self.waiters.wake_all();
    }
}

/// Somebody who waits for a [`SharedLookup`].
pub(super) struct Waiter {
    shared_lookup: Arc<SharedLookup>,
    slot: Option<u64>,
}

impl Future for Waiter {
    type Output = Found;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Found> {
        let this = &mut *self;
        let waiters = &this.shared_lookup.waiters;
        // Before the look at the course, or what happens in between would wake the others only.
        waiters.slot(&mut this.slot, context.waker());
        let question = {
            let mut state = this.shared_lookup.state();
            match mem::replace(&mut *state, State::Polled) {
                State::Waits(question) => question,
                State::Polled => return Poll::Pending,
                State::Done(found) => {
                    *state = State::Done(found.clone());
                    return Poll::Ready(found);
                }
            }
        };
        let polled = Polling::new(&this.shared_lookup, question).poll();
        // Others who were woken meanwhile have found it being polled, and this one may go away before its turn comes again.
        if polled.is_pending() && waiters.lock().was_woken {
            waiters.slot(&mut this.slot, context.waker());
            waiters.wake_all();
        }
        polled
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let waker = self.shared_lookup.waiters.lock().waiting.remove(&slot);
            drop(waker);
        }
    }
}

/// The question while it is polled. If it panics, that is an answer for the others, too.
struct Polling<'f> {
    shared_lookup: &'f SharedLookup,
    question: Option<Pending<Found>>,
}

impl<'f> Polling<'f> {
    fn new(shared_lookup: &'f SharedLookup, question: Pending<Found>) -> Self {
        shared_lookup.waiters.lock().was_woken = false;
        Self { shared_lookup, question: Some(question) }
    }

    fn poll(mut self) -> Poll<Found> {
        let waker = Waker::from(Arc::clone(&self.shared_lookup.waiters));
        let Some(question) = &mut self.question else { return Poll::Pending };
        let polled = question.as_mut().poll(&mut Context::from_waker(&waker));
        let question = self.question.take();
        match &polled {
            Poll::Ready(found) => {
                // What it still holds must be gone when the others go on.
                drop(question);
                self.shared_lookup.finish(found.clone());
            }
            Poll::Pending => {
                if let Some(question) = question {
                    *self.shared_lookup.state() = State::Waits(question);
                }
            }
        }
        polled
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        if self.question.is_some() {
            self.shared_lookup.finish(Err(Unavailable::new("the look-up of a key panicked")));
        }
    }
}

impl Waiters {
    fn slot(&self, slot: &mut Option<u64>, waker: &Waker) {
        let mut seats = self.lock();
        let number = *slot.get_or_insert_with(|| {
            seats.next += 1;
            seats.next
        });
        let former = match seats.waiting.get_mut(&number) {
            Some(former) if former.will_wake(waker) => None,
            Some(former) => Some(mem::replace(former, waker.clone())),
            None => seats.waiting.insert(number, waker.clone()),
        };
        drop(seats);
        drop(former);
    }

    fn wake_all(&self) {
        let waiting = mem::take(&mut self.lock().waiting);
        // Whoever is woken may run at once: no lock is held.
        waiting.into_values().for_each(Waker::wake);
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
    fn whoever_is_left_is_woken_and_answered() {
        let (answer, waits) = oneshot::channel::<Found>();
        let shared_lookup = SharedLookup::new(Box::pin(async { waits.await.unwrap() }));
        let (mut one, mut two) = (Arc::clone(&shared_lookup).join(), shared_lookup.join());
        let (first, second) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
        assert!(poll(&mut one, &first).is_pending());
        assert!(poll(&mut two, &second).is_pending());
        assert!(poll(&mut two, &second).is_pending(), "the same seat");
        drop(one);
        answer.send(Ok(None)).unwrap();
        assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (0, 1));
        assert!(poll(&mut two, &second).is_ready());
    }

    #[test]
    fn whoever_is_woken_while_another_polls_is_woken_again() {
        let other = Arc::new(Mutex::new(None::<Waiter>));
        let (polled_within, wakes) = (Arc::clone(&other), Arc::<Wakes>::default());
        let woken = Arc::clone(&wakes);
        let question = std::future::poll_fn(move |context| {
            let Some(other) = &mut *polled_within.lock().unwrap() else { return Poll::Ready(Ok(None)) };
            context.waker().wake_by_ref();
            assert!(poll(other, &woken).is_pending(), "it is being polled");
            Poll::Pending
        });
        let shared_lookup = SharedLookup::new(Box::pin(question));
        *other.lock().unwrap() = Some(Arc::clone(&shared_lookup).join());
        let mut first = shared_lookup.join();
        assert!(poll(&mut first, &Arc::default()).is_pending());
        drop(first);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        let mut other = other.lock().unwrap().take().unwrap();
        assert!(poll(&mut other, &wakes).is_ready());
    }

    #[test]
    fn a_question_that_yields_is_polled_once_at_a_time() {
        // As tokio's resources do when a task has had its share: polled on and on, they would yield forever.
        let question = std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::Pending
        });
        let wakes = Arc::default();
        assert!(poll(&mut SharedLookup::new(Box::pin(question)).join(), &wakes).is_pending());
        assert!(wakes.0.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn a_question_that_panics_is_unavailable_for_the_others() {
        let shared_lookup = SharedLookup::new(Box::pin(async { panic!("at the store") }));
        let (mut one, mut two) = (Arc::clone(&shared_lookup).join(), shared_lookup.join());
        let wakes = Arc::default();
        assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut one, &wakes))).is_err());
        assert!(matches!(poll(&mut two, &wakes), Poll::Ready(Err(_))));
    }
}
