//! The routes to check.

use http::{Method, Request, Version, header, request::Builder};

/// The routes of a service. Paths are written as in axum's router: `/jobs/{id}`, `/files/{*rest}`.
///
/// ```
/// use tollgate_testing::coverage::Routes;
///
/// let routes = Routes::new().route("GET", "/jobs/{id}").any("/files/{*rest}").fallback("/");
/// let same = Routes::from([("GET", "/jobs/{id}")]).any("/files/{*rest}").fallback("/");
/// assert_eq!(routes, same);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(Vec<Route>);

/// What is tried, and under which name it is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// A path for one method.
    Method(Method, String),
    /// A path for whichever of [`USUAL_METHODS`] it has.
    AnyMethod(String),
    /// What answers unknown paths below this one.
    Fallback(String),
    /// `package.Service/Method`.
    #[cfg_attr(not(feature = "grpc"), expect(dead_code, reason = "only a descriptor set has them"))]
    Rpc(String),
}

/// What is tried where the methods of a path are not known. `OPTIONS` is not: a CORS layer answers it for every path, since a browser's
/// preflight has no credential.
pub(super) const USUAL_METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Takes the place of a parameter in a path.
const PLACEHOLDER: &str = "placeholder";

impl Routes {
    /// No routes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a path for one method.
    ///
    /// # Panics
    /// If the method or the path is invalid.
    pub fn route(mut self, method: &str, path: &str) -> Self {
        let Ok(method) = Method::from_bytes(method.as_bytes()) else {
            panic!("`{method}` is not an HTTP method: write it like `GET`, in capitals");
        };
        self.0.push(Route::Method(method, checked(path)));
        self
    }

    /// Adds a path whose methods are not known. GET, HEAD, POST, PUT, PATCH and DELETE are tried; those that it answers with 405 (Method
    /// Not Allowed) do not count, and HEAD does not count beside GET. Other methods must be listed with [`route`](Self::route): a path
    /// that answers each of these with 405 fails the assertion if it has no method in the list.
    ///
    /// # Panics
    /// If the path is invalid.
    pub fn any(mut self, path: &str) -> Self {
        self.0.push(Route::AnyMethod(checked(path)));
        self
    }

    /// Adds the fallback of a router: what answers unknown paths. `/` is the whole application's; any other path is that where its router
    /// is nested.
    ///
    /// # Panics
    /// If the path is invalid.
    pub fn fallback(mut self, path: &str) -> Self {
        self.0.push(Route::Fallback(checked(path)));
        self
    }

    /// Adds the routes of another list.
    pub fn merge(mut self, other: impl Into<Self>) -> Self {
        self.0.extend(other.into().0);
        self
    }

    #[cfg(feature = "grpc")]
    pub(super) fn rpc(&mut self, service: &str, method: &str) {
        self.0.push(Route::Rpc(format!("{service}/{method}")));
    }

    /// Whether the path is also listed with a method.
    pub(super) fn has_method_of(&self, path: &str) -> bool {
        self.iter().any(|route| matches!(route, Route::Method(_, of) if of == path))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Routes {
    /// Pairs of a method and a path.
    ///
    /// # Panics
    /// If a method or a path is invalid.
    fn from(routes: [(&str, &str); N]) -> Self {
        routes.into_iter().fold(Self::new(), |all, (method, path)| all.route(method, path))
    }
}

#[cfg(feature = "axum")]
impl From<tollgate_axum::RecordedRoutes> for Routes {
    fn from(recorded: tollgate_axum::RecordedRoutes) -> Self {
        let routes = recorded.paths().fold(Self::new(), Self::any);
        recorded.fallbacks().fold(routes, Self::fallback)
    }
}

fn checked(path: &str) -> String {
    if let Err(error) = http_request(Method::GET, path).body(()) {
        panic!("`{path}` is not a path: {error}");
    }
    assert!(path.starts_with('/'), "`{path}` is not a path: it must begin with `/`");
    path.to_owned()
}

/// A request over HTTP/1.1, with placeholders for the parameters of the path.
pub(super) fn http_request(method: Method, path: &str) -> Builder {
    Request::builder().method(method).uri(filled(path)).header(header::HOST, "localhost")
}

/// A request to a path that no route has.
pub(super) fn fallback_request(method: Method, prefix: &str) -> Builder {
    let prefix = prefix.trim_end_matches('/');
    http_request(method, &format!("{prefix}/no-route-of-this-router-has-this-path"))
}

/// A call over HTTP/2.
pub(super) fn rpc_request(name: &str) -> Builder {
    Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://localhost/{name}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
}

/// Replaces `{id}` and `{*rest}`. `{{` and `}}` are braces.
fn filled(path: &str) -> String {
    let mut filled = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        if let Some(after) = from.strip_prefix("{{") {
            filled.push_str("%7B");
            rest = after;
        } else if let Some(after) = from.strip_prefix("}}") {
            filled.push_str("%7D");
            rest = after;
        } else if let Some((_, after)) = from.split_once('}').filter(|_| from.starts_with('{')) {
            filled.push_str(PLACEHOLDER);
            rest = after;
        } else {
            panic!("`{path}` is not a path: a brace is not closed or not opened");
        }
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_take_the_place_of_parameters() {
        for (path, expected) in [
            ("/", "/"),
            ("/jobs/{id}", "/jobs/placeholder"),
            ("/{a}/x/{*rest}", "/placeholder/x/placeholder"),
            ("/{{literal}}/{id}", "/%7Bliteral%7D/placeholder"),
        ] {
            assert_eq!(filled(path), expected);
        }
    }

    #[test]
    #[should_panic(expected = "`/jobs/{id` is not a path: a brace is not closed")]
    fn an_open_brace_is_an_error() {
        let _ = Routes::new().any("/jobs/{id");
    }

    #[test]
    #[should_panic(expected = "`health` is not a path: it must begin with `/`")]
    fn a_path_begins_with_a_slash() {
        let _ = Routes::from([("GET", "health")]);
    }

    #[test]
    #[should_panic(expected = "`GET /` is not an HTTP method")]
    fn a_method_is_a_method() {
        let _ = Routes::new().route("GET /", "/");
    }
}
