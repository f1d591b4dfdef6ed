//! Tests of the limiter's promises, independent of how subjects are stored.

use std::{
    collections::HashMap,
    mem::{Discriminant, discriminant},
    time::{Duration, UNIX_EPOCH},
};

use proptest::prelude::*;
use tollgate_core::limit::{Algorithm, Counter, CounterPlace, PerWindow as _, PolicyName, Quota, Window};

use super::*;

const START: u64 = 1_000_000_000;

fn decide(limiter: &MemoryLimiter, charges: &[Charge<'_>], cost: u64, second: u64) -> Decision {
    let charges: Vec<_> = charges.iter().map(|charge| charge.with_cost(cost)).collect();
    let request = LimitRequest::new(&charges, UNIX_EPOCH + Duration::from_secs(second));
    let Answer::Now(Ok(decision)) = limiter.acquire(&request) else { panic!("answers at once") };
    decision
}

fn acquire(limiter: &MemoryLimiter, subject: &str, quota: &Quota, seconds: u64) -> Decision {
    decide(limiter, &[Charge::new("test", subject, subject, quota)], 1, START + seconds)
}

fn used(decision: &Decision) -> Vec<u64> {
    decision.windows().iter().map(|state| state.used).collect()
}

fn places(limiter: &MemoryLimiter) -> usize {
    limiter.shards.iter().map(|shard| lock(shard).places()).sum()
}

#[test]
fn a_known_place_is_that_of_one_limiter_and_one_policy() {
    let quota = 10.per_minute();
    let limiters = [MemoryLimiter::new(), MemoryLimiter::new()];
    let place = CounterPlace::new();
    let policies = [PolicyName::new("key"), PolicyName::interned("other")];
    for round in 1..=3 {
        for limiter in &limiters {
            for policy in policies {
                // Every second request knows the place, the others work it out.
                for (known, expected) in [(Some(&place), 2 * round - 1), (None, 2 * round)] {
                    let mut charge = Charge::new(policy, "ada", "acme", &quota);
                    charge.place = known;
                    assert_eq!(used(&decide(limiter, &[charge], 1, START)), [expected]);
                }
            }
        }
    }
}

#[test]
fn a_flood_is_dropped_while_a_few_subjects_continue() {
    for quota in [
        5.per_minute(),
        5.per_second().and(5.per_minute()).and(5.per(Window::lasting(Duration::from_secs(7)))),
    ] {
        let limiter = MemoryLimiter::new();
        for subject in 0..50_000 {
            acquire(&limiter, &subject.to_string(), &quota, 0);
        }
        assert_eq!(limiter.subjects(), 50_000);
        let full = places(&limiter);
        // Ten callers, once a minute each, are in a few shards only, but sweep all of them.
        for minute in 1..20_000 {
            for subject in 0..10 {
                assert!(acquire(&limiter, &subject.to_string(), &quota, minute * 60).is_allowed());
            }
        }
        assert!(limiter.subjects() <= 10 + SHARDS, "{} subjects are left", limiter.subjects());
        assert!(places(&limiter) < full / 10, "places for {} of {full} is left", places(&limiter));
    }
}

#[test]
fn a_flood_of_large_subjects_is_dropped_too() {
    let limiter = MemoryLimiter::new();
    let quota = 5.per_second().and(5.per_minute()).and(5.per_hour()).and(5.per_day());
    for subject in 0..20_000 {
        acquire(&limiter, &subject.to_string(), &quota, 0);
    }
    assert_eq!(limiter.subjects(), 20_000);
    let full = places(&limiter);
    for day in 1..50_000 {
        assert!(acquire(&limiter, "calm", &quota, day * 86_400).is_allowed());
    }
    assert!(limiter.subjects() <= 1 + SHARDS, "{} subjects are left", limiter.subjects());
    assert!(places(&limiter) < full / 10, "places for {} of {full} is left", places(&limiter));
}

#[test]
fn a_flood_is_dropped_by_a_fifth_as_many_requests() {
    let (limiter, quota) = (MemoryLimiter::new(), 5.per_minute());
    for subject in 0..100_000 {
        acquire(&limiter, &subject.to_string(), &quota, 0);
    }
    let full = places(&limiter);
    for subject in 100_000..120_000 {
        acquire(&limiter, &subject.to_string(), &quota, 60);
    }
    assert!(limiter.subjects() < 25_000, "{} subjects are left", limiter.subjects());
    assert!(places(&limiter) < full / 3, "places for {} of {full} is left", places(&limiter));
}

#[test]
fn a_sweep_keeps_active_subjects() {
    let limiter = MemoryLimiter::new();
    let quota = 1.per_day();
    for subject in 0..1_000 {
        assert!(acquire(&limiter, &subject.to_string(), &quota, 0).is_allowed());
    }
    for _ in 0..100 {
        for subject in 0..1_000 {
            assert!(!acquire(&limiter, &subject.to_string(), &quota, 60).is_allowed());
        }
    }
    assert_eq!(limiter.subjects(), 1_000);
}

#[test]
fn a_subject_has_all_windows_that_its_quotas_name() {
    let limiter = MemoryLimiter::new();
    let three = 9.per_minute().and(9.per_hour()).and(9.per_day());
    let four = three.clone().and(9.per(Window::lasting(Duration::from_secs(7_200))));
    assert_eq!(used(&acquire(&limiter, "ada", &three, 0)), [1, 1, 1]);
    assert_eq!(used(&acquire(&limiter, "ada", &four, 0)), [2, 2, 1, 2]);
    assert_eq!(used(&acquire(&limiter, "ada", &three, 0)), [3, 3, 3]);
    assert_eq!(
        used(&acquire(&limiter, "ada", &four, 0)),
        [4, 4, 2, 4],
        "windows that the quota does not name are kept"
    );
    assert_eq!(limiter.subjects(), 1);
}

#[test]
fn counts_go_beyond_32_bits() {
    let (limiter, quota) = (MemoryLimiter::new(), u64::MAX.per_minute().and(u64::MAX.per_day()));
    let charges = [Charge::new("test", "ada", "ada", &quota)];
    let (mut sum, most) = (0, u64::from(u32::MAX));
    for cost in [most - 1, 1, 1, most, 1 << 40] {
        sum += cost;
        assert_eq!(used(&decide(&limiter, &charges, cost, START)), [sum, sum]);
    }
    assert!(!decide(&limiter, &charges, u64::MAX, START).is_allowed());
    assert_eq!(used(&decide(&limiter, &charges, 0, START)), [sum, sum]);
    assert_eq!(limiter.subjects(), 1);
}

#[test]
fn times_go_beyond_32_bits() {
    let (limiter, quota) = (MemoryLimiter::new(), 2.per_minute());
    let charges = [Charge::new("test", "ada", "ada", &quota)];
    for second in [START, u64::from(u32::MAX) - 1, u64::from(u32::MAX) + 61, 1 << 40] {
        let passed = (0..4).filter(|_| decide(&limiter, &charges, 1, second).is_allowed()).count();
        assert_eq!(passed, 2, "in second {second}");
    }
}

#[test]
fn quotas_may_name_any_number_of_different_windows() {
    let limiter = MemoryLimiter::new();
    for round in 1..=2 {
        for seconds in 1_000..2_000 {
            let quota = 2.per(Window::lasting(Duration::from_secs(seconds)));
            assert_eq!(used(&acquire(&limiter, &seconds.to_string(), &quota, 0)), [round]);
        }
    }
    assert_eq!(limiter.subjects(), 1_000);
}

#[test]
fn peeks_and_refusals_are_not_stored() {
    let limiter = MemoryLimiter::new();
    let (none, unlimited, some) = (0.per_minute(), Quota::unlimited(), 1.per_minute());
    assert!(!acquire(&limiter, "refused", &none, 0).is_allowed());
    assert!(acquire(&limiter, "unlimited", &unlimited, 0).is_allowed());
    assert!(decide(&limiter, &[Charge::new("test", "peek", "peek", &some)], 0, START).is_allowed());
    assert_eq!(limiter.subjects(), 0);
}

/// Uses up all shared counters of a limiter that counts one subject.
fn full(quota: &Quota) -> MemoryLimiter {
    let limiter = MemoryLimiter::with_capacity(1);
    for subject in 0..20_000 {
        settle(&limiter, &subject.to_string(), quota);
    }
    limiter
}

/// Charges a cost that was deferred.
fn settle(limiter: &MemoryLimiter, subject: &str, quota: &Quota) {
    let charges = [Charge::new("test", subject, subject, quota).settled(1)];
    let _ = limiter.acquire(&LimitRequest::new(&charges, UNIX_EPOCH + Duration::from_secs(START)));
}

/// Without a cost, with one unit required.
fn asks(limiter: &MemoryLimiter, subject: &str, quota: &Quota) -> bool {
    let charges = [Charge::new("test", subject, subject, quota).with_deferred_cost()];
    let request = LimitRequest::new(&charges, UNIX_EPOCH + Duration::from_secs(START));
    let Answer::Now(Ok(decision)) = limiter.acquire(&request) else { panic!("answers at once") };
    decision.is_allowed()
}

#[test]
fn a_full_limiter_refuses_no_new_subject_that_was_never_charged() {
    for quota in [1.per_hour(), 1.per_hour().sliding(), 1.per_hour().with_burst(1)] {
        let limiter = full(&quota);
        let names = || (0..1_000).map(|number| format!("new {number}"));
        assert!(names().all(|name| asks(&limiter, &name, &quota)), "{quota}");
        let refused: Vec<_> =
            names().filter(|name| !acquire(&limiter, name, &quota, 0).is_allowed()).collect();
        assert!(refused.len() > 900, "{} of 1,000 with a cost are refused, {quota}", refused.len());
        assert!(refused.iter().all(|name| asks(&limiter, name, &quota)), "a refused cost was charged");
    }
}

#[test]
fn a_full_limiter_refuses_a_new_subject_that_was_charged() {
    let quota = 1.per_hour();
    let limiter = full(&quota);
    for number in 0..1_000 {
        let name = format!("new {number}");
        settle(&limiter, &name, &quota);
        assert!(!asks(&limiter, &name, &quota), "{name}");
    }
}

#[test]
fn a_full_limiter_remembers_a_bounded_number_of_charged_subjects() {
    let quota = 1.per_hour();
    let limiter = full(&quota);
    let remembered = (0..20_000).filter(|subject| !asks(&limiter, &subject.to_string(), &quota)).count();
    assert!(remembered > 10_000, "{remembered} of 20,000 are remembered in 65,536 places");
}

#[test]
fn a_clone_has_the_same_counters() {
    let (limiter, quota) = (MemoryLimiter::with_capacity(1), 1.per_hour());
    let clone = limiter.clone();
    assert!(acquire(&limiter, "ada", &quota, 0).is_allowed());
    assert!(!acquire(&clone, "ada", &quota, 0).is_allowed());
    assert!(acquire(&clone, "bob", &quota, 0).is_allowed());
    assert_eq!((limiter.subjects(), clone.subjects()), (2, 2), "ada, and the counter that bob shares");
}

#[test]
fn one_subject_charged_twice_at_once_is_counted_in_each_window() {
    let (limiter, minute, hour) = (MemoryLimiter::new(), 9.per_minute(), 9.per_hour());
    let charges = [Charge::new("test", "ada", "acme", &minute), Charge::new("test", "ada", "acme", &hour)];
    assert_eq!(used(&decide(&limiter, &charges, 1, START)), [1, 1]);
    assert_eq!(used(&decide(&limiter, &charges, 1, START)), [2, 2]);
    assert_eq!(limiter.subjects(), 1);
}

/// The naive model: all counters ever used.
#[derive(Default)]
struct Model(HashMap<(&'static str, usize, Window, Discriminant<Algorithm>), Counter>);

impl Model {
    fn decide(&mut self, charges: &[(&'static str, usize, &Quota)], cost: u64, second: u64) -> Decision {
        let now = UNIX_EPOCH + Duration::from_secs(second);
        let mut checks = Vec::new();
        let mut after = Vec::new();
        for (policy, subject, quota) in charges {
            for limit in quota.limits() {
                let key = (*policy, *subject, limit.window, discriminant(&limit.algorithm));
                let counter =
                    self.0.get(&key).copied().unwrap_or(Counter::new(limit.algorithm)).at(limit, now);
                let charge = Charge::new(*policy, "", "", quota).with_cost(cost);
                checks.push(WindowCheck::new(&charge, limit, counter, now));
                after.push((key, counter.counting(limit, cost)));
            }
        }
        let decision = Decision::evaluate(now, checks);
        if decision.is_allowed() && cost > 0 {
            self.0.extend(after);
        }
        decision
    }
}

fn quota() -> impl Strategy<Value = Quota> {
    let lasting = |seconds| Window::lasting(Duration::from_secs(seconds));
    let mut windows = vec![Window::WEEK, Window::MONTH, Window::month_from(31)];
    windows.extend([1, 7, 60, 90, 3_600, 86_400].map(lasting));
    let window = prop::sample::select(windows);
    let limit = prop_oneof![4 => 0_u64..9, 1 => Just(1 << 33), 1 => Just(u64::MAX)];
    let limits = prop::collection::vec((window, limit, 0..5), 0..5);
    limits.prop_map(|limits| {
        let quotas = limits.into_iter().map(|(window, limit, algorithm)| {
            let quota = limit.per(window);
            match algorithm {
                0 => quota.sliding(),
                1 => quota.with_burst(limit / 2),
                _ => quota,
            }
        });
        quotas.fold(Quota::unlimited(), Quota::and)
    })
}

proptest! {
    #[test]
    fn agrees_with_a_model_that_keeps_all_counters(
        quotas in prop::collection::vec(quota(), 4),
        steps in prop::collection::vec(
            (
                prop_oneof![4 => 0_u64..3, 2 => 0_u64..100, 1 => 0_u64..100_000, 1 => 0_u64..3_000_000],
                prop::collection::vec((0_usize..2, 0_usize..5, 0_usize..4), 1..4),
                prop_oneof![6 => Just(1), 1 => Just(0), 1 => 2_u64..5, 1 => Just(1 << 32)],
            ),
            1..150,
        ),
    ) {
        const POLICIES: [&str; 2] = ["key", "tenant"];
        const SUBJECTS: [&str; 5] = ["ada", "bob", "cyd", "dan", "eve"];
        let (limiter, mut model) = (MemoryLimiter::new(), Model::default());
        let mut second = START;
        for (wait, charges, cost) in steps {
            second += wait;
            let theirs: Vec<_> =
                charges.iter().map(|(policy, subject, quota)| (POLICIES[*policy], *subject, &quotas[*quota])).collect();
            let ours: Vec<_> = theirs
                .iter()
                .map(|(policy, subject, quota)| {
                    Charge::new(*policy, SUBJECTS[*subject], SUBJECTS[*subject / 2], quota)
                })
                .collect();
            prop_assert_eq!(decide(&limiter, &ours, cost, second), model.decide(&theirs, cost, second));
        }
    }
}
