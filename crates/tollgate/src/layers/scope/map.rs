//! Which scopes a route requires.

use std::collections::BTreeMap;

use http::{Method, Version};
use tollgate_core::{request::RequestHead, scope::Requirement};

use super::Required;
use crate::ConfigurationError;

/// Which scopes a route requires, by method and path pattern.
///
/// Patterns have axum's syntax: `/jobs/{id}` matches one segment, `/files/{*path}` all that follow. Of several patterns that match,
/// the most specific one counts. Routes that are not listed are denied.
///
/// A method's own entry comes first, then `GET`'s for `HEAD`, then that of [`any`](Self::any), then `GET`'s for the `CONNECT` that
/// opens a WebSocket over HTTP/2 (RFC 8441).
#[derive(Clone, Debug, Default)]
pub struct ScopeMap {
    routes: BTreeMap<String, Vec<(Option<Method>, Requirement)>>,
    allows_unlisted: bool,
}

impl ScopeMap {
    /// A map without routes: denies everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// What `GET` (and `HEAD`) requires on this path.
    pub fn get(self, path: impl Into<String>, requirement: impl Into<Requirement>) -> Self {
        self.route(Method::GET, path, requirement)
    }

    /// What `POST` requires on this path.
    pub fn post(self, path: impl Into<String>, requirement: impl Into<Requirement>) -> Self {
        self.route(Method::POST, path, requirement)
    }

    /// What `PUT` requires on this path.
    pub fn put(self, path: impl Into<String>, requirement: impl Into<Requirement>) -> Self {
        self.route(Method::PUT, path, requirement)
    }

    /// What `PATCH` requires on this path.
    pub fn patch(self, path: impl Into<String>, requirement: impl Into<Requirement>) -> Self {
        self.route(Method::PATCH, path, requirement)
    }

    /// What `DELETE` requires on this path.
    pub fn delete(self, path: impl Into<String>, requirement: impl Into<Requirement>) -> Self {
        self.route(Method::DELETE, path, requirement)
    }

    /// What every method without an entry of its own requires on this path.
    pub fn any(self, path: impl Into<String>, requirement: impl Into<Requirement>) -> Self {
        self.insert(None, path.into(), requirement.into())
    }

    /// What a method requires on this path.
    pub fn route(self, method: Method, path: impl Into<String>, requirement: impl Into<Requirement>) -> Self {
        self.insert(Some(method), path.into(), requirement.into())
    }

    /// Lets every route that is not listed pass, with or without a principal: for a map that only lists exceptions, around a
    /// service that guards itself. This includes every method that a listed path does not name, and every spelling of a path
    /// that the inner service may treat as a listed one (`/admin/`, `//admin`).
    pub fn dangerous_allow_unlisted(mut self) -> Self {
        self.allows_unlisted = true;
        self
    }

    fn insert(mut self, method: Option<Method>, path: String, requirement: Requirement) -> Self {
        self.routes.entry(path).or_default().push((method, requirement));
        self
    }

    pub(super) fn compile(self) -> Result<CompiledMap, ConfigurationError> {
        let mut router = matchit::Router::new();
        for (path, methods) in self.routes {
            if !path.starts_with('/') || path.split('/').any(|segment| segment.starts_with([':', '*'])) {
                return Err(ConfigurationError::new(format!(
                    "ScopeMap, path {path}: a path begins with / and writes its parameters as {{name}} or {{*rest}}"
                )));
            }
            for (at, (method, requirement)) in methods.iter().enumerate() {
                let name = method.as_ref().map_or("any method", Method::as_str);
                if methods.iter().take(at).any(|(earlier, _)| earlier == method) {
                    return Err(ConfigurationError::new(format!(
                        "ScopeMap lists {name} {path} twice: keep one"
                    )));
                }
                requirement
                    .validate()
                    .map_err(|error| ConfigurationError::new(format!("ScopeMap, {name} {path}: {error}")))?;
            }
            let required =
                methods.into_iter().map(|(method, requirement)| (method, Required::new(requirement)));
            router
                .insert(&path, required.collect())
                .map_err(|error| ConfigurationError::new(format!("ScopeMap, path {path}: {error}")))?;
        }
        Ok(CompiledMap { router, allows_unlisted: self.allows_unlisted })
    }
}

#[derive(Debug)]
pub(super) struct CompiledMap {
    router: matchit::Router<Vec<(Option<Method>, Required)>>,
    allows_unlisted: bool,
}

/// What a map has for a route.
pub(super) enum Listed<'m> {
    Requires(&'m Required),
    Allowed,
    Denied,
}

impl CompiledMap {
    pub(super) fn find(&self, head: RequestHead<'_>) -> Listed<'_> {
        let required = self.router.at(head.uri.path()).ok().and_then(|found| {
            let entry = |wanted: Option<&Method>| {
                let (_, required) = found.value.iter().find(|(method, _)| method.as_ref() == wanted)?;
                Some(required)
            };
            let is = |method| *head.method == method;
            let opens_websocket = is(Method::CONNECT) && head.version == Version::HTTP_2;
            entry(Some(head.method))
                .or_else(|| entry(is(Method::HEAD).then_some(Some(&Method::GET))?))
                .or_else(|| entry(None))
                .or_else(|| entry(opens_websocket.then_some(Some(&Method::GET))?))
        });
        match required {
            Some(required) => Listed::Requires(required),
            None if self.allows_unlisted => Listed::Allowed,
            None => Listed::Denied,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tollgate_core::scope::scope;

    use super::*;

    fn found(map: ScopeMap, method: &str, path: &str) -> String {
        let request = Request::builder().method(method).version(Version::HTTP_2).uri(path);
        let (head, ()) = request.body(()).unwrap().into_parts();
        match map.compile().unwrap().find(RequestHead::from(&head)) {
            Listed::Requires(required) => required.requirement.to_string(),
            Listed::Allowed => "allowed".to_owned(),
            Listed::Denied => "denied".to_owned(),
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
            ("POST", "/jobs/1", "denied"),
            ("GET", "/jobs/1/", "denied"),
            ("GET", "//jobs/1", "denied"),
            ("GET", "/", "denied"),
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
