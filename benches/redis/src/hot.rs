//! A busy subject: leased against in process, and how many admissions a trip yields.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tollgate::{
    PerWindow as _, Quota,
    limit::{Charge, LimitRequest, Limiter, MemoryLimiter},
};
use tollgate_redis::{Leases, RedisLimiter};

use crate::server::Server;

const LENGTH: Duration = Duration::from_secs(2);

pub(crate) async fn measure(server: &Server) {
    let quota = (1 << 50).per_minute().and((1 << 50).per_day());
    println!("A busy subject with two windows, two tasks that ask as fast as they can\n");
    println!("| | decisions per second | to in process | admissions per trip |\n|---|---|---|---|");
    let in_process = flood(&Arc::new(MemoryLimiter::new()), &quota).await;
    row("in process", in_process, in_process, None);
    for (name, leases) in [("leased", Leases::Auto), ("a trip for each", Leases::Off)] {
        let limiter = Arc::new(RedisLimiter::builder(server.connect().await).with_leases(leases).build());
        let before = server.trips().await;
        let rate = flood(&limiter, &quota).await;
        let trips = server.trips().await - before;
        row(name, rate, in_process, Some(rate * LENGTH.as_secs_f64() / trips as f64));
    }
    println!("\nA busy subject in one process, by its requests per second\n");
    println!("| requests per second | admissions per trip |\n|---|---|");
    for rate in [50, 200, 500, 2_000, 10_000] {
        let limiter = RedisLimiter::new(server.connect().await);
        let before = server.trips().await;
        let admitted = steady(&limiter, &quota, rate).await;
        let trips = server.trips().await - before;
        println!("| {rate} | {:.1} |", admitted as f64 / trips as f64);
    }
    println!();
}

fn row(name: &str, rate: f64, floor: f64, per_trip: Option<f64>) {
    let per_trip = per_trip.map_or(String::new(), |per_trip| format!("{per_trip:.0}"));
    println!("| {name} | {rate:.0} | {:.3} | {per_trip} |", rate / floor);
}

async fn is_allowed(limiter: &impl Limiter, subject: &str, quota: &Quota) -> bool {
    let charges = [Charge::new("key", subject, subject, quota)];
    limiter.acquire(&LimitRequest::new(&charges, SystemTime::now())).await.unwrap().is_allowed()
}

/// Admissions per second by two tasks.
async fn flood(limiter: &Arc<impl Limiter>, quota: &Quota) -> f64 {
    let (is_over, sum) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..2)
        .map(|_| {
            let (limiter, quota) = (Arc::clone(limiter), quota.clone());
            let (is_over, sum) = (Arc::clone(&is_over), Arc::clone(&sum));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    for _ in 0..100 {
                        assert!(is_allowed(&*limiter, "busy", &quota).await);
                    }
                    sum.fetch_add(100, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let started = Instant::now();
    tokio::time::sleep(LENGTH).await;
    let admitted = sum.load(Ordering::Relaxed);
    let rate = admitted as f64 / started.elapsed().as_secs_f64();
    is_over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    rate
}

/// Admissions of a subject that sends at this rate.
async fn steady(limiter: &RedisLimiter, quota: &Quota, rate: u64) -> u64 {
    let (started, subject) = (Instant::now(), format!("steady {rate}"));
    let mut sent = 0;
    while started.elapsed() < LENGTH {
        let due = (started.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due {
            assert!(is_allowed(limiter, &subject, quota).await);
            sent += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sent
}
