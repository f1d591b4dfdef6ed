//! `scanr`: its limits, before and after the boundaries at which they reset.

use std::collections::HashMap;

use http::Method;
use tokio::task::JoinSet;

use crate::{
    client::{Answer, Client},
    scanr::{NOW, STATUS, advance, numbers},
    service::Service,
};

/// [`NOW`] and the boundaries after it, in seconds since the Unix epoch.
const NOW_S: i64 = 1_772_405_910;
const AT_22_59: u64 = 1_772_405_940;
const AT_23_00: u64 = 1_772_406_000;
const MIDNIGHT: u64 = 1_772_409_600;

const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;

/// The limits of the smallest tier: window in seconds, and requests.
const TINY: [(i64, usize); 3] = [(60, 5), (HOUR, 8), (DAY, 10)];

#[tokio::test]
async fn reports_the_minute_the_hour_and_the_day_in_turn_as_each_is_used_up() {
    let service = Service::start_with("scanr", &["--now", NOW]).await;
    let mut caller = Caller::connect(&service, "tiny").await;

    for remaining in (0..5).rev() {
        caller.expect_admitted(5, remaining, AT_22_59).await;
    }
    caller.expect_refused(5, AT_22_59, 30).await;
    caller.advance(29).await;
    caller.expect_refused(5, AT_22_59, 1).await;

    caller.advance(1).await; // 22:59:00
    for remaining in (0..3).rev() {
        caller.expect_admitted(8, remaining, AT_23_00).await;
    }
    caller.expect_refused(8, AT_23_00, 60).await;
    caller.advance(59).await;
    caller.expect_refused(8, AT_23_00, 1).await;

    caller.advance(1).await; // 23:00:00
    for remaining in (0..2).rev() {
        caller.expect_admitted(10, remaining, MIDNIGHT).await;
    }
    caller.expect_refused(10, MIDNIGHT, 3_600).await;
    caller.advance(3_599).await;
    caller.expect_refused(10, MIDNIGHT, 1).await;

    caller.advance(1).await; // 2026-03-02T00:00:00
    for remaining in (0..5).rev() {
        caller.expect_admitted(5, remaining, MIDNIGHT + 60).await;
    }
    caller.expect_refused(5, MIDNIGHT + 60, 60).await;
    service.end().await;
}

#[tokio::test]
async fn reports_the_last_window_to_reset_of_those_used_up_together() {
    let service = Service::start_with("scanr", &["--now", "2026-03-01T21:57:30Z"]).await;
    let mut caller = Caller::connect(&service, "tiny").await;
    for _ in 0..2 {
        assert_eq!(caller.ask().await.status, 200);
    }
    caller.advance(HOUR).await;
    for _ in 0..3 {
        assert_eq!(caller.ask().await.status, 200);
    }
    caller.advance(60).await; // 22:58:30
    for remaining in (0..5).rev() {
        caller.expect_admitted(10, remaining, MIDNIGHT).await;
    }
    caller.expect_refused(10, MIDNIGHT, 3_690).await;
    service.end().await;
}

#[tokio::test]
async fn each_tier_has_its_own_limit_per_minute() {
    let service = Service::start_with("scanr", &["--now", NOW]).await;
    for (token, limit) in [("tiny", 5), ("basic", 60), ("pro", 600)] {
        let mut caller = Caller::connect(&service, token).await;
        for remaining in (0..limit).rev() {
            caller.expect_admitted(limit, remaining, AT_22_59).await;
        }
        caller.expect_refused(limit, AT_22_59, 30).await;
    }
    // Another token of the account has its own counters.
    let mut caller = Caller::connect(&service, "basic_write").await;
    caller.expect_admitted(60, 59, AT_22_59).await;
    service.end().await;
}

#[tokio::test]
async fn each_tier_has_its_own_limits_per_hour_and_day() {
    let service = Service::start_with("scanr", &["--now", "2026-03-01T00:00:00Z"]).await;
    let mut caller = Caller::connect(&service, "basic").await;
    let mut used_up = Vec::new();
    for _ in 0..5_000 {
        caller.ask_until_admitted(&mut used_up).await;
    }
    assert_eq!(caller.now, NOW_S - NOW_S % DAY + 4 * HOUR + 16 * 60, "five hours of 1,000, in minutes of 60");
    let refusal = caller.ask().await;
    assert_eq!((refusal.status.as_u16(), numbers(&refusal)), (429, (5_000, 0, MIDNIGHT)));
    // Before that, each hour used up the minute 16 times and the hour once.
    let times = |limit| used_up.iter().filter(|used_up| **used_up == limit).count();
    assert_eq!((times(60), times(1_000), times(5_000)), (5 * 16, 4, 0), "{used_up:?}");
    service.end().await;
}

#[tokio::test]
async fn admits_a_caller_that_waits_for_retry_after() {
    let service = Service::start_with("scanr", &["--now", NOW]).await;
    let mut caller = Caller::connect(&service, "tiny").await;
    for _ in 0..500 {
        // Odd intervals, because callers do not ask at even times only.
        caller.advance(7).await;
        caller.ask_until_admitted(&mut Vec::new()).await;
    }
    service.end().await;
}

#[tokio::test]
async fn never_refuses_a_caller_that_follows_the_headers() {
    let service = Service::start_with("scanr", &["--now", NOW]).await;
    let mut caller = Caller::connect(&service, "tiny").await;
    for _ in 0..500 {
        let answer = caller.ask().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let (_, remaining, reset) = numbers(&answer);
        if remaining == 0 {
            caller.advance(i64::try_from(reset).unwrap() - caller.now).await;
        }
    }
    service.end().await;
}

#[tokio::test]
async fn counts_requests_refused_after_the_limit_but_not_unverified_ones() {
    let service = Service::start_with("scanr", &["--now", NOW]).await;
    let mut caller = Caller::connect(&service, "tiny").await;
    let key = [("x-api-key", service.key("tiny"))];
    let conflicting = [("x-api-key", service.key("tiny")), ("authorization", "Bearer junk")];
    for (method, path, status, remaining) in [
        (Method::POST, "/api/v2/scans", 403, 4),
        (Method::GET, "/api/v2/technicals/AAPL", 403, 3),
        (Method::GET, "/nowhere", 404, 2),
        (Method::POST, STATUS, 405, 1),
        (Method::HEAD, STATUS, 200, 0),
    ] {
        assert_eq!(caller.client.get(STATUS, &conflicting).await.status, 401);
        let answer = caller.client.send(method, path, &key).await;
        assert_eq!((answer.status.as_u16(), numbers(&answer)), (status, (5, remaining, AT_22_59)));
    }
    // The limit is used up, so it answers every request.
    for path in [STATUS, "/nowhere"] {
        assert_eq!(caller.client.get(path, &key).await.status, 429);
    }
    service.end().await;
}

#[tokio::test]
async fn admits_exactly_the_limit_of_concurrent_requests() {
    let service = Service::start_with("scanr", &["--now", NOW]).await;
    let mut requests = JoinSet::new();
    for _ in 0..40 {
        let mut caller = Caller::connect(&service, "tiny").await;
        requests.spawn(async move { caller.ask().await.status.as_u16() });
    }
    let statuses = requests.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 5, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 35, "{statuses:?}");
    service.end().await;
}

#[tokio::test]
async fn a_clock_set_back_admits_at_most_one_extra_window_of_each_kind() {
    let service = Service::start_with("scanr", &["--now", NOW]).await;
    let mut caller = Caller::connect(&service, "tiny").await;
    // Starts before and after boundaries, after some or all of the windows are used up.
    for (start, asked_before) in
        [(0, 3), (0, 5), (0, 8), (0, 10), (29, 8), (30, 6), (90, 5), (HOUR + 90, 8), (HOUR + 100, 10)]
    {
        // Some days later, where nothing has been counted yet.
        let days = (caller.now - NOW_S) / DAY + 3;
        caller.advance(NOW_S + days * DAY + start - caller.now).await;
        let mut admitted = Vec::new();
        for _ in 0..asked_before {
            caller.ask_until_admitted(&mut Vec::new()).await;
            admitted.push(caller.now);
        }
        let turned_back_at = caller.now;
        caller.advance(-HOUR).await;
        while caller.now < turned_back_at + 2 * HOUR {
            caller.ask_until_admitted(&mut Vec::new()).await;
            admitted.push(caller.now);
        }
        for (length, limit) in TINY {
            let mut in_window = HashMap::<i64, usize>::new();
            for at in &admitted {
                *in_window.entry(at / length).or_default() += 1;
            }
            let most = in_window.into_values().max();
            assert!(most <= Some(2 * limit), "{most:?} within {length} s, by {start} and {asked_before}");
        }
    }
    service.end().await;
}

/// A caller with a token that knows the time of the service's clock.
struct Caller {
    client: Client,
    token: String,
    now: i64,
}

impl Caller {
    async fn connect(service: &Service, token: &str) -> Self {
        let mut client = Client::connect(service).await;
        let now = seconds(&advance(&mut client, 0).await);
        Self { client, token: service.key(token).to_owned(), now }
    }

    async fn ask(&mut self) -> Answer {
        self.client.get(STATUS, &[("x-api-key", &self.token)]).await
    }

    async fn advance(&mut self, step: i64) -> String {
        let now = advance(&mut self.client, step).await;
        self.now += step;
        assert_eq!(self.now, seconds(&now));
        now
    }

    async fn expect_admitted(&mut self, limit: u64, remaining: u64, reset: u64) {
        let answer = self.ask().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(numbers(&answer), (limit, remaining, reset));
        assert_eq!(answer.header("retry-after"), None);
    }

    async fn expect_refused(&mut self, limit: u64, reset: u64, retry_after: i64) {
        // Repeated, because a refusal does not count and does not move the reset.
        for _ in 0..2 {
            let answer = self.ask().await;
            assert_eq!(answer.status, 429, "{answer:?}");
            assert_eq!(numbers(&answer), (limit, 0, reset));
            assert_eq!(answer.header("retry-after"), Some(&*retry_after.to_string()));
            assert_eq!(answer.json()["error"]["code"], "rate_limited");
        }
    }

    /// Asks, and if refused waits for `Retry-After`, which must suffice. Records the limit that was used up.
    async fn ask_until_admitted(&mut self, used_up: &mut Vec<u64>) {
        let answer = self.ask().await;
        if answer.status == 200 {
            return;
        }
        assert_eq!(answer.status, 429, "{answer:?}");
        used_up.push(numbers(&answer).0);
        let wait = answer.header("retry-after").unwrap().parse().unwrap();
        self.advance(wait).await;
        let answer = self.ask().await;
        assert_eq!(answer.status, 200, "after {wait} s: {answer:?}");
    }
}

/// An instant in seconds since the Unix epoch.
fn seconds(instant: &str) -> i64 {
    instant.parse::<jiff::Timestamp>().unwrap().as_second()
}
