//! The forms that the layers take, and routes beside the RPCs.

use std::convert::Infallible;

use http::{Method, StatusCode};
use tollgate::{
    PerWindow as _, Policy, Principal, RateLimitLayer, RequestContext,
    credits::CreditCost,
    scope::{Requirement, ScopeMap, scope},
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
    let public = format!("{:?}", table.public_routes());
    assert!(public.contains("\"/v1/ping\": [(Some(GET)"), "{public}");
    assert!(public.contains("\"/market.v1.Market/Ping\": [(Some(POST)"), "{public}");
    assert!(!public.contains("prices"), "{public}");
}
