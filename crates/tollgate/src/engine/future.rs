//! The future of a response from behind gates.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::SystemTime,
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tollgate_core::{answer::Pending, denial::Denial};
use tower_service::Service;
use tracing::{Span, span::Entered};

use super::{
    Body, DeferredCharge, Engine, Entrant as _, Learned, ResponseParts,
    entrant::{Apart, Arrival},
    instant::Calling,
    stamp::Settling,
    walk::{Refusal, Walk},
};
use crate::respond::ResponseHead;

pin_project! {
    /// The future of a response from behind gates: see [`Gated`](crate::layers::Gated).
    pub struct ResponseFuture<S, RequestBody>
    where
        S: Service<Request<RequestBody>>,
    {
        #[pin]
        state: State<S, RequestBody>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, RequestBody>
    where
        S: Service<Request<RequestBody>>,
    {
        // The usual case: all gates answered at once, and the inner service is at work.
        Inside {
            #[pin]
            future: S::Future,
            stamp: ResponseParts,
            span: Option<Box<Span>>,
        },
        // The same, behind gates that have nothing to say to a response.
        Passing {
            #[pin]
            future: S::Future,
        },
        // The response is there, and limiters take their time to charge what it has cost. `None` once it was given out.
        Settling { response: Option<S::Response>, settling: Box<(ResponseParts, Settling)> },
        // A gate refused, and the response is there; so may what limiters take their time for. `None` once it was given out.
        Refused { refusal: Option<Refusal> },
        // A gate waits for its backend. `None` once it has its answer. Boxed, or every future would have room for a request.
        Waiting { waiting: Option<Box<Waiting<S, RequestBody>>> },
    }
}

/// What is kept of a request that is admitted.
pub(super) struct Admission {
    // `None` behind gates that have nothing to say to a response.
    stamp: Option<ResponseParts>,
    span: Option<Box<Span>>,
    now: Option<SystemTime>,
}

impl Admission {
    /// Ends the walk of a request that has come through all gates.
    #[inline]
    pub(super) fn new<B>(engine: &Engine, arrival: &mut Arrival<'_, B>) -> Self {
        let stamp = engine.stamp_all(arrival);
        let span = if stamp.is_some() { engine.span(arrival) } else { None };
        Self { stamp, span, now: arrival.context().now() }
    }

    /// To be held while the inner service is called.
    #[inline]
    pub(super) fn calling(&self) -> (Calling, Option<Entered<'_>>) {
        (Calling::at(self.now), self.span.as_ref().map(|span| span.enter()))
    }
}

struct Waiting<S, RequestBody> {
    ready: S,
    request: Request<RequestBody>,
    engine: Arc<Engine>,
    at: usize,
    pending: Pending<Result<Learned, Denial>>,
}

impl<S, RequestBody> ResponseFuture<S, RequestBody>
where
    S: Service<Request<RequestBody>>,
{
    #[inline]
    pub(super) fn inside(future: S::Future, admission: Admission) -> Self {
        match admission {
            Admission { stamp: Some(stamp), span, .. } => {
                Self { state: State::Inside { future, stamp, span } }
            }
            Admission { stamp: None, .. } => Self { state: State::Passing { future } },
        }
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        Self { state: State::Refused { refusal: Some(refusal) } }
    }

    pub(super) fn waiting(
        ready: S,
        request: Request<RequestBody>,
        engine: Arc<Engine>,
        at: usize,
        pending: Pending<Result<Learned, Denial>>,
    ) -> Self {
        let waiting = Waiting { ready, request, engine, at, pending };
        Self { state: State::Waiting { waiting: Some(Box::new(waiting)) } }
    }
}

impl<S, RequestBody> Waiting<S, RequestBody>
where
    S: Service<Request<RequestBody>>,
{
    /// Goes on with the answer. If the request is refused, the ready service is dropped here, and its readiness with it.
    fn resume(mut self: Box<Self>, answer: Result<Learned, Denial>) -> ResponseFuture<S, RequestBody> {
        let mut apart = Apart::of(&mut self.request);
        let mut arrival = apart.arrive(&mut self.request);
        let walk = self.engine.resume(self.at, answer, &mut arrival);
        match walk {
            Walk::Admitted => {
                let admission = Admission::new(&self.engine, &mut arrival);
                apart.rejoin(&mut self.request);
                let Self { mut ready, request, .. } = *self;
                let calling = admission.calling();
                let future = ready.call(request);
                drop(calling);
                ResponseFuture::inside(future, admission)
            }
            Walk::Refused { at, denial } => {
                apart.rejoin(&mut self.request);
                let Self { request, engine, .. } = *self;
                ResponseFuture::refused(engine.refuse(at, denial, request))
            }
            Walk::Waits { at, pending } => {
                apart.rejoin(&mut self.request);
                (self.at, self.pending) = (at, pending);
                ResponseFuture { state: State::Waiting { waiting: Some(self) } }
            }
        }
    }
}

/// A response from inside, whose body costs something if there is anything to settle.
#[inline(always)]
fn charged<B>(response: Response<B>, settlements: Option<Vec<DeferredCharge>>) -> Response<Body<B>> {
    match settlements {
        None => response.map(Body::inner),
        Some(settlements) => response.map(|body| Body::metered(body, settlements)),
    }
}

/// Waits for limiters, and takes up what they say.
fn take_up(stamp: &mut ResponseParts, settling: &mut Settling, cx: &mut Context<'_>) -> Poll<()> {
    let settled = ready!(settling.as_mut().poll(cx));
    stamp.take_up(settled);
    Poll::Ready(())
}

impl<S, RequestBody, ResponseBody> Future for ResponseFuture<S, RequestBody>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>>,
{
    type Output = Result<Response<Body<ResponseBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProjection::Inside { future, stamp, span } => {
                    // Left where it is until it is given out: responses are large.
                    let mut polled = match span {
                        Some(span) => span.in_scope(|| future.poll(cx)),
                        None => future.poll(cx),
                    };
                    let Poll::Ready(Ok(response)) = &mut polled else {
                        return polled.map_ok(|response| response.map(Body::inner));
                    };
                    if let Some(settling) = stamp.settle(ResponseHead::of(response)) {
                        let settling = Box::new((mem::take(stamp), settling));
                        if let Poll::Ready(response) = polled {
                            state.set(State::Settling { response: response.ok(), settling });
                        }
                        continue;
                    }
                    stamp.apply(response);
                    let settlements = stamp.settlements();
                    return polled.map_ok(|response| charged(response, settlements));
                }
                StateProjection::Passing { future } => {
                    return future.poll(cx).map_ok(|response| response.map(Body::inner));
                }
                StateProjection::Settling { response, settling } => {
                    // A future that is polled after it was ready may stay pending for ever, but not panic.
                    let (stamp, settling) = &mut **settling;
                    if response.is_some() {
                        ready!(take_up(stamp, settling, cx));
                    }
                    let Some(mut response) = response.take() else { return Poll::Pending };
                    stamp.apply(&mut response);
                    return Poll::Ready(Ok(charged(response, stamp.settlements())));
                }
                StateProjection::Refused { refusal } => {
                    let mut settlements = None;
                    if let Some(Refusal { response, owing: Some(owing) }) = refusal {
                        let (stamp, settling) = &mut **owing;
                        if let Some(settling) = settling {
                            ready!(take_up(stamp, settling, cx));
                        }
                        stamp.apply(response);
                        settlements = stamp.settlements();
                    }
                    let Some(Refusal { response, .. }) = refusal.take() else { return Poll::Pending };
                    return Poll::Ready(Ok(match settlements {
                        None => response.map(Body::refusal),
                        Some(settlements) => response.map(|bytes| Body::metered_refusal(bytes, settlements)),
                    }));
                }
                StateProjection::Waiting { waiting } => {
                    let Some(asked) = waiting else { return Poll::Pending };
                    let answer = ready!(asked.pending.as_mut().poll(cx));
                    if let Some(waiting) = waiting.take() {
                        let next = waiting.resume(answer).state;
                        state.set(next);
                    }
                }
            }
        }
    }
}

impl<S, RequestBody> fmt::Debug for ResponseFuture<S, RequestBody>
where
    S: Service<Request<RequestBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
