//! What requests cost by route.

use super::cost::Cost;
use crate::{
    ConfigurationError,
    layers::route_map::{RouteMap, find, impl_route_methods},
};

/// What routes take from a quota, by method and path pattern: completed by [`otherwise`](Self::otherwise), which says what all other
/// routes cost.
///
/// Patterns and methods match as in a [`ScopeMap`](crate::scope::ScopeMap). A request with a cost of 0 is not counted and never refused.
///
/// ```
/// use tollgate::{PerWindow, Policy, RateLimitLayer, limit::Costs};
///
/// let costs = Costs::new().get("/search", 10).get("/usage", 0).otherwise(1)?;
/// let layer = RateLimitLayer::from_policies([Policy::new("key", 600.per_minute()).with_cost(costs)])?;
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Costs {
    routes: RouteMap<u64>,
}

impl Costs {
    /// Costs without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// What every route costs that is not listed. If all listed routes cost as much, the cost is the same for each request.
    ///
    /// # Errors
    /// If a path pattern is malformed or conflicts with another, or a route is listed twice.
    pub fn otherwise(self, cost: u64) -> Result<Cost, ConfigurationError> {
        let is_same = self.routes.values().all(|listed| *listed == cost);
        let routes = self.routes.compile("Costs", |_path, methods| Ok(methods))?;
        if is_same {
            return Ok(Cost::units(cost));
        }
        Ok(Cost::by_request(move |head, _principal| {
            let route = routes.at(head.uri.path()).ok();
            route.and_then(|found| find(found.value, head)).copied().unwrap_or(cost)
        }))
    }
}

impl_route_methods!(Costs, cost: u64, "costs");
