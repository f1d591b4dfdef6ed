//! The backend trait that turns a denial into a response.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{Response, request};

use crate::denial::Denial;

/// Turns a denial into a response. [`respond_fn`] makes one from a closure.
///
/// A responder writes the status, the body and the headers of its own format. These headers are added afterwards, unless the
/// responder has set them: `WWW-Authenticate`, `Retry-After`, `Cache-Control`. Layers further out add theirs, as to any
/// response.
pub trait Respond: Send + Sync + 'static {
    /// The response to `denial`. `request` is the head of the refused request, and no longer needed: a responder may take what
    /// is in its extensions, such as a connection's upgrade.
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes>;
}

impl<R: Respond + ?Sized> Respond for Arc<R> {
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        (**self).respond(denial, request)
    }
}

/// A responder made from a closure.
///
/// ```
/// use http::{Response, request};
/// use tollgate_core::{denial::Denial, respond::respond_fn};
///
/// let responder = respond_fn(|denial: &Denial, _request: &mut request::Parts| {
///     let mut response = Response::new(format!("{}\n", denial.detail()));
///     *response.status_mut() = denial.status();
///     response
/// });
/// # fn is_responder(_: impl tollgate_core::respond::Respond) {}
/// # is_responder(responder);
/// ```
pub fn respond_fn<F, B>(respond: F) -> RespondFn<F>
where
    F: Fn(&Denial, &mut request::Parts) -> Response<B> + Send + Sync + 'static,
    B: Into<Bytes>,
{
    RespondFn(respond)
}

/// What [`respond_fn`] returns.
#[derive(Clone, Copy)]
pub struct RespondFn<F>(F);

impl<F, B> Respond for RespondFn<F>
where
    F: Fn(&Denial, &mut request::Parts) -> Response<B> + Send + Sync + 'static,
    B: Into<Bytes>,
{
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        (self.0)(denial, request).map(Into::into)
    }
}

impl<F> fmt::Debug for RespondFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RespondFn").finish_non_exhaustive()
    }
}
