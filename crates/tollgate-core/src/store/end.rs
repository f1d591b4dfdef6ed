//! The signal that a principal has ended. It needs no runtime, no polling and no timer.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering},
    },
};

use event_listener::Event;

/// Why a principal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The key was revoked, rotated away or deleted.
    Revoked,
    /// The key expired.
    Expired,
    /// The tenant was suspended.
    TenantSuspended,
}

/// Signals that a principal has ended: a store sends it once, and guards and streams read it.
///
/// Clones share their state. A signal cannot be taken back: the keys of a resumed tenant get new principals.
///
/// ```
/// use tollgate_core::store::{EndReason, EndSignal};
///
/// let signal = EndSignal::new();
/// let of_a_stream = signal.clone();
/// signal.end(EndReason::Revoked);
/// assert_eq!(of_a_stream.reason(), Some(EndReason::Revoked));
/// ```
#[derive(Clone, Default)]
pub struct EndSignal(Arc<Inner>);

#[derive(Default)]
struct Inner {
    reason: AtomicU8,
    event: Event,
}

impl EndSignal {
    /// A signal that has not been sent.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends the signal. Only the first call has an effect.
    pub fn end(&self, reason: EndReason) {
        let first = self.0.reason.compare_exchange(0, to_code(reason), Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            self.0.event.notify(usize::MAX);
        }
    }

    /// Why the principal has ended; `None` if it has not. One atomic read.
    #[inline]
    pub fn reason(&self) -> Option<EndReason> {
        from_code(self.0.reason.load(Ordering::Acquire))
    }

    /// Whether both are the same signal.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A reference that does not keep the signal alive.
    pub fn downgrade(&self) -> WeakEndSignal {
        WeakEndSignal(Arc::downgrade(&self.0))
    }

    /// Waits for the end, on any runtime. An expiry sends no signal, since that would need a timer: a stream waits for the
    /// principal's expiry as well.
    pub fn wait(&self) -> impl Future<Output = EndReason> + Send + Sync + use<> {
        let inner = Arc::clone(&self.0);
        async move {
            loop {
                // Listen first, and then read: a signal that is sent in between is not missed.
                let listener = inner.event.listen();
                if let Some(reason) = from_code(inner.reason.load(Ordering::Acquire)) {
                    return reason;
                }
                listener.await;
            }
        }
    }
}

/// A reference to an [`EndSignal`] that does not keep it alive: for backends that end principals which others hold.
#[derive(Clone)]
pub struct WeakEndSignal(Weak<Inner>);

impl WeakEndSignal {
    /// The signal, if anything still holds it.
    pub fn upgrade(&self) -> Option<EndSignal> {
        self.0.upgrade().map(EndSignal)
    }

    /// Whether it refers to this signal.
    pub fn is(&self, signal: &EndSignal) -> bool {
        self.0.as_ptr() == Arc::as_ptr(&signal.0)
    }

    /// Whether anything still holds the signal.
    pub fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

fn to_code(reason: EndReason) -> u8 {
    match reason {
        EndReason::Revoked => 1,
        EndReason::Expired => 2,
        EndReason::TenantSuspended => 3,
    }
}

fn from_code(code: u8) -> Option<EndReason> {
    match code {
        1 => Some(EndReason::Revoked),
        2 => Some(EndReason::Expired),
        3 => Some(EndReason::TenantSuspended),
        _ => None,
    }
}

impl fmt::Debug for WeakEndSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakEndSignal").field("is_held", &self.is_held()).finish()
    }
}

impl fmt::Debug for EndSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EndSignal").field(&self.reason()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Wake, Waker},
    };

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicU8);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn wakes_every_waiter_without_a_runtime() {
        let signal = EndSignal::new();
        let count = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let (mut one, mut two) = (pin!(signal.wait()), pin!(signal.wait()));
        assert!(one.as_mut().poll(&mut context).is_pending());
        assert!(two.as_mut().poll(&mut context).is_pending());

        signal.end(EndReason::TenantSuspended);
        signal.end(EndReason::Revoked);

        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert_eq!(
            one.poll(&mut context),
            Poll::Ready(EndReason::TenantSuspended),
            "the first reason counts"
        );
        assert_eq!(two.poll(&mut context), Poll::Ready(EndReason::TenantSuspended));
    }

    #[test]
    fn waiting_for_a_signal_that_was_sent_returns_at_once() {
        let signal = EndSignal::new();
        signal.end(EndReason::Revoked);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(pin!(signal.wait()).poll(&mut context), Poll::Ready(EndReason::Revoked));
    }
}
