//! The head of a request, borrowed.

use std::fmt;

use http::{Extensions, HeaderMap, Method, Request, Uri, Version, request};

/// The head of a request, borrowed: everything but the body.
///
/// A decision reads only this, so it does not depend on the type of the body.
///
/// ```
/// use http::Request;
/// use tollgate_core::request::RequestHead;
///
/// let request = Request::builder().uri("/jobs/17?full").body("a body of any type").unwrap();
/// assert_eq!(RequestHead::of(&request).uri.path(), "/jobs/17");
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct RequestHead<'r> {
    /// The method.
    pub method: &'r Method,
    /// The target.
    pub uri: &'r Uri,
    /// The HTTP version.
    pub version: Version,
    /// The headers.
    pub headers: &'r HeaderMap,
    /// What the server and the outer layers have attached. Tollgate's own request context is removed while its layers decide.
    pub extensions: &'r Extensions,
}

impl<'r> RequestHead<'r> {
    /// The head of `request`.
    pub fn of<B>(request: &'r Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

impl<'r> From<&'r request::Parts> for RequestHead<'r> {
    fn from(parts: &'r request::Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            version: parts.version,
            headers: &parts.headers,
            extensions: &parts.extensions,
        }
    }
}

impl fmt::Debug for RequestHead<'_> {
    /// Omits the target and the headers: they may contain a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", self.method)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
