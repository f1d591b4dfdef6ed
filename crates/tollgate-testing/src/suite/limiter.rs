//! The suite for limiters.

mod model;

use std::{sync::Arc, time::Duration};

use tollgate::{
    PerWindow as _, Quota,
    limit::{Charge, Decision, LimitRequest, Limiter},
};

use super::run_cases;
use crate::at;

/// Runs the suite for limiters: exact counts, also at the same time, refusals that count nothing, windows, and random requests
/// that are compared with a simple model.
///
/// The limiter must use the instant of the request, not a clock of its own, and must have room for a few thousand subjects.
///
/// ```
/// use tollgate::limit::MemoryLimiter;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // In a test of its own, with your limiter in place of `MemoryLimiter`:
/// tollgate_testing::suite::limiter(async || MemoryLimiter::new()).await;
/// # }
/// ```
///
/// # Panics
/// If the limiter does not conform.
pub async fn limiter<L: Limiter>(open: impl AsyncFn() -> L) {
    run_cases!(
        "limiter",
        async { Arc::new(open().await) },
        [
            as_many_requests_pass_as_the_quota_says,
            concurrent_requests_are_counted_exactly,
            concurrent_requests_of_one_tenant_are_counted_exactly,
            a_refusal_by_one_window_counts_in_no_other,
            a_refusal_by_one_policy_counts_in_no_other,
            policies_subjects_windows_and_algorithms_are_counted_apart,
            a_changed_quota_keeps_the_count,
            a_cost_needs_room_for_all_of_it,
            a_peek_counts_nothing,
            a_deferred_cost_is_settled_even_beyond_the_limit,
            a_settlement_is_counted_even_if_its_answer_is_dropped,
            a_late_request_counts_in_the_newer_window,
            weeks_and_months_are_counted_from_their_first_day,
            counts_and_times_may_exceed_32_bits,
            a_request_without_charges_is_allowed,
            model::random_requests_are_decided_as_by_the_model,
        ]
    );
}

async fn acquire(limiter: &Arc<impl Limiter>, charges: &[Charge<'_>], second: u64) -> Decision {
    match limiter.acquire(&LimitRequest::new(charges, at(second))).await {
        Ok(decision) => decision,
        Err(error) => panic!("a request was not decided: {error:#}"),
    }
}

/// Whether a request of cost 1 is allowed.
async fn is_allowed(limiter: &Arc<impl Limiter>, subject: &str, quota: &Quota, second: u64) -> bool {
    acquire(limiter, &[Charge::new("key", subject, subject, quota)], second).await.is_allowed()
}

/// How many of 10 requests are allowed.
async fn allowed_of_10(limiter: &Arc<impl Limiter>, subject: &str, quota: &Quota, second: u64) -> usize {
    let mut allowed = 0;
    for _ in 0..10 {
        allowed += usize::from(is_allowed(limiter, subject, quota, second).await);
    }
    allowed
}

fn used(decision: &Decision) -> Vec<u64> {
    decision.windows().iter().map(|window| window.used).collect()
}

async fn as_many_requests_pass_as_the_quota_says(limiter: &Arc<impl Limiter>) {
    for (name, quota) in [
        ("a fixed window", 3.per_minute()),
        ("a sliding window", 3.per_minute().sliding()),
        ("a token bucket", 1.per_minute().with_burst(3)),
        ("three windows", 3.per_minute().and(100.per_hour()).and(1_000.per_day())),
    ] {
        assert_eq!(allowed_of_10(limiter, name, &quota, 0).await, 3, "{name}");
    }
    let quota = 3.per_minute();
    assert_eq!(allowed_of_10(limiter, "a fixed window", &quota, 59).await, 0, "within the minute");
    assert_eq!(allowed_of_10(limiter, "a fixed window", &quota, 60).await, 3, "in the next minute");
    assert_eq!(allowed_of_10(limiter, "nothing", &0.per_minute(), 0).await, 0, "a quota of 0");
    assert_eq!(allowed_of_10(limiter, "unlimited", &Quota::unlimited(), 0).await, 10, "an unlimited quota");
}

/// How many requests pass of 20 tasks with 50 requests each.
async fn allowed_of_1_000(
    limiter: &Arc<impl Limiter>,
    request: impl Fn(usize) -> (String, Vec<(&'static str, Quota)>),
) -> usize {
    let tasks: Vec<_> = (0..20)
        .map(|task| {
            let limiter = Arc::clone(limiter);
            let requests: Vec<_> = (0..50).map(|number| request(task * 50 + number)).collect();
            tokio::spawn(async move {
                let mut allowed = 0;
                for (key, policies) in requests {
                    let charges: Vec<_> = policies
                        .iter()
                        .map(|(policy, quota)| {
                            let subject = if *policy == "key" { &*key } else { "acme" };
                            Charge::new(*policy, subject, "acme", quota)
                        })
                        .collect();
                    allowed += usize::from(acquire(&limiter, &charges, 0).await.is_allowed());
                    tokio::task::yield_now().await;
                }
                allowed
            })
        })
        .collect();
    let mut allowed = 0;
    for task in tasks {
        allowed += task.await.unwrap();
    }
    allowed
}

async fn concurrent_requests_are_counted_exactly(limiter: &Arc<impl Limiter>) {
    let quota = 300.per_minute().and(10_000.per_hour()).and(400.per_day().sliding());
    let allowed = allowed_of_1_000(limiter, |_| ("ada".into(), vec![("key", quota.clone())])).await;
    assert_eq!(allowed, 300, "of 1,000 concurrent requests on a quota of 300");
    let peek = [Charge::new("key", "ada", "acme", &quota).with_cost(0)];
    assert_eq!(
        used(&acquire(limiter, &peek, 0).await),
        [300, 300, 300],
        "every window has counted each of them"
    );
}

async fn concurrent_requests_of_one_tenant_are_counted_exactly(limiter: &Arc<impl Limiter>) {
    let policies = || vec![("key", 100.per_minute()), ("tenant", 300.per_minute())];
    let allowed = allowed_of_1_000(limiter, |number| (format!("key{}", number % 4), policies())).await;
    assert_eq!(allowed, 300, "of 1,000 concurrent requests of four keys with 100 each, whose tenant has 300");
}

async fn a_refusal_by_one_window_counts_in_no_other(limiter: &Arc<impl Limiter>) {
    let quota = 2.per_minute().and(5.per_hour());
    let mut allowed = Vec::new();
    for minute in 0..4 {
        allowed.push(allowed_of_10(limiter, "ada", &quota, minute * 60).await);
    }
    assert_eq!(allowed, [2, 2, 1, 0], "five in the hour, although eight were refused in each minute");
}

async fn a_refusal_by_one_policy_counts_in_no_other(limiter: &Arc<impl Limiter>) {
    let (of_key, of_tenant) = (3.per_hour(), 4.per_minute());
    let allowed = async |key: &str, second: u64| {
        let charges =
            [Charge::new("key", key, "acme", &of_key), Charge::new("tenant", "acme", "acme", &of_tenant)];
        let mut allowed = 0;
        for _ in 0..10 {
            allowed += usize::from(acquire(limiter, &charges, second).await.is_allowed());
        }
        allowed
    };
    assert_eq!(allowed("ada", 0).await, 3, "the quota of the key");
    assert_eq!(allowed("bob", 0).await, 1, "what the tenant has left");
    assert_eq!(allowed("bob", 60).await, 2, "the tenant's refusals counted nothing for the key");
}

async fn policies_subjects_windows_and_algorithms_are_counted_apart(limiter: &Arc<impl Limiter>) {
    let quotas = [2.per_minute(), 2.per_hour(), 2.per_minute().sliding(), 1.per_minute().with_burst(2)];
    for policy in ["key", "other"] {
        for subject in ["ada", "bob", "", "ada "] {
            for quota in &quotas {
                let charges = [Charge::new(policy, subject, "acme", quota)];
                let first = acquire(limiter, &charges, 0).await;
                assert_eq!(used(&first), [1], "policy {policy}, subject {subject:?}, {quota}");
            }
        }
    }
}

async fn a_changed_quota_keeps_the_count(limiter: &Arc<impl Limiter>) {
    assert_eq!(allowed_of_10(limiter, "ada", &2.per_minute(), 0).await, 2);
    assert_eq!(allowed_of_10(limiter, "ada", &5.per_minute(), 0).await, 3, "the rest of the higher quota");
    assert_eq!(allowed_of_10(limiter, "ada", &2.per_minute(), 0).await, 0, "the lower quota is used up");
    let both = 9.per_minute().and(9.per_hour());
    let decision = acquire(limiter, &[Charge::new("key", "ada", "ada", &both)], 0).await;
    assert_eq!(used(&decision), [6, 1], "the hour is new, and the minute has its count");
}

async fn a_cost_needs_room_for_all_of_it(limiter: &Arc<impl Limiter>) {
    let quota = 10.per_minute();
    let charge = |cost| [Charge::new("key", "ada", "ada", &quota).with_cost(cost)];
    for (cost, expected) in [(7, true), (4, false), (3, true), (1, false), (0, true)] {
        let decision = acquire(limiter, &charge(cost), 0).await;
        assert_eq!(decision.is_allowed(), expected, "a cost of {cost}");
    }
    assert!(!acquire(limiter, &charge(11), 60).await.is_allowed(), "a cost above the limit");
}

async fn a_peek_counts_nothing(limiter: &Arc<impl Limiter>) {
    let quota = 2.per_minute();
    let peek = [Charge::new("key", "ada", "ada", &quota).with_cost(0)];
    for _ in 0..5 {
        let decision = acquire(limiter, &peek, 0).await;
        assert_eq!((decision.is_allowed(), used(&decision)), (true, vec![0]));
    }
    assert_eq!(allowed_of_10(limiter, "ada", &quota, 0).await, 2);
    let decision = acquire(limiter, &peek, 0).await;
    assert_eq!(
        (decision.is_allowed(), used(&decision)),
        (true, vec![2]),
        "a peek at a quota that is used up"
    );
}

async fn a_deferred_cost_is_settled_even_beyond_the_limit(limiter: &Arc<impl Limiter>) {
    let quota = 10.per_minute();
    let charge = Charge::new("key", "ada", "ada", &quota);
    let admitted = acquire(limiter, &[charge.with_deferred_cost()], 0).await;
    assert_eq!((admitted.is_allowed(), used(&admitted)), (true, vec![0]), "admitted, and not counted yet");
    let settled = acquire(limiter, &[charge.settled(25)], 0).await;
    assert!(settled.is_allowed(), "a settlement is never refused");
    assert_eq!(used(&settled), [25]);
    let refused = acquire(limiter, &[charge.with_deferred_cost()], 0).await;
    assert!(!refused.is_allowed(), "nothing remains for the next request");
}

/// A body that ends may be dropped before an answer that comes later.
async fn a_settlement_is_counted_even_if_its_answer_is_dropped(limiter: &Arc<impl Limiter>) {
    let quota = 10.per_minute();
    let charge = Charge::new("key", "ada", "ada", &quota);
    drop(limiter.acquire(&LimitRequest::new(&[charge.settled(4)], at(0))));
    let peek = [charge.with_cost(0)];
    let counted = async {
        while used(&acquire(limiter, &peek, 0).await) != [4] {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    super::soon("a settlement is counted although its answer was dropped", counted).await;
}

async fn a_late_request_counts_in_the_newer_window(limiter: &Arc<impl Limiter>) {
    let quota = 3.per_minute();
    assert!(is_allowed(limiter, "ada", &quota, 60).await);
    assert!(is_allowed(limiter, "ada", &quota, 59).await, "a request whose instant is a second older");
    assert_eq!(allowed_of_10(limiter, "ada", &quota, 60).await, 1, "it was counted in the newer window");
}

async fn weeks_and_months_are_counted_from_their_first_day(limiter: &Arc<impl Limiter>) {
    let midnight = LimitRequest::new(&[], at(0)).second();
    for (name, quota) in
        [("week", 3.per_week()), ("month", 3.per_month()), ("from the 31st", 3.per_month_from(31))]
    {
        let window = quota.limits()[0].window;
        let mut begins_at = midnight;
        for _ in 0..4 {
            let ends_at = window.end_after(begins_at);
            let (first, last) = (begins_at - midnight, ends_at - 1 - midnight);
            assert_eq!(allowed_of_10(limiter, name, &quota, first).await, 3, "{name}, its first second");
            assert_eq!(allowed_of_10(limiter, name, &quota, last).await, 0, "{name}, its last second");
            begins_at = ends_at;
        }
    }
}

async fn counts_and_times_may_exceed_32_bits(limiter: &Arc<impl Limiter>) {
    let quota = (u64::MAX / 2).per_minute().and((u64::MAX / 2).per_day());
    let (mut sum, max) = (0, u64::from(u32::MAX));
    for cost in [max - 1, 1, 1, max, 1 << 40] {
        sum += cost;
        let decision = acquire(limiter, &[Charge::new("key", "ada", "ada", &quota).with_cost(cost)], 0).await;
        assert_eq!(used(&decision), [sum, sum]);
    }
    // In the year 2105 and after it, and in 36812.
    for second in [2_500_000_000, 2_500_000_061, 1 << 40] {
        assert_eq!(allowed_of_10(limiter, "bob", &2.per_minute(), second).await, 2, "in second {second}");
    }
}

async fn a_request_without_charges_is_allowed(limiter: &Arc<impl Limiter>) {
    assert!(acquire(limiter, &[], 0).await.is_allowed());
}
