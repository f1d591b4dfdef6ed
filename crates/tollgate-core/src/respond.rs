//! The backend trait that turns a denial into a response.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, request};

use crate::denial::Denial;

/// Turns a denial into a response: one refusal, many faces.
///
/// What every refusal needs is added afterwards, unless the responder has set it already: `WWW-Authenticate`,
/// `Retry-After`, `Cache-Control`. The layers further out add theirs, as to any response. So a responder says only what
/// is its own.
pub trait Respond: Send + Sync + 'static {
    /// The response to `denial`. `request` is the head of the refused request, which nobody needs any more: what is in
    /// its extensions (a connection's upgrade, say) may be taken.
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes>;
}

impl<R: Respond + ?Sized> Respond for Arc<R> {
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        (**self).respond(denial, request)
    }
}
