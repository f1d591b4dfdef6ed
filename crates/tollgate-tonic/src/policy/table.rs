//! The policies of all RPCs, in the forms that the layers take.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use tollgate::{
    credits::CreditCosts, layers::TollgateBuilder, limit::Costs, scope::ScopeMap, verify::PublicRoutes,
};

use super::RpcPolicy;

/// The policies of all RPCs, complete and checked: the same table, whether they were written in the proto or in code. Made by
/// [`RpcPolicies::build`](super::RpcPolicies::build).
///
/// It has what the layers take. Nothing of the descriptors is left in it: a [`ScopeMap`] from here is what one would have written by
/// hand. Routes that are not RPCs, such as those of an axum router on the same port, are added to what the table returns.
///
/// [`guard`](Self::guard) gives a stack the public routes and the map of scopes in one call, so that neither is forgotten.
#[derive(Clone, Debug)]
pub struct PolicyTable {
    /// By full name, `pkg.Service/Method`.
    pub(super) rpcs: BTreeMap<String, RpcPolicy>,
    pub(super) routes: Vec<Route>,
    pub(super) services: BTreeSet<String>,
    // Whether a descriptor set describes the services. Otherwise all policies were written in code.
    pub(super) is_described: bool,
}

/// A route of an RPC.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) policy: RpcPolicy,
}

impl PolicyTable {
    /// Gives a stack the public routes and the map of scopes, so that each RPC has its policy, and every other
    /// request is denied. Costs are given to the layers that count: [`costs`](Self::costs), [`credit_costs`](Self::credit_costs).
    ///
    /// A stack that also has other routes takes the two parts instead: `.public(table.public_routes())`, and
    /// `.scope(table.scope_map().get("/usage", scope("usage:read")))`. Without the map of scopes, **every key may call every RPC**.
    ///
    /// ```
    /// use tollgate::{KeyVerifier, Tollgate, respond::Grpc};
    /// use tollgate_tonic::policy::PolicyTable;
    ///
    /// fn stack(table: &PolicyTable, verifier: KeyVerifier) -> Result<Tollgate, tollgate::ConfigurationError> {
    ///     table.guard(Tollgate::builder().responder(Grpc::new()).verify(verifier)).build()
    /// }
    /// ```
    pub fn guard(&self, builder: TollgateBuilder) -> TollgateBuilder {
        builder.public(self.public_routes()).scope(self.scope_map())
    }

    /// Which scopes the routes require. Everything else is denied.
    pub fn scope_map(&self) -> ScopeMap {
        self.routes.iter().fold(ScopeMap::new(), |map, Route { method, path, policy }| {
            map.route(method.clone(), path, policy.requirement())
        })
    }

    /// Which routes are open to everyone. All others are exceptions, in case the pattern of an open one matches them, too.
    pub fn public_routes(&self) -> PublicRoutes {
        self.routes.iter().fold(PublicRoutes::new(), |routes, Route { method, path, policy }| {
            if policy.is_public() {
                routes.route(method.clone(), path)
            } else {
                routes.except(method.clone(), path)
            }
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

    /// The full names of all RPCs, and their policies. `pkg.Service/{method}` stands for all methods of a service whose
    /// policy was written in code, without any descriptor set.
    pub fn rpcs(&self) -> impl Iterator<Item = (&str, &RpcPolicy)> {
        self.rpcs.iter().map(|(name, policy)| (name.as_str(), policy))
    }

    fn guarded(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(|route| !route.policy.is_public())
    }
}

/// The name that stands for all methods of a service, without any descriptor set.
pub(super) fn any_method_of(service: &str) -> String {
    format!("{service}/{{method}}")
}
