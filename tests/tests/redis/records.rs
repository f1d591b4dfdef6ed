//! What the script keeps in Redis: counters that expire, have a bound, and survive clocks that step back.

use std::time::{Duration, SystemTime};

use tests::{redis::Redis, suite::at};
use tollgate::{
    PerWindow as _, Quota,
    limit::{Charge, Decision, LimitRequest, Limiter as _, MemoryLimiter, Window},
};
use tollgate_redis::{Leases, RedisLimiter, RedisSettings};

use crate::{builder, fresh, hot_key::trips, until, used};

async fn limiter(redis: &Redis) -> RedisLimiter {
    builder(&fresh(RedisSettings::new(redis.url())), Leases::Off).await.with_request_time().build()
}

async fn decide(limiter: &RedisLimiter, charge: Charge<'_>, now: SystemTime) -> Decision {
    limiter.acquire(&LimitRequest::new(&[charge], now)).await.unwrap()
}

fn charge(quota: &Quota) -> Charge<'_> {
    Charge::new("key", "ada", "acme", quota)
}

/// The only key of the server, what is stored, and in how many seconds it expires.
async fn record(redis: &Redis) -> (String, i64) {
    let keys = redis.cli(&["KEYS", "*"]).await;
    let ttl = redis.cli(&["TTL", &keys]).await;
    (redis.cli(&["GET", &keys]).await, ttl.parse().unwrap())
}

#[tokio::test]
async fn a_record_expires_one_minute_after_its_last_window() {
    let redis = Redis::start().await;
    for (quota, seconds) in [
        (5.per_minute(), 30),
        (5.per_minute().and(9.per_hour()), 3_570),
        // The window before still counts in the next one.
        (5.per_minute().sliding(), 90),
        // One token of five per minute.
        (5.per_minute().with_burst(5), 12),
    ] {
        let limiter = limiter(&redis).await;
        decide(&limiter, charge(&quota), at(30)).await;
        let (_, expires) = record(&redis).await;
        assert!((seconds + 40..=seconds + 60).contains(&expires), "{quota}: {expires} s");
        redis.flush().await;
    }
}

#[tokio::test]
async fn counters_of_former_quotas_leave_the_record_one_minute_after_their_window() {
    let redis = Redis::start().await;
    let limiter = limiter(&redis).await;
    decide(&limiter, charge(&5.per_minute()), at(0)).await;
    let day = 5.per_day();
    decide(&limiter, charge(&day), at(119)).await;
    assert_eq!(record(&redis).await.0.matches(';').count(), 1, "both");
    decide(&limiter, charge(&day), at(121)).await;
    let (stored, _) = record(&redis).await;
    assert!(!stored.contains(';') && stored.contains(" 5 "), "{stored}");
}

#[tokio::test]
async fn counts_end_at_2_to_the_power_of_53() {
    let redis = Redis::start().await;
    let limiter = limiter(&redis).await;
    let quota = 100.per_hour();
    for _ in 0..3 {
        decide(&limiter, charge(&quota).settled(u64::MAX / 2), at(0)).await;
    }
    assert_eq!(used(&decide(&limiter, charge(&quota).with_cost(0), at(0)).await), [1 << 53]);
    assert!(!decide(&limiter, charge(&quota), at(0)).await.is_allowed());
}

/// The script counts in numbers that are exact up to there, and would admit one more.
#[tokio::test]
async fn a_count_that_is_no_longer_exact_admits_nothing() {
    let redis = Redis::start().await;
    let limiter = limiter(&redis).await;
    let quota = (1_u64 << 53).per_hour();
    decide(&limiter, charge(&quota).settled(u64::MAX / 2), at(0)).await;
    let error = limiter.acquire(&LimitRequest::new(&[charge(&quota)], at(0))).await.unwrap_err();
    assert!(format!("{error:?}").contains("2^53"), "{error:?}");
}

#[tokio::test]
async fn a_charge_that_callers_must_not_see_stays_hidden() {
    let redis = Redis::start().await;
    let quota = 100.per_hour();
    for leases in [Leases::Off, Leases::Always] {
        let limiter = builder(&fresh(RedisSettings::new(redis.url())), leases).await.build();
        // The second request spends the lease.
        for _ in 0..2 {
            let decision = decide(&limiter, charge(&quota).hidden(), at(0)).await;
            assert!(decision.windows()[0].is_hidden, "{leases:?}");
        }
    }
}

/// All processes count in the windows of the server's clock, however wrong their own clocks are.
#[tokio::test]
async fn the_clock_of_the_server_decides() {
    let redis = Redis::start().await;
    for leases in [Leases::Off, Leases::Always] {
        let limiter = builder(&fresh(RedisSettings::new(redis.url())), leases).await.build();
        let quota = 100.per_minute();
        for wrong in [at(0), SystemTime::UNIX_EPOCH, at(1_000_000)] {
            let seconds = async || redis.cli(&["TIME"]).await.lines().next().unwrap().parse::<u64>().unwrap();
            let before = seconds().await;
            let decision = decide(&limiter, charge(&quota), wrong).await;
            let of_the_server = before + 1..=seconds().await + 60;
            assert!(of_the_server.contains(&decision.windows()[0].reset_second), "{decision:?}");
        }
    }
}

#[tokio::test]
async fn what_was_used_is_counted_even_if_the_caller_hangs_up() {
    let redis = Redis::start().await;
    let limiter = limiter(&redis).await;
    let quota = 100.per_hour();
    let answer = limiter.acquire(&LimitRequest::new(&[charge(&quota).settled(3)], at(0)));
    drop(answer);
    let peek = charge(&quota).with_cost(0);
    until("it is counted", async || (used(&decide(&limiter, peek, at(0)).await) == [3]).then_some(())).await;
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_refused_without_a_trip_until_its_window_opens() {
    let redis = Redis::start().await;
    for leases in [Leases::Off, Leases::Always] {
        let limiter = builder(&fresh(RedisSettings::new(redis.url())), leases).await;
        let limiter = limiter.with_request_time().build();
        let quota = 1.per_minute();
        assert!(decide(&limiter, charge(&quota), at(59)).await.is_allowed());
        assert!(!decide(&limiter, charge(&quota), at(59)).await.is_allowed());
        let before = trips(&redis).await;
        for _ in 0..20 {
            assert!(!decide(&limiter, charge(&quota), at(59)).await.is_allowed());
        }
        assert_eq!(trips(&redis).await, before, "{leases:?}");
        assert!(decide(&limiter, charge(&quota), at(60)).await.is_allowed());
    }
}

/// As in one process: a window so far ahead that no late request joins it is forgotten.
#[tokio::test]
async fn a_clock_that_steps_back_decides_as_in_one_process() {
    let redis = Redis::start().await;
    let half_minute = Window::lasting(Duration::from_secs(30));
    for quota in [2.per_minute(), 2.per_minute().sliding(), 2.per_minute().with_burst(2), 2.per(half_minute)]
    {
        let (settings, memory) = (fresh(RedisSettings::new(redis.url())), MemoryLimiter::new());
        for second in [7_200, 7_200, 7_200, 7_170, 7_140, 7_110, 0, 0, 0, 7_230, 60] {
            // A limiter that remembers no refusal.
            let limiter = builder(&settings, Leases::Off).await.with_request_time().build();
            let decision = decide(&limiter, charge(&quota), at(second)).await;
            let expected = memory.acquire(&LimitRequest::new(&[charge(&quota)], at(second))).await.unwrap();
            assert_eq!(decision, expected, "{quota} at {second}");
        }
    }
}
