//! The head of a request, to look at.

use std::fmt;

use http::{Extensions, HeaderMap, Method, Request, Uri, Version, request};

/// The head of a request, to look at: what a decision may read, whatever the request's body is.
///
/// It only borrows, so that nothing is taken apart or copied to make one.
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
    /// The version of HTTP.
    pub version: Version,
    /// The headers.
    pub headers: &'r HeaderMap,
    /// What the server and layers further out have attached. Tollgate's own request context is not among it while its layers decide.
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
    /// Leaves out the target and the headers, which may hold a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", self.method)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
