//! The rate limits of a published API contract, over a socket: Skannr's, which counts by account and shows the account's limits in
//! every response.
//!
//! - A token is a bearer token, short-lived, and one account has many of them.
//! - An account has so many requests in a window, by its plan, whatever token it uses.
//! - `X-RateLimit-Limit`, `-Remaining` and `-Reset`, a Unix timestamp, stand on every response to an account, its errors included.
//!   The 401 for a token that has expired shows nothing of the account.
//! - Every error is a JSON object with a `message`, under the usual status.

use std::{net::SocketAddr, pin::pin};

use axum::{
    Router,
    response::{IntoResponse, Response as Answer},
    routing::get,
};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use serde_json::{Value, json};
use tests::{
    hosts::{Connection, header, request, serve},
    suite::{Backend, Directory, Inner, Latch, SlowLimiter, at, is_pending, is_ready_now, with_key},
};
use tollgate::{
    Environment, KeyFormat, KeyVerifier, MemoryKeys, PerWindow as _, Plan, Policy, Principal, RateLimitLayer,
    Tollgate, VerifyLayer, clock::ManualClock, limit::Subject, respond,
};
use tower::{Layer as _, Service as _};

use crate::midnight;

fn error(status: StatusCode, message: &str) -> Answer {
    let body = json!({ "message": message }).to_string();
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

fn router() -> Router {
    let targets = get(async || "[]").post(async || {
        error(StatusCode::BAD_REQUEST, "A target is an IP address, a domain or a CIDR range.")
    });
    Router::new()
        .route("/targets", targets)
        .method_not_allowed_fallback(async || error(StatusCode::METHOD_NOT_ALLOWED, "Not like this."))
        .fallback(async || error(StatusCode::NOT_FOUND, "There is no such thing."))
}

/// Accounts have three requests a minute, and nine on the plan `pro`.
fn limit() -> RateLimitLayer {
    let account =
        Policy::new("account", 3.per_minute()).with_subject(Subject::Tenant).with_tier("pro", 9.per_minute());
    RateLimitLayer::from_policies([account]).unwrap()
}

/// A token of an account, good for a minute.
fn token(id: &str, account: &str, plan: &str) -> Principal {
    Principal::new(id).with_tenant(account).with_plan(Plan::active(plan)).with_expiry(at(60))
}

fn tokens() -> Directory {
    Directory::new(&Backend::prompt())
        .with("ada-1", token("token_1", "ada", "free"))
        .with("ada-2", token("token_2", "ada", "free"))
        .with("ada-later", token("token_3", "ada", "free").with_expiry(at(300)))
        .with("bob-1", token("token_4", "bob", "pro"))
}

/// The service, and the clock that it goes by.
struct Service {
    clock: ManualClock,
    address: SocketAddr,
}

impl Service {
    async fn start(verify: impl Into<VerifyLayer>, limit: RateLimitLayer) -> Self {
        let clock = ManualClock::at(at(0));
        let tollgate = Tollgate::builder()
            .verify(verify)
            .rate_limit(limit)
            .responder(respond::Json::new(|denial| json!({ "message": denial.detail() })))
            .clock(clock.clone());
        let address = serve(router().layer(tollgate.build().unwrap())).await;
        Self { clock, address }
    }

    async fn send(&self, method: Method, path: &str, token: &str) -> Shown {
        let mut request = request(method, path, None);
        let bearer = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        if !token.is_empty() {
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        shown(&Connection::http1(self.address).await.send(request).await)
    }

    async fn get(&self, token: &str) -> Shown {
        self.send(Method::GET, "/targets", token).await
    }
}

/// Status; limit, remaining, and reset in seconds after midnight; `Retry-After`.
type Shown = (u16, Option<[u64; 3]>, Option<u64>);

/// What a response shows. Fails if it is an error without a message.
fn shown(response: &Response<Bytes>) -> Shown {
    let number = |name: &str| header(response.headers(), name).parse::<u64>().ok();
    if !response.status().is_success() {
        assert_eq!(header(response.headers(), "content-type"), "application/json");
        let error: Value = serde_json::from_slice(response.body()).unwrap();
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    }
    let numbers = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(number);
    let numbers = match numbers {
        [Some(limit), Some(remaining), Some(reset)] => Some([limit, remaining, reset - midnight()]),
        some => {
            assert_eq!(some, [None; 3], "all of them or none");
            None
        }
    };
    (response.status().as_u16(), numbers, number("retry-after"))
}

#[tokio::test]
async fn every_response_to_an_account_shows_its_limits() {
    let service = Service::start(tokens(), limit()).await;
    for (method, path, expected) in [
        (Method::GET, "/targets", (200, Some([9, 8, 60]), None)),
        (Method::POST, "/targets", (400, Some([9, 7, 60]), None)),
        (Method::GET, "/nowhere", (404, Some([9, 6, 60]), None)),
        (Method::DELETE, "/targets", (405, Some([9, 5, 60]), None)),
    ] {
        assert_eq!(service.send(method, path, "bob-1").await, expected, "{path}");
    }
    for _ in 0..5 {
        assert_eq!(service.get("bob-1").await.0, 200);
    }
    assert_eq!(service.get("bob-1").await, (429, Some([9, 0, 60]), Some(60)));
    assert_eq!(service.send(Method::GET, "/nowhere", "bob-1").await.0, 429, "as for any other path");
    assert_eq!(service.get("").await, (401, None, None));
    assert_eq!(service.send(Method::GET, "/nowhere", "").await, (401, None, None));
}

#[tokio::test]
async fn tokens_of_one_account_share_the_quota_of_its_plan() {
    let service = Service::start(tokens(), limit()).await;
    assert_eq!(service.get("ada-1").await, (200, Some([3, 2, 60]), None));
    assert_eq!(service.get("ada-2").await, (200, Some([3, 1, 60]), None));
    assert_eq!(service.get("ada-later").await, (200, Some([3, 0, 60]), None));
    assert_eq!(service.get("ada-1").await, (429, Some([3, 0, 60]), Some(60)));
    assert_eq!(service.get("bob-1").await, (200, Some([9, 8, 60]), None));
    service.clock.set(at(60));
    assert_eq!(service.get("ada-later").await, (200, Some([3, 2, 120]), None));
}

#[tokio::test]
async fn an_expired_token_shows_nothing_of_its_account_and_costs_it_nothing() {
    let service = Service::start(tokens(), limit()).await;
    service.clock.set(at(60));
    for _ in 0..2 {
        assert_eq!(service.get("ada-1").await, (401, None, None));
    }
    assert_eq!(service.get("ada-later").await, (200, Some([3, 2, 120]), None));
    assert_eq!(service.send(Method::GET, "/nowhere", "ada-2").await, (401, None, None));
    for _ in 0..2 {
        assert_eq!(service.get("ada-later").await.0, 200);
    }
    assert_eq!(service.get("ada-1").await, (401, None, None), "not refused for the limit");
    assert_eq!(service.get("ada-later").await, (429, Some([3, 0, 120]), Some(60)));
    assert_eq!(service.get("bob-1").await, (401, None, None));
    assert_eq!(service.get("unknown").await, (401, None, None));
    assert_eq!(service.get("").await, (401, None, None));
}

#[tokio::test]
async fn an_expired_a_revoked_a_suspended_and_an_unknown_key_look_alike() {
    let (keys, format) = (MemoryKeys::new(), KeyFormat::new("sk").unwrap());
    let issue = |id, account| {
        let key = keys.issue(&format, Environment::Live, token(id, account, "pro")).unwrap();
        key.expose_secret().to_owned()
    };
    let [expired, revoked, suspended] = [issue("key_1", "ada"), issue("key_2", "ada"), issue("key_3", "bob")];
    let unknown = format.generate(Environment::Live).unwrap();
    assert!(keys.revoke("key_2"));
    let service = Service::start(KeyVerifier::new(format, keys.clone()), limit()).await;
    assert_eq!(service.get(&expired).await, (200, Some([9, 8, 60]), None));
    assert_eq!(service.get(&revoked).await, (401, None, None));

    service.clock.set(at(60));
    assert_eq!(service.get(&expired).await, (401, None, None));
    assert_eq!(service.get(&revoked).await, (401, None, None));
    assert_eq!(service.get(unknown.expose_secret()).await, (401, None, None));
    assert_eq!(service.get(&suspended).await, (401, None, None), "expired, and not yet suspended");
    keys.suspend_tenant("bob");
    assert_eq!(service.get(&suspended).await, (401, None, None));
}

#[tokio::test]
async fn a_limiter_that_answers_later_changes_nothing() {
    let latch = Latch::shut();
    latch.open();
    let limit = limit().with_limiter(SlowLimiter::new(&Backend::slow(&latch))).unwrap();
    let service = Service::start(tokens(), limit).await;
    assert_eq!(service.get("ada-1").await, (200, Some([3, 2, 60]), None));
    service.clock.set(at(60));
    assert_eq!(service.get("ada-later").await, (200, Some([3, 2, 120]), None));
    assert_eq!(service.get("ada-1").await, (401, None, None));
    assert_eq!(service.get("unknown").await, (401, None, None));
}

#[tokio::test]
async fn a_limiter_that_is_down_does_not_change_the_refusal_of_an_expired_token() {
    let latch = Latch::shut();
    latch.open();
    for backend in [Backend::down(), Backend::down_later(&latch)] {
        let limit = limit().with_limiter(SlowLimiter::new(&backend)).unwrap();
        let service = Service::start(tokens(), limit).await;
        assert_eq!(service.get("ada-1").await, (503, None, None));
        service.clock.set(at(60));
        assert_eq!(service.get("ada-1").await, (401, None, None));
    }
}

#[tokio::test]
async fn a_token_that_expires_while_the_limiter_works_is_refused_as_expired() {
    let (clock, latch) = (ManualClock::at(at(0)), Latch::shut());
    let limit = limit().with_limiter(SlowLimiter::new(&Backend::slow(&latch))).unwrap();
    let tollgate = Tollgate::builder().verify(tokens()).rate_limit(limit).clock(clock.clone());
    let mut service = tollgate.build().unwrap().layer(Inner::new());
    assert!(is_ready_now(&mut service));
    let mut response = pin!(service.call(with_key("ada-1")));
    assert!(is_pending(response.as_mut()));
    clock.set(at(60));
    latch.open();
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(header(response.headers(), "x-ratelimit-remaining"), "");
}
