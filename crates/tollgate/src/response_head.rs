//! The head of a response, borrowed.

use std::fmt;

use http::{Extensions, HeaderMap, Response, StatusCode};
use tollgate_core::denial::Denial;

/// The head of a response, borrowed. A [cost](crate::limit::Cost::by_response) can depend on it.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ResponseHead<'r> {
    /// The status.
    pub status: StatusCode,
    /// The headers written so far.
    pub headers: &'r HeaderMap,
    /// What the inner service and the inner layers have attached.
    pub extensions: &'r Extensions,
}

impl<'r> ResponseHead<'r> {
    /// The head of `response`.
    pub fn of<B>(response: &'r Response<B>) -> Self {
        Self { status: response.status(), headers: response.headers(), extensions: response.extensions() }
    }

    /// The reason why the request was refused, if a layer or the inner service refused it.
    pub fn denial(&self) -> Option<&'r Denial> {
        self.extensions.get()
    }
}

impl fmt::Debug for ResponseHead<'_> {
    /// Omits the headers: they may contain a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead").field("status", &self.status).finish_non_exhaustive()
    }
}
