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
use tracing::Span;

use super::{
    Body, Engine, ResponseParts, deferred::Charging, gate::Resume, instant::Calling, refusal::Refusal,
    run::Verdict, watch::Watch,
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
        // The usual state: every gate let the request pass, and the inner service is at work.
        Inner {
            #[pin]
            future: S::Future,
            parts: ResponseParts,
            span: Option<Box<Span>>,
        },
        // The inner service has answered, but a limiter has not yet answered a deferred charge. `None` once the response is given out.
        Charging { response: Option<S::Response>, charging: Charging },
        // A gate refused. `None` once the response is given out.
        Refused { refusal: Option<Refusal> },
        // A gate waits for its backend.
        Waiting { waiting: Unanswered<S, RequestBody> },
    }
}

/// A waiting request. Boxed, because every future would otherwise have room for a request. `None` once the backend has answered: if
/// it is dropped before that, the request is abandoned.
struct Unanswered<S, RequestBody>(Option<Box<Waiting<S, RequestBody>>>);

impl<S, RequestBody> Drop for Unanswered<S, RequestBody> {
    fn drop(&mut self) {
        if let Some(mut waiting) = self.0.take() {
            waiting.engine.abandon(waiting.at, &mut waiting.request);
        }
    }
}

/// A request whose gate number `at` waits for its backend.
struct Waiting<S, RequestBody> {
    ready: S,
    request: Request<RequestBody>,
    engine: Arc<Engine>,
    at: usize,
    pending: Pending<Resume>,
}

impl<S, RequestBody> ResponseFuture<S, RequestBody>
where
    S: Service<Request<RequestBody>>,
{
    /// Calls the inner service, which is ready.
    #[inline]
    pub(super) fn call(
        ready: &mut S,
        request: Request<RequestBody>,
        engine: &Engine,
        now: SystemTime,
        parts: ResponseParts,
    ) -> Self {
        let span = engine.span(&request);
        let calling = Calling::at(now);
        let entered = span.as_ref().map(|span| span.enter());
        let future = ready.call(request);
        drop((entered, calling));
        Self { state: State::Inner { future, parts, span } }
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        Self { state: State::Refused { refusal: Some(refusal) } }
    }

    pub(super) fn waiting(
        ready: S,
        request: Request<RequestBody>,
        engine: Arc<Engine>,
        at: usize,
        pending: Pending<Resume>,
    ) -> Self {
        let waiting = Waiting { ready, request, engine, at, pending };
        Self { state: State::Waiting { waiting: Unanswered(Some(Box::new(waiting))) } }
    }
}

/// Dropped only if the inner service panics: such a request is charged nothing.
struct InPanic<'p>(&'p mut ResponseParts);

impl Drop for InPanic<'_> {
    #[cold]
    fn drop(&mut self) {
        self.0.release_reservation();
    }
}

impl<S, RequestBody> Waiting<S, RequestBody>
where
    S: Service<Request<RequestBody>>,
{
    /// Goes on with the backend's answer.
    fn resume(mut self: Box<Self>, resume: Resume) -> ResponseFuture<S, RequestBody> {
        match self.engine.resume(self.at, resume, &mut self.request) {
            Verdict::Admit(now, parts) => {
                let Self { mut ready, request, engine, .. } = *self;
                ResponseFuture::call(&mut ready, request, &engine, now, parts)
            }
            Verdict::Refuse { layer, denial } => {
                let Self { ready, request, .. } = *self;
                // Its readiness goes with it, before anything else is done.
                drop(ready);
                ResponseFuture::refused(Refusal::new(layer, denial, request))
            }
            Verdict::Wait { at, pending } => {
                (self.at, self.pending) = (at, pending);
                ResponseFuture { state: State::Waiting { waiting: Unanswered(Some(self)) } }
            }
        }
    }
}

impl<S, RequestBody, ResponseBody> Future for ResponseFuture<S, RequestBody>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>>,
{
    type Output = Result<Response<Body<ResponseBody>>, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().state.poll(cx)
    }
}

/// What a [`ResponseFuture`] gives.
type Output<S, ResponseBody, RequestBody> =
    Result<Response<Body<ResponseBody>>, <S as Service<Request<RequestBody>>>::Error>;

impl<S, RequestBody, ResponseBody> State<S, RequestBody>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>>,
{
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Output<S, ResponseBody, RequestBody>> {
        let StateProjection::Inner { future, parts, span } = self.as_mut().project() else {
            return self.poll_other(cx);
        };
        if parts.outlast_head() {
            return self.poll_outlasting(cx);
        }
        // The response stays where it is until it is given out: responses are large.
        let mut polled = poll_in(span.as_deref(), future, cx);
        if let Poll::Ready(Ok(response)) = &mut polled {
            parts.apply(response);
        }
        polled.map_ok(|response| response.map(Body::inner))
    }

    /// Polls the inner service of a request with charges, places, credits or a watch. Then it makes the charges by the response's head, and waits
    /// for backends that answer later.
    #[cold]
    #[inline(never)]
    fn poll_outlasting(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Output<S, ResponseBody, RequestBody>> {
        let StateProjection::Inner { future, parts, span } = self.as_mut().project() else {
            return self.poll_other(cx);
        };
        // First: a response that is ready at the same time is not sent.
        if let Some((watch, denial)) = parts.take_ended() {
            let parts = mem::take(parts);
            return self.refuse_ended(*watch, denial, parts, cx);
        }
        let panic = InPanic(parts);
        let polled = poll_in(span.as_deref(), future, cx);
        mem::forget(panic);
        let Poll::Ready(answered) = polled else {
            let (watch, denial) = ready!(parts.poll_ended(cx));
            let parts = mem::take(parts);
            return self.refuse_ended(*watch, denial, parts, cx);
        };
        match answered {
            Ok(response) => {
                let charging = Charging::start(mem::take(parts), ResponseHead::of(&response));
                self.set(Self::Charging { response: Some(response), charging });
                self.poll_other(cx)
            }
            Err(error) => {
                parts.release_reservation();
                Poll::Ready(Err(error))
            }
        }
    }

    /// Refuses a request whose caller has ended.
    #[cold]
    fn refuse_ended(
        mut self: Pin<&mut Self>,
        watch: Watch,
        denial: Denial,
        parts: ResponseParts,
        cx: &mut Context<'_>,
    ) -> Poll<Output<S, ResponseBody, RequestBody>> {
        // Drops the inner service's future first, as when a caller hangs up.
        self.set(Self::Refused { refusal: None });
        self.set(Self::Refused { refusal: Some(watch.refuse(denial, parts)) });
        self.poll_other(cx)
    }

    /// Polls in every other state, until the usual one is reached. After the response is given out, these states stay pending.
    #[cold]
    #[inline(never)]
    fn poll_other(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Output<S, ResponseBody, RequestBody>> {
        loop {
            match self.as_mut().project() {
                StateProjection::Inner { .. } => return self.poll(cx),
                StateProjection::Charging { response, charging } => {
                    if response.is_some() {
                        ready!(charging.poll(cx));
                    }
                    let Some(mut response) = response.take() else { return Poll::Pending };
                    let until_end = charging.finish(&mut response);
                    return Poll::Ready(Ok(response.map(|body| Body::inner_until_end(body, until_end))));
                }
                StateProjection::Refused { refusal } => {
                    if let Some(refusal) = refusal {
                        ready!(refusal.poll(cx));
                    }
                    let Some(refusal) = refusal.take() else { return Poll::Pending };
                    return Poll::Ready(Ok(refusal.into_response()));
                }
                StateProjection::Waiting { waiting } => {
                    let Some(unanswered) = &mut waiting.0 else { return Poll::Pending };
                    let resume = ready!(unanswered.pending.as_mut().poll(cx));
                    if let Some(waiting) = waiting.0.take() {
                        let next = waiting.resume(resume).state;
                        self.set(next);
                    }
                }
            }
        }
    }
}

/// Polls the inner service in its span.
#[inline]
fn poll_in<F: Future>(span: Option<&Span>, future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    match span {
        None => future.poll(cx),
        Some(span) => span.in_scope(|| future.poll(cx)),
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
