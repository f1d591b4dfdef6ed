//! Of any number of requests as many pass as the quota says, and a refused one burns nothing.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::StatusCode;
use tests::suite::{at, get, is_ready_now, limit_by_key, send};
use tollgate::{
    DenialKind, PerWindow as _, Policy, RateLimitLayer,
    clock::ManualClock,
    limit::{Limiter, MemoryLimiter, Subject, Window},
};
use tower::Service as _;

use crate::{behind, from, numbers, passing};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_10_000_concurrent_requests_on_a_quota_of_1_000_exactly_1_000_pass() {
    let clock = ManualClock::at(at(0));
    let quota = 1_000.per_minute().and(50_000.per_hour()).and(70_000.per_day());
    let stack = behind(&clock, RateLimitLayer::new(quota).with_clock(clock.clone()));
    let remaining = all_at_once(&stack, |_| "ada".to_owned()).await;
    assert_eq!(remaining, (0..1_000).collect(), "every admitted request was counted by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_one_tenant_share_its_quota_exactly() {
    let clock = ManualClock::at(at(0));
    let policies = [
        Policy::new("key", 400.per_minute()),
        Policy::new("tenant", 1_000.per_minute()).with_subject(Subject::Tenant),
    ];
    let stack = behind(&clock, RateLimitLayer::from_policies(policies).unwrap().with_clock(clock.clone()));
    let (passed, refused) = tally(&stack, |at| format!("key{}@acme", at % 4)).await;
    assert_eq!((passed.len(), refused), (1_000, 9_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_that_many_tenants_share_has_one_counter() {
    let clock = ManualClock::at(at(0));
    let shared =
        Policy::new("shared", 1_000.per_minute()).with_subject(Subject::custom(|_, _| Some("all".into())));
    let policies = [Policy::new("key", 500.per_minute()), shared];
    let stack = behind(&clock, RateLimitLayer::from_policies(policies).unwrap().with_clock(clock.clone()));
    let (passed, refused) = tally(&stack, |at| format!("key{}@tenant{}", at % 100, at % 10)).await;
    assert_eq!((passed.len(), refused), (1_000, 9_000));
}

/// What remained for each of the requests that passed: 10,000 of them, all under way at once.
async fn all_at_once(stack: &tests::suite::Stack, caller: impl Fn(usize) -> String) -> BTreeSet<u64> {
    let (passed, refused) = tally(stack, caller).await;
    let distinct: BTreeSet<u64> = passed.iter().copied().collect();
    assert_eq!((passed.len(), distinct.len(), refused), (1_000, 1_000, 9_000));
    distinct
}

async fn tally(stack: &tests::suite::Stack, caller: impl Fn(usize) -> String) -> (Vec<u64>, usize) {
    let start = Arc::new(tokio::sync::Barrier::new(100));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..100 {
        let (mut stack, start) = (stack.clone(), Arc::clone(&start));
        let requests: Vec<_> = (0..100).map(|at| from(&caller(task * 100 + at))).collect();
        tasks.spawn(async move {
            start.wait().await;
            let mut replies = Vec::new();
            for request in requests {
                replies.push(send(&mut stack, request).await);
                tokio::task::yield_now().await;
            }
            replies
        });
    }
    let mut passed = Vec::new();
    let mut refused = 0;
    for reply in tasks.join_all().await.into_iter().flatten() {
        if reply.status() == StatusCode::OK {
            passed.extend(numbers(&reply).2);
        } else {
            assert_eq!(reply.kind(), Some(DenialKind::RateLimited));
            refused += 1;
        }
    }
    (passed, refused)
}

#[tokio::test]
async fn a_refusal_by_one_window_counts_in_no_other() {
    let clock = ManualClock::at(at(0));
    let quota = 2.per_minute().and(5.per_hour()).and(7.per_day());
    let mut stack = behind(&clock, RateLimitLayer::new(quota).with_clock(clock.clone()));
    // Were refusals counted, the hour would be used up in the first minute.
    let mut passed = Vec::new();
    for _ in 0..4 {
        passed.push(passing(&mut stack, "ada", 20).await);
        clock.advance(Window::MINUTE.length());
    }
    assert_eq!(passed, [2, 2, 1, 0], "five in the hour");
    clock.set(at(3_600));
    assert_eq!(passing(&mut stack, "ada", 20).await, 2, "seven in the day");
    clock.set(at(7_200));
    assert_eq!(passing(&mut stack, "ada", 20).await, 0);
    clock.set(at(86_400));
    assert_eq!(passing(&mut stack, "ada", 20).await, 2);
}

#[tokio::test]
async fn a_refusal_by_one_policy_counts_in_no_other() {
    let clock = ManualClock::at(at(0));
    let policies = [
        Policy::new("key", 3.per_hour()),
        Policy::new("tenant", 4.per_minute()).with_subject(Subject::Tenant),
    ];
    let mut stack =
        behind(&clock, RateLimitLayer::from_policies(policies).unwrap().with_clock(clock.clone()));
    assert_eq!(passing(&mut stack, "ada@acme", 10).await, 3, "the key's own quota");
    assert_eq!(passing(&mut stack, "bob@acme", 10).await, 1, "what the tenant has left");
    assert_eq!(passing(&mut stack, "cyd@other", 10).await, 3, "another tenant's key");
    clock.advance(Window::MINUTE.length());
    assert_eq!(
        passing(&mut stack, "bob@acme", 10).await,
        2,
        "the tenant's refusals burnt nothing of the key's"
    );
    assert_eq!(passing(&mut stack, "ada@acme", 10).await, 0);
}

#[tokio::test]
async fn an_upgrade_keeps_the_count_and_raises_the_limit() {
    let clock = ManualClock::at(at(0));
    let policy =
        Policy::new(tollgate::limit::DEFAULT_POLICY, 2.per_minute()).with_tier("pro", 5.per_minute());
    let mut stack =
        behind(&clock, RateLimitLayer::from_policies([policy]).unwrap().with_clock(clock.clone()));
    assert_eq!(passing(&mut stack, "ada.basic", 9).await, 2);
    let upgraded = send(&mut stack, from("ada.pro")).await;
    assert_eq!(numbers(&upgraded), (200, Some(5), Some(2), Some(60), None));
    assert_eq!(passing(&mut stack, "ada.pro", 9).await, 2);
    assert_eq!(passing(&mut stack, "ada.pro+7", 9).await, 2, "a quota of its own outranks the tier's");
    let downgraded = send(&mut stack, from("ada.basic")).await;
    assert_eq!(numbers(&downgraded), (429, Some(2), Some(0), Some(60), Some(60)));
}

#[tokio::test]
async fn a_principals_own_quota_replaces_that_of_one_policy() {
    let clock = ManualClock::at(at(0));
    let policies = [
        Policy::new(tollgate::limit::DEFAULT_POLICY, 1.per_minute()),
        Policy::new("tenant", 4.per_minute()).with_subject(Subject::Tenant),
    ];
    let mut stack =
        behind(&clock, RateLimitLayer::from_policies(policies).unwrap().with_clock(clock.clone()));
    assert_eq!(passing(&mut stack, "ada@acme+3", 9).await, 3);
    assert_eq!(passing(&mut stack, "bob@acme+3", 9).await, 1);
}

#[tokio::test]
async fn a_preflight_is_not_counted() {
    let clock = ManualClock::at(at(0));
    let mut stack = behind(&clock, RateLimitLayer::new(0.per_minute()).with_clock(clock.clone()));
    let mut preflight =
        get("/jobs", &[("origin", "https://a.example"), ("access-control-request-method", "POST")]);
    *preflight.method_mut() = http::Method::OPTIONS;
    let reply = send(&mut stack, preflight).await;
    assert_eq!(numbers(&reply), (200, None, None, None, None));
}

#[tokio::test]
async fn a_caller_cannot_avoid_a_quota_by_omitting_the_key() {
    let clock = ManualClock::at(at(0));
    let key = || Policy::new("key", 1.per_minute());
    let mut stack = behind(&clock, RateLimitLayer::from_policies([key()]).unwrap().with_clock(clock.clone()));
    let reply = send(&mut stack, get("/jobs", &[])).await;
    assert_eq!(reply.kind(), Some(DenialKind::Misconfigured), "no policy applies to callers without a key");
    assert_eq!(numbers(&reply), (500, None, None, None, None));

    let all = Subject::custom(|_, principal| principal.is_none().then_some("all".into()));
    let strangers = Policy::new("strangers", 2.per_minute()).with_subject(all);
    let limit = RateLimitLayer::from_policies([key(), strangers]).unwrap().with_clock(clock.clone());
    let mut stack = behind(&clock, limit);
    for expected in [(200, Some(1), None), (200, Some(0), None), (429, Some(0), Some(60))] {
        let (status, _, remaining, _, retry_after) = numbers(&send(&mut stack, get("/jobs", &[])).await);
        assert_eq!((status, remaining, retry_after), expected);
    }
    assert_eq!(passing(&mut stack, "ada", 9).await, 1, "a caller with a key is counted by the key");
}

#[tokio::test]
async fn services_of_one_layer_share_its_counters() {
    let clock = ManualClock::at(at(0));
    let layer = RateLimitLayer::new(3.per_minute()).with_clock(clock.clone());
    let mut stacks = [behind(&clock, layer.clone()), behind(&clock, layer.clone()), behind(&clock, layer)];
    let mut passed = 0;
    for round in 0..9 {
        let stack = &mut stacks[round % 3];
        passed += passing(&mut stack.clone(), "ada", 1).await;
    }
    assert_eq!(passed, 3);
}

#[tokio::test]
async fn a_request_that_is_dropped_before_it_is_polled_was_counted_once() {
    let clock = ManualClock::at(at(0));
    let mut stack = behind(&clock, RateLimitLayer::new(3.per_minute()).with_clock(clock.clone()));
    assert!(is_ready_now(&mut stack));
    drop(stack.call(from("ada")));
    assert_eq!(passing(&mut stack, "ada", 9).await, 2);
}

#[tokio::test]
async fn counters_of_past_windows_are_removed() {
    let clock = ManualClock::at(at(0));
    let limiter = Arc::new(MemoryLimiter::new());
    let layer = limit_by_key(5.per_minute(), Arc::clone(&limiter)).with_clock(clock.clone());
    let mut stack = behind(&clock, layer);
    for at in 0..20_000 {
        send(&mut stack, from(&format!("flood{at}"))).await;
    }
    assert_eq!(limiter.subjects(), 20_000, "all of them count at the moment");

    clock.advance(Duration::from_mins(1));
    for at in 0..20_000 {
        send(&mut stack, from(&format!("next{at}"))).await;
    }
    assert!(limiter.subjects() <= 40_000, "{}", limiter.subjects());
    for _ in 0..20 {
        clock.advance(Duration::from_mins(1));
        for at in 0..2_000 {
            send(&mut stack, from(&format!("calm{at}"))).await;
        }
        // New callers all the time, so that each shard meets its bound again and again.
        for at in 0..2_000 {
            send(&mut stack, from(&format!("other{at}"))).await;
        }
    }
    assert!(limiter.subjects() <= 20_000 + 4_000, "{}", limiter.subjects());
}

#[tokio::test]
async fn a_flood_of_new_subjects_in_every_window_stays_bounded() {
    let clock = ManualClock::at(at(0));
    let limiter = MemoryLimiter::new();
    let quota = 5.per_minute();
    let mut most = 0;
    for window in 0..50 {
        for subject in 0..2_000 {
            let subject = format!("{window}-{subject}");
            let charges = [tollgate::limit::Charge::new("key", &subject, &subject, &quota)];
            let request = tollgate::limit::LimitRequest::new(&charges, tollgate::clock::Clock::now(&clock));
            assert!(limiter.acquire(&request).await.unwrap().is_allowed());
        }
        most = most.max(limiter.subjects());
        clock.advance(Duration::from_mins(1));
    }
    assert!(most < 4 * 2_000, "{most} counters for 2,000 callers a minute");
}

/// Two layers that shared a limiter and had no names of their own counted each request twice in one counter.
#[test]
fn a_limiter_of_the_application_needs_a_policy_with_a_name() {
    let error =
        RateLimitLayer::new(5.per_minute()).with_limiter(MemoryLimiter::new()).unwrap_err().to_string();
    assert!(error.contains("\"default\"") && error.contains("name the policy"), "{error}");
}
