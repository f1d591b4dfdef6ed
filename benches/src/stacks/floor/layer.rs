//! The floor as a layer, for what needs one: the same function, in two halves, before and after the inner service.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::HeaderValue;
use tower::{Layer, Service};

use super::{Numbers, Table, request_id};
use crate::cast::Scenario;

pub(in crate::stacks) fn on(router: Router, scenario: Scenario) -> Router {
    router.layer(FloorLayer(Arc::new(Table::new(scenario))))
}

#[derive(Clone)]
struct FloorLayer(Arc<Table<1>>);

impl<S> Layer<S> for FloorLayer {
    type Service = Layered<S>;

    fn layer(&self, inner: S) -> Layered<S> {
        Layered { inner, table: Arc::clone(&self.0) }
    }
}

#[derive(Clone)]
struct Layered<S> {
    inner: S,
    table: Arc<Table<1>>,
}

impl<S> Service<Request> for Layered<S>
where
    S: Service<Request>,
    S::Response: IntoResponse,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Layering<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let id = request_id(request.headers());
        match self.table.admit(request.headers()) {
            Ok(numbers) => {
                let inner = self.inner.call(request);
                Layering::Allowed { inner, rest: Some((Arc::clone(&self.table), numbers, id)) }
            }
            Err(refusal) => Layering::Refused(Some(self.table.refuse(refusal, id))),
        }
    }
}

enum Layering<F> {
    Allowed { inner: F, rest: Option<(Arc<Table<1>>, Numbers, HeaderValue)> },
    Refused(Option<Response<Body>>),
}

impl<F, R, E> Future for Layering<F>
where
    F: Future<Output = Result<R, E>> + Unpin,
    R: IntoResponse,
{
    type Output = Result<Response, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        const ONCE: &str = "a future is not polled again once it is done";
        match &mut *self {
            Self::Allowed { inner, rest } => {
                let mut response = ready!(Pin::new(inner).poll(context))?.into_response();
                let (table, numbers, id) = rest.take().expect(ONCE);
                table.complete(response.headers_mut(), numbers, id);
                Poll::Ready(Ok(response))
            }
            Self::Refused(response) => Poll::Ready(Ok(response.take().expect(ONCE))),
        }
    }
}
