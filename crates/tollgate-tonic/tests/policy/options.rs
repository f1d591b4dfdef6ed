//! What the options in a proto say.

use tollgate::scope::scope;
use tollgate_tonic::policy::{RpcPolicies, RpcPolicy};

use crate::{GET, market, table};

fn read(policy: &str) -> RpcPolicy {
    let encoded = market(&format!("option (tollgate.policy) = {{ {policy} }};"));
    RpcPolicies::from_descriptor_set(&encoded).unwrap().build().unwrap().policy(GET).unwrap().clone()
}

#[test]
fn each_field_is_read() {
    for (written, expected) in [
        ("", RpcPolicy::authenticated()),
        ("scopes: 'a'", RpcPolicy::requires(scope("a"))),
        ("scopes: ['a', 'b']", RpcPolicy::requires(scope("a") & scope("b"))),
        ("any_scopes: ['a', 'b']", RpcPolicy::requires(scope("a") | scope("b"))),
        ("any_scopes: 'a'", RpcPolicy::requires(scope("a"))),
        (
            "scopes: ['a', 'b'] any_scopes: ['c', 'd']",
            RpcPolicy::requires(scope("a") & scope("b") & (scope("c") | scope("d"))),
        ),
        ("cost: 10", RpcPolicy::authenticated().with_cost(10)),
        ("cost: 0", RpcPolicy::authenticated().with_cost(0)),
        ("scopes: 'a' credits: 5", RpcPolicy::requires(scope("a")).with_credits(5)),
        ("public: true", RpcPolicy::public()),
        ("public: false", RpcPolicy::authenticated()),
        ("anonymous: true", RpcPolicy::anonymous()),
        ("anonymous: true cost: 3", RpcPolicy::anonymous().with_cost(3)),
    ] {
        assert_eq!(read(written), expected, "{written}");
    }
}

#[test]
fn a_policy_has_defaults() {
    let policy = read("");
    assert_eq!((policy.cost(), policy.credits(), policy.is_public()), (1, 0, false));
    assert!(!policy.requirement().admits_anonymous());
    assert!(read("anonymous: true").requirement().admits_anonymous());
    assert!(read("public: true").is_public());
}

/// Options can also be set field by field, and within a package that begins with `tollgate`, as that of the example does.
#[test]
fn options_may_be_written_in_other_ways() {
    let by_field = table(
        "service Market { rpc Get(Empty) returns (Empty) {
            option (tollgate.policy).scopes = 'a';
            option (tollgate.policy).cost = 2;
        } }",
    );
    assert_eq!(by_field.policy(GET), Some(&RpcPolicy::requires(scope("a")).with_cost(2)));
    let services = "service Market { rpc Get(Empty) returns (Empty) { option (tollgate.policy) = {}; } }";
    let encoded = crate::compile_as("tollgate.demo.v1", "import \"tollgate/policy.proto\";", services);
    let nested = RpcPolicies::from_descriptor_set(&encoded).unwrap().build().unwrap();
    assert!(nested.policy("tollgate.demo.v1.Market/Get").is_some());
}
