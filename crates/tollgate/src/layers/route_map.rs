//! A map of routes, in axum's path syntax.

use std::collections::BTreeMap;

use http::{Method, Version};
use tollgate_core::request::RequestHead;

use crate::ConfigurationError;

/// What is listed for each path and method.
#[derive(Clone, Debug)]
pub(crate) struct RouteMap<T>(BTreeMap<String, Methods<T>>);

/// What is listed for the methods of a path. `None` is every method without an entry of its own.
pub(crate) type Methods<T> = Vec<(Option<Method>, T)>;

impl<T> Default for RouteMap<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> RouteMap<T> {
    pub(crate) fn insert(&mut self, method: Option<Method>, path: String, value: T) {
        self.0.entry(path).or_default().push((method, value));
    }

    /// Inserts what is not listed yet.
    pub(crate) fn insert_new(&mut self, method: Option<&Method>, path: &str, value: T) {
        let methods = self.0.entry(path.to_owned()).or_default();
        if !methods.iter().any(|(listed, _)| listed.as_ref() == method) {
            methods.push((method.cloned(), value));
        }
    }

    /// The routes that are listed.
    pub(crate) fn routes(&self) -> impl Iterator<Item = (Option<&Method>, &str)> {
        let methods = self.0.iter();
        methods.flat_map(|(path, methods)| {
            methods.iter().map(move |(method, _)| (method.as_ref(), path.as_str()))
        })
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.values().flatten().map(|(_, value)| value)
    }

    pub(crate) fn extend(&mut self, other: Self) {
        for (path, methods) in other.0 {
            self.0.entry(path).or_default().extend(methods);
        }
    }

    /// Makes a router of the paths. `name`: the map's type, as errors name it. `route`: what the router holds for a path.
    pub(crate) fn compile<R>(
        self,
        name: &'static str,
        route: impl Fn(&str, Methods<T>) -> Result<R, ConfigurationError>,
    ) -> Result<matchit::Router<R>, ConfigurationError> {
        let mut router = matchit::Router::new();
        for (path, methods) in self.0 {
            if !path.starts_with('/') || path.split('/').any(|segment| segment.starts_with([':', '*'])) {
                return Err(ConfigurationError::new(format!(
                    "{name}, path {path}: a path begins with / and writes its parameters as {{name}} or {{*rest}}"
                )));
            }
            for (at, (method, _)) in methods.iter().enumerate() {
                if methods.iter().take(at).any(|(earlier, _)| earlier == method) {
                    let method = method.as_ref().map_or("any method", Method::as_str);
                    return Err(ConfigurationError::new(format!(
                        "{name} lists {method} {path} twice: keep one"
                    )));
                }
            }
            let route = route(&path, methods)?;
            router
                .insert(&path, route)
                .map_err(|error| ConfigurationError::new(format!("{name}, path {path}: {error}")))?;
        }
        Ok(router)
    }
}

/// The methods of a map `$map` by which routes are listed in its field `routes`. The documentation says what a route `$does`.
macro_rules! impl_route_methods {
    ($map:ident, $value:ident: $type:ty, $does:literal) => {
        impl $map {
            #[doc = concat!("What `GET` (and `HEAD`) ", $does, " on this path.")]
            pub fn get(self, path: impl Into<String>, $value: $type) -> Self {
                self.route(http::Method::GET, path, $value)
            }

            #[doc = concat!("What `POST` ", $does, " on this path.")]
            pub fn post(self, path: impl Into<String>, $value: $type) -> Self {
                self.route(http::Method::POST, path, $value)
            }

            #[doc = concat!("What `PUT` ", $does, " on this path.")]
            pub fn put(self, path: impl Into<String>, $value: $type) -> Self {
                self.route(http::Method::PUT, path, $value)
            }

            #[doc = concat!("What `PATCH` ", $does, " on this path.")]
            pub fn patch(self, path: impl Into<String>, $value: $type) -> Self {
                self.route(http::Method::PATCH, path, $value)
            }

            #[doc = concat!("What `DELETE` ", $does, " on this path.")]
            pub fn delete(self, path: impl Into<String>, $value: $type) -> Self {
                self.route(http::Method::DELETE, path, $value)
            }

            #[doc = concat!("What every method without an entry of its own ", $does, " on this path.")]
            pub fn any(mut self, path: impl Into<String>, $value: $type) -> Self {
                self.routes.insert(None, path.into(), $value.into());
                self
            }

            #[doc = concat!("What a method ", $does, " on this path.")]
            pub fn route(mut self, method: http::Method, path: impl Into<String>, $value: $type) -> Self {
                self.routes.insert(Some(method), path.into(), $value.into());
                self
            }
        }
    };
}

pub(crate) use impl_route_methods;

/// What is listed for the method of a request. The method's own entry comes first, then `GET`'s for `HEAD`, then that of every method,
/// then `GET`'s for the `CONNECT` that opens a WebSocket over HTTP/2 (RFC 8441).
pub(crate) fn find<'m, T>(methods: &'m Methods<T>, head: RequestHead<'_>) -> Option<&'m T> {
    let entry = |wanted: Option<&Method>| {
        let (_, value) = methods.iter().find(|(method, _)| method.as_ref() == wanted)?;
        Some(value)
    };
    let is = |method| *head.method == method;
    let opens_websocket = is(Method::CONNECT) && head.version == Version::HTTP_2;
    entry(Some(head.method))
        .or_else(|| entry(is(Method::HEAD).then_some(Some(&Method::GET))?))
        .or_else(|| entry(None))
        .or_else(|| entry(opens_websocket.then_some(Some(&Method::GET))?))
}
