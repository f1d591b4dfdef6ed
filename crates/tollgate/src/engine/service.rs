//! The service that every layer makes.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{Body, Engine, ResponseFuture, entrant::Apart, future::Admission, walk::Walk};

/// A service behind gates: what every layer of this crate, and [`Tollgate`](crate::Tollgate), makes of `S`.
///
/// A refused request never reaches `S`; an admitted one reaches it once. Errors of `S` pass untouched, and none are added.
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

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let mut apart = Apart::of(&mut request);
        let mut arrival = apart.arrive(&mut request);
        let walk = self.engine.enter(&mut arrival);
        match walk {
            Walk::Admitted => {
                let admission = Admission::new(&self.engine, &mut arrival);
                apart.rejoin(&mut request);
                let calling = admission.calling();
                let future = self.inner.call(request);
                drop(calling);
                ResponseFuture::inside(future, admission)
            }
            Walk::Refused { at, denial } => {
                apart.rejoin(&mut request);
                // The inner service was polled ready and will not be called. Readiness may hold a permit, which this
                // service, if it now falls idle, would keep from its siblings: a fresh clone holds none.
                drop(self.take_ready());
                ResponseFuture::refused(self.engine.refuse(at, denial, request))
            }
            Walk::Waits { at, pending } => {
                apart.rejoin(&mut request);
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
