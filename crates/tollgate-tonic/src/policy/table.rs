//! The policies of all RPCs, in the forms that the layers take.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use tollgate::{credits::CreditCosts, limit::Costs, scope::ScopeMap, verify::PublicRoutes};

use super::RpcPolicy;

/// The policies of all RPCs, complete and checked: the same table, whether they were written in the proto or in code. Made by
/// [`RpcPolicies::build`](super::RpcPolicies::build).
///
/// It has what the layers take. Nothing of the descriptors is left in it: a [`ScopeMap`] from here is what one would have written by
/// hand. Routes that are not RPCs, such as those of an axum router on the same port, are added to what the table returns.
#[derive(Clone, Debug)]
pub struct PolicyTable {
    /// By full name, `pkg.Service/Method`.
    pub(super) rpcs: BTreeMap<String, RpcPolicy>,
    pub(super) routes: Vec<Route>,
    pub(super) services: BTreeSet<String>,
}

/// A route of an RPC.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) policy: RpcPolicy,
}

impl PolicyTable {
    /// Which scopes the routes require. Everything else is denied.
    pub fn scope_map(&self) -> ScopeMap {
        self.routes.iter().fold(ScopeMap::new(), |map, Route { method, path, policy }| {
            map.route(method.clone(), path, policy.requirement())
        })
    }

    /// Which routes are open to everyone.
    pub fn public_routes(&self) -> PublicRoutes {
        let public = self.routes.iter().filter(|route| route.policy.is_public());
        public.fold(PublicRoutes::new(), |routes, Route { method, path, .. }| {
            routes.route(method.clone(), path)
        })
    }

    /// How much the routes take from quotas.
    pub fn costs(&self) -> Costs {
        self.guarded().fold(Costs::new(), |costs, Route { method, path, policy }| {
            costs.route(method.clone(), path, policy.cost())
        })
    }

    /// How many credits the routes are estimated to cost.
    pub fn credit_costs(&self) -> CreditCosts {
        self.guarded().fold(CreditCosts::new(), |costs, Route { method, path, policy }| {
            costs.route(method.clone(), path, policy.credits())
        })
    }

    /// The policy of an RPC by its full name, `pkg.Service/Method`.
    pub fn policy(&self, rpc: &str) -> Option<&RpcPolicy> {
        self.rpcs.get(rpc).or_else(|| self.rpcs.get(&any_method_of(rpc.split_once('/')?.0)))
    }

    /// The full names of all RPCs, and their policies. `pkg.Service/{method}` stands for all methods of a service that no descriptor
    /// set describes.
    pub fn rpcs(&self) -> impl Iterator<Item = (&str, &RpcPolicy)> {
        self.rpcs.iter().map(|(name, policy)| (name.as_str(), policy))
    }

    fn guarded(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(|route| !route.policy.is_public())
    }
}

/// The name that stands for all methods of a service that no descriptor set describes.
pub(super) fn any_method_of(service: &str) -> String {
    format!("{service}/{{method}}")
}
