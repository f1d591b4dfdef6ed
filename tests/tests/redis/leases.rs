//! Quotas of which limiters borrow parts: the sum over all limiters is exact, by the server's clock.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, poll};
use tests::{hosts::within, redis::Redis, suite::at};
use tokio::time::sleep;
use tollgate::{
    PerWindow as _, Quota,
    limit::{Charge, LimitRequest, Limiter as _, MemoryLimiter, Window},
};
use tollgate_redis::{Leases, RedisLimiter, RedisSettings};

use crate::{ask, ask_for, builder, fresh, hot_key::trips, until, used};

/// A window that does not end during the test: it ends in 2033.
const LONG: Duration = Duration::from_secs(1_000_000_000);

fn long(limit: u64) -> Quota {
    limit.per(Window::lasting(LONG))
}

/// Limiters as four processes would have them, which share counters.
async fn four(redis: &Redis) -> Vec<RedisLimiter> {
    let settings = fresh(RedisSettings::new(redis.url()));
    let mut limiters = Vec::new();
    for _ in 0..4 {
        limiters.push(builder(&settings, Leases::Always).await.build());
    }
    limiters
}

/// How much 16 tasks on all limiters admit, of so many requests with this cost.
async fn admitted(limiters: &[RedisLimiter], quota: &Quota, cost: u64, requests: u64) -> u64 {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16 {
        let (limiter, quota) = (limiters[task % limiters.len()].clone(), quota.clone());
        tasks.spawn(async move {
            let mut admitted = 0;
            for _ in 0..requests / 16 {
                let charge = [Charge::new("key", "ada", "ada", &quota).with_cost(cost)];
                admitted += u64::from(ask_for(&limiter, &charge).await.unwrap().is_allowed());
            }
            admitted
        });
    }
    tasks.join_all().await.into_iter().sum()
}

/// What Redis has counted, by the eyes of a limiter that has no lease.
async fn counted(redis: &RedisLimiter, quota: &Quota) -> Vec<u64> {
    used(&ask_for(redis, &[Charge::new("key", "ada", "ada", quota).with_cost(0)]).await.unwrap())
}

/// Asks by all limiters in turn until so many more are admitted. A test's timeout ends an endless wait.
async fn until_admitted(limiters: &[RedisLimiter], quota: &Quota, mut wanted: u64) {
    within(async {
        for limiter in limiters.iter().cycle() {
            if wanted == 0 {
                return;
            }
            if ask(limiter, "ada", quota).await.unwrap().is_allowed() {
                wanted -= 1;
            } else {
                sleep(Duration::from_millis(10)).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_requests_on_four_limiters_exactly_the_quota_is_admitted() {
    let redis = Redis::start().await;
    for quota in [long(1_000), long(1_000).sliding(), long(1_000).and(5_000.per(Window::lasting(2 * LONG)))] {
        let limiters = four(&redis).await;
        let first = admitted(&limiters, &quota, 1, 4_000).await;
        assert!((900..=1_000).contains(&first), "{first} of {quota}");
        // What one limiter has borrowed while others were refused is given back, and can be had.
        until_admitted(&limiters, &quota, 1_000 - first).await;
        assert_eq!(admitted(&limiters, &quota, 1, 160).await, 0);
        assert!(counted(&limiters[0], &quota).await.iter().all(|count| *count == 1_000), "{quota}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_their_tenant_are_counted_exactly() {
    let redis = Redis::start().await;
    let limiters = four(&redis).await;
    let (key, tenant) = (long(400), long(1_000));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16 {
        let (limiter, key, tenant) = (limiters[task / 4].clone(), key.clone(), tenant.clone());
        tasks.spawn(async move {
            let name = format!("key {}", task % 4);
            let charges =
                [Charge::new("key", &name, "acme", &key), Charge::new("tenant", "acme", "acme", &tenant)];
            let mut admitted = 0;
            for _ in 0..200 {
                admitted += u64::from(ask_for(&limiter, &charges).await.unwrap().is_allowed());
            }
            (task % 4, admitted)
        });
    }
    let mut by_key = [0; 4];
    for (key, admitted) in tasks.join_all().await {
        by_key[key] += admitted;
    }
    let sum: u64 = by_key.iter().sum();
    assert!((900..=1_000).contains(&sum) && by_key.iter().all(|count| *count <= 400), "{by_key:?}");
    close(&limiters).await;
    let tenant = [Charge::new("tenant", "acme", "acme", &tenant).with_cost(0)];
    assert_eq!(used(&ask_for(&limiters[0], &tenant).await.unwrap()), [sum]);
    for (number, admitted) in by_key.into_iter().enumerate() {
        let name = format!("key {number}");
        let key = [Charge::new("key", &name, "acme", &key).with_cost(0)];
        assert_eq!(used(&ask_for(&limiters[0], &key).await.unwrap()), [admitted]);
    }
}

async fn close(limiters: &[RedisLimiter]) {
    for limiter in limiters {
        limiter.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costs_are_counted_exactly() {
    let redis = Redis::start().await;
    let limiters = four(&redis).await;
    let quota = long(1_000);
    let sevens = admitted(&limiters, &quota, 7, 96).await;
    assert_eq!(sevens, 96, "96 requests at 7 are 672 units");
    let (threes, ones) =
        tokio::join!(admitted(&limiters, &quota, 3, 320), admitted(&limiters, &quota, 1, 320));
    let sum = 7 * sevens + 3 * threes + ones;
    assert!((900..=1_000).contains(&sum), "{sum}");
    until_admitted(&limiters, &quota, 1_000 - sum).await;
    assert_eq!(admitted(&limiters, &quota, 1, 160).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_raised_or_lowered_holds_at_once() {
    let redis = Redis::start().await;
    let limiters = four(&redis).await;
    let first = admitted(&limiters, &long(100), 1, 800).await;
    until_admitted(&limiters, &long(100), 100 - first).await;
    // Every limiter knows now that it is used up.
    assert_eq!(admitted(&limiters, &long(100), 1, 160).await, 0);
    let raised = Instant::now();
    for limiter in &limiters {
        assert!(ask(limiter, "ada", &long(1_000)).await.unwrap().is_allowed());
    }
    eprintln!("a raised quota was admitted by all limiters after {:?}", raised.elapsed());

    // Some of them have borrowed.
    let more = admitted(&limiters, &long(1_000), 1, 160).await;
    assert_eq!(more, 160);
    assert_eq!(admitted(&limiters, &long(200), 1, 160).await, 0, "264 are used");
    close(&limiters).await;
    assert_eq!(counted(&limiters[0], &long(200)).await, [264]);
}

/// 250 ms after it was borrowed, and 100 ms for the task that looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_idle_process_has_borrowed_is_given_back_without_a_request() {
    let redis = Redis::start().await;
    for quota in [long(1_000), long(1_000).sliding()] {
        let limiters = four(&redis).await;
        assert!(ask(&limiters[0], "ada", &quota).await.unwrap().is_allowed());
        let borrowed = Instant::now();
        assert_eq!(counted(&limiters[1], &quota).await, [11]);
        until("it is given back", async || (counted(&limiters[1], &quota).await == [1]).then_some(())).await;
        eprintln!("given back after {:?}", borrowed.elapsed());
    }
}

/// Otherwise a process that ends then loses what its task has begun to give back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_waits_for_what_is_being_given_back() {
    let redis = Redis::start().await;
    let limiters = four(&redis).await;
    let quota = long(1_000);
    assert!(ask(&limiters[0], "ada", &quota).await.unwrap().is_allowed());
    redis.pause().await;
    // By now the task has begun. If it has not, `close` has to give back itself, and waits, too.
    sleep(Duration::from_millis(700)).await;
    let mut closing = pin!(limiters[0].close());
    assert!(poll!(&mut closing).is_pending());
    redis.resume().await;
    closing.await;
    assert_eq!(counted(&limiters[1], &quota).await, [1]);
}

/// Different costs for different policies, and token buckets.
#[tokio::test]
async fn requests_that_cannot_be_leased_are_counted_one_by_one() {
    let redis = Redis::start().await;
    let limiters = four(&redis).await;
    let (requests, bytes, bucket) = (long(100), long(1_000), 100.per_hour().with_burst(50));
    let requests = Charge::new("requests", "ada", "acme", &requests);
    let bytes = Charge::new("bytes", "ada", "acme", &bytes).with_cost(5);
    let bucket = Charge::new("bucket", "ada", "acme", &bucket);
    for count in 1..=5 {
        let of_two = ask_for(&limiters[0], &[requests, bytes]).await.unwrap();
        assert_eq!(used(&of_two), [count, 5 * count]);
        let of_bucket = ask_for(&limiters[0], &[bucket]).await.unwrap();
        assert_eq!(used(&of_bucket), [count]);
    }
}

/// Its question is answered all the same, and what it was to spend is left for others.
#[tokio::test]
async fn a_caller_that_hangs_up_while_its_process_borrows_uses_nothing() {
    let redis = Redis::start().await;
    let (limiters, quota) = (four(&redis).await, long(100));
    assert!(ask(&limiters[0], "ada", &quota).now_or_never().is_none());
    until("its question is counted", async || (trips(&redis).await > 0).then_some(())).await;
    until("all is given back", async || {
        limiters[0].close().await;
        (counted(&limiters[1], &quota).await == [0]).then_some(())
    })
    .await;
}

/// What is given back late no longer weighs in the window after.
#[tokio::test]
async fn what_was_borrowed_of_an_ended_sliding_window_is_given_back_to_it() {
    let redis = Redis::start().await;
    let settings = fresh(RedisSettings::new(redis.url()));
    let build = async || builder(&settings, Leases::Always).await.with_request_time().build();
    let limiters = [build().await, build().await];
    let (quota, memory) = (100.per_minute().sliding(), MemoryLimiter::new());
    let charge = [Charge::new("key", "ada", "ada", &quota)];
    // The second one begins the next window while the first one has units of the window before.
    for (limiter, second) in limiters.iter().zip([50, 61]) {
        let request = LimitRequest::new(&charge, at(second));
        assert!(limiter.acquire(&request).await.unwrap().is_allowed());
        assert!(memory.acquire(&request).await.unwrap().is_allowed());
    }
    close(&limiters).await;
    let peek = charge.map(|charge| charge.with_cost(0));
    let peek = LimitRequest::new(&peek, at(61));
    assert_eq!(limiters[0].acquire(&peek).await.unwrap(), memory.acquire(&peek).await.unwrap());
}

/// Counters that begin at zero again have not counted what was borrowed before.
#[tokio::test]
async fn what_was_borrowed_before_redis_lost_its_counts_does_not_raise_the_quota() {
    let redis = Redis::start().await;
    for quota in [long(100), long(100).sliding()] {
        let limiters = four(&redis).await;
        assert!(ask(&limiters[0], "ada", &quota).await.unwrap().is_allowed());
        redis.flush().await;
        assert!(ask(&limiters[1], "ada", &quota).await.unwrap().is_allowed());
        close(&limiters).await;
        assert_eq!(counted(&limiters[2], &quota).await, [0]);
        until_admitted(&limiters, &quota, 100).await;
        assert_eq!(admitted(&limiters, &quota, 1, 160).await, 0);
    }
}

/// The short window ends while parts of both are borrowed: what is left of them is given back to the long one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_borrowed_across_the_end_of_a_short_window_returns_to_the_long_one() {
    let redis = Redis::start().await;
    let limiters = Arc::new(four(&redis).await);
    let quota = 500.per_second().and(long(100_000));
    let mut tasks = tokio::task::JoinSet::new();
    let begun = Instant::now();
    for task in 0..8 {
        let (limiter, quota) = (limiters[task % 4].clone(), quota.clone());
        tasks.spawn(async move {
            let mut ends = Vec::new();
            while begun.elapsed() < Duration::from_millis(3_300) {
                let decision = ask(&limiter, "ada", &quota).await.unwrap();
                if decision.is_allowed() {
                    ends.push(decision.windows()[0].reset_second);
                }
                sleep(Duration::from_millis(2)).await;
            }
            ends
        });
    }
    let mut windows = std::collections::BTreeMap::<u64, u64>::new();
    for ends in tasks.join_all().await.into_iter().flatten() {
        *windows.entry(ends).or_default() += 1;
    }
    assert!(windows.len() >= 4 && windows.values().all(|count| *count <= 500), "{windows:?}");
    let sum: u64 = windows.values().sum();
    // Leases are given back without a request, 250 ms after they were borrowed, and 100 ms for the task that looks.
    let ended = Instant::now();
    within(async {
        while counted(&limiters[0], &quota).await[1] != sum {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    eprintln!("{windows:?}; all leases were given back after {:?}", ended.elapsed());
    sleep(Duration::from_millis(400)).await;
    assert_eq!(counted(&limiters[0], &quota).await[1], sum, "and no more");
}
