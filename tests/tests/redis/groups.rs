//! Requests whose counters are on several servers of a cluster: counted in all of them or in none.

use std::sync::Arc;

use tests::{redis::RedisCluster, suite::at};
use tollgate::{
    PerWindow as _, Quota,
    limit::{Charge, Decision, LimitRequest, Limiter as _},
};
use tollgate_redis::{Leases, RedisLimiter, RedisSettings};

use crate::{builder, fresh, used};

/// Each has its counters on another primary: the hash slots of these groups are 5061, 5538 and 11304.
pub(crate) const GROUPS: [&str; 3] = ["bar", "umbrella", "acme"];

pub(crate) async fn limiter(cluster: &RedisCluster) -> RedisLimiter {
    let settings = fresh(RedisSettings::cluster(cluster.urls()));
    builder(&settings, Leases::Off).await.with_request_time().build()
}

async fn decide(limiter: &RedisLimiter, charges: &[Charge<'_>]) -> Decision {
    limiter.acquire(&LimitRequest::new(charges, at(0))).await.unwrap()
}

/// A request that each group counts. It costs different amounts for different policies.
fn charges<'c>(small: &'c Quota, large: &'c Quota) -> Vec<Charge<'c>> {
    let of_group = |group| {
        let bytes = Charge::new("bytes", group, group, large).with_cost(5);
        [bytes, Charge::new("requests", group, group, small)]
    };
    GROUPS.into_iter().flat_map(of_group).collect()
}

fn peek(mut charges: Vec<Charge<'_>>) -> Vec<Charge<'_>> {
    for charge in &mut charges {
        (charge.required, charge.cost) = (0, 0);
    }
    charges
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_one_server_refuses_is_counted_by_none() {
    let cluster = RedisCluster::start().await;
    for fullest in GROUPS {
        let algorithms: [fn(Quota, u64) -> Quota; 3] =
            [|quota, _| quota, |quota, _| quota.sliding(), Quota::with_burst];
        for algorithm in algorithms {
            let limiter = limiter(&cluster).await;
            let small = algorithm(10.per_hour(), 10);
            let large = algorithm(100.per_hour().and(1_000.per_day()), 100);
            let charges = charges(&small, &large);
            for _ in 0..3 {
                assert!(decide(&limiter, &charges).await.is_allowed());
            }
            let full = [Charge::new("requests", fullest, fullest, &small).with_cost(7)];
            assert!(decide(&limiter, &full).await.is_allowed());

            let before = used(&decide(&limiter, &peek(charges.clone())).await);
            let refused = decide(&limiter, &charges).await;
            assert!(!refused.is_allowed());
            assert_eq!(used(&refused), before);
            assert_eq!(used(&decide(&limiter, &peek(charges)).await), before, "{fullest} is full");
        }
    }
}

/// One of the servers has no memory for a count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_one_server_cannot_count_is_counted_by_none() {
    let mut cluster = RedisCluster::start().await;
    let limiter = limiter(&cluster).await;
    let (small, large) = (10.per_hour(), 100.per_hour());
    let charges = charges(&small, &large);
    assert!(decide(&limiter, &charges).await.is_allowed());
    for failing in GROUPS {
        let key = format!("{{{failing}}}");
        cluster.cli(&key, &["CONFIG", "SET", "maxmemory", "1"]).await;
        limiter.acquire(&LimitRequest::new(&charges, at(0))).await.unwrap_err();
        cluster.cli(&key, &["CONFIG", "SET", "maxmemory", "0"]).await;
        assert_eq!(
            used(&decide(&limiter, &peek(charges.clone())).await),
            [5, 1].repeat(3),
            "{failing} failed"
        );
    }
}

/// A script reaches one server only, so nothing is borrowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_several_groups_is_never_leased() {
    let cluster = RedisCluster::start().await;
    let settings = fresh(RedisSettings::cluster(cluster.urls()));
    let limiter = builder(&settings, Leases::Always).await.with_request_time().build();
    let quota = 20.per_hour();
    let charges = GROUPS.map(|group| Charge::new("all", group, group, &quota));
    for count in 1..=22 {
        let decision = decide(&limiter, &charges).await;
        assert_eq!((decision.is_allowed(), used(&decision)), (count <= 20, vec![count.min(20); 3]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_are_counted_alike_by_all_servers_and_never_beyond_the_quota() {
    let cluster = RedisCluster::start().await;
    let limiter = Arc::new(limiter(&cluster).await);
    let (small, large) = (60.per_hour(), 200.per_hour());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (limiter, small, large) = (Arc::clone(&limiter), small.clone(), large.clone());
        tasks.spawn(async move {
            let mut admitted = 0;
            for _ in 0..20 {
                admitted += u64::from(decide(&limiter, &charges(&small, &large)).await.is_allowed());
            }
            admitted
        });
    }
    let admitted: u64 = tasks.join_all().await.into_iter().sum();
    let counted = used(&decide(&limiter, &peek(charges(&small, &large))).await);
    assert_eq!(counted, [[5 * admitted, admitted]; 3].concat());
    // A request that is being refused takes room from others for a moment. Later they have it.
    assert!((1..=40).contains(&admitted), "{admitted}");
    let mut admitted = admitted;
    while decide(&limiter, &charges(&small, &large)).await.is_allowed() {
        admitted += 1;
    }
    assert_eq!(admitted, 40, "200 at 5 each");
}
