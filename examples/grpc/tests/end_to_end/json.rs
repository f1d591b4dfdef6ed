//! `GetPrice` as JSON on the same port, under the same policy.

use hyper::{Method, Response};
use serde_json::{Value, json};

use crate::{
    http::{Connection, revoke},
    service::Service,
};

const PRICE: &str = "/v1/prices/MSFT";

#[tokio::test]
async fn answers_the_price_and_shows_the_limits() {
    let service = Service::start().await;
    let mut connection = Connection::open(&service).await;
    let response = connection.json(Method::GET, PRICE, Some(service.key("prices_only"))).await;
    assert_eq!(response.status(), 200);
    assert_eq!(*response.body(), json!({ "symbol": "MSFT", "price": "428.03" }));
    assert_eq!(header(&response, "x-ratelimit-limit"), "10000");
    assert_ne!(header(&response, "x-request-id"), "");
    let response = connection.json(Method::GET, "/v1/prices/UNKNOWN", Some(service.key("full"))).await;
    assert_eq!(
        (response.status().as_u16(), &response.body()["detail"]),
        (404, &json!("There is no such symbol."))
    );
    service.end().await;
}

#[tokio::test]
async fn refuses_with_problems() {
    let service = Service::start().await;
    let mut connection = Connection::open(&service).await;
    for (key, path, status, code) in [
        (None, PRICE, 401, "missing_credential"),
        (Some("not a key"), PRICE, 401, "invalid_credential"),
        (Some(service.key("revoked")), PRICE, 401, "invalid_credential"),
        (Some(service.key("lapsed")), PRICE, 403, "inactive_entitlement"),
        (Some(service.key("admin")), PRICE, 403, "insufficient_scope"),
        (Some(service.key("full")), "/nothing", 404, "not_found"),
        (None, "/nothing", 401, "missing_credential"),
    ] {
        let response = connection.json(Method::GET, path, key).await;
        assert_problem(&response, status, code);
    }
    // A new minute may begin in between.
    let mut last = None;
    for _ in 0..11 {
        last = Some(connection.json(Method::GET, PRICE, Some(service.key("tiny"))).await);
        if last.as_ref().is_some_and(|response| response.status() != 200) {
            break;
        }
    }
    let last = last.unwrap();
    assert_problem(&last, 429, "rate_limited");
    assert!((1..=60).contains(&header(&last, "retry-after").parse::<u64>().unwrap()));
    service.end().await;
}

#[tokio::test]
async fn only_the_administrator_revokes_keys_of_others() {
    let service = Service::start().await;
    let mut connection = Connection::open(&service).await;
    let path = "/_demo/revoke/full";
    let response = connection.json(Method::POST, path, Some(service.key("full"))).await;
    assert_problem(&response, 403, "insufficient_scope");
    for name in ["nobody", "admin"] {
        let path = format!("/_demo/revoke/{name}");
        assert_eq!(connection.json(Method::POST, &path, Some(service.key("admin"))).await.status(), 404);
    }
    revoke(&service, "full").await;
    let response = connection.json(Method::GET, PRICE, Some(service.key("full"))).await;
    assert_problem(&response, 401, "invalid_credential");
    service.end().await;
}

fn assert_problem(response: &Response<Value>, status: u16, code: &str) {
    assert_eq!((response.status().as_u16(), &response.body()["code"]), (status, &json!(code)));
    assert_eq!(header(response, "content-type"), "application/problem+json");
}

fn header<'r>(response: &'r Response<Value>, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}
