//! The forms that the layers take, and routes beside the RPCs.

use std::convert::Infallible;

use http::{Method, StatusCode};
use tollgate::{
    Denial, DenialKind, PerWindow as _, Policy, Principal, RateLimitLayer, RequestContext, Tollgate,
    credits::CreditCost,
    scope::{Requirement, ScopeMap, scope},
    verify::{VerifyRequest, verify_sync_fn},
};
use tollgate_tonic::policy::{PolicyTable, RpcPolicies, RpcPolicy};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::{ask, table};

const SERVICES: &str = "
    service Market {
        rpc GetPrice(Empty) returns (Empty) { option (tollgate.policy) = { scopes: 'prices:read' }; }
        rpc Upload(stream Empty) returns (Empty) {
            option (tollgate.policy) = { scopes: ['candles:write', 'eu'] cost: 10 credits: 5 };
        }
        rpc WhoAmI(Empty) returns (Empty) { option (tollgate.policy) = {}; }
        rpc News(Empty) returns (Empty) { option (tollgate.policy) = { anonymous: true }; }
        rpc Ping(Empty) returns (Empty) { option (tollgate.policy) = { public: true }; }
    }";

/// The same by hand.
fn by_hand() -> ScopeMap {
    ScopeMap::new()
        .post("/market.v1.Market/GetPrice", scope("prices:read"))
        .post("/market.v1.Market/Upload", scope("candles:write") & scope("eu"))
        .post("/market.v1.Market/WhoAmI", Requirement::authenticated())
        .post("/market.v1.Market/News", Requirement::none())
        .post("/market.v1.Market/Ping", Requirement::none())
}

const RPCS: [&str; 5] = ["GetPrice", "Upload", "WhoAmI", "News", "Ping"];

#[tokio::test]
async fn the_map_is_the_one_that_is_written_by_hand() {
    let (from_proto, by_hand) = (table(SERVICES).scope_map(), by_hand());
    for rpc in RPCS.into_iter().chain(["Unknown", "GetPrice/", "getprice"]) {
        let path = format!("/market.v1.Market/{rpc}");
        for method in ["POST", "GET", "OPTIONS", "PUT"] {
            for scopes in [
                None,
                Some("none"),
                Some("prices:read"),
                Some("candles:write"),
                Some("candles:write eu"),
                Some("*"),
            ] {
                assert_eq!(
                    ask(&from_proto, method, &path, scopes).await,
                    ask(&by_hand, method, &path, scopes).await,
                    "{method} {path} {scopes:?}"
                );
            }
        }
    }
    assert_eq!(format!("{from_proto:?}"), format!("{by_hand:?}"));
}

#[tokio::test]
async fn an_empty_policy_is_not_open_to_anonymous_callers() {
    let map = table(SERVICES).scope_map();
    for (rpc, anonymous, without_scopes) in [
        ("GetPrice", StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN),
        ("WhoAmI", StatusCode::UNAUTHORIZED, StatusCode::OK),
        ("News", StatusCode::OK, StatusCode::OK),
    ] {
        let path = format!("/market.v1.Market/{rpc}");
        assert_eq!(ask(&map, "POST", &path, None).await, anonymous, "{rpc}");
        assert_eq!(ask(&map, "POST", &path, Some("none")).await, without_scopes, "{rpc}");
    }
}

/// How much is left of 100 after a request.
async fn left_after(table: &PolicyTable, method: &str, path: &str) -> u64 {
    let cost = table.costs().otherwise(1).unwrap();
    let layer = RateLimitLayer::from_policies([Policy::new("key", 100.per_day()).with_cost(cost)]).unwrap();
    let inside =
        service_fn(async |_: http::Request<String>| Ok::<_, Infallible>(http::Response::new(String::new())));
    let mut request = http::Request::builder().method(method).uri(path).body(String::new()).unwrap();
    RequestContext::authenticate(request.extensions_mut(), Principal::new("ada").into());
    let response = layer.layer(inside).oneshot(request).await.unwrap();
    response.headers()["x-ratelimit-remaining"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn calls_take_what_their_policies_say() {
    let table = table(SERVICES);
    for (method, path, left) in [
        ("POST", "/market.v1.Market/Upload", 90),
        ("POST", "/market.v1.Market/GetPrice", 99),
        ("GET", "/market.v1.Market/Upload", 99),
        ("GET", "/elsewhere", 99),
    ] {
        assert_eq!(left_after(&table, method, path).await, left, "{method} {path}");
    }
}

/// A limiter counts a fixed cost of 1 with fewer steps.
#[test]
fn costs_that_are_all_the_same_are_one_fixed_cost() {
    let same = RpcPolicies::new().method("m.M/Get", RpcPolicy::authenticated()).build().unwrap();
    assert_eq!(format!("{:?}", same.costs().otherwise(1).unwrap()), "Cost(1)");
    assert_eq!(format!("{:?}", same.costs().otherwise(2).unwrap()), "Cost(by request)");
    assert_eq!(format!("{:?}", table(SERVICES).costs().otherwise(1).unwrap()), "Cost(by request)");
    assert_eq!(format!("{:?}", same.credit_costs().otherwise(0).unwrap()), "CreditCost(0)");
    assert_eq!(format!("{:?}", same.credit_costs().otherwise(1).unwrap()), "CreditCost(by route)");
}

#[test]
fn credits_are_listed_by_route() {
    let costs: CreditCost = table(SERVICES).credit_costs().otherwise(0).unwrap();
    assert_eq!(format!("{costs:?}"), "CreditCost(by route)");
    let debug = format!("{:?}", table(SERVICES).credit_costs());
    assert!(debug.contains("\"/market.v1.Market/Upload\": [(Some(POST), 5)]"), "{debug}");
    assert!(debug.contains("\"/market.v1.Market/GetPrice\": [(Some(POST), 0)]"), "{debug}");
    assert!(!debug.contains("Ping"), "public routes are not charged: {debug}");
}

#[tokio::test]
async fn a_route_of_http_has_the_policy_of_its_rpc() {
    let policies = RpcPolicies::from_descriptor_set(&crate::compile(SERVICES)).unwrap();
    let table = policies
        .with_http_route(Method::GET, "/v1/prices/{symbol}", "market.v1.Market/GetPrice")
        .with_http_route(Method::PUT, "/v1/candles", "/market.v1.Market/Upload")
        .with_http_route(Method::GET, "/v1/ping", "market.v1.Market/Ping")
        .build()
        .unwrap();
    let map = table.scope_map();
    for (method, path, scopes, status) in [
        ("GET", "/v1/prices/ACME", Some("prices:read"), StatusCode::OK),
        ("GET", "/v1/prices/ACME", Some("none"), StatusCode::FORBIDDEN),
        ("GET", "/v1/prices/ACME", None, StatusCode::UNAUTHORIZED),
        ("POST", "/v1/prices/ACME", Some("prices:read"), StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/v1/prices", Some("prices:read"), StatusCode::NOT_FOUND),
        ("PUT", "/v1/candles", Some("candles:write eu"), StatusCode::OK),
    ] {
        assert_eq!(ask(&map, method, path, scopes).await, status, "{method} {path} {scopes:?}");
    }
    assert_eq!(left_after(&table, "PUT", "/v1/candles").await, 90);
    let stack = stack(&table);
    for (method, path, status) in [
        ("GET", "/v1/ping", StatusCode::OK),
        ("POST", "/market.v1.Market/Ping", StatusCode::OK),
        ("GET", "/v1/prices/ACME", StatusCode::UNAUTHORIZED),
        ("PUT", "/v1/candles", StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(anonymous(&stack, method, path).await, status, "{method} {path}");
    }
}

/// A stack that has nothing but the table.
fn stack(table: &PolicyTable) -> Tollgate {
    let nobody =
        verify_sync_fn(|_: &VerifyRequest<'_>| Err::<Principal, _>(Denial::new(DenialKind::KeyUnknown)));
    table.guard(Tollgate::builder().verify(nobody)).build().unwrap()
}

/// The status of a request without a key.
async fn anonymous(stack: &Tollgate, method: &str, path: &str) -> StatusCode {
    let inside =
        service_fn(async |_: http::Request<String>| Ok::<_, Infallible>(http::Response::new(String::new())));
    let request = http::Request::builder().method(method).uri(path).body(String::new()).unwrap();
    stack.layer(inside).oneshot(request).await.unwrap().status()
}

/// The most specific policy counts for public RPCs, too.
#[tokio::test]
async fn a_public_pattern_does_not_open_what_has_a_policy_of_its_own() {
    let by_method = RpcPolicies::new()
        .service("m.Market", RpcPolicy::public())
        .method("m.Market/Upload", RpcPolicy::requires(scope("candles:write")));
    let by_path = || {
        let rpcs = RpcPolicies::new().method("m.Market/Get", RpcPolicy::public());
        rpcs.method("m.Market/Upload", RpcPolicy::authenticated())
    };
    let by_path_pattern = by_path()
        .with_http_route(Method::GET, "/v1/{name}", "m.Market/Get")
        .with_http_route(Method::GET, "/v1/secret", "m.Market/Upload");
    let by_http_method = by_path().with_http_route(Method::GET, "/v1/get", "m.Market/Get").with_http_route(
        Method::HEAD,
        "/v1/get",
        "m.Market/Upload",
    );
    for (policies, open, closed) in [
        (by_method, ("POST", "/m.Market/Get"), ("POST", "/m.Market/Upload")),
        (by_path_pattern, ("GET", "/v1/open"), ("GET", "/v1/secret")),
        (by_http_method, ("GET", "/v1/get"), ("HEAD", "/v1/get")),
    ] {
        let table = policies.build().unwrap();
        let in_parts = Tollgate::builder()
            .verify(verify_sync_fn(|_: &VerifyRequest<'_>| {
                Err::<Principal, _>(Denial::new(DenialKind::KeyUnknown))
            }))
            .public(table.public_routes())
            .build()
            .unwrap();
        // Also without the map of scopes.
        for stack in [stack(&table), in_parts] {
            assert_eq!(anonymous(&stack, open.0, open.1).await, StatusCode::OK, "{open:?}");
            assert_eq!(anonymous(&stack, closed.0, closed.1).await, StatusCode::UNAUTHORIZED, "{closed:?}");
        }
    }
}

/// Without the map of scopes, every key may call every RPC.
#[tokio::test]
async fn a_table_guards_a_stack() {
    let any_key = verify_sync_fn(|_: &VerifyRequest<'_>| Ok(Principal::new("ada")));
    let stack = table(SERVICES).guard(Tollgate::builder().verify(any_key)).build().unwrap();
    for (rpc, status) in [
        ("GetPrice", StatusCode::FORBIDDEN),
        ("WhoAmI", StatusCode::OK),
        ("Ping", StatusCode::OK),
        ("Unknown", StatusCode::NOT_FOUND),
    ] {
        let inside = service_fn(async |_: http::Request<String>| {
            Ok::<_, Infallible>(http::Response::new(String::new()))
        });
        let request = http::Request::post(format!("/market.v1.Market/{rpc}")).header("x-api-key", "key");
        let response = stack.layer(inside).oneshot(request.body(String::new()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{rpc}");
    }
}
