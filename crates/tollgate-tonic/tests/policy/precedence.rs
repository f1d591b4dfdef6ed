//! Which policy of an RPC counts.

use tollgate::scope;
use tollgate_tonic::policy::{RpcPolicies, RpcPolicy};

use crate::{compile_as, policies};

/// `Own` has a policy of its own, `Other` has none.
fn services(of_service: &str) -> String {
    format!(
        "service Market {{ {of_service}
            rpc Own(Empty) returns (Empty) {{ option (tollgate.policy) = {{ scopes: 'own' }}; }}
            rpc Other(Empty) returns (Empty);
        }}"
    )
}

const OF_SERVICE: &str = "option (tollgate.service_policy) = { scopes: 'service' cost: 7 credits: 8 };";

fn required(policies: RpcPolicies, rpc: &str) -> String {
    policies.build().unwrap().policy(&format!("market.v1.Market/{rpc}")).unwrap().requirement().to_string()
}

fn requires(name: &'static str) -> RpcPolicy {
    RpcPolicy::requires(scope(name))
}

#[test]
fn the_method_comes_before_the_service_before_the_package() {
    let in_proto = || policies(&services(OF_SERVICE));
    let in_code = || policies(&services("")).service("market.v1.Market", requires("service"));
    for policies in [in_proto, in_code] {
        let policies = || policies().package("market.v1", requires("package"));
        assert_eq!(required(policies(), "Own"), "own");
        assert_eq!(required(policies(), "Other"), "service");
        let policies = policies().method("market.v1.Market/Other", requires("method"));
        assert_eq!(required(policies, "Other"), "method");
    }
    let by_package = policies(&services("")).package("market.v1", requires("package"));
    assert_eq!(required(by_package, "Other"), "package");
}

#[test]
fn a_policy_replaces_the_less_specific_one_as_a_whole() {
    let table = policies(&services(OF_SERVICE)).build().unwrap();
    assert_eq!(table.policy("market.v1.Market/Own"), Some(&requires("own")));
    assert_eq!(
        table.policy("market.v1.Market/Other"),
        Some(&requires("service").with_cost(7).with_credits(8))
    );
}

#[test]
fn a_package_is_not_that_of_the_packages_below() {
    let import = "import \"tollgate/policy.proto\";";
    let service = "service Admin { rpc Get(Empty) returns (Empty); }";
    let below = compile_as("market.v1.admin", import, service);
    let both = policies(&services(OF_SERVICE)).with_descriptor_set(&below).unwrap();
    let error = both.package("market.v1", requires("package")).build().unwrap_err().to_string();
    assert!(error.starts_with("RpcPolicies: the RPC market.v1.admin.Admin/Get has no policy"), "{error}");
}

#[test]
fn a_service_without_descriptors_has_one_policy_for_every_method() {
    let table = RpcPolicies::new()
        .service("market.v1.Market", requires("service"))
        .method("/market.v1.Market/Own", requires("own"))
        .build()
        .unwrap();
    assert_eq!(table.policy("market.v1.Market/Anything"), Some(&requires("service")));
    assert_eq!(table.policy("market.v1.Market/Own"), Some(&requires("own")));
    assert_eq!(table.policy("market.v1.Other/Own"), None);
    assert_eq!(
        table.rpcs().map(|(name, _)| name).collect::<Vec<_>>(),
        ["market.v1.Market/Own", "market.v1.Market/{method}"]
    );
}

#[test]
fn health_and_reflection_can_be_public() {
    let table =
        policies(&services(OF_SERVICE)).with_public_health().with_public_reflection().build().unwrap();
    for rpc in [
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/List",
        "grpc.health.v1.Health/Watch",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        assert_eq!(table.policy(rpc), Some(&RpcPolicy::public()), "{rpc}");
    }
    assert_eq!(table.policy("grpc.health.v1.Health/Other"), None);
}

/// Two crates may each have a `service.proto`. Each descriptor set is read on its own.
#[test]
fn files_of_two_descriptor_sets_may_have_the_same_name() {
    let import = "import \"tollgate/policy.proto\";";
    let [one, other] = ["One", "Other"].map(|name| {
        let options = format!("option (tollgate.service_policy) = {{ scopes: '{name}' }};");
        compile_as(
            "market.v1",
            import,
            &format!("service {name} {{ {options} rpc Get(Empty) returns (Empty); }}"),
        )
    });
    let both = RpcPolicies::from_descriptor_set(&one).unwrap().with_descriptor_set(&other).unwrap();
    let again = both.with_descriptor_set(&one).unwrap().with_descriptor_set(&other).unwrap();
    let table = again.build().unwrap();
    for name in ["One", "Other"] {
        let policy = table.policy(&format!("market.v1.{name}/Get"));
        assert_eq!(policy, Some(&requires(name)), "{name}");
    }
    assert_eq!(table.rpcs().count(), 2);
}

#[test]
fn health_can_be_public_with_its_descriptors_too() {
    let health = compile_as("grpc.health.v1", "", "service Health { rpc Check(Empty) returns (Empty); }");
    let policies = policies(&services(OF_SERVICE)).with_descriptor_set(&health).unwrap();
    let table = policies.with_public_health().build().unwrap();
    assert_eq!(table.policy("grpc.health.v1.Health/Check"), Some(&RpcPolicy::public()));
    assert_eq!(table.policy("grpc.health.v1.Health/Watch"), None, "the descriptor set has no such RPC");
}
