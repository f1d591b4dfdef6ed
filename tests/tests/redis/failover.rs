//! A primary is killed while it counts: its replica takes its place, and counting resumes from what was counted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tests::{
    hosts::within,
    redis::{Redis, RedisCluster, RedisSentinels},
    suite::at,
};
use tokio::time::sleep;
use tollgate::{
    PerWindow as _,
    denial::Unavailable,
    limit::{Charge, Decision, LimitRequest, Limiter as _},
};
use tollgate_redis::{Leases, Outage, RedisLimiter, RedisSettings};

use crate::{builder, fresh, groups::GROUPS, used};

const DEADLINE: Duration = Duration::from_millis(200);

/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_millis(500);

async fn limiter(settings: RedisSettings) -> RedisLimiter {
    builder(&fresh(settings).with_deadline(DEADLINE), Leases::Off).await.with_request_time().build()
}

/// A request of a group whose quota is 5 per hour.
async fn request(limiter: &RedisLimiter, group: &str) -> Result<Decision, Unavailable> {
    let quota = 5.per_hour();
    let begun = Instant::now();
    let charge = [Charge::new("key", group, group, &quota)];
    let decided = limiter.acquire(&LimitRequest::new(&charge, at(0))).await;
    assert!(begun.elapsed() < DEADLINE + SLACK, "it took {:?}", begun.elapsed());
    decided
}

/// Requests until one is decided, and returns what its window has counted and how long that took.
async fn until_decided(limiter: &RedisLimiter, group: &str) -> (Decision, Duration) {
    let begun = Instant::now();
    within(async {
        loop {
            if let Ok(decision) = request(limiter, group).await {
                return (decision, begun.elapsed());
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// Waits until the replica has all that its primary has counted.
async fn until_replicated(primary: &Redis) {
    within(async {
        loop {
            let text = primary.cli(&["INFO", "replication"]).await;
            let value =
                |name: &str| Some(text.split_once(name)?.1.split([',', '\r', '\n']).next()?.to_owned());
            let (own, replicas) = (value("master_repl_offset:"), value("offset="));
            if own.is_some() && own == replicas {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_on_counting_after_a_failover() {
    let mut cluster = RedisCluster::start().await;
    let limiter = Arc::new(limiter(RedisSettings::cluster(cluster.urls())).await);
    let [dead, other, _] = GROUPS;
    for group in GROUPS {
        for used in 1..=3 {
            assert_eq!(crate::used(&until_decided(&limiter, group).await.0), [used]);
        }
    }
    let key = format!("{{{dead}}}");
    until_replicated(cluster.primary_of(&key).await).await;
    cluster.kill_primary_of(&key).await;

    // Other servers go on.
    let (decision, waited) = until_decided(&limiter, other).await;
    assert_eq!(used(&decision), [4]);
    let (decision, resumed) = until_decided(&limiter, dead).await;
    eprintln!(
        "after {waited:?}, a group on another server was decided, and after {resumed:?} more, the same one"
    );
    assert_eq!(used(&decision), [4], "what was counted before the failover");
    cluster.until_it_serves().await;

    assert!(until_decided(&limiter, dead).await.0.is_allowed());
    assert!(!until_decided(&limiter, dead).await.0.is_allowed(), "five in the hour");

    // All servers are needed for this.
    let quota = 5.per_hour();
    let charges = GROUPS.map(|group| Charge::new("all", group, group, &quota));
    for count in 1..=6 {
        let decision = limiter.acquire(&LimitRequest::new(&charges, at(0))).await.unwrap();
        assert_eq!((decision.is_allowed(), used(&decision)), (count <= 5, vec![count.min(5); 3]));
    }

    cluster.restart_killed().await;
    assert!(!until_decided(&limiter, dead).await.0.is_allowed());
    assert!(until_decided(&limiter, other).await.0.is_allowed());
}

/// The connection to a cluster finds its servers again by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_failure_of_one_server_does_not_end_the_connection_to_a_cluster() {
    let mut cluster = RedisCluster::start().await;
    let settings = fresh(RedisSettings::cluster(cluster.urls())).with_deadline(DEADLINE);
    let redis = tollgate_redis::Redis::connect(settings).await.unwrap();
    let limiter =
        RedisLimiter::builder(redis.clone()).with_outage(Outage::Refuse).with_request_time().build();
    let [dead, other, _] = GROUPS;
    for group in [dead, other] {
        until_decided(&limiter, group).await;
    }
    cluster.kill_primary_of(&format!("{{{dead}}}")).await;
    request(&limiter, dead).await.unwrap_err();
    assert!(redis.is_up());
    assert_eq!(used(&until_decided(&limiter, other).await.0), [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_with_sentinels_goes_on_counting_after_a_failover() {
    let mut sentinels = RedisSentinels::start().await;
    let settings = RedisSettings::sentinel(RedisSentinels::MASTER_NAME, sentinels.urls());
    let limiter = limiter(settings).await;
    for used in 1..=3 {
        assert_eq!(crate::used(&until_decided(&limiter, "ada").await.0), [used]);
    }
    until_replicated(sentinels.primary().await).await;
    sentinels.kill_primary().await;

    let (decision, resumed) = until_decided(&limiter, "ada").await;
    eprintln!("counting resumed after {resumed:?}");
    assert_eq!(used(&decision), [4], "what was counted before the failover");
    assert!(until_decided(&limiter, "ada").await.0.is_allowed());
    assert!(!until_decided(&limiter, "ada").await.0.is_allowed(), "five in the hour");

    sentinels.until_it_serves().await;
    sentinels.restart_killed().await;
    assert!(!until_decided(&limiter, "ada").await.0.is_allowed());
}
