//! What a request is estimated to cost.

use std::{fmt, sync::Arc};

use tollgate_core::{
    request::RequestHead,
    verify::{Plan, Principal},
};

use crate::{
    ConfigurationError,
    layers::route_map::{Methods, RouteMap, find, impl_route_methods},
};

/// The estimated cost of a request, in credits. A request whose estimate is 0 is free: nothing is reserved, and nothing that its handler
/// reports is charged.
///
/// ```
/// use tollgate::credits::{CreditCost, CreditCosts};
///
/// let same = CreditCost::from(1);
/// let by_route = CreditCosts::new().post("/scan", 1).post("/batch", 5).otherwise(0)?;
/// let by_plan = CreditCost::by_request(|head, _principal, plan| match (head.uri.path(), plan.map(|plan| plan.tier())) {
///     ("/scan", Some("enterprise")) => 0,
///     ("/scan", _) => 1,
///     _ => 5,
/// });
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
#[derive(Clone)]
pub struct CreditCost(Kind);

#[derive(Clone)]
enum Kind {
    Fixed(u64),
    ByRoute { routes: Arc<matchit::Router<Methods<u64>>>, otherwise: u64 },
    ByRequest(Arc<OfRequest>),
}

type OfRequest =
    dyn for<'r> Fn(RequestHead<'r>, Option<&'r Principal>, Option<&'r Plan>) -> u64 + Send + Sync;

impl CreditCost {
    /// What a function returns for the request's head, its principal, and the principal's active plan. The principal is absent only
    /// where anonymous requests are accepted; such a request is refused with 401 unless it is free.
    pub fn by_request(
        cost: impl for<'r> Fn(RequestHead<'r>, Option<&'r Principal>, Option<&'r Plan>) -> u64
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self(Kind::ByRequest(Arc::new(cost)))
    }

    pub(super) fn of(
        &self,
        head: RequestHead<'_>,
        principal: Option<&Principal>,
        plan: Option<&Plan>,
    ) -> u64 {
        match &self.0 {
            Kind::Fixed(cost) => *cost,
            Kind::ByRoute { routes, otherwise } => {
                let route = routes.at(head.uri.path()).ok();
                route.and_then(|found| find(found.value, head)).copied().unwrap_or(*otherwise)
            }
            Kind::ByRequest(cost) => cost(head, principal, plan),
        }
    }
}

impl From<u64> for CreditCost {
    /// The same for each request.
    fn from(cost: u64) -> Self {
        Self(Kind::Fixed(cost))
    }
}

impl fmt::Debug for CreditCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Fixed(cost) => write!(f, "CreditCost({cost})"),
            Kind::ByRoute { .. } => f.write_str("CreditCost(by route)"),
            Kind::ByRequest(_) => f.write_str("CreditCost(by request)"),
        }
    }
}

/// What routes cost, by method and path pattern: completed by [`otherwise`](Self::otherwise), which says what all other routes cost.
///
/// Patterns and methods match as in a [`ScopeMap`](crate::scope::ScopeMap).
#[derive(Clone, Debug, Default)]
pub struct CreditCosts {
    routes: RouteMap<u64>,
}

impl CreditCosts {
    /// Costs without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// What every route costs that is not listed: also each method that a listed path does not name, and each spelling of a path that the
    /// inner service may treat as a listed one (`/scan/`, `//scan`). If all listed routes cost as much, the cost is the same for each
    /// request.
    ///
    /// # Errors
    /// If a path pattern is malformed or conflicts with another, or a route is listed twice.
    pub fn otherwise(self, cost: u64) -> Result<CreditCost, ConfigurationError> {
        let is_same = self.routes.values().all(|listed| *listed == cost);
        let routes = self.routes.compile("CreditCosts", |_path, methods| Ok(methods))?;
        if is_same {
            return Ok(CreditCost::from(cost));
        }
        Ok(CreditCost(Kind::ByRoute { routes: Arc::new(routes), otherwise: cost }))
    }
}

impl_route_methods!(CreditCosts, cost: u64, "costs");

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_route_that_is_not_listed_costs_what_the_map_says() {
        let costs = || CreditCosts::new().post("/scan", 1).get("/scans/{id}", 2).any("/scans/{id}", 3);
        for (method, path, cost) in [
            ("POST", "/scan", 1),
            ("GET", "/scan", 7),
            ("POST", "/scan/", 7),
            ("GET", "/scans/17", 2),
            ("HEAD", "/scans/17", 2),
            ("DELETE", "/scans/17", 3),
            ("GET", "/", 7),
        ] {
            let request = Request::builder().method(method).uri(path).body(()).unwrap();
            let found = costs().otherwise(7).unwrap().of(RequestHead::of(&request), None, None);
            assert_eq!(found, cost, "{method} {path}");
        }
        let twice = costs().post("/scan", 2).otherwise(0).unwrap_err().to_string();
        assert_eq!(twice, "CreditCosts lists POST /scan twice: keep one");
    }
}
