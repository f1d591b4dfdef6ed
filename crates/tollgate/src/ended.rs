//! The end of a request's caller, as a future: what ends long streams.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use http::Extensions;
use tokio::time::Sleep;
use tollgate_core::{
    denial::Denial,
    store::EndReason,
    verify::{Principal, RefusalText},
};

use crate::{
    RequestContext,
    engine::{RequestClock, denial_of},
};

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
/// `tollgate-axum` ends WebSockets. Select on it where a handler works in another way: in a WebSocket of another library, a long poll, or
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
/// Nothing is polled: the key store sends a signal, and a timer fires at the expiry. Where the clock of the request then says that it is not
/// yet time, a new timer waits for the rest. After the end, each further poll gives the denial again.
///
/// A clone waits for the same end, independently.
///
/// # Runtime
///
/// A key without an expiry needs no runtime. For a key that expires, the future must be polled on a tokio runtime whose timers are
/// enabled, as `#[tokio::main]` does.
///
/// # Panics
///
/// When it is polled outside such a runtime, if the key expires.
///
/// # Memory
///
/// 32 bytes before the first poll. After it 176 bytes more, and for a key that expires another 112 bytes for the timer.
#[derive(Clone)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Ended {
    principal: Arc<Principal>,
    clock: RequestClock,
    // The words of the verifier, if it has its own.
    refusal_text: Option<Arc<RefusalText>>,
    waiting: Waiting,
}

/// What wakes an [`Ended`], from its first poll on.
#[derive(Default)]
struct Waiting(Option<Box<Wakers>>);

struct Wakers {
    signal: Pin<Box<dyn Future<Output = EndReason> + Send + Sync>>,
    // Absent for a principal that does not expire.
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
        Some(Self {
            principal: Arc::clone(context.principal()?),
            clock: context.clock(),
            refusal_text: context.refusal_text.clone(),
            waiting: Waiting::default(),
        })
    }

    /// Why the principal has ended, if it has.
    fn reason(&self) -> Option<EndReason> {
        match self.principal.expires_at() {
            None => self.principal.end_signal().reason(),
            Some(_) => self.principal.ended(self.clock.now()),
        }
    }

    fn denial(&self, reason: EndReason) -> Denial {
        let denial = denial_of(reason);
        match &self.refusal_text {
            Some(text) => text.apply(denial),
            None => denial,
        }
    }
}

impl Future for Ended {
    type Output = Denial;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Denial> {
        let this = self.get_mut();
        loop {
            if let Some(reason) = this.reason() {
                return Poll::Ready(this.denial(reason));
            }
            let wakers = this.waiting.0.get_or_insert_with(|| Box::new(Wakers::of(&this.principal)));
            if wakers.signal.as_mut().poll(cx).is_ready() {
                // Sent a moment ago: now there is a reason.
                continue;
            }
            let Some(expires_at) = this.principal.expires_at() else { return Poll::Pending };
            let until_expiry = || until(expires_at, &this.clock);
            let expiry = wakers.expiry.get_or_insert_with(|| Box::pin(tokio::time::sleep(until_expiry())));
            ready!(expiry.as_mut().poll(cx));
            // The clock may say that it is not yet time: it was set back, or it is not the runtime's.
            wakers.expiry = None;
        }
    }
}

impl Wakers {
    fn of(principal: &Principal) -> Self {
        Self { signal: Box::pin(principal.wait_until_ended()), expiry: None }
    }
}

/// At least a millisecond, the resolution of the runtime's timers.
fn until(instant: SystemTime, clock: &RequestClock) -> Duration {
    const RESOLUTION: Duration = Duration::from_millis(1);
    instant.duration_since(clock.now()).unwrap_or_default().max(RESOLUTION)
}

impl Clone for Waiting {
    /// A clone of an [`Ended`] waits for itself.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended").field("principal", &self.principal.id()).finish_non_exhaustive()
    }
}
