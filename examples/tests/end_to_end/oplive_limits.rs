//! `oplive`: the limit of an organization, which its keys share.

use http::Method;
use tokio::task::JoinSet;

use crate::{
    client::Answer,
    oplive::{CREDITS, Caller, DEEP_SCAN, SCAN, bearer},
    scanr::{advance, numbers},
    service::Service,
};

/// Half a minute before the limit resets.
const NOW: &str = "2026-03-01T22:58:30Z";
const RESET: u64 = 1_772_405_940;

#[tokio::test]
async fn the_keys_of_an_organization_share_its_limit() {
    let service = Service::start_with("oplive", &["--now", NOW]).await;
    let mut callers = Vec::new();
    for name in ["full", "sibling", "read_only"] {
        callers.push(Caller::connect(&service, name).await);
    }
    for remaining in (0..30).rev() {
        let answer = callers[remaining % 3].get(CREDITS).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(numbers(&answer), (30, remaining as u64, RESET));
    }
    // One more key gives the organization no more requests.
    callers.push(Caller::connect_new(&service, "new", &["credits:read"]).await);
    for caller in &mut callers {
        // Also where there is nothing, and where the key lacks the permission.
        for path in [CREDITS, "/nowhere", "/v1/jobs/job_1"] {
            assert_refused(&caller.get(path).await, 30);
        }
    }
    let mut other_org = Caller::connect(&service, "other_org").await;
    let theirs = other_org.get(CREDITS).await;
    assert_eq!(numbers(&theirs), (30, 29, RESET), "another organization has a limit of its own");

    let [full, sibling, ..] = &mut *callers else { panic!("there are four keys") };
    advance(&mut full.client, 29).await;
    assert_refused(&full.get(CREDITS).await, 1);
    advance(&mut full.client, 1).await;
    assert_eq!(numbers(&full.get(CREDITS).await), (30, 29, RESET + 60));
    assert_eq!(numbers(&sibling.get(CREDITS).await), (30, 28, RESET + 60));
    service.end().await;
}

#[tokio::test]
async fn a_job_that_the_limit_refuses_costs_nothing() {
    let service = Service::start_with("oplive", &["--now", NOW]).await;
    let mut full = Caller::connect(&service, "full").await;
    let mut sibling = Caller::connect(&service, "sibling").await;
    for _ in 0..29 {
        assert_eq!(full.get(CREDITS).await.status, 200);
    }
    assert_eq!(sibling.post(SCAN, "{}").await.status, 201);
    for _ in 0..20 {
        assert_refused(&full.post(DEEP_SCAN, "{}").await, 30);
        assert_refused(&sibling.post(SCAN, "{}").await, 30);
    }
    advance(&mut full.client, 30).await;
    assert_eq!(full.balance().await, 200 - 5);
    service.end().await;
}

#[tokio::test]
async fn counts_each_authenticated_request() {
    let service = Service::start_with("oplive", &["--now", NOW]).await;
    let mut full = Caller::connect(&service, "full").await;
    let mut read_only = Caller::connect(&service, "read_only").await;
    assert_eq!(full.client.get(CREDITS, &[("x-api-key", service.key("full"))]).await.status, 401);
    let deleted = bearer(service.key("deleted"));
    assert_eq!(full.client.get(CREDITS, &[("authorization", &deleted)]).await.status, 401);
    for (method, path, body, status, remaining) in [
        (Method::GET, CREDITS, "", 200, 29),
        (Method::POST, SCAN, "{}", 201, 28),
        (Method::POST, SCAN, "[]", 400, 27),
        (Method::GET, "/v1/jobs/job_1", "", 404, 26),
        (Method::GET, "/nowhere", "", 404, 25),
        (Method::DELETE, CREDITS, "", 405, 24),
    ] {
        let answer = full.send(&method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(numbers(&answer), (30, remaining, RESET), "{method} {path}");
        assert_eq!(answer.header("retry-after"), None);
    }
    let answer = read_only.post(SCAN, "{}").await;
    assert_eq!((answer.status.as_u16(), numbers(&answer)), (403, (30, 23, RESET)));
    service.end().await;
}

#[tokio::test]
async fn admits_exactly_the_limit_of_concurrent_requests() {
    let service = Service::start_with("oplive", &["--now", NOW]).await;
    let mut requests = JoinSet::new();
    for name in ["full", "sibling", "read_only"].into_iter().cycle().take(45) {
        let mut caller = Caller::connect(&service, name).await;
        requests.spawn(async move { caller.get(CREDITS).await.status.as_u16() });
    }
    let statuses = requests.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 30, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 15, "{statuses:?}");
    service.end().await;
}

fn assert_refused(answer: &Answer, retry_after: u64) {
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.body, r#"{"error":"RATE_LIMITED","message":"The limit is used up. Retry later."}"#);
    assert_eq!(numbers(answer), (30, 0, RESET));
    assert_eq!(answer.header("retry-after"), Some(&*retry_after.to_string()));
}
