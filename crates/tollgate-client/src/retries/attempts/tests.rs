use http::{Request, StatusCode};
use tollgate_core::clock::ManualClock;

use super::*;

fn attempts(max: u32, wait: u64, timeout: Option<&str>) -> Attempts {
    let mut request = Request::post("/s/M").header(CONTENT_TYPE, "application/grpc");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    Attempts::new(&request.body(()).unwrap().into_parts().0, max, Duration::from_secs(wait))
}

fn refusal(seconds: &str) -> Response<()> {
    let response = Response::builder().status(StatusCode::TOO_MANY_REQUESTS).header("retry-after", seconds);
    response.body(()).unwrap()
}

fn next(attempts: &mut Attempts, seconds: &str) -> Option<Duration> {
    attempts.next_after(&refusal(seconds), &ManualClock::default())
}

#[test]
fn ends_with_the_tries() {
    let mut attempts = attempts(3, 30, None);
    assert!(next(&mut attempts, "1").is_some());
    assert!(next(&mut attempts, "1").is_some());
    assert_eq!(next(&mut attempts, "1"), None);
}

#[test]
fn ends_with_the_time() {
    let mut attempts = attempts(9, 5, None);
    assert_eq!(next(&mut attempts, "6"), None);
    assert_eq!(next(&mut attempts, "18446744073709551616"), None);
    assert!(next(&mut attempts, "3").is_some());
    assert_eq!(next(&mut attempts, "2"), None, "3 s and a little are used");
    assert!(next(&mut attempts, "1").is_some());
    assert_eq!(attempts.made, 3);
}

#[test]
fn the_whole_time_may_be_used() {
    let mut attempts = attempts(3, 5, None);
    assert_eq!(next(&mut attempts, "5"), Some(Duration::from_secs(5)));
}

#[test]
fn waits_at_least_as_long_as_requested_and_a_little_longer() {
    for (requested, most) in [(0, 100), (500, 100), (2_000, 200), (60_000, 1_000)] {
        let requested = Duration::from_millis(requested);
        assert_eq!(spread_of(requested, 0), Duration::ZERO);
        let longest = spread_of(requested, u16::MAX);
        let most = Duration::from_millis(most);
        assert!(longest < most && longest > most * 99 / 100, "{longest:?}");
    }
    spread_of(Duration::MAX, u16::MAX);
    let waits: std::collections::HashSet<_> =
        (0..20).map(|_| next(&mut attempts(2, 30, None), "2").unwrap()).collect();
    assert!(waits.len() > 1, "spread: {waits:?}");
    assert!(waits.iter().all(|wait| (2_000..2_200).contains(&wait.as_millis())), "{waits:?}");
}

#[test]
fn a_wait_of_any_length_is_possible() {
    let head = Request::get("/").body(()).unwrap().into_parts().0;
    let mut attempts = Attempts::new(&head, u32::MAX, Duration::MAX);
    assert!(next(&mut attempts, "18446744073709551615").is_some());
}

#[tokio::test(start_paused = true)]
async fn ends_before_the_deadline() {
    assert_eq!(next(&mut attempts(3, 30, Some("2S")), "2"), None);
    assert_eq!(next(&mut attempts(3, 30, Some("2S")), "3"), None);
    let mut attempts = attempts(3, 30, Some("3S"));
    let wait = next(&mut attempts, "1").unwrap();
    assert!(wait >= Duration::from_secs(1), "{wait:?}");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(next(&mut attempts, "2"), None, "1 s has passed");
}

#[tokio::test(start_paused = true)]
async fn marks_the_next_try_of_a_grpc_request() {
    let mut attempts = attempts(4, 30, Some("10S"));
    let mut headers = HeaderMap::new();
    assert!(next(&mut attempts, "1").is_some());
    tokio::time::advance(Duration::from_millis(1_500)).await;
    attempts.mark(&mut headers);
    assert_eq!(headers["grpc-timeout"], "8500m");
    assert_eq!(headers["grpc-previous-rpc-attempts"], "1");
    assert!(next(&mut attempts, "1").is_some());
    attempts.mark(&mut headers);
    assert_eq!(headers["grpc-previous-rpc-attempts"], "2");

    for content_type in ["application/grpc-web", "application/grpc-web-text+proto"] {
        let request = Request::post("/s/M").header(CONTENT_TYPE, content_type).header("grpc-timeout", "2S");
        let mut web = Attempts::new(&request.body(()).unwrap().into_parts().0, 2, Duration::from_secs(30));
        assert_eq!(next(&mut web, "2"), None, "its deadline");
        let mut headers = HeaderMap::new();
        web.mark(&mut headers);
        assert_eq!(headers["grpc-timeout"], "2000m");
        assert!(!headers.contains_key("grpc-previous-rpc-attempts"), "{content_type}");
    }

    let head = Request::get("/").header("grpc-timeout", "1S").body(()).unwrap().into_parts().0;
    let mut http = Attempts::new(&head, 2, Duration::from_secs(30));
    assert!(next(&mut http, "5").is_some(), "no header of HTTP");
    let mut headers = HeaderMap::new();
    http.mark(&mut headers);
    assert!(headers.is_empty());
}

#[test]
fn only_idempotent_methods_are() {
    for method in [Method::POST, Method::PATCH, Method::CONNECT, Method::from_bytes(b"PURGE").unwrap()] {
        assert!(!is_idempotent(&method), "{method}");
    }
    assert!(is_idempotent(&Method::GET) && is_idempotent(&Method::DELETE));
}
