//! What a gate sees of a request, and how it answers.

use http::{Extensions, HeaderMap, Request, Uri};
use tollgate_core::{
    answer::{Answer, Pending},
    denial::Denial,
    request::RequestHead,
};

use super::{RequestContext, watch::Watch};

/// How a gate answers if it does not refuse.
pub(crate) enum Flow {
    /// The request goes on to the next gate.
    Continue,
    /// The gate has to wait for its backend. Then [`Resume`] completes its decision.
    Wait(Pending<Resume>),
}

/// The rest of a gate's decision, once its backend has answered.
pub(crate) type Resume = Box<dyn FnOnce(&mut RequestContext) -> Result<(), Denial> + Send>;

/// A request in flight, as gates see it: its head, and what is known about it.
pub(crate) struct Cx<'r, B> {
    request: &'r mut Request<B>,
    pub(crate) context: &'r mut RequestContext,
}

impl<'r, B> Cx<'r, B> {
    pub(super) fn new(request: &'r mut Request<B>, context: &'r mut RequestContext) -> Self {
        Self { request, context }
    }

    /// The request's head, to read.
    #[inline]
    pub(crate) fn head(&self) -> RequestHead<'_> {
        RequestHead::of(self.request)
    }

    /// The request's headers, to change.
    #[inline]
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        self.request.headers_mut()
    }

    /// The request's extensions, to change.
    pub(crate) fn extensions_mut(&mut self) -> &mut Extensions {
        self.request.extensions_mut()
    }

    /// The request's target, to change.
    pub(crate) fn uri_mut(&mut self) -> &mut Uri {
        self.request.uri_mut()
    }

    /// Has the request, and the stream that answers it, watched for the end of its caller.
    pub(crate) fn watch_end(&mut self) {
        if let Some(watch) = Watch::of(self.head(), self.context) {
            self.context.parts.watch(watch);
        }
    }

    /// Completes a gate's decision with a backend's answer: at once if the answer is there, else when it arrives. Nothing is
    /// boxed for an answer that is there.
    #[inline]
    pub(crate) fn when_answered<T: Send + 'static>(
        &mut self,
        answer: Answer<T>,
        decide: impl FnOnce(T, &mut RequestContext) -> Result<(), Denial> + Send + 'static,
    ) -> Result<Flow, Denial> {
        match answer {
            Answer::Now(value) => decide(value, self.context).map(|()| Flow::Continue),
            Answer::Later(pending) => Ok(Flow::Wait(Box::pin(async move {
                let value = pending.await;
                let resume: Resume = Box::new(move |context| decide(value, context));
                resume
            }))),
        }
    }
}
