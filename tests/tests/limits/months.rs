//! Quotas by calendar month and by week: where their windows begin, and what callers see of them.

use std::time::{Duration, SystemTime};

use http::Request;
use tests::suite::{Inner, Reply, Stack, send};
use tollgate::{
    PerWindow as _, Policy, Quota, RateLimitLayer,
    clock::ManualClock,
    limit::{DEFAULT_POLICY, RateLimitHeaders, Window},
};

use crate::{behind, from, guarding, passing};

/// Seconds since the Unix epoch, as `date -u -d 2027-01-31 +%s` writes them.
const JANUARY_31: u64 = 1_801_353_600;
const FEBRUARY_1: u64 = JANUARY_31 + DAY;
const FEBRUARY_28: u64 = JANUARY_31 + 28 * DAY;
const MARCH_1: u64 = FEBRUARY_1 + 28 * DAY;
const MARCH_31: u64 = MARCH_1 + 30 * DAY;
const DAY: u64 = 86_400;

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

/// The stack of a quota, and its clock.
fn stack(quota: Quota) -> (Stack, ManualClock) {
    let clock = ManualClock::at(at(JANUARY_31));
    let limit = RateLimitLayer::new(quota).with_headers(RateLimitHeaders::new().with_ietf_draft_10());
    (guarding(tests::hosts::How::Built, &clock, limit, Inner::new()), clock)
}

fn reset(reply: &Reply) -> u64 {
    reply.header("x-ratelimit-reset").parse().unwrap()
}

#[tokio::test]
async fn a_calendar_month_ends_at_the_first() {
    let (mut stack, clock) = stack(3.per_month());
    for (second, ends_at) in [(JANUARY_31, FEBRUARY_1), (FEBRUARY_1, MARCH_1), (MARCH_1 - 1, MARCH_1)] {
        clock.set(at(second));
        assert_eq!(reset(&send(&mut stack, from("ada")).await), ends_at, "{second}");
    }
    assert_eq!(passing(&mut stack, "ada", 9).await, 1, "two of February were used");
    let refused = send(&mut stack, from("ada")).await;
    assert_eq!(&*refused.header("retry-after"), "1");
    clock.set(at(MARCH_1));
    assert_eq!(passing(&mut stack, "ada", 9).await, 3);
}

#[tokio::test]
async fn a_month_from_the_31st_begins_on_the_last_day_of_shorter_months_and_does_not_drift() {
    let (mut stack, clock) = stack(1.per_month_from(31));
    for (second, ends_at) in
        [(JANUARY_31, FEBRUARY_28), (FEBRUARY_28, MARCH_31), (MARCH_31, MARCH_31 + 30 * DAY)]
    {
        clock.set(at(second));
        assert_eq!(reset(&send(&mut stack, from("ada")).await), ends_at, "{second}");
        clock.set(at(ends_at - 1));
        assert_eq!(send(&mut stack, from("ada")).await.status(), 429, "{second}");
    }
}

#[tokio::test]
async fn each_form_of_the_headers_shows_the_length_of_the_current_month() {
    let (mut stack, clock) = stack(9.per_month());
    for (second, expected) in [
        (JANUARY_31, (r#""month";q=9;w=2678400"#, r#""month";r=8;t=86400"#)),
        (FEBRUARY_1, (r#""month";q=9;w=2419200"#, r#""month";r=8;t=2419200"#)),
    ] {
        clock.set(at(second));
        let reply = send(&mut stack, from("ada")).await;
        assert_eq!((&*reply.header("ratelimit-policy"), &*reply.header("ratelimit")), expected);
    }
}

/// Each tenant pays from another day of the month on.
#[tokio::test]
async fn a_function_gives_each_tenant_its_billing_day() {
    let clock = ManualClock::at(at(JANUARY_31));
    let policy = Policy::new(DEFAULT_POLICY, 2.per_month()).with_quota_by(|_head, principal| {
        let billing_day = match principal?.tenant()? {
            "acme" => 17,
            "other" => 30,
            _ => return None,
        };
        Some(2.per_month_from(billing_day))
    });
    let limit = RateLimitLayer::from_policies([policy]).unwrap().with_clock(clock.clone());
    let mut stack = behind(&clock, limit.with_headers(RateLimitHeaders::new().with_each_window()));
    for (caller, ends_at) in
        [("ada@acme", FEBRUARY_1 + 16 * DAY), ("bob@other", FEBRUARY_28), ("cyd@third", FEBRUARY_1)]
    {
        let reply = send(&mut stack, from(caller)).await;
        assert_eq!(reset(&reply), ends_at, "{caller}");
        assert_eq!(&*reply.header("x-ratelimit-reset-month"), ends_at.to_string(), "{caller}");
    }
}

#[tokio::test]
async fn a_week_begins_on_a_monday() {
    let (mut stack, clock) = stack(1.per_week());
    // 2027-01-31 is a Sunday.
    let reply = send(&mut stack, from("ada")).await;
    assert_eq!(reset(&reply), FEBRUARY_1);
    assert_eq!(&*reply.header("ratelimit-policy"), r#""week";q=1;w=604800"#);
    clock.set(at(FEBRUARY_1));
    assert_eq!(reset(&send(&mut stack, from("ada")).await), FEBRUARY_1 + 7 * DAY);
}

#[tokio::test]
async fn a_sliding_month_and_a_bucket_by_the_month_admit_their_quota() {
    for quota in [5.per_month().sliding(), 5.per_month_from(31).sliding(), 1.per_month().with_burst(5)] {
        let (mut stack, clock) = stack(quota.clone());
        assert_eq!(passing(&mut stack, "ada", 9).await, 5, "{quota}");
        let refused: Request<String> = from("ada");
        let wait: u64 = send(&mut stack, refused).await.header("retry-after").parse().unwrap();
        clock.advance(Duration::from_secs(wait - 1));
        assert_eq!(passing(&mut stack, "ada", 1).await, 0, "{quota}");
        clock.advance(Duration::from_secs(1));
        assert_eq!(passing(&mut stack, "ada", 1).await, 1, "{quota}");
    }
}

#[tokio::test]
async fn another_billing_day_starts_at_zero() {
    let (mut stack, _) = stack(1.per_month());
    assert_eq!(passing(&mut stack, "ada", 2).await, 1);
    assert_ne!(Window::month_from(2), Window::MONTH);
}
