//! Finds the policy of each RPC, and every mistake among the policies.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use http::Method;
use prost_reflect::ServiceDescriptor;
use tollgate::{ConfigurationError, ScopeLayer};

use super::{
    PolicyTable, RpcPolicies, RpcPolicy,
    nearest::suggestion,
    options::PolicyOptions,
    rpc_policies::PublicService,
    table::{Route, any_method_of},
};

/// The table of all policies, or the first mistake.
pub(super) fn resolve(policies: &RpcPolicies) -> Result<PolicyTable, ConfigurationError> {
    let by_hand = ByHand {
        methods: listed(Level::Method, &policies.methods)?,
        services: listed(Level::Service, &policies.services)?,
        packages: listed(Level::Package, &policies.packages)?,
    };
    let mut found = Found::default();
    found.described(policies, &by_hand)?;
    found.by_hand(policies, &by_hand)?;
    // After the policies in code: one whose RPC was renamed is the probable reason.
    found.complete()?;
    found.public(policies, &by_hand)?;
    if found.rpcs.is_empty() {
        return Err(error("there is no RPC: give it a descriptor set, or policies by method or service"));
    }
    check(policies, &found.rpcs)?;
    let mut routes = Vec::new();
    for (name, policy) in &found.rpcs {
        routes.push(Route { method: Method::POST, path: format!("/{name}"), policy: policy.clone() });
    }
    let is_described = !policies.described.is_empty();
    let mut table = PolicyTable { rpcs: found.rpcs, routes, services: found.services, is_described };
    add_http_routes(&mut table, &policies.http_routes)?;
    // All that the layers take from the table has routes of this map.
    ScopeLayer::per_route(table.scope_map())?;
    Ok(table)
}

fn error(sentence: impl AsRef<str>) -> ConfigurationError {
    ConfigurationError::new(format!("RpcPolicies: {}", sentence.as_ref()))
}

/// Policies that were written in code, by name.
struct ByHand<'p> {
    methods: BTreeMap<&'p str, &'p RpcPolicy>,
    services: BTreeMap<&'p str, &'p RpcPolicy>,
    packages: BTreeMap<&'p str, &'p RpcPolicy>,
}

fn listed(
    level: Level,
    policies: &[(String, RpcPolicy)],
) -> Result<BTreeMap<&str, &RpcPolicy>, ConfigurationError> {
    let mut by_name = BTreeMap::new();
    for (name, policy) in policies {
        // The path of an RPC is its name with a slash.
        let name = name.strip_prefix('/').unwrap_or(name);
        if !level.is_name(name) {
            return Err(error(format!(
                "{name:?} cannot be the name of a {level}: write pkg.Service/Method for a method, pkg.Service for a service, and pkg for a \
                 package"
            )));
        }
        if by_name.insert(name, policy).is_some() {
            return Err(error(format!("the {level} {name} has two policies: keep one")));
        }
    }
    Ok(by_name)
}

/// What a policy in code is for.
#[derive(Clone, Copy)]
enum Level {
    Method,
    Service,
    Package,
}

impl Level {
    /// Whether the name has the form of a full name in protobuf.
    fn is_name(self, name: &str) -> bool {
        let is_identifier = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let is_dotted = |name: &str| name.split('.').all(is_identifier);
        match self {
            Self::Method => name
                .split_once('/')
                .is_some_and(|(service, method)| is_dotted(service) && is_identifier(method)),
            Self::Service | Self::Package => is_dotted(name),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "method",
            Self::Service => "service",
            Self::Package => "package",
        })
    }
}

/// The RPCs whose policy is found.
#[derive(Default)]
struct Found {
    rpcs: BTreeMap<String, RpcPolicy>,
    services: BTreeSet<String>,
    // The RPCs without one, and why they may lack it.
    missing: Vec<String>,
    hint: Hint,
}

impl Found {
    /// Finds the policies of the RPCs that the descriptor sets describe.
    fn described(&mut self, policies: &RpcPolicies, by_hand: &ByHand<'_>) -> Result<(), ConfigurationError> {
        let mut hint = Hint::NotDefined;
        for service in &policies.described {
            let options = PolicyOptions::new(service.parent_pool())?;
            hint = hint.max(if options.are_defined() { Hint::NotUsed } else { Hint::NotDefined });
            let name = service.full_name().to_owned();
            let written = options.of_service(&service.options());
            let written =
                written.map_err(|fault| error(format!("the policy of the service {name} {fault}")))?;
            hint = hint.max(if written.is_some() { Hint::None } else { hint });
            let default = default_of(service, written, policies, by_hand)?;
            for method in service.methods() {
                let rpc = format!("{name}/{}", method.name());
                let written = options.of_method(&method.options());
                let written = written.map_err(|fault| error(format!("the policy of {rpc} {fault}")))?;
                hint = hint.max(if written.is_some() { Hint::None } else { hint });
                let in_code = by_hand.methods.get(rpc.as_str()).copied().cloned();
                let own = one_of(
                    &format!("the RPC {rpc}"),
                    ("the option (tollgate.policy) in the proto", written),
                    ("RpcPolicies::method", in_code),
                )?;
                if let Some(policy) = own.or_else(|| default.clone()) {
                    self.rpcs.insert(rpc, policy);
                } else {
                    self.missing.push(rpc);
                }
            }
            self.services.insert(name);
        }
        self.hint = hint;
        Ok(())
    }

    /// An error if an RPC has no policy.
    fn complete(&self) -> Result<(), ConfigurationError> {
        if self.missing.is_empty() { Ok(()) } else { Err(without_policy(&self.missing, self.hint)) }
    }

    /// Adds the policies that were written in code. With a descriptor set, each must be for what a set describes.
    fn by_hand(&mut self, policies: &RpcPolicies, by_hand: &ByHand<'_>) -> Result<(), ConfigurationError> {
        let has_descriptors = !policies.described.is_empty();
        for (&rpc, &policy) in &by_hand.methods {
            if has_descriptors && !self.rpcs.contains_key(rpc) {
                let names = self.rpcs.keys().chain(&self.missing).map(String::as_str);
                return Err(not_described("RPC", rpc, &suggestion(rpc, names)));
            }
            self.rpcs.insert(rpc.to_owned(), policy.clone());
            self.services.extend(rpc.split_once('/').map(|(service, _)| service.to_owned()));
        }
        for (&service, &policy) in &by_hand.services {
            if has_descriptors {
                if !self.services.contains(service) {
                    let names = self.services.iter().map(String::as_str);
                    return Err(not_described("service", service, &suggestion(service, names)));
                }
            } else {
                self.rpcs.insert(any_method_of(service), policy.clone());
                self.services.insert(service.to_owned());
            }
        }
        for &package in by_hand.packages.keys() {
            let names: BTreeSet<_> =
                policies.described.iter().map(|service| service.package_name().to_owned()).collect();
            if !names.contains(package) {
                let names = names.iter().map(String::as_str);
                return Err(not_described("package", package, &suggestion(package, names)));
            }
        }
        Ok(())
    }

    /// Adds the services that `with_public_health` and `with_public_reflection` open, unless a descriptor set describes them.
    fn public(&mut self, policies: &RpcPolicies, by_hand: &ByHand<'_>) -> Result<(), ConfigurationError> {
        for &PublicService { name: service, methods, by } in &policies.public {
            if policies.described.iter().any(|described| described.full_name() == service) {
                continue;
            }
            let of_service = by_hand.services.get(service).copied().cloned();
            let title = format!("the service {service}");
            one_of(&title, (by, Some(RpcPolicy::public())), (BY_SERVICE, of_service))?;
            for method in methods {
                self.rpcs.entry(format!("{service}/{method}")).or_insert_with(RpcPolicy::public);
            }
            self.services.insert(service.to_owned());
        }
        Ok(())
    }
}

/// The policy of a service's methods that have none of their own.
fn default_of(
    service: &ServiceDescriptor,
    written: Option<RpcPolicy>,
    policies: &RpcPolicies,
    by_hand: &ByHand<'_>,
) -> Result<Option<RpcPolicy>, ConfigurationError> {
    let name = service.full_name();
    let title = format!("the service {name}");
    let mut of_service = (BY_SERVICE, by_hand.services.get(name).copied().cloned());
    if let Some(public) = policies.public.iter().find(|public| public.name == name) {
        of_service = (public.by, one_of(&title, (public.by, Some(RpcPolicy::public())), of_service)?);
    }
    let written = ("the option (tollgate.service_policy) in the proto", written);
    Ok(one_of(&title, written, of_service)?
        .or_else(|| by_hand.packages.get(service.package_name()).copied().cloned()))
}

const BY_SERVICE: &str = "RpcPolicies::service";

/// The one policy that was written for `target`, of two places where one may be.
fn one_of(
    target: &str,
    (place, one): (&str, Option<RpcPolicy>),
    (other_place, other): (&str, Option<RpcPolicy>),
) -> Result<Option<RpcPolicy>, ConfigurationError> {
    match (one, other) {
        (Some(_), Some(_)) => {
            Err(error(format!("{target} has two policies, by {place} and by {other_place}: keep one")))
        }
        (one, other) => Ok(one.or(other)),
    }
}

/// Why RPCs may lack a policy, from the most to the least probable reason.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Hint {
    /// No descriptor set has the options.
    #[default]
    NotDefined,
    /// No service has a policy.
    NotUsed,
    None,
}

fn without_policy(missing: &[String], hint: Hint) -> ConfigurationError {
    let (subject, each) = match missing {
        [rpc] => (format!("the RPC {rpc} has"), "it"),
        rpcs => (format!("the RPCs {} have", rpcs.join(", ")), "each"),
    };
    let hint = match hint {
        Hint::NotDefined => "; the descriptor set does not contain tollgate/policy.proto",
        Hint::NotUsed => {
            "; the descriptor set has no policy at all: prost-types drops options when it decodes a set"
        }
        Hint::None => "",
    };
    error(format!(
        "{subject} no policy: give {each} one by option (tollgate.policy) in the proto, or by RpcPolicies::method, service or \
         package{hint}"
    ))
}

fn not_described(kind: &str, name: &str, suggestion: &str) -> ConfigurationError {
    error(format!(
        "there is a policy for the {kind} {name}, but no descriptor set has it{suggestion}: correct the name, remove the policy, or add the \
         descriptor set"
    ))
}

/// Checks each policy by itself, and its scopes.
fn check(policies: &RpcPolicies, rpcs: &BTreeMap<String, RpcPolicy>) -> Result<(), ConfigurationError> {
    let known = policies.known_scopes.clone().transpose();
    let known = known.map_err(|invalid| error(format!("with_known_scopes: {invalid}")))?;
    for (rpc, policy) in rpcs {
        if let Some(fault) = policy.error() {
            return Err(error(format!("the policy of {rpc} {fault}")));
        }
        let Some(known) = &known else { continue };
        let requirement = policy.requirement();
        if let Some(unknown) = requirement.scopes().find(|scope| !known.grants(scope)) {
            let suggestion = suggestion(unknown, known.iter().map(tollgate::scope::Scope::as_str));
            return Err(error(format!(
                "the policy of {rpc} requires the scope {unknown}, which no key can have{suggestion}: correct it, or add it to \
                 with_known_scopes"
            )));
        }
    }
    Ok(())
}

/// Adds the routes of HTTP that have the policy of an RPC.
fn add_http_routes(
    table: &mut PolicyTable,
    routes: &[(Method, String, String)],
) -> Result<(), ConfigurationError> {
    for (method, path, rpc) in routes {
        let name = rpc.strip_prefix('/').unwrap_or(rpc);
        let Some(policy) = table.policy(name).cloned() else {
            let suggestion = suggestion(name, table.rpcs.keys().map(String::as_str));
            return Err(error(format!(
                "{method} {path} has the policy of the RPC {name}, which has none{suggestion}: correct the name"
            )));
        };
        table.routes.push(Route { method: method.clone(), path: path.clone(), policy });
    }
    Ok(())
}
