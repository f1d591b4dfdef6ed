//! The time of one decision by Redis, with one in flight.

use std::time::{Duration, Instant, SystemTime};

use redis::Script;
use tollgate::{
    PerWindow as _, Quota,
    limit::{Charge, LimitRequest, Limiter as _},
};
use tollgate_redis::{Leases, RedisLimiter};

use crate::server::Server;

const ROUNDS: usize = 20;
const PER_ROUND: usize = 500;

/// The times of many calls, in rounds that alternate with those of other calls.
struct Times {
    name: &'static str,
    all: Vec<Duration>,
}

impl Times {
    fn new(name: &'static str) -> Self {
        Self { name, all: Vec::with_capacity(ROUNDS * PER_ROUND) }
    }

    async fn round(&mut self, mut call: impl AsyncFnMut()) {
        for _ in 0..PER_ROUND {
            let started = Instant::now();
            call().await;
            self.all.push(started.elapsed());
        }
    }

    fn percentile(&mut self, percent: usize) -> f64 {
        self.all.sort_unstable();
        self.all[self.all.len() * percent / 100].as_nanos() as f64 / 1_000.0
    }
}

pub(crate) async fn measure(server: &Server) {
    let mut bare = server.bare().await;
    let increment = Script::new(
        "local count = redis.call('INCR', KEYS[1]) redis.call('EXPIRE', KEYS[1], 60) return count",
    );
    let limiter = RedisLimiter::builder(server.connect().await).with_leases(Leases::Off).build();
    let one = (u64::MAX >> 12).per_minute();
    let three = one.clone().and((u64::MAX >> 12).per_hour()).and((u64::MAX >> 12).per_day());
    let sliding = one.clone().sliding();
    let bucket = (1 << 40).per_day().with_burst(1 << 40);
    let acquire = async |policy: &'static str, quotas: &[&Quota]| {
        let charges: Vec<_> = quotas
            .iter()
            .enumerate()
            .map(|(at, quota)| Charge::new(policy, if at == 0 { "key_1" } else { "acme" }, "acme", quota))
            .collect();
        let decision = limiter.acquire(&LimitRequest::new(&charges, SystemTime::now())).await.unwrap();
        assert!(decision.is_allowed());
    };

    let names = [
        "PING",
        "one INCR and EXPIRE by EVALSHA",
        "a decision: one window",
        "a decision: three windows",
        "a decision: key and tenant, three windows each",
        "a decision: a sliding window",
        "a decision: a token bucket",
    ];
    let mut times = names.map(Times::new);
    for _ in 0..ROUNDS {
        let [ping, incr, first, second, third, fourth, fifth] = &mut times;
        ping.round(async || redis::cmd("PING").query_async::<()>(&mut bare).await.unwrap()).await;
        incr.round(async || {
            let count: u64 = increment.key("counter").invoke_async(&mut bare).await.unwrap();
            assert!(count > 0);
        })
        .await;
        first.round(async || acquire("one", &[&one]).await).await;
        second.round(async || acquire("three", &[&three]).await).await;
        third.round(async || acquire("both", &[&three, &three]).await).await;
        fourth.round(async || acquire("sliding", &[&sliding]).await).await;
        fifth.round(async || acquire("bucket", &[&bucket]).await).await;
    }
    println!("One trip in flight, in microseconds, and p50 as a ratio to PING\n");
    println!("| | p50 | p99 | to PING |\n|---|---|---|---|");
    let floor = times[0].percentile(50);
    for times in &mut times {
        let (middle, high) = (times.percentile(50), times.percentile(99));
        println!("| {} | {middle:.0} | {high:.0} | {:.2} |", times.name, middle / floor);
    }
    println!();
}
