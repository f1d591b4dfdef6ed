//! Redis is killed, paused, cut off and silent, under load.
//!
//! Two limiters, as two processes would have them, each with a link of its own, and requests of three policies, one for each
//! [`Outage`]. All of it runs on one thread, whose log is read.

mod load;

use std::time::{Duration, Instant};

use tests::{
    cases,
    hosts::within,
    redis,
    relay::Relay,
    suite::{Entry, Log},
};
use tokio::time::{sleep, timeout};
use tollgate::{PerWindow as _, Quota};
use tollgate_redis::{Leases, Outage, Redis, RedisLimiter, RedisSettings};
use tracing::Level;

use self::load::{LIMIT, Load, Outcome, Sample, TASKS};
use crate::ask;

const DEADLINE: Duration = RedisSettings::DEFAULT_DEADLINE;

/// What a busy machine may add to the deadline.
const SLACK: Duration = Duration::from_millis(500);

const PROCESSES: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Restart,
    Pause,
    Cut,
    Silence,
}

struct Process {
    relay: Relay,
    redis: Redis,
    limiter: RedisLimiter,
}

impl Process {
    async fn start(server: &redis::Redis) -> Self {
        let relay = Relay::to(server.address());
        let redis = connected(&relay.reroute(&server.url())).await;
        let limiter = RedisLimiter::builder(redis.clone())
            .with_leases(Leases::Auto)
            .with_outage_of("refuse", Outage::Refuse)
            .with_outage_of("allow", Outage::Allow)
            .build();
        Self { relay, redis, limiter }
    }
}

/// A connection with the default deadline, which a busy machine may exceed at first.
async fn connected(url: &str) -> Redis {
    within(async {
        loop {
            if let Ok(redis) = Redis::connect(url).await {
                return redis;
            }
        }
    })
    .await
}

async fn until_up(redis: &Redis) {
    within(async {
        while !redis.is_up() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// The outage: when it began, when the fault was mended, and when all processes had Redis again.
struct Times {
    failed: Instant,
    mended: Instant,
    up: Instant,
}

async fn fail_and_mend(fault: Fault, server: &mut redis::Redis, processes: &mut [Process]) -> Times {
    let length = Duration::from_millis(cases(1_500, 5_000).into());
    let failed = Instant::now();
    match fault {
        Fault::Restart => server.kill().await,
        Fault::Pause => server.pause().await,
        Fault::Cut => {
            for process in &mut *processes {
                process.relay.cut().await;
            }
        }
        Fault::Silence => processes.iter_mut().for_each(|process| process.relay.silence()),
    }
    sleep(length).await;
    let mended = Instant::now();
    match fault {
        Fault::Restart => server.restart().await,
        Fault::Pause => server.resume().await,
        Fault::Cut | Fault::Silence => processes.iter_mut().for_each(|process| process.relay.mend()),
    }
    for process in processes {
        until_up(&process.redis).await;
    }
    Times { failed, mended, up: Instant::now() }
}

async fn survives(fault: Fault) {
    let log = Log::start();
    let mut server = redis::Redis::start().await;
    let mut processes = [Process::start(&server).await, Process::start(&server).await];
    let load = Load::start(processes.each_ref().map(|process| &process.limiter));
    // Leases have been borrowed by then.
    sleep(Duration::from_millis(700)).await;
    let times = fail_and_mend(fault, &mut server, &mut processes).await;
    // At least one whole window.
    sleep(Duration::from_millis(2_100)).await;
    let samples = load.stop().await;

    eprintln!("{fault:?}: up {:?} after it was mended", times.up - times.mended);
    waits_are_bounded(&samples, &times);
    admissions_are_bounded(fault, &samples);
    outcomes_are_as_chosen(&samples, &times);
    counting_resumes(&samples, &times);
    assert_eq!(turns(&log), [(PROCESSES, Level::WARN), (PROCESSES, Level::INFO)]);
}

/// How many processes have logged each turn.
fn turns(log: &Log) -> [(usize, Level); 2] {
    ["tollgate.redis_down", "tollgate.redis_up"].map(|name| {
        let turns: Vec<Entry> = log.entries().into_iter().filter(|entry| entry.name == name).collect();
        (turns.len(), turns.first().map_or(Level::TRACE, |entry| entry.level))
    })
}

/// Its answer came too late, so it was decided as in an outage. A busy machine stands still for that long now and then.
fn is_late(sample: &Sample) -> bool {
    sample.took >= DEADLINE * 9 / 10
}

fn waits_are_bounded(samples: &[Sample], times: &Times) {
    let longest = samples.iter().map(|sample| sample.took).max().unwrap();
    let during =
        samples.iter().filter(|sample| sample.begun + DEADLINE > times.failed && sample.begun < times.mended);
    let waited = during.filter(|sample| is_late(sample)).count();
    eprintln!("  {} requests, the longest took {longest:?}, {waited} waited for the deadline", samples.len());
    assert!(longest < DEADLINE + SLACK, "{longest:?}");
    // Those that were under way when Redis failed, and what they have learned by then. Without it, hundreds would wait.
    assert!(waited <= 2 * TASKS * PROCESSES, "{waited}");
}

/// No window has admitted more than what is documented.
fn admissions_are_bounded(fault: Fault, samples: &[Sample]) {
    // A server that was killed has lost what it had counted.
    let by_redis = if fault == Fault::Restart { 2 * LIMIT } else { LIMIT };
    for (policy, most) in [("refuse", by_redis), ("count locally", by_redis + PROCESSES as u64 * LIMIT)] {
        let windows = load::windows(samples, policy);
        eprintln!("  {policy}: {:?}, at most {most}", windows.values().collect::<Vec<_>>());
        assert!(windows.values().all(|count| *count <= most), "{policy}: {windows:?}");
    }
}

/// While Redis is down, each policy does what was chosen, and without a wait.
fn outcomes_are_as_chosen(samples: &[Sample], times: &Times) {
    // From when all have noticed it.
    let during = times.failed + 4 * (DEADLINE + SLACK) / 3..times.mended;
    let during: Vec<&Sample> = samples.iter().filter(|sample| during.contains(&sample.begun)).collect();
    assert!(during.len() > 100, "{}", during.len());
    for sample in during {
        let is_as_chosen = match (sample.policy, sample.outcome) {
            ("count locally", outcome) => matches!(outcome, Outcome::Admitted(_) | Outcome::Refused),
            ("refuse", outcome) => outcome == Outcome::Unavailable,
            (_, outcome) => outcome == Outcome::AdmittedUncounted,
        };
        assert!(is_as_chosen, "{}: {:?}", sample.policy, sample.outcome);
    }
}

/// In the last whole window, all is counted in Redis again.
fn counting_resumes(samples: &[Sample], times: &Times) {
    let after: Vec<&Sample> = samples.iter().filter(|sample| sample.begun > times.up).collect();
    for policy in load::POLICIES {
        let windows = load::windows(samples, policy);
        let last_whole = windows.iter().rev().nth(1).unwrap();
        eprintln!("  {policy}: {} of {LIMIT} in the window afterwards", last_whole.1);
        // Each late request can be counted in this process.
        let is_in_it = |sample: &&Sample| sample.outcome == Outcome::Admitted(*last_whole.0);
        let of_policy = samples.iter().filter(|sample| sample.policy == policy && is_late(sample));
        let most = LIMIT + of_policy.filter(is_in_it).count() as u64;
        assert!((LIMIT * 95 / 100..=most).contains(last_whole.1), "{policy}: {windows:?}");
        let uncounted = after.iter().filter(|sample| sample.policy == policy && !sample.outcome.is_counted());
        assert!(uncounted.count() <= TASKS * PROCESSES, "{policy}");
    }
}

#[tokio::test]
async fn requests_survive_a_restart() {
    survives(Fault::Restart).await;
}

#[tokio::test]
async fn requests_survive_a_pause() {
    survives(Fault::Pause).await;
}

#[tokio::test]
async fn requests_survive_a_cut() {
    survives(Fault::Cut).await;
}

#[tokio::test]
async fn requests_survive_a_silence() {
    survives(Fault::Silence).await;
}

/// Callers that wait for less than the deadline do not hide that Redis is silent, and do not keep it from being found again.
#[tokio::test]
async fn callers_that_hang_up_hide_no_outage_and_prolong_none() {
    for leases in [Leases::Off, Leases::Always] {
        let log = Log::start();
        let server = redis::Redis::start().await;
        let mut relay = Relay::to(server.address());
        let redis = connected(&relay.reroute(&server.url())).await;
        let limiter =
            RedisLimiter::builder(redis.clone()).with_leases(leases).with_outage(Outage::Refuse).build();
        let quota: Quota = 1_000_000.per_hour();
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let (limiter, quota) = (limiter.clone(), quota.clone());
            callers.spawn(async move {
                loop {
                    // An error is that it hangs up.
                    let _ = timeout(DEADLINE / 5, ask(&limiter, "ada", &quota)).await;
                    sleep(Duration::from_millis(5)).await;
                }
            });
        }
        sleep(Duration::from_millis(100)).await;
        assert!(redis.is_up());
        relay.silence();
        let silent = Instant::now();
        within(async {
            while redis.is_up() {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        eprintln!("{leases:?}: noticed after {:?}", silent.elapsed());
        relay.mend();
        let mended = Instant::now();
        until_up(&redis).await;
        eprintln!("{leases:?}: up again after {:?}", mended.elapsed());
        assert_eq!(turns(&log), [(1, Level::WARN), (1, Level::INFO)]);
        drop(callers);
        within(async {
            while !ask(&limiter, "ada", &quota).await.is_ok_and(|decision| decision.is_allowed()) {}
        })
        .await;
    }
}

/// Redis has failed and is back while no request came: the first one is decided by Redis.
#[tokio::test]
async fn an_outage_between_requests_costs_none() {
    let log = Log::start();
    let mut server = redis::Redis::start().await;
    let redis = connected(&server.url()).await;
    let limiter = RedisLimiter::builder(redis.clone()).with_outage(Outage::Refuse).build();
    let quota = 10.per_hour();
    assert!(ask(&limiter, "ada", &quota).await.unwrap().is_allowed());
    server.restart().await;
    within(async {
        while turns(&log)[1].0 == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(ask(&limiter, "ada", &quota).await.unwrap().is_allowed());
    assert_eq!(turns(&log), [(1, Level::WARN), (1, Level::INFO)]);
}
