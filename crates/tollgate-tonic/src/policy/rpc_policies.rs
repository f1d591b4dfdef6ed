//! Collects policies, and makes one table of them.

use std::{borrow::Cow, fmt};

use http::Method;
use prost_reflect::{DescriptorPool, ServiceDescriptor, prost::Message as _, prost_types::FileDescriptorSet};
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
///     .with_http_route(Method::GET, "/v1/prices/{symbol}", "market.v1.Market/GetPrice")
///     .build()?;
/// # let _ = table;
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "policies have no effect until they are built"]
pub struct RpcPolicies {
    /// The services of the descriptor sets. Each set is read on its own.
    pub(super) described: Vec<ServiceDescriptor>,
    pub(super) methods: Vec<(String, RpcPolicy)>,
    pub(super) services: Vec<(String, RpcPolicy)>,
    pub(super) packages: Vec<(String, RpcPolicy)>,
    /// Services that `with_public_health` and `with_public_reflection` open, and their methods.
    pub(super) public: Vec<PublicService>,
    pub(super) known_scopes: Option<Result<Scopes, InvalidScope>>,
    pub(super) http_routes: Vec<(Method, String, String)>,
}

/// A service of gRPC itself that is open to everyone.
#[derive(Clone, Copy, Debug)]
pub(super) struct PublicService {
    pub(super) name: &'static str,
    pub(super) methods: &'static [&'static str],
    /// What has opened it.
    pub(super) by: &'static str,
}

const HEALTH: PublicService = PublicService {
    name: "grpc.health.v1.Health",
    methods: &["Check", "List", "Watch"],
    by: "RpcPolicies::with_public_health",
};

const REFLECTION: [PublicService; 2] = [
    reflection("grpc.reflection.v1.ServerReflection"),
    reflection("grpc.reflection.v1alpha.ServerReflection"),
];

const fn reflection(name: &'static str) -> PublicService {
    PublicService { name, methods: &["ServerReflectionInfo"], by: "RpcPolicies::with_public_reflection" }
}

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
    /// the options. Each set is read on its own: files of several sets may have the same name. A service that several sets describe
    /// in the same way counts once.
    ///
    /// # Errors
    /// If the bytes are not a descriptor set with its imports, if it has no service, if a file is written in another syntax than proto2 or
    /// proto3, such as an edition, or if it describes a service in another way than an earlier set.
    pub fn with_descriptor_set(mut self, encoded: &[u8]) -> Result<Self, ConfigurationError> {
        let pool = decode(encoded)?;
        if pool.services().len() == 0 {
            return Err(ConfigurationError::new(format!(
                "RpcPolicies: the descriptor set has no service, {HOW_TO_ENCODE}"
            )));
        }
        for service in pool.services() {
            let name = service.full_name();
            match self.described.iter().find(|other| other.full_name() == name) {
                None => self.described.push(service),
                Some(other) if content(other) == content(&service) => {}
                Some(other) => {
                    let [file, other] =
                        [&service, other].map(|service| service.parent_file().name().to_owned());
                    return Err(ConfigurationError::new(format!(
                        "RpcPolicies: two descriptor sets have different versions of the service {name}, in {other} and in {file}: give it \
                         one of them"
                    )));
                }
            }
        }
        Ok(self)
    }

    /// The policy of a method, by its full name: `pkg.Service/Method`. If there is a descriptor set, one must describe the method.
    pub fn method(mut self, name: impl Into<String>, policy: RpcPolicy) -> Self {
        self.methods.push((name.into(), policy));
        self
    }

    /// The policy of the service's methods that have none of their own, by the service's full name: `pkg.Service`. Without any descriptor
    /// set, this holds for every method name. With one, a set must describe the service.
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
    pub fn with_http_route(
        mut self,
        method: Method,
        path: impl Into<String>,
        rpc: impl Into<String>,
    ) -> Self {
        self.http_routes.push((method, path.into(), rpc.into()));
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

/// The methods of a service, and all options, encoded.
fn content(service: &ServiceDescriptor) -> Vec<(String, Vec<u8>)> {
    let methods =
        service.methods().map(|method| (method.name().to_owned(), method.options().encode_to_vec()));
    let own = (String::new(), service.options().encode_to_vec());
    methods.chain([own]).collect()
}

const HOW_TO_ENCODE: &str = "give it what protoc --include_imports --descriptor_set_out writes, or protox's \
    Compiler::encode_file_descriptor_set returns";

fn decode(encoded: &[u8]) -> Result<DescriptorPool, ConfigurationError> {
    let unreadable = |error: &dyn fmt::Display| {
        ConfigurationError::new(format!(
            "RpcPolicies: the descriptor set cannot be read, {HOW_TO_ENCODE}: {error}"
        ))
    };
    let set = FileDescriptorSet::decode(encoded).map_err(|error| unreadable(&error))?;
    // prost-reflect 0.16 panics at any other syntax.
    if let Some(file) =
        set.file.iter().find(|file| !matches!(file.syntax.as_deref(), None | Some("proto2" | "proto3")))
    {
        return Err(ConfigurationError::new(format!(
            "RpcPolicies: the file {} of the descriptor set has the syntax {:?}, which cannot be read: write it in proto3",
            file.name(),
            file.syntax()
        )));
    }
    // From the bytes: the decoded set has lost the options.
    DescriptorPool::decode(encoded).map_err(|error| unreadable(&error))
}
