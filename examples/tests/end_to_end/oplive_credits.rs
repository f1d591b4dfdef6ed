//! `oplive`: the credits of an organization, which its keys share.

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    oplive::{CLASSIFY, CREDITS, Caller, DEEP_SCAN, SCAN, WEBHOOKS},
    scanr::{NOW, advance},
    service::Service,
};

#[tokio::test]
async fn the_keys_of_an_organization_share_its_credits() {
    let service = Service::start_with("oplive", &["--now", NOW]).await;
    let mut full = Caller::connect(&service, "full").await;
    let mut sibling = Caller::connect(&service, "sibling").await;
    let mut read_only = Caller::connect(&service, "read_only").await;
    let mut other_org = Caller::connect(&service, "other_org").await;
    assert_eq!(full.get(CREDITS).await.json(), json!({ "balance": 200, "reserved": 0 }));

    let mut balance = 200;
    for (path, cost) in [(CLASSIFY, 1), (SCAN, 5), (DEEP_SCAN, 20), (WEBHOOKS, 0)] {
        for creator in [&mut full, &mut sibling] {
            let created = creator.post(path, "{}").await;
            assert_eq!(created.status, 201);
            balance -= cost;
            // At once: reserved credits are already subtracted.
            assert_eq!(read_only.get(CREDITS).await.json()["balance"], balance, "after {path}");
        }
        for reader in [&mut full, &mut sibling, &mut read_only] {
            assert_eq!(reader.balance().await, balance, "after {path}");
        }
        advance(&mut full.client, 60).await;
    }
    assert_eq!(balance, 148);
    assert_eq!(other_org.balance().await, 200);
    service.end().await;
}

#[tokio::test]
async fn answers_402_with_the_balance_and_what_is_needed() {
    let service = Service::start_with("oplive", &["--now", NOW]).await;
    let mut full = Caller::connect(&service, "full").await;
    let mut sibling = Caller::connect(&service, "sibling").await;
    for _ in 0..9 {
        assert_eq!(full.post(DEEP_SCAN, "{}").await.status, 201);
    }
    for _ in 0..3 {
        assert_eq!(sibling.post(SCAN, "{}").await.status, 201);
    }
    // Twice, because a refusal changes nothing; and before the body is read.
    for (caller, body) in [(&mut full, "{}"), (&mut sibling, "[]")] {
        let refused = caller.post(DEEP_SCAN, body).await;
        assert_eq!(refused.status, 402, "{refused:?}");
        let body = r#"{"balance":5,"error":"INSUFFICIENT_CREDITS","message":"The organization has too few credits.","needed":20}"#;
        assert_eq!(refused.body, body);
        assert_eq!(refused.header("content-type"), Some("application/json"));
    }
    assert_eq!(full.post(SCAN, "{}").await.status, 201, "the rest can be spent");
    let refused = sibling.post(CLASSIFY, "{}").await;
    assert_eq!(refused.status, 402);
    let refused = refused.json();
    assert_eq!((&refused["balance"], &refused["needed"]), (&json!(0), &json!(1)));
    // What is free still works.
    assert_eq!(full.post(WEBHOOKS, "{}").await.status, 201);
    assert_eq!(full.balance().await, 0);
    assert_eq!(Caller::connect(&service, "other_org").await.post(DEEP_SCAN, "{}").await.status, 201);
    service.end().await;
}

#[tokio::test]
async fn a_job_that_is_not_created_costs_nothing() {
    let service = Service::start_with("oplive", &["--now", NOW]).await;
    let mut full = Caller::connect(&service, "full").await;
    let mut read_only = Caller::connect(&service, "read_only").await;
    let too_long = json!({ "text": "x".repeat(17_000) }).to_string();
    for (body, status) in [("nonsense", 400), ("[]", 400), (&*too_long, 413)] {
        for path in [CLASSIFY, SCAN, DEEP_SCAN] {
            assert_eq!(full.post(path, body).await.status, status);
        }
        assert_eq!(full.balance().await, 200, "after {status}");
    }
    advance(&mut full.client, 60).await;
    assert_eq!(read_only.post(DEEP_SCAN, "{}").await.status, 403);
    assert_eq!(full.post("/v1/deep-scan/", "{}").await.status, 404);
    assert_eq!(full.get(DEEP_SCAN).await.status, 405);
    assert_eq!(full.client.get(DEEP_SCAN, &[]).await.status, 401);
    assert_eq!(full.balance().await, 200);
    service.end().await;
}

#[tokio::test]
async fn of_concurrent_jobs_only_those_are_created_that_can_be_paid() {
    let service = Service::start_with("oplive", &["--now", NOW]).await;
    let mut requests = JoinSet::new();
    for name in ["full", "sibling"].into_iter().cycle().take(25) {
        let mut caller = Caller::connect(&service, name).await;
        requests.spawn(async move { caller.post(DEEP_SCAN, "{}").await.status.as_u16() });
    }
    let statuses = requests.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 402).count(), 15, "{statuses:?}");
    let mut full = Caller::connect(&service, "full").await;
    advance(&mut full.client, 60).await;
    assert_eq!(full.balance().await, 0);
    service.end().await;
}

#[tokio::test]
async fn the_credits_of_a_month_begin_anew_on_its_first_day() {
    let service = Service::start_with("oplive", &["--now", "2026-03-31T23:59:30Z"]).await;
    let mut full = Caller::connect(&service, "full").await;
    assert_eq!(full.post(DEEP_SCAN, "{}").await.status, 201);
    assert_eq!(full.balance().await, 180);
    advance(&mut full.client, 29).await;
    assert_eq!(full.balance().await, 180);
    advance(&mut full.client, 1).await;
    assert_eq!(full.balance().await, 200, "what was left of March has lapsed");
    assert_eq!(full.post(DEEP_SCAN, "{}").await.status, 201);
    assert_eq!(full.balance().await, 180);
    service.end().await;
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_job_and_is_charged_once() {
    let service = Service::start_with("oplive", &["--now", NOW]).await;
    let mut full = Caller::connect(&service, "full").await;
    let mut sibling = Caller::connect(&service, "sibling").await;
    let mut other_org = Caller::connect(&service, "other_org").await;
    let first = full.post_once(SCAN, "k-1", r#"{"a":1}"#).await;
    assert_eq!(first.status, 201);
    // At once, and the key belongs to the organization, like the job.
    for caller in [&mut full, &mut sibling] {
        let again = caller.post_once(SCAN, "k-1", r#"{ "a": 1 }"#).await;
        assert_eq!((again.status.as_u16(), &again.body), (201, &first.body));
        assert_eq!(again.header("location"), first.header("location"));
    }
    assert_eq!(full.balance().await, 195);
    let theirs = other_org.post_once(SCAN, "k-1", r#"{"a":1}"#).await;
    assert_eq!(theirs.status, 201);
    assert_ne!(theirs.body, first.body);
    assert_eq!(other_org.balance().await, 195);

    for (path, body) in [(SCAN, r#"{"a":2}"#), (DEEP_SCAN, r#"{"a":1}"#)] {
        let reused = full.post_once(path, "k-1", body).await;
        assert_eq!(reused.status, 422, "{path} {body}: {reused:?}");
        assert_eq!(reused.json()["error"], "IDEMPOTENCY_KEY_REUSED");
    }
    for invalid in ["", "café", &*"x".repeat(256)] {
        let answer = full.post_once(SCAN, invalid, "{}").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]),
            (400, &json!("INVALID_IDEMPOTENCY_KEY"))
        );
    }
    let other = full.post_once(SCAN, "k-2", r#"{"a":1}"#).await;
    assert_eq!(other.status, 201);
    assert_ne!(other.body, first.body);
    assert_eq!(full.balance().await, 190);

    // The key of a request that failed is free again.
    assert_eq!(full.post_once(SCAN, "k-3", "nonsense").await.status, 400);
    assert_eq!(full.balance().await, 190);
    assert_eq!(full.post_once(SCAN, "k-3", "{}").await.status, 201);
    assert_eq!(full.balance().await, 185);
    service.end().await;
}
