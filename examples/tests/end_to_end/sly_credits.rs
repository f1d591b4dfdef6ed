//! `sly`: the credits of an organization.

use tokio::task::JoinSet;

use crate::{
    scanr::{NOW, advance},
    service::Service,
    sly::{BALANCE, BATCH, Caller, ROTATE, SCAN, TESTS, assert_answer},
};

#[tokio::test]
async fn a_scan_costs_1_credit_and_a_batch_5_and_the_rest_nothing() {
    let service = Service::start("sly").await;
    let mut live = Caller::connect(&service, "live").await;
    assert_answer(&live.get(BALANCE).await, 200, r#"{"balance":100}"#, "at the start");
    let scan = live.create(SCAN).await;
    // At once: the balance does not wait for a settlement.
    assert_eq!(live.balance().await, 99);
    live.create(BATCH).await;
    assert_eq!(live.balance().await, 94);
    live.create(TESTS).await;
    assert_eq!(live.get(&format!("/v1/scanner/scans/{scan}")).await.status, 200);
    assert_eq!(live.balance().await, 94);
    service.end().await;
}

#[tokio::test]
async fn an_organization_has_one_balance() {
    let service = Service::start("sly").await;
    let mut balance = 1_000;
    for name in ["test", "fast", "jwt"] {
        let mut spender = Caller::connect(&service, name).await;
        spender.create(SCAN).await;
        spender.create(BATCH).await;
        balance -= 6;
        for reader in ["test", "read_only", "fast", "jwt"] {
            assert_eq!(Caller::connect(&service, reader).await.balance().await, balance, "{reader}");
        }
    }
    assert_eq!(Caller::connect(&service, "live").await.balance().await, 100, "another organization");
    service.end().await;
}

#[tokio::test]
async fn answers_402_with_the_balance_and_what_is_required() {
    let service = Service::start_with("sly", &["--now", NOW]).await;
    let mut live = Caller::connect(&service, "live").await;
    for _ in 0..19 {
        live.create(BATCH).await;
    }
    live.create(SCAN).await;
    assert_eq!(live.balance().await, 4);
    // Twice, because a refusal changes nothing; and before the body is read.
    for body in ["{}", "[]"] {
        let refused = live.post(BATCH, body).await;
        let expected = r#"{"balance":4,"error":"insufficient_credits","required":5}"#;
        assert_answer(&refused, 402, expected, body);
        assert_eq!(live.balance().await, 4);
    }
    advance(&mut live.client, 60).await;
    for balance in (0..4).rev() {
        live.create(SCAN).await;
        assert_eq!(live.balance().await, balance, "the rest can be spent");
    }
    let gone = r#"{"balance":0,"error":"insufficient_credits","required":1}"#;
    assert_answer(&live.post(SCAN, "{}").await, 402, gone, "live");
    // What is free still works.
    live.create(TESTS).await;
    assert_eq!(live.post(ROTATE, "").await.status, 200);

    let mut no_credits = Caller::connect(&service, "no_credits").await;
    assert_answer(&no_credits.post(SCAN, "{}").await, 402, gone, "no_credits");
    no_credits.create(TESTS).await;
    service.end().await;
}

#[tokio::test]
async fn a_request_that_is_refused_or_fails_costs_nothing() {
    let service = Service::start_with("sly", &["--now", NOW]).await;
    let mut live = Caller::connect(&service, "live").await;
    let mut read_only = Caller::connect(&service, "read_only").await;
    for path in [SCAN, BATCH] {
        for body in ["", "[]", "nonsense"] {
            assert_eq!(live.post(path, body).await.status, 400);
            assert_eq!(live.balance().await, 100, "at once");
        }
        assert_eq!(live.post(path, &"x".repeat(20_000)).await.status, 413);
        assert_eq!(read_only.post(path, "{}").await.status, 403);
        for other in ["", "/"] {
            assert_ne!(live.get(&format!("{path}{other}")).await.status, 200);
        }
    }
    assert_eq!(live.balance().await, 100);
    assert_eq!(read_only.balance().await, 1_000);
    // The limit of the key.
    while live.post(SCAN, "[]").await.status != 429 {}
    for _ in 0..10 {
        assert_eq!(live.post(BATCH, "{}").await.status, 429);
    }
    advance(&mut live.client, 60).await;
    assert_eq!(live.balance().await, 100);
    service.end().await;
}

#[tokio::test]
async fn concurrent_requests_never_spend_more_than_there_is() {
    let service = Service::start_with("sly", &["--now", NOW]).await;
    let mut live = Caller::connect(&service, "live").await;
    for _ in 0..18 {
        live.create(BATCH).await;
    }
    advance(&mut live.client, 60).await;
    let mut scans = JoinSet::new();
    for _ in 0..40 {
        let mut caller = Caller::connect(&service, "live").await;
        scans.spawn(async move { caller.post(SCAN, "{}").await.status.as_u16() });
    }
    let statuses = scans.join_all().await;
    let count = |status| statuses.iter().filter(|other| **other == status).count();
    assert_eq!((count(200), count(402)), (10, 30), "{statuses:?}");
    assert_eq!(live.balance().await, 0);
    service.end().await;
}
