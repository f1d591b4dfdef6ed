//! A request that is on its way through the gates.

use std::{mem, sync::LazyLock};

use http::{Extensions, HeaderMap, Request, Uri};
use tollgate_core::request::RequestHead;

use super::RequestContext;

/// A request on its way through the gates, whatever its body: what gates see of it.
pub(crate) trait Entrant {
    /// Its head, to look at.
    fn head(&self) -> RequestHead<'_>;

    /// Its headers.
    fn headers_mut(&mut self) -> &mut HeaderMap;

    /// Its target.
    fn uri_mut(&mut self) -> &mut Uri;

    /// What the layers have learned about it.
    fn context(&self) -> &RequestContext;

    /// The same, to learn more.
    fn context_mut(&mut self) -> &mut RequestContext;
}

/// A request's request context, apart from the request while the request walks: gates read the one and write the other, and looking for
/// the request context among the extensions costs as much as many a gate.
pub(super) struct Apart {
    // With the extensions around it, where it is the only one or a new one.
    alone: Extensions,
    // Out of the place that it has beside others.
    taken: Option<RequestContext>,
}

/// Extensions with a request context that has just begun: to copy them costs less than to make them.
static BEGUN: LazyLock<Extensions> = LazyLock::new(|| {
    let mut extensions = Extensions::new();
    extensions.insert(RequestContext::new());
    extensions
});

impl Apart {
    /// Takes the request context of a request, or begins one.
    #[inline]
    pub(super) fn of<B>(request: &mut Request<B>) -> Self {
        let extensions = request.extensions_mut();
        if RequestContext::of(extensions).is_none() {
            Self { alone: BEGUN.clone(), taken: None }
        } else if extensions.len() == 1 {
            Self { alone: mem::take(extensions), taken: None }
        } else {
            Self { alone: Extensions::new(), taken: extensions.get_mut::<RequestContext>().map(mem::take) }
        }
    }

    #[inline]
    pub(super) fn arrive<'r, B>(&'r mut self, request: &'r mut Request<B>) -> Arrival<'r, B> {
        let context = match self.alone.get_mut() {
            Some(context) => context,
            None => self.taken.get_or_insert_with(RequestContext::new),
        };
        Arrival { request, context }
    }

    /// Puts the request context where whoever has the request from here on finds it: among its extensions.
    #[inline]
    pub(super) fn rejoin<B>(&mut self, request: &mut Request<B>) {
        let extensions = request.extensions_mut();
        if let Some(context) = self.taken.take() {
            *extensions.get_or_insert_default() = context;
        } else if extensions.is_empty() {
            *extensions = mem::take(&mut self.alone);
        } else {
            extensions.extend(mem::take(&mut self.alone));
        }
    }
}

/// A request of any body, and its request context.
pub(super) struct Arrival<'r, B> {
    request: &'r mut Request<B>,
    context: &'r mut RequestContext,
}

impl<B> Entrant for Arrival<'_, B> {
    #[inline]
    fn head(&self) -> RequestHead<'_> {
        RequestHead::of(self.request)
    }

    #[inline]
    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.request.headers_mut()
    }

    #[inline]
    fn uri_mut(&mut self) -> &mut Uri {
        self.request.uri_mut()
    }

    #[inline]
    fn context(&self) -> &RequestContext {
        self.context
    }

    #[inline]
    fn context_mut(&mut self) -> &mut RequestContext {
        self.context
    }
}
