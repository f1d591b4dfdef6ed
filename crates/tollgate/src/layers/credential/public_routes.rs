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
/// Paths are compared as they were sent: a path that is written differently (`/health/`, `//health`, `/%68ealth`) is not public. A
/// method that is not listed is not public either.
///
/// ```
/// use tollgate::{KeyVerifier, Tollgate, verify::PublicRoutes};
///
/// fn stack(verifier: KeyVerifier) -> Result<Tollgate, tollgate::ConfigurationError> {
///     let public = PublicRoutes::new().get("/health").post("/grpc.health.v1.Health/Check");
///     Tollgate::builder().verify(verifier).public(public).build()
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct PublicRoutes {
    routes: RouteMap<()>,
}

impl PublicRoutes {
    /// No routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// `GET` (and `HEAD`) on this path is public.
    pub fn get(self, path: impl Into<String>) -> Self {
        self.route(Method::GET, path)
    }

    /// `POST` on this path is public. gRPC calls every method by `POST`.
    pub fn post(self, path: impl Into<String>) -> Self {
        self.route(Method::POST, path)
    }

    /// Every method on this path is public.
    pub fn any(mut self, path: impl Into<String>) -> Self {
        self.routes.insert(None, path.into(), ());
        self
    }

    /// A method on this path is public.
    pub fn route(mut self, method: Method, path: impl Into<String>) -> Self {
        self.routes.insert(Some(method), path.into(), ());
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

    pub(crate) fn compile(self) -> Result<CompiledRoutes, ConfigurationError> {
        let router = self.routes.compile("PublicRoutes", |_path, methods| Ok(methods))?;
        Ok(CompiledRoutes(Arc::new(router)))
    }
}

/// Compiled routes. Layers share them.
#[derive(Clone)]
pub(crate) struct CompiledRoutes(Arc<matchit::Router<Methods<()>>>);

impl CompiledRoutes {
    #[inline(never)]
    pub(crate) fn contain(&self, head: RequestHead<'_>) -> bool {
        self.0.at(head.uri.path()).is_ok_and(|found| find(found.value, head).is_some())
    }
}

impl fmt::Debug for CompiledRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledRoutes").finish_non_exhaustive()
    }
}
