//! Requests of three policies, and what became of them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet, time::sleep};
use tollgate::{
    PerWindow as _,
    denial::Unavailable,
    limit::{Charge, Decision},
};
use tollgate_redis::RedisLimiter;

use crate::ask_for;

pub(super) const POLICIES: [&str; 3] = ["count locally", "refuse", "allow"];

/// Tasks of a process. Each sends a request of one policy about every 10 ms, so a process alone asks for about twice the quota.
pub(super) const TASKS: usize = 12;
const PACE: Duration = Duration::from_millis(10);

/// In each second.
pub(super) const LIMIT: u64 = 150;

/// One request.
pub(super) struct Sample {
    pub(super) policy: &'static str,
    pub(super) begun: Instant,
    pub(super) took: Duration,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outcome {
    /// With the second in which its window ends.
    Admitted(u64),
    AdmittedUncounted,
    Refused,
    Unavailable,
}

impl Outcome {
    fn of(decided: &Result<Decision, Unavailable>) -> Self {
        match decided {
            Ok(decision) if !decision.is_allowed() => Self::Refused,
            Ok(decision) => {
                let window = decision.windows().first();
                window.map_or(Self::AdmittedUncounted, |window| Self::Admitted(window.reset_second))
            }
            Err(_) => Self::Unavailable,
        }
    }

    pub(super) fn is_counted(self) -> bool {
        matches!(self, Self::Admitted(_) | Self::Refused)
    }
}

pub(super) struct Load {
    tasks: JoinSet<Vec<Sample>>,
    stop: watch::Sender<bool>,
}

impl Load {
    pub(super) fn start(limiters: [&RedisLimiter; 2]) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), watch::Sender::new(false));
        for limiter in limiters {
            for task in 0..TASKS {
                tasks.spawn(send(limiter.clone(), POLICIES[task % POLICIES.len()], stop.subscribe()));
            }
        }
        Self { tasks, stop }
    }

    /// Ends the load, and returns all requests.
    pub(super) async fn stop(self) -> Vec<Sample> {
        self.stop.send_replace(true);
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

async fn send(limiter: RedisLimiter, policy: &'static str, stop: watch::Receiver<bool>) -> Vec<Sample> {
    let quota = LIMIT.per_second();
    let charge = [Charge::new(policy, "ada", "acme", &quota)];
    let mut samples = Vec::new();
    while !*stop.borrow() {
        let begun = Instant::now();
        let decided = ask_for(&limiter, &charge).await;
        samples.push(Sample { policy, begun, took: begun.elapsed(), outcome: Outcome::of(&decided) });
        sleep(PACE).await;
    }
    samples
}

/// How many requests of a policy each window has admitted, by their ends.
pub(super) fn windows(samples: &[Sample], policy: &str) -> BTreeMap<u64, u64> {
    let mut windows = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.policy == policy) {
        if let Outcome::Admitted(ends) = sample.outcome {
            *windows.entry(ends).or_default() += 1;
        }
    }
    windows
}
