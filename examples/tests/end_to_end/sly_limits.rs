//! `sly`: the limit of each key, and of each user.

use crate::{
    client::Answer,
    scanr::{advance, numbers},
    service::Service,
    sly::{BALANCE, Caller, SCAN, assert_answer},
};

/// Half a minute before the limit resets.
const NOW: &str = "2026-03-01T22:58:30Z";
const RESET: u64 = 1_772_405_940;

#[tokio::test]
async fn a_key_and_a_user_have_60_requests_per_minute_each() {
    let service = Service::start_with("sly", &["--now", NOW]).await;
    for name in ["live", "test", "read_only", "jwt"] {
        let mut caller = Caller::connect(&service, name).await;
        for remaining in (0..60).rev() {
            let answer = caller.get(BALANCE).await;
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert_eq!(numbers(&answer), (60, remaining, RESET), "{name}");
        }
        for path in [BALANCE, SCAN, "/nowhere"] {
            assert_limited(&caller.get(path).await, 60, 30);
            // Environments count together, as do all connections.
            let mut again = Caller::connect(&service, name).await;
            assert_limited(&again.send_in(&["test"], &http::Method::POST, path, "{}").await, 60, 30);
        }
    }
    let mut live = Caller::connect(&service, "live").await;
    advance(&mut live.client, 29).await;
    assert_limited(&live.get(BALANCE).await, 60, 1);
    advance(&mut live.client, 1).await;
    assert_eq!(numbers(&live.get(BALANCE).await), (60, 59, RESET + 60));
    service.end().await;
}

#[tokio::test]
async fn a_key_may_have_a_higher_limit() {
    let service = Service::start_with("sly", &["--now", NOW]).await;
    let mut fast = Caller::connect(&service, "fast").await;
    for remaining in (0..600).rev() {
        let answer = fast.get(BALANCE).await;
        assert_eq!((answer.status.as_u16(), numbers(&answer)), (200, (600, remaining, RESET)));
    }
    assert_limited(&fast.get(BALANCE).await, 600, 30);
    service.end().await;
}

#[tokio::test]
async fn counts_each_authenticated_request_and_no_other() {
    let service = Service::start_with("sly", &["--now", NOW]).await;
    let mut read_only = Caller::connect(&service, "read_only").await;
    for (path, status, remaining) in [(SCAN, 403, 59), ("/nowhere", 404, 58), (BALANCE, 405, 57)] {
        let answer = read_only.post(path, "{}").await;
        assert_eq!((answer.status.as_u16(), numbers(&answer)), (status, (60, remaining, RESET)));
    }
    for name in ["revoked", "jwt_forged", "jwt_expired"] {
        let mut caller = Caller::connect(&service, name).await;
        for _ in 0..70 {
            assert_eq!(caller.get(BALANCE).await.status, 401, "{name}");
        }
    }
    service.end().await;
}

fn assert_limited(answer: &Answer, limit: u64, wait: u64) {
    let body = format!(r#"{{"error":"rate_limit_exceeded","retry_after":{wait}}}"#);
    assert_answer(answer, 429, &body, "limited");
    assert_eq!(numbers(answer).0, limit);
    assert_eq!(numbers(answer).1, 0);
    assert_eq!(answer.header("retry-after"), Some(&*wait.to_string()));
}
