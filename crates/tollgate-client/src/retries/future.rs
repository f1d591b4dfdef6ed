//! The response of a client with retries.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tollgate_core::clock::Clock;
use tower_service::Service;

use super::KeptRequest;

pin_project! {
    /// The response of a [`Client`](crate::Client) with [`Retries`](crate::Retries). Dropping it ends the request, and its waiting.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
        B: Body,
    {
        #[pin]
        state: State<S::Future>,
        // `None`: the request is sent once.
        again: Option<Again<S, B>>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Sent { #[pin] response: F },
        Waiting { #[pin] sleep: Sleep },
        // The service is polled ready.
        Waited,
    }
}

/// What the next tries need.
struct Again<S, B: Body> {
    service: S,
    request: KeptRequest<B>,
    clock: Arc<dyn Clock>,
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
    B: Body,
{
    pub(crate) fn once(response: S::Future) -> Self {
        Self { state: State::Sent { response }, again: None }
    }

    /// `service` makes the next tries. It need not be ready.
    pub(crate) fn with_retries(
        response: S::Future,
        service: S,
        request: KeptRequest<B>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { state: State::Sent { response }, again: Some(Again { service, request, clock }) }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: Body<Data = Bytes> + Unpin,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match (this.state.as_mut().project(), &mut *this.again) {
                (StateProjection::Sent { response }, again) => {
                    let response = ready!(response.poll(cx))?;
                    let wait = again
                        .as_mut()
                        .and_then(|again| again.request.attempts.next_after(&response, &*again.clock));
                    let Some(wait) = wait else { return Poll::Ready(Ok(response)) };
                    State::Waiting { sleep: tokio::time::sleep(wait) }
                }
                (StateProjection::Waiting { sleep }, _) => {
                    ready!(sleep.poll(cx));
                    State::Waited
                }
                (StateProjection::Waited, Some(again)) => {
                    ready!(again.service.poll_ready(cx))?;
                    State::Sent { response: again.service.call(again.request.next()) }
                }
                // Does not happen: only a request that is sent again waits.
                (StateProjection::Waited, None) => return Poll::Pending,
            };
            this.state.set(next);
        }
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
    B: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture(..)")
    }
}
