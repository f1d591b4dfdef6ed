//! Requests that have passed authentication.

use std::sync::Arc;

use http::Request;
use tollgate::{Principal, RequestContext};

/// Makes a request one of this principal, as if a `VerifyLayer` had verified its credential.
///
/// It is for tests of handlers, and of guards without a `VerifyLayer` around them. A test of a complete stack sends a key of
/// [`TestKeys`](crate::TestKeys) instead.
///
/// ```
/// use http::Request;
/// use tollgate::{Principal, RequestContext};
/// use tollgate_testing::authenticated;
///
/// // A handler of your application.
/// fn greet(request: &Request<()>) -> String {
///     let principal = RequestContext::of(request.extensions()).and_then(RequestContext::principal);
///     principal.map_or("Please log in".to_owned(), |principal| format!("Hello, {}!", principal.id()))
/// }
///
/// assert_eq!(greet(&authenticated(Request::new(()), Principal::new("ada"))), "Hello, ada!");
/// ```
pub fn authenticated<B>(mut request: Request<B>, principal: impl Into<Arc<Principal>>) -> Request<B> {
    RequestContext::authenticate(request.extensions_mut(), principal.into());
    request
}
