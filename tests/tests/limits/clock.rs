//! Clocks that arrive late, step back, or show what no clock should.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tests::suite::{at, send};
use tollgate::{
    PerWindow as _, RateLimitLayer,
    clock::{Clock as _, ManualClock},
};

use crate::{behind, from, numbers, passing};

#[tokio::test]
async fn a_late_request_is_counted_in_the_newer_window() {
    let clock = ManualClock::at(at(60));
    let mut stack = behind(&clock, RateLimitLayer::new(3.per_minute()).with_clock(clock.clone()));
    assert_eq!(passing(&mut stack, "ada", 1).await, 1);
    clock.rewind(Duration::from_millis(1));
    let late = send(&mut stack, from("ada")).await;
    assert_eq!(numbers(&late), (200, Some(3), Some(1), Some(120), None));
    clock.set(at(60));
    assert_eq!(passing(&mut stack, "ada", 9).await, 1, "the late one was not forgotten");
    clock.rewind(Duration::from_millis(1));
    let refused = send(&mut stack, from("ada")).await;
    assert_eq!(numbers(&refused), (429, Some(3), Some(0), Some(120), Some(61)));
}

#[tokio::test]
async fn a_step_back_of_an_hour_grants_at_most_one_extra_window() {
    let clock = ManualClock::at(at(7_200));
    let quota = 3.per_minute().and(100.per_hour()).and(8.per_day());
    let mut stack = behind(&clock, RateLimitLayer::new(quota).with_clock(clock.clone()));
    assert_eq!(passing(&mut stack, "ada", 9).await, 3);
    clock.rewind(Duration::from_hours(1));
    assert_eq!(passing(&mut stack, "ada", 9).await, 3, "one extra window, and no caller is locked out");
    clock.advance(Duration::from_secs(59));
    assert_eq!(passing(&mut stack, "ada", 9).await, 0);
    clock.advance(Duration::from_secs(1));
    assert_eq!(passing(&mut stack, "ada", 9).await, 2, "the day, which is the same, kept its count");
}

#[tokio::test]
async fn a_sliding_window_grants_at_most_one_extra_window_for_a_step_back_of_an_hour() {
    let clock = ManualClock::at(at(7_230));
    let mut stack = behind(&clock, RateLimitLayer::new(4.per_minute().sliding()).with_clock(clock.clone()));
    assert_eq!(passing(&mut stack, "ada", 9).await, 4);
    clock.rewind(Duration::from_hours(1));
    assert_eq!(passing(&mut stack, "ada", 9).await, 4, "one extra window, and no caller is locked out");
    clock.advance(Duration::from_secs(30));
    assert_eq!(passing(&mut stack, "ada", 9).await, 0);
    clock.advance(Duration::from_secs(30));
    assert_eq!(passing(&mut stack, "ada", 9).await, 2, "half of it has slid out");
}

#[tokio::test]
async fn a_late_request_is_counted_in_the_newer_sliding_window() {
    let clock = ManualClock::at(at(60));
    let mut stack = behind(&clock, RateLimitLayer::new(3.per_minute().sliding()).with_clock(clock.clone()));
    assert_eq!(passing(&mut stack, "ada", 1).await, 1);
    clock.rewind(Duration::from_millis(1));
    let late = send(&mut stack, from("ada")).await;
    assert_eq!(numbers(&late), (200, Some(3), Some(1), Some(180), None));
    clock.set(at(60));
    assert_eq!(passing(&mut stack, "ada", 9).await, 1, "the late one was not forgotten");
}

#[tokio::test]
async fn a_step_forwards_of_an_hour_grants_one_extra_window_or_one_full_bucket() {
    for quota in [3.per_minute(), 3.per_minute().sliding(), 1.per_second().with_burst(3)] {
        let clock = ManualClock::at(at(0));
        let mut stack = behind(&clock, RateLimitLayer::new(quota.clone()).with_clock(clock.clone()));
        assert_eq!(passing(&mut stack, "ada", 9).await, 3);
        clock.advance(Duration::from_hours(1));
        assert_eq!(passing(&mut stack, "ada", 9).await, 3, "{quota}");
    }
}

#[tokio::test]
async fn a_small_step_back_fills_no_bucket_and_a_large_one_fills_it_once() {
    let clock = ManualClock::at(at(7_200));
    let quota = 1.per_second().with_burst(3);
    let mut stack = behind(&clock, RateLimitLayer::new(quota).with_clock(clock.clone()));
    assert_eq!(passing(&mut stack, "ada", 9).await, 3);
    clock.rewind(Duration::from_secs(1));
    assert_eq!(passing(&mut stack, "ada", 9).await, 0);
    clock.advance(Duration::from_secs(2));
    assert_eq!(passing(&mut stack, "ada", 9).await, 1, "a second that is lived through twice fills it once");
    clock.rewind(Duration::from_hours(1));
    assert_eq!(passing(&mut stack, "ada", 9).await, 3, "one full bucket, and no caller is locked out");
    clock.advance(Duration::from_hours(1));
    assert_eq!(passing(&mut stack, "ada", 9).await, 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: tests::cases(200, 20_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_walk_of_the_clock_panics_or_shows_impossible_numbers(
        (quota, windows) in prop_oneof![
            Just((3.per_minute().and(7.per_day()), 2)),
            // One more, that in which the last of a late arrival slides out of the window that it joined.
            Just((3.per_minute().and(7.per_day()).sliding(), 3)),
            Just((3.per_minute().with_burst(3).and(7.per_day().with_burst(7)), 2)),
        ],
        instants in prop::collection::vec(
            prop_oneof![
                (0_u64..200_000).prop_map(|seconds| at(0) + Duration::from_millis(seconds * 997)),
                Just(SystemTime::UNIX_EPOCH),
                Just(SystemTime::UNIX_EPOCH - Duration::from_secs(1_000_000)),
                (0_u64..i64::MAX as u64).prop_map(|seconds| {
                    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
                }),
            ],
            1..40,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let clock = ManualClock::at(at(0));
        let mut stack = behind(&clock, RateLimitLayer::new(quota.clone()).with_clock(clock.clone()));
        for instant in instants {
            clock.set(instant);
            let reply = runtime.block_on(send(&mut stack, from("ada")));
            let number = |name: &str| reply.header(name).parse::<u64>().unwrap();
            let (limit, remaining, reset) =
                (number("x-ratelimit-limit"), number("x-ratelimit-remaining"), number("x-ratelimit-reset"));
            prop_assert!(remaining < limit);
            let now = clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let window = if limit == 3 { 60 } else { 86_400 };
            // Then 64 bits hold no more nanoseconds, and buckets and sliding windows stand still.
            let is_after_2554 = now > u64::MAX / 1_000_000_000 - 3 * 86_400;
            if !is_after_2554 || quota == 3.per_minute().and(7.per_day()) {
                prop_assert!(reset > now, "reset {} at {}", reset, now);
                // A bucket's last token may come within a second that has begun.
                prop_assert!(reset <= now + windows * window + 1, "never locked out for long");
            }
            if reply.status() == 429 {
                prop_assert_eq!(remaining, 0);
                prop_assert!(number("retry-after") >= 1);
            } else {
                prop_assert_eq!(reply.header("retry-after"), "");
            }
        }
    }
}
