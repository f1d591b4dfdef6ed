//! `stratalerts`: its published contract row by row, for the REST endpoints.

use http::Method;
use serde_json::json;

use crate::{
    client::{Answer, Client},
    service::Service,
};

/// The published table of scopes.
const ENDPOINTS: [(&str, &str); 9] = [
    ("metadata:read", "/api/market/v1/instruments"),
    ("metadata:read", "/api/market/v1/instruments/AAPL"),
    ("metadata:read", "/api/market/v1/market-status"),
    ("prices:read", "/api/market/v1/prices/latest"),
    ("candles:read", "/api/market/v1/candles/AAPL"),
    ("states:read", "/api/market/v1/states/AAPL"),
    ("states:read", "/api/market/v1/setups/current"),
    ("alerts:read", "/api/market/v1/alerts/in-force"),
    ("alerts:read", "/api/market/v1/alerts/simultaneous-breaks"),
];

const SCOPES: [&str; 6] =
    ["metadata:read", "prices:read", "candles:read", "states:read", "alerts:read", "ws:connect"];

const STATUS: &str = "/api/market/v1/market-status";

// The published bodies, byte for byte, except for line breaks.
const MISSING_API_KEY: &str = r#"{"error":{"code":"missing_api_key","message":"missing api key"}}"#;
const INVALID_API_KEY: &str = r#"{"error":{"code":"invalid_api_key","message":"invalid api key"}}"#;
const INACTIVE_ENTITLEMENT: &str =
    r#"{"error":{"code":"inactive_entitlement","message":"inactive entitlement"}}"#;
const MISSING_SCOPE: &str = r#"{"error":{"code":"missing_scope","message":"missing scope"}}"#;
const NOT_FOUND: &str = r#"{"error":{"code":"not_found","message":"not found"}}"#;
const METHOD_NOT_ALLOWED: &str = r#"{"error":{"code":"method_not_allowed","message":"method not allowed"}}"#;

#[tokio::test]
async fn each_scope_grants_its_endpoints_and_no_other() {
    let service = Service::start("stratalerts").await;
    let mut client = Client::connect(&service).await;
    for scope in SCOPES {
        for (required, path) in ENDPOINTS {
            let answer = client.get(path, &[("x-api-key", service.key(scope))]).await;
            if scope == required {
                assert_data(&answer, path);
            } else {
                assert_error(&answer, 403, MISSING_SCOPE, &format!("{scope} at {path}"));
            }
        }
    }
    service.end().await;
}

#[tokio::test]
async fn accepts_both_headers_on_every_endpoint() {
    let service = Service::start("stratalerts").await;
    let mut client = Client::connect(&service).await;
    let key = service.key("full");
    let bearer = format!("Bearer {key}");
    for (_, path) in ENDPOINTS {
        assert_data(&client.get(path, &[("authorization", &bearer)]).await, path);
        assert_data(&client.get(path, &[("x-api-key", key)]).await, path);
        assert_data(&client.get(path, &[("x-api-key", key), ("authorization", &bearer)]).await, path);
    }
    let lower_case = format!("bearer {key}");
    assert_data(
        &client.get(STATUS, &[("authorization", &lower_case)]).await,
        "the scheme is case-insensitive",
    );
    service.end().await;
}

#[tokio::test]
async fn reports_a_missing_key_for_an_absent_or_empty_header() {
    let service = Service::start("stratalerts").await;
    let mut client = Client::connect(&service).await;
    let cases: [&[(&str, &str)]; 6] = [
        &[],
        &[("authorization", "")],
        &[("authorization", "Bearer")],
        &[("authorization", "Bearer ")],
        &[("x-api-key", "")],
        &[("authorization", "Bearer "), ("x-api-key", "")],
    ];
    for (_, path) in ENDPOINTS {
        for headers in cases {
            let answer = client.get(path, headers).await;
            assert_error(&answer, 401, MISSING_API_KEY, &format!("{headers:?} at {path}"));
            assert_eq!(answer.header("www-authenticate"), Some(r#"Bearer realm="market""#));
        }
    }
    service.end().await;
}

#[tokio::test]
async fn reports_an_invalid_key_for_anything_but_one_valid_key() {
    let service = Service::start("stratalerts").await;
    let mut client = Client::connect(&service).await;
    let (full, other, revoked) = (service.key("full"), service.key("no_ws"), service.key("revoked"));
    let bearer = format!("Bearer {full}");
    let other_bearer = format!("Bearer {other}");
    let revoked_bearer = format!("Bearer {revoked}");
    // A well-formed key with a correct checksum that was never issued.
    let unknown = "strat_live_0123456789ABCDEFGHIJKLMNOP12r4Oya";
    let joined = format!("{full}, {full}");
    let basic = format!("Basic {full}");
    let cases: [(&str, &[(&str, &str)]); 11] = [
        ("unknown", &[("x-api-key", unknown)]),
        ("revoked", &[("x-api-key", revoked)]),
        ("revoked, as bearer", &[("authorization", &revoked_bearer)]),
        ("malformed", &[("x-api-key", "junk")]),
        ("malformed, as bearer", &[("authorization", "Bearer to be or not to be")]),
        ("of another scheme", &[("authorization", &basic)]),
        ("repeated", &[("x-api-key", full), ("x-api-key", full)]),
        ("repeated, as bearer", &[("authorization", &bearer), ("authorization", &bearer)]),
        ("joined by a proxy", &[("x-api-key", &joined)]),
        ("conflicting", &[("authorization", &bearer), ("x-api-key", other)]),
        ("conflicting, the other way round", &[("x-api-key", full), ("authorization", &other_bearer)]),
    ];
    for (case, headers) in cases {
        let answer = client.get(STATUS, headers).await;
        assert_error(&answer, 401, INVALID_API_KEY, case);
        assert!(
            answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer ")),
            "{case}"
        );
    }
    service.end().await;
}

#[tokio::test]
async fn refuses_a_lapsed_subscription_on_every_path_with_any_scopes() {
    let service = Service::start("stratalerts").await;
    let mut client = Client::connect(&service).await;
    let key = [("x-api-key", service.key("lapsed"))];
    for (_, path) in ENDPOINTS {
        assert_error(&client.get(path, &key).await, 403, INACTIVE_ENTITLEMENT, path);
    }
    // The subscription is checked before the route.
    let nowhere = client.get("/api/market/v1/nowhere", &key).await;
    assert_error(&nowhere, 403, INACTIVE_ENTITLEMENT, "nowhere");
    service.end().await;
}

#[tokio::test]
async fn a_key_for_metadata_and_prices_cannot_pull_alerts() {
    let service = Service::start("stratalerts").await;
    let mut client = Client::connect(&service).await;
    let key = [("x-api-key", service.key("metadata_prices"))];
    for (scope, path) in ENDPOINTS {
        let answer = client.get(path, &key).await;
        match scope {
            "metadata:read" | "prices:read" => assert_data(&answer, path),
            _ => assert_error(&answer, 403, MISSING_SCOPE, path),
        }
    }
    service.end().await;
}

#[tokio::test]
async fn answers_404_to_verified_callers_only() {
    let service = Service::start("stratalerts").await;
    let mut client = Client::connect(&service).await;
    let key = [("x-api-key", service.key("full"))];
    for path in [
        "/",
        "/api/market/v1/nowhere",
        "/api/market/v1/instruments/NOPE",
        "/api/market/v1/candles/NOPE",
        "/api/market/v1/states/NOPE",
        "/api/market/v1/states/%FF",
        "/api/market/v2/instruments",
    ] {
        assert_error(&client.get(path, &key).await, 404, NOT_FOUND, path);
        assert_error(&client.get(path, &[]).await, 401, MISSING_API_KEY, path);
    }
    for (_, path) in ENDPOINTS {
        let answer = client.send(Method::POST, path, &key).await;
        assert_error(&answer, 405, METHOD_NOT_ALLOWED, path);
        assert_error(&client.send(Method::POST, path, &[]).await, 401, MISSING_API_KEY, path);
    }
    let preflight = [("origin", "https://example.com"), ("access-control-request-method", "GET")];
    let answer = client.send(Method::OPTIONS, STATUS, &preflight).await;
    assert_error(&answer, 401, MISSING_API_KEY, "a preflight carries no key");
    service.end().await;
}

#[tokio::test]
async fn answers_a_thousand_failures_a_minute_alike() {
    let service = Service::start("stratalerts").await;
    let mut client = Client::connect(&service).await;
    for _ in 0..1_000 {
        assert_error(&client.get(STATUS, &[("x-api-key", "junk")]).await, 401, INVALID_API_KEY, "junk");
    }
    assert_data(&client.get(STATUS, &[("x-api-key", service.key("full"))]).await, "a valid key still passes");
    service.end().await;
}

#[tokio::test]
async fn serves_the_sample_data() {
    let service = Service::start("stratalerts").await;
    let mut client = Client::connect(&service).await;
    let key = [("x-api-key", service.key("full"))];
    let status = client.get(STATUS, &key).await;
    assert_eq!(status.json(), json!({ "market": "US", "status": "open" }));
    let instrument = client.get("/api/market/v1/instruments/TSLA", &key).await;
    let tesla = json!({ "symbol": "TSLA", "name": "Tesla, Inc.", "exchange": "NASDAQ", "currency": "USD" });
    assert_eq!(instrument.json(), tesla);
    service.end().await;
}

fn assert_data(answer: &Answer, case: &str) {
    assert_eq!(answer.status, 200, "{case}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{case}");
    assert!(answer.json().is_object(), "{case}: {answer:?}");
    assert_no_rate_limit(answer);
}

fn assert_error(answer: &Answer, status: u16, body: &str, case: &str) {
    assert_eq!(answer.status, status, "{case}: {answer:?}");
    assert_eq!(answer.body, body, "{case}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{case}");
    assert_no_rate_limit(answer);
}

/// The published contract has no rate limits.
fn assert_no_rate_limit(answer: &Answer) {
    let names = answer.headers.keys().map(http::HeaderName::as_str);
    assert!(!names.into_iter().any(|name| name.contains("ratelimit") || name == "retry-after"), "{answer:?}");
}
