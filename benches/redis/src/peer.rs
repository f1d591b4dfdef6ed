//! Four processes on one busy subject whose demand is ten times its quota, beside the hybrid limiter of `trypema`.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tollgate::{
    PerWindow as _,
    limit::{Charge, LimitRequest, Limiter as _},
};
use tollgate_redis::{Leases, RedisLimiter};
use trypema::{
    BucketSize, RateLimit, RateLimitDecision, RateLimiterBuilder as _, WindowSize,
    hybrid::{HybridRateLimiterProvider, SyncInterval},
    redis::RedisKey,
};

use crate::server::Server;

const PROCESSES: usize = 4;
const QUOTA: u64 = 2_000;
const DEMAND: f64 = 20_000.0;
const LENGTH: Duration = Duration::from_secs(8);

/// The milliseconds since the Unix epoch at which requests were admitted, and the number of all requests.
struct Outcome {
    admitted: Vec<u64>,
    sent: u64,
    trips: u64,
}

pub(crate) async fn measure(server: &Server) {
    println!(
        "{PROCESSES} processes on one subject: a quota of {QUOTA} per second, a demand of {DEMAND} per second\n"
    );
    println!(
        "| | most admitted in a window, of the quota | on average | trips per request |\n|---|---|---|---|"
    );
    for (name, leases) in [("`Leases::Auto`", Leases::Auto), ("`Leases::Off`", Leases::Off)] {
        row(name, &run(server, async || tollgate(server, leases).await).await, true);
    }
    row("trypema, hybrid (10 ms)", &run(server, async || trypema(server).await).await, false);
    println!();
}

fn row(name: &str, outcome: &Outcome, is_aligned: bool) {
    let (first, last) = (outcome.admitted[0], outcome.admitted[outcome.admitted.len() - 1]);
    // Whole windows only. Aligned ones begin each second, sliding ones everywhere: here every 10 ms.
    let (step, start) = if is_aligned { (1_000, first.next_multiple_of(1_000)) } else { (10, first) };
    let windows = (start..last.saturating_sub(1_000)).step_by(step).map(|start| {
        let from = outcome.admitted.partition_point(|at| *at < start);
        outcome.admitted.partition_point(|at| *at < start + 1_000) - from
    });
    let windows: Vec<_> = windows.collect();
    let most = *windows.iter().max().unwrap() as f64 / QUOTA as f64;
    let mean = windows.iter().sum::<usize>() as f64 / windows.len() as f64 / QUOTA as f64;
    let trips = outcome.trips as f64 / outcome.sent as f64;
    println!("| {name} | {:.1} % | {:.1} % | {trips:.4} |", most * 100.0, mean * 100.0);
}

/// The limiter of one process.
enum Process {
    Tollgate { limiter: RedisLimiter, subject: String },
    Trypema { provider: Arc<HybridRateLimiterProvider>, key: RedisKey, rate: RateLimit },
}

impl Process {
    /// When a request was admitted.
    async fn acquire(&self) -> Option<u64> {
        match self {
            Self::Tollgate { limiter, subject } => {
                let quota = QUOTA.per_second();
                let charges = [Charge::new("key", subject, "acme", &quota)];
                let decision =
                    limiter.acquire(&LimitRequest::new(&charges, SystemTime::now())).await.unwrap();
                decision.is_allowed().then(|| millis(decision.at()))
            }
            Self::Trypema { provider, key, rate } => {
                let decision = provider.absolute().inc(key, rate, 1).await.unwrap();
                matches!(decision, RateLimitDecision::Allowed).then(|| millis(SystemTime::now()))
            }
        }
    }
}

async fn tollgate(server: &Server, leases: Leases) -> Process {
    let limiter = RedisLimiter::builder(server.connect().await).with_leases(leases).build();
    Process::Tollgate { limiter, subject: format!("hot {leases:?}") }
}

async fn trypema(server: &Server) -> Process {
    let provider = HybridRateLimiterProvider::builder(server.manager().await)
        .window_size(WindowSize::seconds_or_panic(1))
        .bucket_size(BucketSize::milliseconds_or_panic(10))
        .sync_interval(SyncInterval::milliseconds_or_panic(10))
        .build()
        .unwrap();
    let rate = RateLimit::per_second_or_panic(QUOTA as f64);
    Process::Trypema { provider, key: RedisKey::try_from("hot").unwrap(), rate }
}

/// Sends the demand from as many tasks as processes, each with a limiter of its own.
async fn run(server: &Server, start: impl AsyncFn() -> Process) -> Outcome {
    let before = server.trips().await;
    let mut tasks = Vec::new();
    for _ in 0..PROCESSES {
        let process = start().await;
        tasks.push(tokio::spawn(async move {
            let (mut admitted, mut sent, started) = (Vec::new(), 0_u64, Instant::now());
            while started.elapsed() < LENGTH {
                let due = (started.elapsed().as_secs_f64() * DEMAND / PROCESSES as f64) as u64;
                while sent < due {
                    admitted.extend(process.acquire().await);
                    sent += 1;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (admitted, sent)
        }));
    }
    let (mut admitted, mut sent) = (Vec::new(), 0);
    for task in tasks {
        let (of_task, sent_by_task) = task.await.unwrap();
        admitted.extend(of_task);
        sent += sent_by_task;
    }
    admitted.sort_unstable();
    Outcome { admitted, sent, trips: server.trips().await - before }
}

fn millis(instant: SystemTime) -> u64 {
    u64::try_from(instant.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
