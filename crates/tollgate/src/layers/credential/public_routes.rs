//! Routes that need no credential.

use std::{fmt, sync::Arc};

use http::Method;
use tollgate_core::request::RequestHead;

use crate::{
    ConfigurationError,
    layers::route_map::{Methods, RouteMap, find},
};

/// Routes that are open to everyone, by method and path pattern, such as health checks. Patterns and methods match as in a
/// [`ScopeMap`](crate::scope::ScopeMap).
///
/// A request for such a route reaches the inner service without a principal, past all guards and limits, whatever credential it has or
/// lacks. It gets a request ID. It is not counted, not charged, and not recorded as usage.
///
/// A credential in such a request is not verified, so a bad one is not refused: a probe that sends an old key must not report a healthy
/// service as down. For the same reason neither layers nor handlers find it in the [`RequestContext`](crate::RequestContext). It is
/// marked sensitive, and removed [if so configured](crate::CredentialLayer::with_removal), as in every other request.
///
/// ```
/// use tollgate::{KeyVerifier, Tollgate, verify::PublicRoutes};
///
/// fn stack(verifier: KeyVerifier) -> Result<Tollgate, tollgate::ConfigurationError> {
///     let public = PublicRoutes::new().get("/health").post("/grpc.health.v1.Health/Check");
///     Tollgate::builder().verify(verifier).public(public).build()
/// }
/// ```
///
/// # What is not public
///
/// - A method that is not listed. `GET` includes `HEAD`, and the `CONNECT` that opens a WebSocket over HTTP/2 (RFC 8441).
/// - A path that is written differently (`/health/`, `//health`, `/%68ealth`): paths are compared as they were sent. A layer around a
///   *nested* axum router sees paths without the prefix of the nest.
/// - A path that a more specific pattern matches, if that pattern is not public for the method: an [exception](Self::except), or in a
///   built stack a route that its `ScopeMap` lists. With `/jobs/{id}` public and `/jobs/secret` in the `ScopeMap`, `/jobs/secret` is
///   guarded.
/// - A path that matches by a parameter, if a service or a proxy could read it as another path: one with a segment `.` or `..`, also as
///   `%2e`; with `%2f`, `%5c`, `\` or `//`.
///
/// A `CredentialLayer` that stands alone does not know the `ScopeMap` of a layer inside it: list the exceptions.
#[derive(Clone, Debug, Default)]
pub struct PublicRoutes {
    // `false` for an exception.
    routes: RouteMap<bool>,
}

impl PublicRoutes {
    /// No routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// `GET` on this path is public, and with it `HEAD`, and the `CONNECT` that opens a WebSocket over HTTP/2.
    pub fn get(self, path: impl Into<String>) -> Self {
        self.route(Method::GET, path)
    }

    /// `POST` on this path is public. gRPC calls every method by `POST`.
    pub fn post(self, path: impl Into<String>) -> Self {
        self.route(Method::POST, path)
    }

    /// Every method on this path is public.
    pub fn any(mut self, path: impl Into<String>) -> Self {
        self.routes.insert(None, path.into(), true);
        self
    }

    /// A method on this path is public.
    pub fn route(mut self, method: Method, path: impl Into<String>) -> Self {
        self.routes.insert(Some(method), path.into(), true);
        self
    }

    /// A method on this path is not public, although a less specific pattern or [`any`](Self::any) lists it. Nor is any other method on the
    /// path that is not listed for the path itself.
    ///
    /// ```
    /// use http::Method;
    /// use tollgate::verify::PublicRoutes;
    ///
    /// let public = PublicRoutes::new().get("/static/{*path}").except(Method::GET, "/static/reports/{*path}");
    /// # let _ = public;
    /// ```
    pub fn except(mut self, method: Method, path: impl Into<String>) -> Self {
        self.routes.insert(Some(method), path.into(), false);
        self
    }

    /// These routes, and those.
    pub fn and(mut self, those: Self) -> Self {
        self.routes.extend(those.routes);
        self
    }

    /// Whether the routes can be compiled, for those that are checked before a stack is built.
    ///
    /// # Errors
    /// If a path pattern is malformed or conflicts with another, or a route is listed twice.
    pub fn validate(&self) -> Result<(), ConfigurationError> {
        self.clone().compile().map(|_| ())
    }

    /// `None` if nothing is public.
    pub(crate) fn compile(self) -> Result<Option<CompiledRoutes>, ConfigurationError> {
        self.compile_as("PublicRoutes")
    }

    fn compile_as(self, name: &'static str) -> Result<Option<CompiledRoutes>, ConfigurationError> {
        let listed = self.clone();
        let router = self.routes.compile(name, |_path, methods| Ok(with_connect(methods)))?;
        let has_public = listed.routes.values().any(|is_public| *is_public);
        Ok(has_public.then(|| CompiledRoutes(Arc::new(Compiled { router, listed }))))
    }
}

/// A path that is public for every method, and not for `GET`, opens no WebSocket either: over HTTP/2 it begins with `CONNECT`.
fn with_connect(mut methods: Methods<bool>) -> Methods<bool> {
    let excepts_get = methods.contains(&(Some(Method::GET), false));
    if excepts_get && !methods.iter().any(|(method, _)| *method == Some(Method::CONNECT)) {
        methods.push((Some(Method::CONNECT), false));
    }
    methods
}

/// Compiled routes. Layers share them.
#[derive(Clone)]
pub(crate) struct CompiledRoutes(Arc<Compiled>);

struct Compiled {
    router: matchit::Router<Methods<bool>>,
    // What the router was made of.
    listed: PublicRoutes,
}

impl CompiledRoutes {
    /// These routes, except those that a `ScopeMap` lists. What is public itself stays so.
    pub(crate) fn except<'r>(
        &self,
        guarded: impl Iterator<Item = (Option<&'r Method>, &'r str)>,
    ) -> Result<Option<Self>, ConfigurationError> {
        let mut all = self.0.listed.clone();
        for (method, path) in guarded {
            all.routes.insert_new(method, path, false);
        }
        all.compile_as("PublicRoutes and ScopeMap (which must name the same parameters in the same path)")
    }

    #[inline(never)]
    pub(crate) fn contain(&self, head: RequestHead<'_>) -> bool {
        let path = head.uri.path();
        self.0.router.at(path).is_ok_and(|found| {
            find(found.value, head) == Some(&true) && (found.params.is_empty() || has_one_reading(path))
        })
    }
}

/// Whether every service reads the path in the same way: it has nothing that some of them resolve, decode or merge before they route.
fn has_one_reading(path: &str) -> bool {
    let path = path.to_ascii_lowercase().replace("%2e", ".");
    let is_resolved = path.split('/').any(|segment| matches!(segment, "." | ".."));
    !is_resolved && !["%2f", "%5c", "\\", "//"].iter().any(|other| path.contains(other))
}

impl fmt::Debug for CompiledRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledRoutes").finish_non_exhaustive()
    }
}
