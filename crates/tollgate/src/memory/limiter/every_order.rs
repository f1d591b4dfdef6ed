//! Properties that hold in every order of threads, tested with loom.
//!
//! `./test loom`, or `RUSTFLAGS="--cfg tollgate_loom" cargo test -p tollgate --lib every_order`.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use loom::thread;
use tollgate_core::limit::{PerWindow as _, Quota};

use super::*;

const SECOND: u64 = 1_000_000_000;

/// Whether a request with these charges passes: policy, subject, group and quota of each.
fn passes(limiter: &MemoryLimiter, charges: &[(&'static str, &str, &str, &Quota)], second: u64) -> bool {
    let charge = |&(policy, subject, group, quota)| Charge::new(policy, subject, group, quota);
    let charges: Vec<_> = charges.iter().map(charge).collect();
    let request = LimitRequest::new(&charges, UNIX_EPOCH + Duration::from_secs(second));
    let Answer::Now(Ok(decision)) = limiter.acquire(&request) else { panic!("answers at once") };
    decision.is_allowed()
}

fn used(limiter: &MemoryLimiter, policy: &'static str, subject: &str, group: &str, second: u64) -> u64 {
    let quota = u64::MAX.per_minute();
    let charges = [Charge::new(policy, subject, group, &quota).with_cost(0)];
    let request = LimitRequest::new(&charges, UNIX_EPOCH + Duration::from_secs(second));
    let Answer::Now(Ok(decision)) = limiter.acquire(&request) else { panic!("answers at once") };
    decision.windows()[0].used
}

/// One group in each of the two shards used under loom.
fn in_both_shards(limiter: &MemoryLimiter) -> [&'static str; 2] {
    let (groups, quota) = (["a", "b", "c", "d"], Quota::unlimited());
    let shard = |group: &str| limiter.place(&Charge::new("key", "ada", group, &quota)).shard;
    [0, 1].map(|at| groups.into_iter().find(|group| shard(group) == at).unwrap())
}

/// The sum of the threads' results, run concurrently in every order.
fn all_at_once<const THREADS: usize>(work: [impl FnOnce() -> usize + Send + 'static; THREADS]) -> usize {
    let threads = work.map(thread::spawn);
    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
}

#[test]
fn exactly_two_of_three_requests_pass_a_quota_of_two() {
    // A new subject takes the slow path, a known one the fast path.
    for is_known in [false, true] {
        loom::model(move || {
            let limiter = Arc::new(MemoryLimiter::new());
            let quota = (2 + u64::from(is_known)).per_minute();
            if is_known {
                assert!(passes(&limiter, &[("key", "ada", "acme", &quota)], SECOND));
            }
            let ask = |requests: usize| {
                let (limiter, quota) = (Arc::clone(&limiter), quota.clone());
                move || {
                    (0..requests)
                        .filter(|_| passes(&limiter, &[("key", "ada", "acme", &quota)], SECOND))
                        .count()
                }
            };
            assert_eq!(all_at_once([ask(2), ask(1)]), 2);
        });
    }
}

#[test]
fn charges_to_two_shards_do_not_deadlock_and_a_refusal_counts_nothing() {
    loom::model(|| {
        let limiter = Arc::new(MemoryLimiter::new());
        let (two, one) = (2.per_minute(), 1.per_minute());
        let [here, there] = in_both_shards(&limiter);
        let ask = |is_turned: bool| {
            let (limiter, two, one) = (Arc::clone(&limiter), two.clone(), one.clone());
            move || {
                let mut charges = [("wide", "all", here, &two), ("narrow", "all", there, &one)];
                if is_turned {
                    charges.reverse();
                }
                usize::from(passes(&limiter, &charges, SECOND))
            }
        };
        assert_eq!(all_at_once([ask(false), ask(true)]), 1);
        assert_eq!(used(&limiter, "wide", "all", here, SECOND), 1, "the refused request is not counted");
    });
}

#[test]
fn subjects_beyond_the_capacity_are_counted_too() {
    loom::model(|| {
        let limiter = Arc::new(MemoryLimiter::with_capacity(1));
        let [here, there] = in_both_shards(&limiter);
        let ask = |subject: &'static str, group: &'static str| {
            let limiter = Arc::clone(&limiter);
            move || {
                let quota = 1.per_minute();
                (0..2).filter(|_| passes(&limiter, &[("key", subject, group, &quota)], SECOND)).count()
            }
        };
        assert_eq!(all_at_once([ask("ada", here), ask("bob", there)]), 2, "each passes once");
        assert_eq!(limiter.capacity.used(), limiter.subjects(), "no subject is lost or counted twice");
        assert_eq!(limiter.subjects(), 2, "one subject, and one shared counter");
    });
}

#[test]
fn a_window_that_ends_during_a_sweep_resets_once() {
    loom::model(|| {
        let limiter = Arc::new(MemoryLimiter::new());
        let quota = 1.per_second();
        assert!(passes(&limiter, &[("key", "ada", "acme", &quota)], SECOND));
        let ask = |subject: &'static str| {
            let (limiter, quota) = (Arc::clone(&limiter), quota.clone());
            move || usize::from(passes(&limiter, &[("key", subject, "acme", &quota)], SECOND + 1))
        };
        assert_eq!(all_at_once([ask("ada"), ask("ada")]), 1);
    });
}
