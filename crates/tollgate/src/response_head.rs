//! The head of a response, to look at.

use std::fmt;

use http::{Extensions, HeaderMap, Response, StatusCode};
use tollgate_core::denial::Denial;

/// The head of a response, to look at: what a [cost](crate::limit::Cost::by_response) may be told by.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ResponseHead<'r> {
    /// The status.
    pub status: StatusCode,
    /// The headers, as far as they are written by then.
    pub headers: &'r HeaderMap,
    /// What the inner service and the layers further in have attached.
    pub extensions: &'r Extensions,
}

impl<'r> ResponseHead<'r> {
    /// The head of `response`.
    pub fn of<B>(response: &'r Response<B>) -> Self {
        Self { status: response.status(), headers: response.headers(), extensions: response.extensions() }
    }

    /// Why the request was refused, if one of the layers, or the inner service, has refused it.
    pub fn denial(&self) -> Option<&'r Denial> {
        self.extensions.get()
    }
}

impl fmt::Debug for ResponseHead<'_> {
    /// Leaves out the headers, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead").field("status", &self.status).finish_non_exhaustive()
    }
}
