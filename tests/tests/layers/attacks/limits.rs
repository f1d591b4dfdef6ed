//! A caller cannot use up another's quota, keep the quota of a lapsed plan, or exhaust memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::FutureExt as _;
use http::StatusCode;
use tests::suite::{Directory, Inner, at, erase, limit_by_key, send, with_key};
use tollgate::{
    DenialKind, EntitlementLayer, PerWindow as _, Plan, Policy, Principal, Quota, RateLimitLayer, Tollgate,
    clock::ManualClock,
    limit::{Charge, Decision, LimitRequest, Limiter as _, MemoryLimiter, Subject, Window},
    request::RequestId,
    verify::entitlements_sync_fn,
};
use tower::Layer as _;

use super::Keys;

/// The decision of the in-process limiter, which never waits.
fn decide(limiter: &MemoryLimiter, request: &LimitRequest<'_>) -> Decision {
    limiter.acquire(request).into_future().now_or_never().unwrap().unwrap()
}

fn is_allowed(limiter: &MemoryLimiter, subject: &str, quota: &Quota, now: SystemTime) -> bool {
    decide(limiter, &LimitRequest::new(&[Charge::new("key", subject, subject, quota)], now)).is_allowed()
}

/// The attacker has a key without a tenant, whose ID is the name of another tenant, and uses up that tenant's quota.
#[tokio::test]
async fn a_key_without_a_tenant_does_not_count_for_a_tenant_with_its_id() {
    expect_separate_quotas("acme", "acme").await;
}

/// The same attack on a tenant whose name equals the counter name of such a key.
#[tokio::test]
async fn a_key_without_a_tenant_does_not_count_for_a_tenant_with_its_counter_name() {
    expect_separate_quotas("acme", "key:acme").await;
}

/// The same attack on a tenant whose name begins with the NUL character, as the names of such counters did.
#[tokio::test]
async fn a_key_without_a_tenant_does_not_count_for_a_tenant_that_begins_with_nul() {
    for tenant in ["\0acme", "\0kacme", "\0\0acme", "\0tacme"] {
        for key in ["acme", "kacme", "\0acme", "tacme", "tkacme"] {
            expect_separate_quotas(key, tenant).await;
        }
    }
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
    assert_eq!(reply.status(), StatusCode::OK, "another caller has used up the quota of {victims_tenant}");
}

/// The billing system has no plan for the attacker, and says so by an empty name.
#[tokio::test]
async fn an_empty_plan_name_is_no_plan() {
    let nothing = Principal::new("ada").with_plan(Plan::active(""));
    assert!(nothing.plan().is_none(), "{nothing:?}");
    let looked_up = entitlements_sync_fn(|_: &Principal| Ok(Some(Plan::active(" "))));
    let directory = Directory::default().with("nothing", nothing);
    let builder = Tollgate::builder().verify(directory).entitlement(EntitlementLayer::new());
    for builder in [builder.clone(), builder.plan(looked_up)] {
        let mut stack = erase(builder.build().unwrap().layer(Inner::new()));
        let reply = send(&mut stack, with_key("nothing")).await;
        assert_eq!(reply.kind(), Some(DenialKind::EntitlementInactive));
    }
}

/// The attacker stops paying, and keeps calling at the rate of the paid tier.
#[tokio::test]
async fn a_lapsed_plan_loses_the_quota_of_its_tier() {
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

/// The attacker calls once with very many subjects. Their memory must be freed even if only a few callers remain.
#[test]
fn memory_is_freed_after_a_flood_even_if_few_callers_remain() {
    let (limiter, quota) = (MemoryLimiter::new(), 5.per_minute());
    for number in 0..20_000 {
        assert!(is_allowed(&limiter, &format!("flood{number}"), &quota, at(0)));
    }
    // Gradually: over as many requests as the flood had.
    for minute in 1..=20_000 / 4 {
        for number in 0..4 {
            assert!(is_allowed(&limiter, &format!("calm{number}"), &quota, at(minute * 60)));
        }
    }
    assert!(limiter.subjects() < 1_000, "{} subjects remain", limiter.subjects());
}

/// The attacker sends many new subjects with instants some seconds in the past, so that the limiter takes the newer counters of
/// all others for outdated ones and drops them.
#[test]
fn a_flood_of_late_requests_drops_no_other_counters() {
    let (limiter, quota) = (MemoryLimiter::new(), 1.per_second());
    let (now, late) = (at(20), at(10));
    let victims: Vec<_> = (0..1_000).map(|number| format!("victim{number}")).collect();
    assert!(victims.iter().all(|victim| is_allowed(&limiter, victim, &quota, now)));
    for number in 0..2_000 {
        is_allowed(&limiter, &format!("late{number}"), &quota, late);
    }
    let again = victims.iter().filter(|victim| is_allowed(&limiter, victim, &quota, now)).count();
    assert_eq!(again, 0, "requests of 1,000 that passed a quota of one twice");
}

/// The attacker uses extreme times, quotas and costs to cause an overflow.
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
                let never_fits = cost > tightest.limit;
                assert_eq!(
                    decision.retry_after().is_some(),
                    !decision.is_allowed() && !never_fits,
                    "{quota} {cost}"
                );
                let refreshed = decision.clone().refreshed_by(&decision);
                assert_eq!(refreshed, decision);
                tightest.resets_at();
                RequestId::generate(now);
            }
        }
    }
}

/// Many threads charge two groups of counters at once, in either order, to cause a deadlock or one request too many.
#[test]
fn charges_to_two_groups_in_either_order_neither_deadlock_nor_exceed_the_limit() {
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

/// The attacker floods the stack with keys that were never issued.
#[tokio::test]
async fn unknown_keys_take_no_memory() {
    let (keys, limiter) = (Keys::new(), Arc::new(MemoryLimiter::new()));
    let good = keys.issue(Principal::new("ada"));
    let stack = Tollgate::builder()
        .verify(keys.verifier())
        .rate_limit(limit_by_key(9.per_day(), Arc::clone(&limiter)))
        .build()
        .unwrap();
    let mut stack = erase(stack.layer(Inner::new()));
    for _ in 0..10_000 {
        assert_eq!(send(&mut stack, with_key(&keys.invent())).await.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(limiter.subjects(), 0);
    assert_eq!(format!("{:?}", keys.store), "MemoryKeys { keys: 1 }");
    assert_eq!(send(&mut stack, with_key(&good)).await.status(), StatusCode::OK);
    assert_eq!(limiter.subjects(), 1, "only the valid key has a counter");
}

/// A token bucket that takes more than 500 years to fill once never became empty.
#[test]
fn a_token_bucket_of_any_size_becomes_empty() {
    let limiter = MemoryLimiter::new();
    let quota = 1.per_day().with_burst(300_000);
    let charge = [Charge::new("key", "ada", "ada", &quota).with_cost(1_000)];
    let ask = || {
        limiter
            .acquire(&LimitRequest::new(&charge, at(0)))
            .into_future()
            .now_or_never()
            .unwrap()
            .unwrap()
            .is_allowed()
    };
    assert!((0..400).filter(|_| ask()).count() <= 300);
}
