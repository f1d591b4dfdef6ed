//! The end of a request's caller, as a future: what ends long streams.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::{Duration, SystemTime},
};

use http::Extensions;
use tokio::{runtime::Handle, time::Sleep};
use tollgate_core::{denial::Denial, store::EndReason, verify::Principal};

use crate::{RequestContext, engine::KnownCaller};

/// Waits until the caller of a request has ended: its key is revoked or expires, or its tenant is suspended. Gives the [`Denial`] with
/// which the next request of the caller would be refused.
///
/// | end | kind of the denial | status |
/// |---|---|---|
/// | the key was revoked, rotated away or deleted | `KeyRevoked` | 401 |
/// | the key has expired, by the clock of the request | `KeyExpired` | 401 |
/// | the tenant was suspended | `TenantSuspended` | 403 |
///
/// [`StreamEndLayer`](crate::StreamEndLayer) ends gRPC streams and server-sent events by this future, and `GuardedUpgrade` of
/// `tollgate-axum` ends a WebSocket. Select on it where a handler works in another way: in a WebSocket of another library, a long poll, or
/// a task that outlives its request.
///
/// ```
/// use tollgate::{Denial, Ended};
///
/// /// Sends prices on a socket until the caller has ended. Then the socket is closed.
/// async fn serve(request: http::request::Parts, mut socket: Socket) {
///     let Some(ended) = Ended::of(&request.extensions) else { return }; // an anonymous caller
///     let denial: Denial = tokio::select! {
///         denial = ended => denial,
///         () = send_prices(&mut socket) => return,
///     };
///     socket.close(4000 + denial.status().as_u16(), denial.code());
/// }
///
/// # struct Socket;
/// # impl Socket { fn close(&mut self, _: u16, _: &str) {} }
/// # async fn send_prices(_: &mut Socket) {}
/// # let _ = serve;
/// ```
///
/// No store is asked at intervals: the key store sends a signal, and a timer fires at the expiry. Where the clock of the request then says
/// that it is not yet time, a new timer waits for the rest. After the end, each further poll gives the denial again.
///
/// The timer is that of the runtime, and so it does not run where the machine is suspended, or its clock is set forward: then the expiry is
/// seen late if nothing else polls the future, by as much as the clock has gained.
///
/// A clone waits for the same end, independently.
///
/// # Runtime
///
/// Any, for a key that does not expire. The expiry of a key needs a tokio runtime whose timers are enabled, as `#[tokio::main]` does. On
/// any other runtime, no timer fires: an expiry is seen when something else polls the future.
///
/// # Panics
///
/// When it is polled on a tokio runtime whose timers are not enabled, if the key expires.
///
/// # Memory
///
/// 32 bytes before the first poll. While it waits, 192 bytes more, and for a key that expires another 112 bytes for the timer.
#[derive(Clone)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Ended {
    caller: KnownCaller,
    waiting: Waiting,
}

/// What wakes an [`Ended`], from its first poll on.
#[derive(Default)]
struct Waiting(Option<Box<Wakers>>);

struct Wakers {
    signal: Pin<Box<dyn Future<Output = EndReason> + Send + Sync>>,
    // Which the signal wakes.
    waker: Option<Waker>,
    // Absent for a principal that does not expire, and without a runtime.
    expiry: Option<Pin<Box<Sleep>>>,
}

impl Ended {
    /// The end of a request's caller. `None` if no layer has authenticated it: it is anonymous, or a layer in report-only mode has waived
    /// its refusal.
    ///
    /// `extensions` are those of the request: they hold its [`RequestContext`].
    pub fn of(extensions: &Extensions) -> Option<Self> {
        Self::of_context(RequestContext::of(extensions)?)
    }

    pub(crate) fn of_context(context: &RequestContext) -> Option<Self> {
        Some(Self { caller: KnownCaller::of(context)?, waiting: Waiting::default() })
    }

    /// The denial, if the principal has ended by now.
    #[inline]
    pub(crate) fn now(&self) -> Option<Denial> {
        self.caller.end()
    }

    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Denial> {
        let caller = &self.caller;
        loop {
            if let Some(denial) = caller.end() {
                return Poll::Ready(denial);
            }
            let wakers = self.waiting.0.get_or_insert_with(|| Box::new(Wakers::of(caller.principal())));
            if wakers.poll_signal(cx).is_ready() {
                // Sent a moment ago: now there is a reason.
                continue;
            }
            let Some(expires_at) = caller.principal().expires_at() else { return Poll::Pending };
            if wakers.expiry.is_none() && Handle::try_current().is_ok() {
                wakers.expiry = Some(Box::pin(tokio::time::sleep(until(expires_at, caller.now()))));
            }
            let Some(expiry) = &mut wakers.expiry else { return Poll::Pending };
            ready!(expiry.as_mut().poll(cx));
            // The clock may say that it is not yet time: it was set back, or it is not the runtime's.
            wakers.expiry = None;
        }
    }
}

impl Future for Ended {
    type Output = Denial;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Denial> {
        self.get_mut().poll_end(cx)
    }
}

impl Wakers {
    fn of(principal: &Principal) -> Self {
        Self { signal: Box::pin(principal.wait_until_ended()), waker: None, expiry: None }
    }

    /// Registers with the signal, whose list of listeners is locked for that: only for a task that is not registered yet.
    fn poll_signal(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        self.waker = Some(cx.waker().clone());
        self.signal.as_mut().poll(cx)
    }
}

/// At least a millisecond, the resolution of the runtime's timers.
fn until(instant: SystemTime, now: SystemTime) -> Duration {
    const RESOLUTION: Duration = Duration::from_millis(1);
    instant.duration_since(now).unwrap_or_default().max(RESOLUTION)
}

impl Clone for Waiting {
    /// A clone of an [`Ended`] waits for itself.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended").field("principal", &self.caller.principal().id()).finish_non_exhaustive()
    }
}
