//! What stops the start-up, sentence by sentence.

use http::Method;
use tollgate::{scope, scope::Requirement};
use tollgate_tonic::policy::{RpcPolicies, RpcPolicy};

use crate::{GET, compile, compile_as, market, policies};

#[track_caller]
fn fails(policies: RpcPolicies, sentence: &str) {
    assert_eq!(policies.build().unwrap_err().to_string(), format!("RpcPolicies: {sentence}"));
}

fn of_market(options: &str) -> RpcPolicies {
    RpcPolicies::from_descriptor_set(&market(options)).unwrap()
}

/// Has a policy.
fn guarded() -> RpcPolicies {
    of_market("option (tollgate.policy) = { scopes: 'prices:read' };")
}

const HOW: &str = "by option (tollgate.policy) in the proto, or by RpcPolicies::method, service or package";

#[test]
fn an_rpc_without_a_policy() {
    let one = "service Market {
        rpc Get(Empty) returns (Empty);
        rpc Put(Empty) returns (Empty) { option (tollgate.policy) = {}; }
    }";
    fails(policies(one), &format!("the RPC market.v1.Market/Get has no policy: give it one {HOW}"));
    let two = "service Market { rpc Get(Empty) returns (Empty); rpc Put(Empty) returns (Empty); }
        service Admin { option (tollgate.service_policy) = {}; rpc Get(Empty) returns (Empty); }";
    fails(
        policies(two),
        &format!("the RPCs market.v1.Market/Get, market.v1.Market/Put have no policy: give each one {HOW}"),
    );
}

#[test]
fn a_set_that_cannot_have_policies() {
    let without_import = compile_as("market.v1", "", "service Market { rpc Get(Empty) returns (Empty); }");
    fails(
        RpcPolicies::from_descriptor_set(&without_import).unwrap(),
        &format!(
            "the RPC {GET} has no policy: give it one {HOW}; the descriptor set does not contain tollgate/policy.proto"
        ),
    );
    fails(
        of_market(""),
        &format!(
            "the RPC {GET} has no policy: give it one {HOW}; the descriptor set has no policy at all: prost-types drops options when \
             it decodes a set"
        ),
    );
}

#[test]
fn a_policy_for_what_was_renamed() {
    // Also where the RPC has no policy for this reason.
    for policies in [guarded(), of_market("")] {
        fails(
            policies.clone().method("market.v1.Market/Gets", RpcPolicy::public()),
            "there is a policy for the RPC market.v1.Market/Gets, but no descriptor set has it (did you mean market.v1.Market/Get?): \
             correct the name, remove the policy, or add the descriptor set",
        );
        fails(
            policies.service("market.v1.Markets", RpcPolicy::public()),
            "there is a policy for the service market.v1.Markets, but no descriptor set has it (did you mean market.v1.Market?): \
             correct the name, remove the policy, or add the descriptor set",
        );
    }
    fails(
        guarded().package("prices", RpcPolicy::public()),
        "there is a policy for the package prices, but no descriptor set has it: correct the name, remove the policy, or add the \
         descriptor set",
    );
    fails(
        RpcPolicies::new().method(GET, RpcPolicy::public()).package("market.v1", RpcPolicy::public()),
        "there is a policy for the package market.v1, but no descriptor set has it: correct the name, remove the policy, or add the \
         descriptor set",
    );
}

#[test]
fn a_scope_that_nobody_can_have() {
    fails(
        guarded().with_known_scopes(["prices:write", "price:read", "candles:write"]),
        "the policy of market.v1.Market/Get requires the scope prices:read, which no key can have (did you mean price:read?): \
         correct it, or add it to with_known_scopes",
    );
    fails(
        guarded().with_known_scopes([""; 0]),
        "the policy of market.v1.Market/Get requires the scope prices:read, which no key can have: correct it, or add it to \
         with_known_scopes",
    );
    fails(
        RpcPolicies::new()
            .service("market.v1.Market", RpcPolicy::requires(scope("a") | scope("b")))
            .with_known_scopes(["a"]),
        "the policy of market.v1.Market/{method} requires the scope b, which no key can have: correct it, or add it to \
         with_known_scopes",
    );
    for known in ["prices:read", "prices:*"] {
        assert!(guarded().with_known_scopes([known]).build().is_ok(), "{known}");
    }
}

#[test]
fn a_scope_that_is_invalid() {
    let fault =
        "the scope \"prices read\" has ' ' as character 7; use printable ASCII without space, '\"' and '\\'";
    fails(
        of_market("option (tollgate.policy) = { scopes: 'prices read' };"),
        &format!("the policy of market.v1.Market/Get has an error: {fault}"),
    );
    fails(guarded().with_known_scopes(["prices read"]), &format!("with_known_scopes: {fault}"));
}

#[test]
fn a_policy_that_contradicts_itself() {
    let [scopes, both, anonymous] = [
        "is public and requires scopes: remove one of the two",
        "is both public and anonymous: remove one of the two",
        "admits anonymous callers and requires scopes: remove one of the two",
    ];
    let cost = "is public and has a cost, but public RPCs are not counted: remove one of the two";
    let credits =
        "admits anonymous callers and has a cost in credits, which they cannot pay: remove one of the two";
    for (policy, fault) in [
        ("public: true scopes: 'a'", scopes),
        ("public: true any_scopes: 'a'", scopes),
        ("public: true anonymous: true", both),
        ("anonymous: true scopes: 'a'", anonymous),
        ("anonymous: true any_scopes: 'a'", anonymous),
        ("public: true cost: 1", cost),
        ("public: true cost: 0", cost),
        ("public: true credits: 1", cost),
        ("anonymous: true credits: 1", credits),
    ] {
        let options = format!("option (tollgate.policy) = {{ {policy} }};");
        fails(of_market(&options), &format!("the policy of market.v1.Market/Get {fault}"));
        let of_service = format!(
            "service Market {{ option (tollgate.service_policy) = {{ {policy} }}; rpc Get(Empty) returns (Empty); }}"
        );
        let error = policies(&of_service).build().unwrap_err().to_string();
        assert!(error.contains("market.v1.Market") && error.ends_with(fault), "{error}");
    }
    for policy in [RpcPolicy::public().with_cost(2), RpcPolicy::public().with_credits(2)] {
        fails(RpcPolicies::new().method(GET, policy), &format!("the policy of market.v1.Market/Get {cost}"));
    }
    let unpaid = RpcPolicy::anonymous().with_credits(1);
    fails(RpcPolicies::new().method(GET, unpaid), &format!("the policy of market.v1.Market/Get {credits}"));
}

#[test]
fn a_requirement_that_admits_anonymous_callers_without_saying_so() {
    for requirement in [
        Requirement::none(),
        Requirement::all_of([""; 0]),
        scope("a") | Requirement::none(),
        Requirement::authenticated() | Requirement::none(),
    ] {
        fails(
            RpcPolicies::new().method(GET, RpcPolicy::requires(requirement)),
            "the policy of market.v1.Market/Get requires nothing, so that anonymous callers meet it: write RpcPolicy::authenticated() if \
             the caller needs a principal, or RpcPolicy::anonymous() if not",
        );
    }
    assert!(RpcPolicies::new().method(GET, RpcPolicy::anonymous()).build().is_ok());
}

/// Options count, comments do not.
#[test]
fn a_service_in_two_versions() {
    let with_scope = |scope: &str| market(&format!("option (tollgate.policy) = {{ scopes: '{scope}' }};"));
    let error = RpcPolicies::from_descriptor_set(&with_scope("a")).unwrap();
    let error = error.with_descriptor_set(&with_scope("b")).unwrap_err().to_string();
    assert_eq!(
        error,
        "RpcPolicies: two descriptor sets have different versions of the service market.v1.Market, in market.v1.proto and in \
         market.v1.proto: give it one of them"
    );
    let more = compile(
        "service Market {
            rpc Get(Empty) returns (Empty) { option (tollgate.policy) = { scopes: 'a' }; }
            rpc Put(Empty) returns (Empty) { option (tollgate.policy) = { scopes: 'a' }; }
        }",
    );
    assert!(RpcPolicies::from_descriptor_set(&with_scope("a")).unwrap().with_descriptor_set(&more).is_err());
    let commented = compile(
        "service Market {
            // Gets.
            rpc Get(Empty) returns (Empty) { option (tollgate.policy) = { scopes: 'a' }; }
        }",
    );
    let both = RpcPolicies::from_descriptor_set(&with_scope("a")).unwrap().with_descriptor_set(&commented);
    assert!(both.unwrap().build().is_ok());
}

#[test]
fn a_policy_that_is_written_twice() {
    fails(
        guarded().method(GET, RpcPolicy::public()),
        "the RPC market.v1.Market/Get has two policies, by the option (tollgate.policy) in the proto and by RpcPolicies::method: keep one",
    );
    let of_service =
        "service Market { option (tollgate.service_policy) = {}; rpc Get(Empty) returns (Empty); }";
    fails(
        policies(of_service).service("market.v1.Market", RpcPolicy::public()),
        "the service market.v1.Market has two policies, by the option (tollgate.service_policy) in the proto and by \
         RpcPolicies::service: keep one",
    );
    let health = || RpcPolicies::new().with_public_health();
    fails(
        health().service("grpc.health.v1.Health", RpcPolicy::authenticated()),
        "the service grpc.health.v1.Health has two policies, by RpcPolicies::with_public_health and by RpcPolicies::service: keep one",
    );
    let described = RpcPolicies::from_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET).unwrap();
    fails(
        described.with_public_health().service("grpc.health.v1.Health", RpcPolicy::authenticated()),
        "the service grpc.health.v1.Health has two policies, by RpcPolicies::with_public_health and by RpcPolicies::service: keep one",
    );
    let twice = RpcPolicies::new().method(GET, RpcPolicy::public());
    fails(
        twice.method("/market.v1.Market/Get", RpcPolicy::public()),
        "the method market.v1.Market/Get has two policies: keep one",
    );
    // What is said twice and is the same is no mistake.
    assert!(health().with_public_health().build().is_ok());
}

#[test]
fn a_name_that_cannot_be_one() {
    let form = "write pkg.Service/Method for a method, pkg.Service for a service, and pkg for a package";
    for name in [
        "market.v1.Market",
        "Market/Get/",
        "Market/",
        "/",
        "",
        "market..Market/Get",
        "a b/Get",
        "{a}/Get",
        "M/{get}",
    ] {
        let shown = name.strip_prefix('/').unwrap_or(name);
        fails(
            RpcPolicies::new().method(name, RpcPolicy::public()),
            &format!("{shown:?} cannot be the name of a method: {form}"),
        );
    }
    fails(
        RpcPolicies::new().service(GET, RpcPolicy::public()),
        &format!("{GET:?} cannot be the name of a service: {form}"),
    );
    fails(
        RpcPolicies::new().package("market.*", RpcPolicy::public()),
        &format!("\"market.*\" cannot be the name of a package: {form}"),
    );
}

#[test]
fn a_route_of_http_that_cannot_be() {
    fails(
        guarded().with_http_route(Method::GET, "/v1/prices", "market.v1.Market/Ge"),
        "GET /v1/prices has the policy of the RPC market.v1.Market/Ge, which has none (did you mean market.v1.Market/Get?): \
         correct the name",
    );
    for (method, path, error) in [
        (
            Method::GET,
            "v1/prices",
            "ScopeMap, path v1/prices: a path begins with / and writes its parameters as {name} or {*rest}",
        ),
        (Method::POST, "/market.v1.Market/Get", "ScopeMap lists POST /market.v1.Market/Get twice: keep one"),
    ] {
        assert_eq!(guarded().with_http_route(method, path, GET).build().unwrap_err().to_string(), error);
    }
}

#[test]
fn no_rpc_at_all() {
    fails(
        RpcPolicies::new().with_known_scopes(["a"]),
        "there is no RPC: give it a descriptor set, or policies by method or service",
    );
}

#[test]
fn an_option_of_another_file() {
    // A later version of the file has a field that this one does not know.
    let later =
        tollgate_tonic::policy::PROTO.replace("bool anonymous = 6;", "bool anonymous = 6; bool mfa = 7;");
    let services =
        "service Market { rpc Get(Empty) returns (Empty) { option (tollgate.policy) = { mfa: true }; } }";
    fails(
        RpcPolicies::from_descriptor_set(&compile_with(&later, services)).unwrap(),
        "the policy of market.v1.Market/Get sets the field mfa, which this version of tollgate-tonic does not know: update \
         tollgate-tonic",
    );
    let renumbered = tollgate_tonic::policy::PROTO.replace("86554;", "50001;");
    let services = "service Market { rpc Get(Empty) returns (Empty) { option (tollgate.policy) = {}; } }";
    fails(
        RpcPolicies::from_descriptor_set(&compile_with(&renumbered, services)).unwrap(),
        "the option (tollgate.policy) of the descriptor set is not the one of tollgate/policy.proto: compile with the file of this \
         version of tollgate-tonic, which tollgate_tonic::policy::PROTO has",
    );
    let retyped =
        tollgate_tonic::policy::PROTO.replace("repeated string scopes = 1;", "repeated bytes scopes = 1;");
    let services =
        "service Market { rpc Get(Empty) returns (Empty) { option (tollgate.policy) = { scopes: 'a' }; } }";
    fails(
        RpcPolicies::from_descriptor_set(&compile_with(&retyped, services)).unwrap(),
        "the policy of market.v1.Market/Get sets the field scopes, which this version of tollgate-tonic does not know: update \
         tollgate-tonic",
    );
}

/// As [`compile`], with another `tollgate/policy.proto`.
fn compile_with(policy_proto: &str, services: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("tollgate/policy.proto", policy_proto);
    let head = "syntax = \"proto3\"; package market.v1; import \"tollgate/policy.proto\"; message Empty {}";
    write("market.proto", &format!("{head} {services}"));
    let mut compiler = protox::Compiler::new([directory.path()]).unwrap();
    compiler.include_imports(true).open_file("market.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

#[test]
fn a_set_without_services() {
    let how = "give it what protoc --include_imports --descriptor_set_out writes, or protox's Compiler::encode_file_descriptor_set \
        returns";
    for encoded in [Vec::new(), compile("")] {
        let error = RpcPolicies::from_descriptor_set(&encoded).unwrap_err().to_string();
        assert_eq!(error, format!("RpcPolicies: the descriptor set has no service, {how}"));
    }
}
