//! How many answers must be late before the connection is down, and how long a request waits for late ones.

use std::time::{Duration, Instant};

use tests::{
    redis,
    relay::{Direction, Relay},
    suite::{Entry, Log},
};
use tokio::{task::JoinSet, time::sleep};
use tollgate::{PerWindow as _, denial::Unavailable};
use tollgate_redis::{Leases, Outage, Redis, RedisLimiter, RedisSettings};

use crate::{ask, until};

const DEADLINE: Duration = Duration::from_millis(100);

/// A connection sends a `PING` each second, which can be late, too. What takes longer than this says nothing, and is repeated.
const BETWEEN_PINGS: Duration = Duration::from_millis(900);

/// A connection that was just made, and a limiter that admits nothing that Redis does not decide.
async fn start(server: &redis::Redis) -> (Redis, RedisLimiter) {
    let settings = RedisSettings::new(server.url()).with_deadline(DEADLINE);
    let redis = until("it connects", async || Redis::connect(settings.clone()).await.ok()).await;
    let limiter = RedisLimiter::builder(redis.clone()).with_leases(Leases::Off);
    (redis, limiter.with_outage(Outage::Refuse).build())
}

/// Whether so many requests have no answer in time while the server stands still, and the next one has one.
async fn are_late(server: &redis::Redis, limiter: &RedisLimiter, requests: usize) -> bool {
    let quota = 1_000.per_hour();
    server.pause().await;
    let mut are_late = true;
    for _ in 0..requests {
        are_late &= ask(limiter, "ada", &quota).await.is_err();
    }
    server.resume().await;
    are_late && ask(limiter, "ada", &quota).await.is_ok()
}

#[tokio::test]
async fn two_late_answers_in_a_row_are_no_outage() {
    let server = redis::Redis::start().await;
    until("no PING came between", async || {
        let log = Log::start();
        let begun = Instant::now();
        let (redis, limiter) = start(&server).await;
        let is_valid = are_late(&server, &limiter, 2).await && are_late(&server, &limiter, 2).await;
        let is_down = !redis.is_up() || log.entries().iter().any(|entry| entry.name == "tollgate.redis_down");
        if begun.elapsed() > BETWEEN_PINGS {
            return None;
        }
        assert!(!is_down);
        is_valid.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_new_connection_may_have_late_answers_again() {
    let server = redis::Redis::start().await;
    let quota = 1_000.per_hour();
    until("no PING came between", async || {
        let (redis, limiter) = start(&server).await;
        server.pause().await;
        for _ in 0..3 {
            ask(&limiter, "ada", &quota).await.unwrap_err();
        }
        assert!(!redis.is_up());
        server.resume().await;
        let resumed = Instant::now();
        until("it is up", async || redis.is_up().then_some(())).await;
        server.pause().await;
        let late = ask(&limiter, "ada", &quota).await;
        let is_up = redis.is_up();
        server.resume().await;
        if late.is_ok() || resumed.elapsed() > BETWEEN_PINGS {
            return None;
        }
        assert!(is_up, "one late answer");
        Some(())
    })
    .await;
}

#[tokio::test]
async fn late_answers_of_an_old_connection_do_not_end_the_new_one() {
    let server = redis::Redis::start().await;
    let deadline = Duration::from_millis(400);
    until("three requests are late on the old connection", async || {
        let log = Log::start();
        let mut relay = Relay::to(server.address());
        let settings = RedisSettings::new(relay.reroute(&server.url())).with_deadline(deadline);
        let redis = Redis::connect(settings).await.unwrap();
        let limiter = RedisLimiter::builder(redis.clone()).with_leases(Leases::Off);
        let limiter = limiter.with_outage(Outage::Refuse).build();
        let three_requests = || {
            let mut requests = JoinSet::new();
            for _ in 0..3 {
                let limiter = limiter.clone();
                requests.spawn(async move { ask(&limiter, "ada", &1_000.per_hour()).await });
            }
            requests
        };
        relay.delay(Direction::FromUpstream, 100 * deadline);
        let first = three_requests();
        sleep(deadline * 3 / 4).await;
        let second = three_requests();
        first.join_all().await;
        relay.delay(Direction::FromUpstream, Duration::ZERO);
        until("it is up", async || redis.is_up().then_some(())).await;
        let second = second.join_all().await;
        let is_late = |error: &Unavailable| format!("{error:#}").contains("not answered within");
        if !second.iter().all(|decided| decided.as_ref().is_err_and(is_late)) {
            return None;
        }
        assert!(redis.is_up());
        let is_down = |entry: &&Entry| entry.name == "tollgate.redis_down";
        assert_eq!(log.entries().iter().filter(is_down).count(), 1);
        Some(())
    })
    .await;
}

/// Those who wait for a lease, too: each would otherwise ask once more.
#[tokio::test]
async fn no_request_waits_longer_than_the_deadline() {
    let server = redis::Redis::start().await;
    let deadline = Duration::from_secs(2);
    let settings = RedisSettings::new(server.url()).with_deadline(deadline);
    for leases in [Leases::Off, Leases::Always] {
        let redis = Redis::connect(settings.clone()).await.unwrap();
        let limiter = RedisLimiter::builder(redis).with_leases(leases).build();
        server.pause().await;
        let mut requests = JoinSet::new();
        for _ in 0..20 {
            let limiter = limiter.clone();
            requests.spawn(async move {
                let begun = Instant::now();
                let decided = ask(&limiter, "ada", &1_000.per_hour()).await;
                (decided.is_ok_and(|decision| decision.is_allowed()), begun.elapsed())
            });
        }
        for (is_counted_here, waited) in requests.join_all().await {
            assert!(is_counted_here, "by this process");
            assert!(waited < deadline * 19 / 10, "{leases:?}: {waited:?}");
        }
        server.resume().await;
    }
}
