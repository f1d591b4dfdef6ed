//! The future of a response from behind gates.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, request};
use pin_project_lite::pin_project;
use tollgate_core::{Denial, Pending};
use tower_service::Service;
use tracing::Span;

use super::{Body, Engine, Learned, Passage, walk::Walk};

pin_project! {
    /// The future of a response from behind gates: see [`Gated`](crate::Gated).
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
            engine: Arc<Engine>,
            passage: Passage,
            span: Span,
        },
        // A gate refused, and the response is there. `None` once it was given out.
        Refused { response: Option<Response<Bytes>> },
        // A gate waits for its backend. `None` once it has its answer.
        Waiting { waiting: Option<Waiting<S, RequestBody>> },
    }
}

struct Waiting<S, RequestBody> {
    ready: S,
    head: request::Parts,
    body: RequestBody,
    engine: Arc<Engine>,
    passage: Passage,
    at: usize,
    pending: Pending<Result<Learned, Denial>>,
}

impl<S, RequestBody> ResponseFuture<S, RequestBody>
where
    S: Service<Request<RequestBody>>,
{
    pub(super) fn inside(
        ready: &mut S,
        mut head: request::Parts,
        body: RequestBody,
        engine: Arc<Engine>,
        passage: Passage,
    ) -> Self {
        let span = engine.span(&passage);
        passage.clone().put(&mut head.extensions);
        let future = span.in_scope(|| ready.call(Request::from_parts(head, body)));
        Self { state: State::Inside { future, engine, passage, span } }
    }

    pub(super) fn refused(response: Response<Bytes>) -> Self {
        Self { state: State::Refused { response: Some(response) } }
    }

    pub(super) fn waiting(
        ready: S,
        head: request::Parts,
        body: RequestBody,
        engine: Arc<Engine>,
        passage: Passage,
        at: usize,
        pending: Pending<Result<Learned, Denial>>,
    ) -> Self {
        let waiting = Waiting { ready, head, body, engine, passage, at, pending };
        Self { state: State::Waiting { waiting: Some(waiting) } }
    }
}

impl<S, RequestBody> Waiting<S, RequestBody>
where
    S: Service<Request<RequestBody>>,
{
    /// Goes on with the answer. If the request is refused, the ready service is dropped here, and its readiness with it.
    fn resume(mut self, answer: Result<Learned, Denial>) -> ResponseFuture<S, RequestBody> {
        match self.engine.resume(self.at, answer, &mut self.head, &mut self.passage) {
            Walk::Admitted => {
                ResponseFuture::inside(&mut self.ready, self.head, self.body, self.engine, self.passage)
            }
            Walk::Refused { at, denial } => {
                ResponseFuture::refused(self.engine.refuse(at, denial, self.head, &self.passage))
            }
            Walk::Waits { at, pending } => {
                let waiting = Self { at, pending, ..self };
                ResponseFuture { state: State::Waiting { waiting: Some(waiting) } }
            }
        }
    }
}

impl<S, RequestBody, ResponseBody> Future for ResponseFuture<S, RequestBody>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>>,
{
    type Output = Result<Response<Body<ResponseBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProjection::Inside { future, engine, passage, span } => {
                    let result = ready!(span.in_scope(|| future.poll(context)));
                    return Poll::Ready(result.map(|response| {
                        let (mut parts, body) = response.into_parts();
                        engine.finish(passage, &mut parts);
                        Response::from_parts(parts, Body::inner(body))
                    }));
                }
                StateProjection::Refused { response } => {
                    // A future that is polled after it was ready may stay pending for ever, but not panic.
                    let Some(response) = response.take() else { return Poll::Pending };
                    return Poll::Ready(Ok(response.map(Body::refusal)));
                }
                StateProjection::Waiting { waiting } => {
                    let Some(asked) = waiting else { return Poll::Pending };
                    let answer = ready!(asked.pending.as_mut().poll(context));
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
