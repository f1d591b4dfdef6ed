//! The service that the layer makes.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::{NoRetries, ResponseFuture, Retries, layer::Settings};

/// A client inside a [`ClientLayer`](crate::ClientLayer).
///
/// Structs can name it: `Client<Channel>`, or with retries `Client<Channel, Retries<tonic::body::Body>>`.
#[derive(Clone, Debug)]
pub struct Client<S, R = NoRetries> {
    pub(crate) inner: S,
    pub(crate) settings: Arc<Settings>,
    pub(crate) retries: R,
}

impl<S, B> Service<Request<B>> for Client<S, NoRetries>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        self.settings.prepare(&mut request);
        self.inner.call(request)
    }
}

impl<S, B, R> Service<Request<B>> for Client<S, Retries<B>>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: Body<Data = Bytes> + Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> ResponseFuture<S, B> {
        if !self.settings.prepare(&mut request) {
            return ResponseFuture::once(self.inner.call(request));
        }
        let (request, again) = self.retries.keep(request);
        let Some(again) = again else { return ResponseFuture::once(self.inner.call(request)) };
        // A clone holds no readiness of the original. It is polled ready before each call.
        let service = self.inner.clone();
        ResponseFuture::with_retries(self.inner.call(request), service, again, self.settings.clock.clone())
    }
}
