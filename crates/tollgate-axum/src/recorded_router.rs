//! A router that knows its paths.

use std::{convert::Infallible, fmt};

use axum::{
    Router,
    extract::Request,
    handler::Handler,
    response::IntoResponse,
    routing::{MethodRouter, Route},
};
use tower_layer::Layer;
use tower_service::Service;

/// A [`Router`] that records its paths as they are added, because a `Router` does not tell them.
///
/// A test gives them to `tollgate_testing::coverage`, which lists the routes that need no credential. The methods are those of `Router`,
/// and mean the same:
///
/// ```
/// use axum::{Router, routing::get};
/// use tollgate_axum::RecordedRouter;
///
/// let app = RecordedRouter::new()
///     .nest("/jobs", RecordedRouter::new().route("/{id}", get(async || "a job")))
///     .route("/health", get(async || "ok"));
/// assert!(app.routes().paths().eq(["/jobs/{id}", "/health"]));
///
/// let router: Router = app.into_router(); // to be served
/// ```
///
/// Only recorded routers can be merged and nested, since the paths of another router are not known. List those of one that another crate
/// makes:
///
/// ```
/// use axum::{Router, routing::get};
/// use tollgate_axum::RecordedRouter;
///
/// # fn metrics() -> Router { Router::new().route("/metrics", get(async || "")) }
/// let metrics = RecordedRouter::with_paths(metrics(), ["/metrics"]);
/// let app: RecordedRouter = RecordedRouter::new().route("/health", get(async || "ok")).merge(metrics);
/// # assert!(app.routes().paths().eq(["/health", "/metrics"]));
/// ```
///
/// If it has a fallback, list that, too:
///
/// ```
/// use axum::Router;
/// use tollgate_axum::{RecordedRouter, RecordedRoutes};
///
/// # fn pages() -> Router { Router::new().route("/about", axum::routing::get(async || "")).fallback(async || "") }
/// let pages = RecordedRouter::from((pages(), RecordedRoutes::new().path("/about").fallback("/")));
/// # let app: RecordedRouter = RecordedRouter::new().nest("/pages", pages);
/// # assert!(app.routes().paths().eq(["/pages/about"]));
/// # assert!(app.routes().fallbacks().eq(["/pages"]));
/// ```
///
/// Everything else is done with the [router itself](Self::into_parts).
#[must_use = "a router does nothing until it is served"]
pub struct RecordedRouter<S = ()> {
    router: Router<S>,
    routes: RecordedRoutes,
}

/// The paths of a [`RecordedRouter`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedRoutes {
    paths: Vec<String>,
    fallbacks: Vec<String>,
}

impl<S: Clone + Send + Sync + 'static> RecordedRouter<S> {
    /// A router without routes.
    pub fn new() -> Self {
        Self { router: Router::new(), routes: RecordedRoutes::default() }
    }

    /// A router of another crate, whose paths you know and which has no fallback. A path that is missing here is not recorded. A fallback
    /// must be listed, too: use [`From`] with [`RecordedRoutes::fallback`].
    pub fn with_paths<'a>(router: Router<S>, paths: impl IntoIterator<Item = &'a str>) -> Self {
        Self { router, routes: paths.into_iter().fold(RecordedRoutes::new(), RecordedRoutes::path) }
    }

    /// See [`Router::route`].
    ///
    /// # Panics
    /// As `Router::route` does: the path is invalid, or overlaps with another.
    #[track_caller]
    pub fn route(mut self, path: &str, method_router: MethodRouter<S>) -> Self {
        self.routes.add(path);
        self.map(|router| router.route(path, method_router))
    }

    /// See [`Router::route_service`].
    ///
    /// # Panics
    /// As `Router::route_service` does: the path is invalid, or overlaps with another.
    #[track_caller]
    pub fn route_service<T>(mut self, path: &str, service: T) -> Self
    where
        T: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
        T::Response: IntoResponse,
        T::Future: Send + 'static,
    {
        self.routes.add(path);
        self.map(|router| router.route_service(path, service))
    }

    /// See [`Router::nest`].
    ///
    /// # Panics
    /// As `Router::nest` does: the path is invalid, or overlaps with another.
    #[track_caller]
    pub fn nest(mut self, path: &str, other: Self) -> Self {
        self.routes.nest(path, &other.routes);
        self.map(|router| router.nest(path, other.router))
    }

    /// See [`Router::nest_service`]. The paths that are recorded are the one of the service and all below it.
    ///
    /// # Panics
    /// As `Router::nest_service` does: the path is invalid, or overlaps with another.
    #[track_caller]
    pub fn nest_service<T>(mut self, path: &str, service: T) -> Self
    where
        T: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
        T::Response: IntoResponse,
        T::Future: Send + 'static,
    {
        self.routes.add(path);
        self.routes.add(&nested(path, "/{*rest}"));
        self.map(|router| router.nest_service(path, service))
    }

    /// See [`Router::merge`].
    ///
    /// # Panics
    /// As `Router::merge` does: paths overlap, or both routers have a fallback.
    #[track_caller]
    pub fn merge(mut self, other: Self) -> Self {
        self.routes.paths.extend(other.routes.paths);
        self.routes.fallbacks.extend(other.routes.fallbacks);
        self.map(|router| router.merge(other.router))
    }

    /// See [`Router::layer`]: it guards what was added before it, and nothing that is added later.
    pub fn layer<L>(self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.map(|router| router.layer(layer))
    }

    /// See [`Router::route_layer`]: it does not guard the fallback.
    ///
    /// # Panics
    /// As `Router::route_layer` does: there are no routes yet.
    #[track_caller]
    pub fn route_layer<L>(self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.map(|router| router.route_layer(layer))
    }

    /// See [`Router::fallback`].
    #[track_caller]
    pub fn fallback<H, T>(mut self, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.routes.add_fallback();
        self.map(|router| router.fallback(handler))
    }

    /// See [`Router::fallback_service`].
    pub fn fallback_service<T>(mut self, service: T) -> Self
    where
        T: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
        T::Response: IntoResponse,
        T::Future: Send + 'static,
    {
        self.routes.add_fallback();
        self.map(|router| router.fallback_service(service))
    }

    /// See [`Router::method_not_allowed_fallback`]. It is not recorded: a layer guards it like the routes to which it belongs.
    pub fn method_not_allowed_fallback<H, T>(self, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.map(|router| router.method_not_allowed_fallback(handler))
    }

    /// See [`Router::with_state`].
    pub fn with_state<S2>(self, state: S) -> RecordedRouter<S2> {
        RecordedRouter { router: self.router.with_state(state), routes: self.routes }
    }

    /// The router, to be served.
    pub fn into_router(self) -> Router<S> {
        self.router
    }

    /// The router and its paths. To continue with a changed router, use [`From`].
    pub fn into_parts(self) -> (Router<S>, RecordedRoutes) {
        (self.router, self.routes)
    }

    /// The paths that were recorded.
    pub fn routes(&self) -> &RecordedRoutes {
        &self.routes
    }

    fn map(self, change: impl FnOnce(Router<S>) -> Router<S>) -> Self {
        Self { router: change(self.router), routes: self.routes }
    }
}

impl RecordedRoutes {
    /// No routes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a path of a router that another crate makes, as axum writes it: `/jobs/{id}`.
    pub fn path(mut self, path: &str) -> Self {
        self.add(path);
        self
    }

    /// Adds the fallback of a router that another crate makes: `/`, or the path at which a router with its own fallback is nested.
    pub fn fallback(mut self, path: &str) -> Self {
        self.fallbacks.push(path.to_owned());
        self
    }

    /// The paths of all routes, in the order in which they were added: `/jobs/{id}`.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    /// Where routers have fallbacks of their own: `/`, or the path at which the router is nested.
    pub fn fallbacks(&self) -> impl Iterator<Item = &str> {
        self.fallbacks.iter().map(String::as_str)
    }

    fn add(&mut self, path: &str) {
        self.paths.push(path.to_owned());
    }

    /// A router has one fallback: a later one replaces it. Those of nested routers are kept.
    fn add_fallback(&mut self) {
        if !self.fallbacks().any(|path| path == "/") {
            self.fallbacks.push("/".to_owned());
        }
    }

    fn nest(&mut self, prefix: &str, other: &Self) {
        self.paths.extend(other.paths().map(|path| nested(prefix, path)));
        self.fallbacks.extend(other.fallbacks().map(|path| nested(prefix, path)));
    }
}

/// As axum joins them: `/` in a nested router is the path at which it is nested.
fn nested(prefix: &str, path: &str) -> String {
    match (prefix.strip_suffix('/'), path) {
        (Some(prefix), path) => format!("{prefix}{path}"),
        (None, "/") => prefix.to_owned(),
        (None, path) => format!("{prefix}{path}"),
    }
}

impl<S: Clone + Send + Sync + 'static> Default for RecordedRouter<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Clone for RecordedRouter<S> {
    fn clone(&self) -> Self {
        Self { router: self.router.clone(), routes: self.routes.clone() }
    }
}

impl<S> From<(Router<S>, RecordedRoutes)> for RecordedRouter<S> {
    fn from(parts: (Router<S>, RecordedRoutes)) -> Self {
        Self { router: parts.0, routes: parts.1 }
    }
}

impl<S> From<RecordedRouter<S>> for Router<S> {
    fn from(recorded: RecordedRouter<S>) -> Self {
        recorded.router
    }
}

impl<S> fmt::Debug for RecordedRouter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedRouter").field("routes", &self.routes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{any, get};

    use super::*;

    #[test]
    fn records_paths_and_fallbacks_of_every_kind() {
        let inner: RecordedRouter = RecordedRouter::new()
            .route("/", get(async || "inner"))
            .route("/{id}", get(async || "one"))
            .fallback(async || "inner fallback");
        let app = RecordedRouter::new()
            .route("/", get(async || "outer"))
            .nest("/a", inner.clone())
            .nest("/b/", inner)
            .merge(RecordedRouter::new().route_service("/merged", any(async || "merged")))
            .nest_service("/files", any(async || "files"))
            .fallback(async || "first")
            .fallback(async || "second")
            .with_state::<()>(());
        let (_, routes) = app.into_parts();
        let paths = ["/", "/a", "/a/{id}", "/b/", "/b/{id}", "/merged", "/files", "/files/{*rest}"];
        assert!(routes.paths().eq(paths), "{routes:?}");
        assert!(routes.fallbacks().eq(["/a", "/b/", "/"]), "{routes:?}");
    }
}
