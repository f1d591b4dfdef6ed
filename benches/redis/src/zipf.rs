//! Many subjects, of which few are busy: the request for the n-th is sent 1/n times as often as for the first (Zipf).

use std::time::{Duration, Instant, SystemTime};

use tollgate::{
    PerWindow as _,
    limit::{Charge, LimitRequest, Limiter as _},
};
use tollgate_redis::{Leases, RedisLimiter};

use crate::server::Server;

const SUBJECTS: usize = 10_000;
const PER_SECOND: f64 = 10_000.0;
const LENGTH: Duration = Duration::from_secs(5);

/// Pseudo-random subjects: xorshift64 (Marsaglia 2003) with a fixed seed.
pub(crate) struct Zipf {
    state: u64,
    // The sum of the shares up to each subject.
    sums: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new() -> Self {
        let sums = (1..=SUBJECTS).scan(0.0, |sum, n| {
            *sum += 1.0 / n as f64;
            Some(*sum)
        });
        Self { state: 0x9e37_79b9_7f4a_7c15, sums: sums.collect() }
    }

    pub(crate) fn next(&mut self) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let share = (self.state >> 11) as f64 / (1_u64 << 53) as f64 * self.sums[SUBJECTS - 1];
        self.sums.partition_point(|sum| *sum < share)
    }
}

pub(crate) async fn measure(server: &Server) {
    let quota = 1_000_000.per_minute();
    println!("{SUBJECTS} subjects by Zipf's law, {PER_SECOND} requests per second in one process\n");
    println!("| | trips per request |\n|---|---|");
    for (name, leases) in [("`Leases::Auto`", Leases::Auto), ("`Leases::Off`", Leases::Off)] {
        let limiter = RedisLimiter::builder(server.connect().await).with_leases(leases).build();
        let before = server.trips().await;
        let (mut zipf, mut sent, started) = (Zipf::new(), 0_u64, Instant::now());
        while started.elapsed() < LENGTH {
            let due = (started.elapsed().as_secs_f64() * PER_SECOND) as u64;
            let mut tasks = Vec::new();
            while sent < due {
                let subject = zipf.next().to_string();
                let charges = [Charge::new("key", &subject, &subject, &quota)];
                tasks.push(limiter.acquire(&LimitRequest::new(&charges, SystemTime::now())));
                sent += 1;
            }
            for task in tasks {
                assert!(task.await.unwrap().is_allowed());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        limiter.close().await;
        let trips = server.trips().await - before;
        println!("| {name} | {:.3} |", trips as f64 / sent as f64);
    }
    println!();
}
