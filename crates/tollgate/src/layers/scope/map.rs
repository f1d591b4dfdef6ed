//! Which scopes a route requires.

use http::Method;
use tollgate_core::{
    denial::{Denial, DenialKind},
    request::RequestHead,
    scope::Requirement,
};

use super::Required;
use crate::{
    ConfigurationError,
    layers::route_map::{Methods, RouteMap, find, impl_route_methods},
};

/// Which scopes a route requires, by method and path pattern.
///
/// Patterns have axum's syntax: `/jobs/{id}` matches one segment, `/files/{*path}` all that follow. Of several patterns that match,
/// the most specific one counts. Routes that are not listed are denied: an authenticated caller gets 404 for a path that is not
/// listed, and 405 with `Allow` for a path that is listed for other methods only.
///
/// A method's own entry comes first, then `GET`'s for `HEAD`, then that of [`any`](Self::any), then `GET`'s for the `CONNECT` that
/// opens a WebSocket over HTTP/2 (RFC 8441).
#[derive(Clone, Debug, Default)]
pub struct ScopeMap {
    routes: RouteMap<Requirement>,
    allows_unlisted: bool,
}

impl ScopeMap {
    /// A map without routes: denies everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets every route that is not listed pass, with or without a principal: for a map that only lists exceptions, around a
    /// service that guards itself. This includes every method that a listed path does not name, and every spelling of a path
    /// that the inner service may treat as a listed one (`/admin/`, `//admin`).
    pub fn dangerous_allow_unlisted(mut self) -> Self {
        self.allows_unlisted = true;
        self
    }

    /// The routes that are listed.
    pub(super) fn routes(&self) -> impl Iterator<Item = (Option<&Method>, &str)> {
        self.routes.routes()
    }

    pub(super) fn compile(self) -> Result<CompiledMap, ConfigurationError> {
        let router = self.routes.compile("ScopeMap", |path, methods| {
            for (method, requirement) in &methods {
                let name = method.as_ref().map_or("any method", Method::as_str);
                requirement
                    .validate()
                    .map_err(|error| ConfigurationError::new(format!("ScopeMap, {name} {path}: {error}")))?;
            }
            Ok(Route::new(methods))
        })?;
        let unlisted = Denial::new(DenialKind::RouteUnlisted)
            .with_log_detail("the path is not in the ScopeMap; within a nested router it lacks the prefix");
        Ok(CompiledMap { router, unlisted, allows_unlisted: self.allows_unlisted })
    }
}

impl_route_methods!(ScopeMap, requirement: impl Into<Requirement>, "requires");

#[derive(Debug)]
pub(super) struct CompiledMap {
    router: matchit::Router<Route>,
    // Refusals of routes that are not listed are made once, because scanners cause many of them.
    unlisted: Denial,
    allows_unlisted: bool,
}

/// What a map lists for a path.
#[derive(Debug)]
struct Route {
    methods: Methods<Required>,
    // The refusal of every other method.
    other_method: Denial,
}

impl Route {
    fn new(methods: Methods<Requirement>) -> Self {
        let listed: Vec<_> = methods.iter().filter_map(|(method, _)| method.as_ref()).collect();
        // `HEAD` has the entry of `GET`.
        let has_head_by_get = listed.contains(&&Method::GET) && !listed.contains(&&Method::HEAD);
        let head = has_head_by_get.then_some(&Method::HEAD);
        let allowed: Vec<_> = listed.into_iter().chain(head).map(Method::as_str).collect();
        let other_method = Denial::method_not_allowed(allowed.join(", "))
            .with_log_detail("the ScopeMap lists the path, but not for this method");
        let methods = methods.into_iter().map(|(method, requirement)| (method, Required::new(requirement)));
        Self { methods: methods.collect(), other_method }
    }
}

/// What a map has for a route.
pub(super) enum Listed<'m> {
    Requires(&'m Required),
    Allowed,
    Denied(&'m Denial),
}

impl CompiledMap {
    pub(super) fn find(&self, head: RequestHead<'_>) -> Listed<'_> {
        let route = self.router.at(head.uri.path()).ok().map(|found| found.value);
        match (route, route.and_then(|route| find(&route.methods, head))) {
            (_, Some(required)) => Listed::Requires(required),
            (_, None) if self.allows_unlisted => Listed::Allowed,
            (Some(route), None) => Listed::Denied(&route.other_method),
            (None, None) => Listed::Denied(&self.unlisted),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Version};
    use tollgate_core::scope::scope;

    use super::*;

    fn found(map: ScopeMap, method: &str, path: &str) -> String {
        let request = Request::builder().method(method).version(Version::HTTP_2).uri(path);
        let (head, ()) = request.body(()).unwrap().into_parts();
        match map.compile().unwrap().find(RequestHead::from(&head)) {
            Listed::Requires(required) => required.requirement.to_string(),
            Listed::Allowed => "allowed".to_owned(),
            Listed::Denied(denial) => {
                format!("{} {}", denial.status().as_u16(), denial.allowed_methods().unwrap_or_default())
            }
        }
    }

    fn map() -> ScopeMap {
        ScopeMap::new()
            .get("/jobs/{id}", scope("read"))
            .get("/jobs/latest", scope("latest"))
            .delete("/jobs/{id}", scope("write"))
            .any("/any", scope("any"))
            .get("/any", scope("get"))
            .get("/files/{*path}", scope("files"))
            .route(Method::HEAD, "/head", scope("head"))
            .route(Method::from_bytes(b"PURGE").unwrap(), "/head", scope("purge"))
    }

    #[test]
    fn finds_the_most_specific_route() {
        for (method, path, expected) in [
            ("GET", "/jobs/1", "read"),
            ("GET", "/jobs/latest", "latest"),
            ("DELETE", "/jobs/1", "write"),
            ("HEAD", "/jobs/1", "read"),
            ("CONNECT", "/jobs/1", "read"),
            ("PATCH", "/any", "any"),
            ("HEAD", "/any", "get"),
            ("CONNECT", "/any", "any"),
            ("GET", "/files/a/b", "files"),
            ("POST", "/jobs/1", "405 GET, DELETE, HEAD"),
            ("DELETE", "/jobs/latest", "405 GET, HEAD"),
            ("OPTIONS", "/files/a", "405 GET, HEAD"),
            ("GET", "/head", "405 HEAD, PURGE"),
            ("GET", "/jobs/1/", "404 "),
            ("GET", "//jobs/1", "404 "),
            ("GET", "/", "404 "),
        ] {
            assert_eq!(found(map(), method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn unlisted_routes_pass_only_where_the_map_says_so() {
        assert_eq!(found(map().dangerous_allow_unlisted(), "GET", "/elsewhere"), "allowed");
        assert_eq!(found(map().dangerous_allow_unlisted(), "GET", "/jobs/1"), "read");
    }

    #[test]
    fn what_cannot_work_is_a_clear_error() {
        for (map, expected) in [
            (map().get("/jobs/{id}", scope("other")), "ScopeMap lists GET /jobs/{id} twice: keep one"),
            (map().get("/jobs/{name}", scope("other")), "/jobs/{name}"),
            (map().get("/x/{", scope("other")), "/x/{"),
            (map().get("/x", scope("not valid")), "not valid"),
            (map().get("jobs", scope("other")), "begins with /"),
            (map().get("/jobs/:id", scope("other")), "{name}"),
        ] {
            let error = map.compile().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
