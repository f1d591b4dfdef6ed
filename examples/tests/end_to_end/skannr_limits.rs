//! `skannr`: the limits of accounts, and those of client addresses at the open routes.

use http::Method;
use serde_json::json;

use crate::{
    client::Answer,
    scanr::numbers,
    service::Service,
    skannr::{Api, LOGIN, NOW, TARGETS},
};

/// The minute after [`NOW`] begins, in seconds since the Unix epoch.
const AT_22_59: u64 = 1_772_405_940;
const EMAIL: &str = "ada@example.org";
const PASSWORD: &str = "correct horse";

#[tokio::test]
async fn each_plan_has_its_limit_per_minute() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    for (token, limit) in [("free", 30), ("pro", 300)] {
        let mut api = Api::with_token(&service, service.key(token)).await;
        for remaining in (0..limit).rev() {
            let answer = api.get(TARGETS).await;
            assert_eq!((answer.status.as_u16(), numbers(&answer)), (200, (limit, remaining, AT_22_59)));
        }
        let refused = api.get(TARGETS).await;
        assert_eq!((refused.status.as_u16(), numbers(&refused)), (429, (limit, 0, AT_22_59)));
        assert_eq!(refused.header("retry-after"), Some("30"));
    }
    let mut api = Api::with_token(&service, service.key("free")).await;
    api.advance(29).await;
    let refused = api.get(TARGETS).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, Some("1")));
    api.advance(1).await;
    let answer = api.get(TARGETS).await;
    assert_eq!((answer.status.as_u16(), numbers(&answer)), (200, (30, 29, AT_22_59 + 60)));
    service.end().await;
}

#[tokio::test]
async fn every_answer_to_an_account_counts_and_shows_its_limit() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut api = Api::with_token(&service, service.key("free")).await;
    let mut remaining = 30;
    for (method, path, body, status) in [
        (Method::GET, TARGETS, "", 200),
        (Method::HEAD, TARGETS, "", 200),
        (Method::POST, TARGETS, "nonsense", 400),
        (Method::DELETE, "/auth/mfa", r#"{"password":"wrong"}"#, 403),
        (Method::GET, "/targets/unknown", "", 404),
        (Method::GET, "/nowhere", "", 404),
        (Method::PUT, TARGETS, "", 405),
    ] {
        let answer = api.send(method.clone(), path, body).await;
        remaining -= 1;
        assert_eq!(
            (answer.status.as_u16(), numbers(&answer)),
            (status, (30, remaining, AT_22_59)),
            "{method} {path}"
        );
    }
    // A request without a valid token counts for no account.
    api.token = Some(service.key("expired").to_owned());
    assert_eq!(api.get(TARGETS).await.status, 401);
    api.token = Some(service.key("free").to_owned());
    assert_eq!(numbers(&api.get(TARGETS).await).1, remaining - 1);
    service.end().await;
}

#[tokio::test]
async fn all_sessions_of_an_account_count_together() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut one = Api::of_new_account(&service, EMAIL, PASSWORD).await;
    let mut two = Api::connect(&service).await;
    let shown = two.login(EMAIL, PASSWORD).await;
    assert_eq!(numbers(&shown), (30, 30, AT_22_59), "a sign-in does not count");
    two.token = Some(shown.json()["access_token"].as_str().unwrap().to_owned());
    for number in 0..30 {
        let api = if number % 2 == 0 { &mut one } else { &mut two };
        assert_eq!(numbers(&api.get(TARGETS).await).1, 29 - number);
    }
    assert_eq!(one.get(TARGETS).await.status, 429);
    assert_eq!(two.get(TARGETS).await.status, 429);
    // An account whose limit is used up can still renew its tokens.
    let refreshed = two.refresh(shown.json()["refresh_token"].as_str().unwrap()).await;
    assert_eq!((refreshed.status.as_u16(), numbers(&refreshed)), (200, (30, 0, AT_22_59)));
    two.token = Some(refreshed.json()["access_token"].as_str().unwrap().to_owned());
    assert_eq!(two.get(TARGETS).await.status, 429, "a new token does not reset the count");

    let mut other = Api::with_token(&service, service.key("free")).await;
    assert_eq!(numbers(&other.get(TARGETS).await).1, 29, "another account has its own count");
    service.end().await;
}

#[tokio::test]
async fn a_changed_plan_changes_the_limit_and_keeps_the_count() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut api = Api::with_token(&service, service.key("free")).await;
    for _ in 0..19 {
        assert_eq!(api.get(TARGETS).await.status, 200);
    }
    let changed = change_plan(&mut api, "pro").await;
    assert_eq!((changed.status.as_u16(), numbers(&changed)), (200, (30, 10, AT_22_59)));
    let answer = api.get(TARGETS).await;
    assert_eq!(numbers(&answer), (300, 279, AT_22_59), "20 requests were counted before");
    assert_eq!(api.get("/billing/status").await.json()["plan"], "pro");

    // With the smaller limit again, more is counted than it admits.
    for _ in 0..20 {
        assert_eq!(api.get(TARGETS).await.status, 200);
    }
    assert_eq!(change_plan(&mut api, "free").await.status, 200);
    let refused = api.get(TARGETS).await;
    assert_eq!((refused.status.as_u16(), numbers(&refused)), (429, (30, 0, AT_22_59)));
    api.advance(30).await;
    assert_eq!(numbers(&api.get(TARGETS).await), (30, 29, AT_22_59 + 60));
    service.end().await;
}

#[tokio::test]
async fn concurrent_requests_get_exactly_the_limit() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut api = Api::with_token(&service, service.key("free")).await;
        requests.spawn(async move {
            let mut admitted = 0;
            for _ in 0..8 {
                admitted += usize::from(api.get(TARGETS).await.status == 200);
            }
            admitted
        });
    }
    assert_eq!(requests.join_all().await.into_iter().sum::<usize>(), 30);
    service.end().await;
}

#[tokio::test]
async fn an_address_may_fail_to_sign_in_60_times_a_minute() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut api = Api::of_new_account(&service, EMAIL, PASSWORD).await;
    let refresh = api.login(EMAIL, PASSWORD).await.json()["refresh_token"].clone();
    for number in 0..60 {
        // Failed logins and failed refreshes count together. Each e-mail is another one, and each connection too.
        let mut api = Api::connect(&service).await;
        let answer = match number % 4 {
            0 => api.login(&format!("{number}@example.org"), PASSWORD).await,
            _ => api.refresh("nonsense").await,
        };
        assert_eq!(answer.status, 401, "attempt {number}");
    }
    let refused = api.login(EMAIL, PASSWORD).await;
    assert_refused(&refused, "30");
    assert_refused(&api.refresh(refresh.as_str().unwrap()).await, "30");
    let account = json!({ "name": "Eve", "email": "eve@example.org", "password": PASSWORD });
    assert_refused(&api.post("/auth/register", &account).await, "30");
    // Callers with a token are not affected.
    assert_eq!(api.get(TARGETS).await.status, 200);

    api.advance(30).await;
    assert_eq!(api.login(EMAIL, PASSWORD).await.status, 200);
    assert_eq!(
        api.refresh(refresh.as_str().unwrap()).await.status,
        200,
        "the refused request has not used it"
    );
    service.end().await;
}

#[tokio::test]
async fn an_address_may_send_120_requests_a_minute_to_the_open_routes() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut api = Api::connect(&service).await;
    for _ in 0..120 {
        assert_eq!(api.post(LOGIN, &json!({})).await.status, 400);
    }
    assert_refused(&api.post(LOGIN, &json!({})).await, "30");
    api.advance(30).await;
    assert_eq!(api.post(LOGIN, &json!({})).await.status, 400);
    service.end().await;
}

/// Refused for its address: no header shows what other callers of the address have used.
fn assert_refused(answer: &Answer, retry_after: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (429, Some(retry_after)),
        "{answer:?}"
    );
    assert_eq!(answer.header("x-ratelimit-limit"), None);
}

async fn change_plan(api: &mut Api, plan: &str) -> Answer {
    api.post("/billing/change-plan", &json!({ "plan": plan })).await
}
