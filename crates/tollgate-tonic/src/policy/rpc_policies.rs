//! Collects policies, and makes one table of them.

use std::borrow::Cow;

use http::Method;
use prost_reflect::DescriptorPool;
use tollgate::{ConfigurationError, Scopes, scope::InvalidScope};

use super::{PolicyTable, RpcPolicy, resolve::resolve};

/// Policies of RPCs, from options in the proto and from code. [`build`](Self::build) checks them.
///
/// The most specific policy of an RPC counts, as a whole: that of its method, else that of its service, else that of its package. Each
/// of the three may be written in the proto or in code, but not in both.
///
/// ```
/// use http::Method;
/// use tollgate::scope;
/// use tollgate_tonic::policy::{RpcPolicies, RpcPolicy};
///
/// let table = RpcPolicies::new()
///     .method("market.v1.Market/GetPrice", RpcPolicy::requires(scope("prices:read")))
///     .method("market.v1.Market/UploadCandles", RpcPolicy::requires(scope("candles:write")).with_cost(10))
///     .with_public_health()
///     .with_known_scopes(["prices:read", "candles:write"])
///     // The same policy for the same call as JSON.
///     .at(Method::GET, "/v1/prices/{symbol}", "market.v1.Market/GetPrice")
///     .build()?;
/// # let _ = table;
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "policies have no effect until they are built"]
pub struct RpcPolicies {
    pub(super) pool: DescriptorPool,
    pub(super) methods: Vec<(String, RpcPolicy)>,
    pub(super) services: Vec<(String, RpcPolicy)>,
    pub(super) packages: Vec<(String, RpcPolicy)>,
    /// Services that are public by one word, and their methods.
    pub(super) public: Vec<(&'static str, &'static [&'static str])>,
    pub(super) known_scopes: Option<Result<Scopes, InvalidScope>>,
    pub(super) twins: Vec<(Method, String, String)>,
}

const HEALTH: (&str, &[&str]) = ("grpc.health.v1.Health", &["Check", "List", "Watch"]);
const REFLECTION: [(&str, &[&str]); 2] = [
    ("grpc.reflection.v1.ServerReflection", &["ServerReflectionInfo"]),
    ("grpc.reflection.v1alpha.ServerReflection", &["ServerReflectionInfo"]),
];

impl RpcPolicies {
    /// No policies.
    pub fn new() -> Self {
        Self::default()
    }

    /// The policies in the options of these services: see [`with_descriptor_set`](Self::with_descriptor_set).
    ///
    /// # Errors
    /// As `with_descriptor_set`.
    pub fn from_descriptor_set(encoded: &[u8]) -> Result<Self, ConfigurationError> {
        Self::new().with_descriptor_set(encoded)
    }

    /// Adds the services of a descriptor set, and the policies in their options. From here on every RPC of the set needs a policy.
    ///
    /// `encoded`: what `protoc --include_imports --descriptor_set_out` writes, or `prost-build` to its `file_descriptor_set_path`, or
    /// what protox's `Compiler::encode_file_descriptor_set` returns. A set that was decoded and encoded again by `prost-types` has lost
    /// the options.
    ///
    /// # Errors
    /// If the bytes are not a descriptor set with its imports, or it has no service.
    pub fn with_descriptor_set(mut self, encoded: &[u8]) -> Result<Self, ConfigurationError> {
        let before = self.pool.services().len();
        self.pool.decode_file_descriptor_set(encoded).map_err(|error| {
            ConfigurationError::new(format!(
                "RpcPolicies: the descriptor set cannot be read, {HOW_TO_ENCODE}: {error}"
            ))
        })?;
        if self.pool.services().len() == before {
            return Err(ConfigurationError::new(format!(
                "RpcPolicies: the descriptor set adds no service, {HOW_TO_ENCODE}"
            )));
        }
        Ok(self)
    }

    /// The policy of a method, by its full name: `pkg.Service/Method`.
    pub fn method(mut self, name: impl Into<String>, policy: RpcPolicy) -> Self {
        self.methods.push((name.into(), policy));
        self
    }

    /// The policy of the service's methods that have none of their own, by the service's full name: `pkg.Service`. If no descriptor
    /// set describes the service, this holds for every method name.
    pub fn service(mut self, name: impl Into<String>, policy: RpcPolicy) -> Self {
        self.services.push((name.into(), policy));
        self
    }

    /// The policy of the package's services that have none of their own. It does not hold for the packages below: `market.v1`
    /// and `market.v1.admin` are two packages. The package is one of a descriptor set.
    pub fn package(mut self, name: impl Into<String>, policy: RpcPolicy) -> Self {
        self.packages.push((name.into(), policy));
        self
    }

    /// Opens the health service to everyone: `grpc.health.v1.Health`.
    pub fn with_public_health(mut self) -> Self {
        self.public.push(HEALTH);
        self
    }

    /// Opens the reflection services to everyone: `grpc.reflection.v1.ServerReflection`, and that of `v1alpha`. Reflection shows the
    /// names of all services and messages.
    pub fn with_public_reflection(mut self) -> Self {
        self.public.extend(REFLECTION);
        self
    }

    /// All scopes that a key can have. A policy that requires another one is an error. `jobs:*` stands for all scopes that the wildcard
    /// [grants](Scopes#wildcards).
    pub fn with_known_scopes(mut self, scopes: impl IntoIterator<Item: Into<Cow<'static, str>>>) -> Self {
        self.known_scopes = Some(Scopes::new(scopes));
        self
    }

    /// Gives a route of HTTP the policy of an RPC: for the same call as JSON, by a router on the same port. The path has axum's syntax.
    pub fn at(mut self, method: Method, path: impl Into<String>, rpc: impl Into<String>) -> Self {
        self.twins.push((method, path.into(), rpc.into()));
        self
    }

    /// The table of all policies.
    ///
    /// # Errors
    /// If an RPC of the descriptor sets has no policy; if a policy is for an RPC, a service or a package that they do not have; if a
    /// policy is written twice, contradicts itself, or requires a scope that is invalid or not known; or if a path is malformed or in
    /// conflict with another. The error names it.
    pub fn build(self) -> Result<PolicyTable, ConfigurationError> {
        resolve(&self)
    }
}

const HOW_TO_ENCODE: &str = "give it what protoc --include_imports --descriptor_set_out writes, or protox's \
    Compiler::encode_file_descriptor_set returns";
