//! Nobody uses up another's quota, keeps what they no longer pay for, or fills the memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::FutureExt as _;
use http::StatusCode;
use tests::suite::{Directory, Inner, at, erase, send, with_key};
use tollgate::{
    PerWindow as _, Plan, Policy, Principal, Quota, RateLimitLayer, Tollgate,
    clock::ManualClock,
    limit::{Charge, Decision, LimitRequest, Limiter as _, MemoryLimiter, Subject, Window},
    request::RequestId,
};
use tower::Layer as _;

use crate::Keys;

/// The decision of the in-process limiter, which is there at once.
fn decide(limiter: &MemoryLimiter, request: &LimitRequest<'_>) -> Decision {
    limiter.acquire(request).wait().now_or_never().unwrap().unwrap()
}

fn is_allowed(limiter: &MemoryLimiter, subject: &str, quota: &Quota, now: SystemTime) -> bool {
    decide(limiter, &LimitRequest::new(&[Charge::new("key", subject, subject, quota)], now)).is_allowed()
}

/// Chooses the name of somebody else's tenant as the identifier of a key without one, and uses up the tenant's quota.
#[tokio::test]
async fn a_key_without_a_tenant_counts_as_no_tenant_of_its_name() {
    expect_separate_quotas("acme", "acme").await;
}

/// The same, where the tenant is called what the counter of such a key is called.
#[tokio::test]
async fn a_key_without_a_tenant_counts_as_no_tenant_of_its_counters_name() {
    expect_separate_quotas("acme", "key:acme").await;
}

async fn expect_separate_quotas(attackers_key: &str, victims_tenant: &str) {
    let directory = Directory::default()
        .with("attacker", Principal::new(attackers_key))
        .with("victim", Principal::new("ada").with_tenant(victims_tenant));
    let policy = Policy::new("organization", 5.per_day()).with_subject(Subject::Tenant);
    let stack = Tollgate::builder()
        .verify(directory)
        .rate_limit(RateLimitLayer::from_policies([policy]).unwrap())
        .clock(ManualClock::at(at(0)))
        .build()
        .unwrap();
    let mut stack = erase(stack.layer(Inner::new()));
    for _ in 0..5 {
        assert_eq!(send(&mut stack, with_key("attacker")).await.status(), StatusCode::OK);
    }
    let reply = send(&mut stack, with_key("victim")).await;
    assert_eq!(reply.status(), StatusCode::OK, "a stranger has used up the quota of {victims_tenant}");
}

/// Stops paying, and goes on at the pace of the tier that was paid for.
#[tokio::test]
async fn a_lapsed_plan_has_no_tiers_quota() {
    let lapsed = Principal::new("ada").with_plan(Plan::lapsed("enterprise"));
    let policy = Policy::new("key", 1.per_day()).with_tier("enterprise", 1_000_000.per_day());
    let stack = Tollgate::builder()
        .verify(Directory::default().with("lapsed", lapsed))
        .rate_limit(RateLimitLayer::from_policies([policy]).unwrap())
        .clock(ManualClock::at(at(0)))
        .build()
        .unwrap();
    let mut stack = erase(stack.layer(Inner::new()));
    assert_eq!(send(&mut stack, with_key("lapsed")).await.header("x-ratelimit-limit"), "1");
    assert_eq!(send(&mut stack, with_key("lapsed")).await.status(), StatusCode::TOO_MANY_REQUESTS);
}

/// Calls once with very many subjects: what that took must not stay taken, though afterwards only a few call.
#[test]
fn a_flood_leaves_the_memory_again_though_few_callers_remain() {
    let (limiter, quota) = (MemoryLimiter::new(), 5.per_minute());
    for number in 0..20_000 {
        assert!(is_allowed(&limiter, &format!("flood{number}"), &quota, at(0)));
    }
    // By and by: for as many requests as the flood had.
    for minute in 1..=20_000 / 4 {
        for number in 0..4 {
            assert!(is_allowed(&limiter, &format!("calm{number}"), &quota, at(minute * 60)));
        }
    }
    assert!(limiter.subjects() < 1_000, "{} subjects are kept", limiter.subjects());
}

/// Comes with instants that are some seconds old and many new subjects, so that the limiter takes everybody else's
/// counters, which are younger, for outdated ones and drops them.
#[test]
fn a_flood_of_late_arrivals_drops_nobodys_counters() {
    let (limiter, quota) = (MemoryLimiter::new(), 1.per_second());
    let (now, late) = (at(20), at(10));
    let victims: Vec<_> = (0..1_000).map(|number| format!("victim{number}")).collect();
    assert!(victims.iter().all(|victim| is_allowed(&limiter, victim, &quota, now)));
    for number in 0..2_000 {
        is_allowed(&limiter, &format!("late{number}"), &quota, late);
    }
    let again = victims.iter().filter(|victim| is_allowed(&limiter, victim, &quota, now)).count();
    assert_eq!(again, 0, "so many of 1,000 have passed a quota of one twice");
}

/// Brings clocks, quotas and costs to their ends, in the hope of an overflow.
#[test]
fn no_extreme_of_time_quota_or_cost_panics() {
    let far = Duration::from_secs(i64::MAX.unsigned_abs());
    let latest = SystemTime::UNIX_EPOCH.checked_add(far).unwrap();
    let earliest = SystemTime::UNIX_EPOCH.checked_sub(far).unwrap();
    let limiter = MemoryLimiter::new();
    for quota in [
        u64::MAX.per_second(),
        Quota::new(1, Window::lasting(Duration::MAX)),
        0.per_day(),
        u64::MAX.per_day().sliding(),
        1.per(Window::lasting(Duration::MAX)).sliding(),
        u64::MAX.per_second().with_burst(u64::MAX),
        1.per(Window::lasting(Duration::MAX)).with_burst(u64::MAX),
        0.per_day().with_burst(5),
    ] {
        for now in [latest, earliest, SystemTime::UNIX_EPOCH, latest - Duration::from_nanos(1)] {
            for cost in [0, 1, u64::MAX] {
                let charges =
                    ["here", "there"].map(|group| Charge::new("key", "ada", group, &quota).with_cost(cost));
                let decision = decide(&limiter, &LimitRequest::new(&charges, now));
                let tightest = decision.tightest().unwrap();
                assert!(tightest.remaining() <= tightest.limit);
                assert_eq!(decision.retry_after().is_some(), !decision.is_allowed(), "{quota} {cost}");
                let refreshed = decision.clone().refreshed_by(&decision);
                assert_eq!(refreshed, decision);
                tightest.resets_at();
                RequestId::generate(now);
            }
        }
    }
}

/// Charges two groups of counters from many threads at once, in either order, in the hope of a deadlock or of one too many.
#[test]
fn charges_to_two_groups_in_either_order_neither_lock_up_nor_let_one_too_many_pass() {
    let (limiter, passed) = (MemoryLimiter::new(), AtomicUsize::new(0));
    let (minute, hour) = (1_000.per_minute(), 1_500.per_hour());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (limiter, passed, minute, hour) = (&limiter, &passed, &minute, &hour);
            scope.spawn(move || {
                let mut charges =
                    [Charge::new("key", "ada", "here", minute), Charge::new("all", "all", "there", hour)];
                if thread % 2 == 0 {
                    charges.reverse();
                }
                for _ in 0..1_000 {
                    let is_allowed = decide(limiter, &LimitRequest::new(&charges, at(0))).is_allowed();
                    passed.fetch_add(usize::from(is_allowed), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 1_000);
}

/// Floods the stack with keys that nobody has issued.
#[tokio::test]
async fn invented_keys_are_kept_nowhere() {
    let (keys, limiter) = (Keys::new(), Arc::new(MemoryLimiter::new()));
    let good = keys.issue(Principal::new("ada"));
    let stack = Tollgate::builder()
        .verify(keys.verifier())
        .rate_limit(RateLimitLayer::new(9.per_day()).with_limiter(Arc::clone(&limiter)))
        .build()
        .unwrap();
    let mut stack = erase(stack.layer(Inner::new()));
    for _ in 0..10_000 {
        assert_eq!(send(&mut stack, with_key(&keys.invent())).await.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(limiter.subjects(), 0);
    assert_eq!(format!("{:?}", keys.store), "MemoryKeys { keys: 1 }");
    assert_eq!(send(&mut stack, with_key(&good)).await.status(), StatusCode::OK);
    assert_eq!(limiter.subjects(), 1, "which is how a subject would show");
}
