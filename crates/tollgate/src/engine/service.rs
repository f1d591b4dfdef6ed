//! The service that every layer makes.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{Body, Engine, ResponseFuture, refusal::Refusal, run::Verdict};

/// A service behind gates: what every layer of this crate, and [`Tollgate`](crate::Tollgate), makes of `S`.
///
/// A refused request never reaches `S`; an admitted one reaches it once. Errors of `S` pass unchanged, and none are added.
#[derive(Clone, Debug)]
pub struct Gated<S> {
    inner: S,
    engine: Arc<Engine>,
}

impl<S> Gated<S> {
    pub(crate) fn new(inner: S, engine: Arc<Engine>) -> Self {
        Self { inner, engine }
    }

    /// The service behind the gates.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service behind the gates, without them.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for Gated<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>> + Clone,
{
    type Response = Response<Body<ResponseBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, RequestBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        match self.engine.start(&mut request) {
            Verdict::Admit(now, parts) => {
                ResponseFuture::call(&mut self.inner, request, &self.engine, now, parts)
            }
            Verdict::Refuse { layer, denial } => {
                // The inner service was polled ready and will not be called. Readiness may hold a permit, which this
                // service, if it now falls idle, would keep from its siblings: a fresh clone holds none.
                drop(self.take_ready());
                ResponseFuture::refused(Refusal::new(layer, denial, request))
            }
            Verdict::Wait { at, pending } => {
                // Only the service that was polled ready may be called later; the clone left in its place was not.
                let ready = self.take_ready();
                ResponseFuture::waiting(ready, request, Arc::clone(&self.engine), at, pending)
            }
        }
    }
}

impl<S: Clone> Gated<S> {
    fn take_ready(&mut self) -> S {
        let fresh = self.inner.clone();
        mem::replace(&mut self.inner, fresh)
    }
}
