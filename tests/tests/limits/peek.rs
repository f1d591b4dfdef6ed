//! A principal's current limits, read without a request.

use http::StatusCode;
use tests::{
    hosts::How,
    suite::{Backend, Inner, SlowLimiter, at, limit_by_key, send},
};
use tollgate::{
    ClientAddress, PerWindow as _, Plan, Policy, Principal, Quota, RateLimitLayer,
    clock::ManualClock,
    limit::{Cost, Decision, Subject, Window},
    manage::KeyDetails,
    store::EndSignal,
};

use crate::{behind, from, guarding, midnight, numbers};

/// The key of the caller `ada@acme.pro`, and what else it may have.
fn details(id: &str, tenant: Option<&str>, tier: Option<&str>, own: Option<Quota>) -> KeyDetails {
    let mut details = KeyDetails::new(id, "a key", at(0));
    details.tenant = tenant.map(Into::into);
    details.plan = tier.map(Plan::active);
    details.quotas = own.into_iter().map(|quota| (tollgate::limit::DEFAULT_POLICY.into(), quota)).collect();
    details
}

async fn peek(limit: &RateLimitLayer, key: &KeyDetails, seconds: u64) -> Decision {
    limit.peek(key.to_principal(EndSignal::new()), at(seconds)).await.unwrap()
}

/// Limit, remaining and reset, as a response would show them.
fn shown(decision: &Decision) -> (Option<u64>, Option<u64>, Option<u64>) {
    let window = decision.tightest();
    let number = |of: fn(&tollgate::limit::WindowState) -> u64| window.map(of);
    let reset = number(|window| window.reset_second).map(|reset| reset - midnight());
    (number(|window| window.limit), number(tollgate::limit::WindowState::remaining), reset)
}

fn by_key(quota: Quota) -> Policy {
    Policy::new(tollgate::limit::DEFAULT_POLICY, quota)
}

#[tokio::test]
async fn shows_what_the_headers_of_the_last_response_show() {
    let limits: [fn() -> Vec<Policy>; 6] = [
        || vec![by_key(5.per_minute().and(7.per_hour()))],
        || vec![by_key(5.per_minute().sliding())],
        || vec![by_key(2.per_second().with_burst(6))],
        || vec![by_key(5.per_minute()).with_tier("pro", 50.per_minute().and(70.per_hour()))],
        || {
            vec![
                by_key(9.per_minute()),
                Policy::new("organization", 4.per_hour()).with_subject(Subject::Tenant),
            ]
        },
        || {
            vec![
                by_key(90.per_minute()).with_cost(3),
                Policy::new("of ten", 40.per_day()).with_cost(Cost::units(10)),
            ]
        },
    ];
    let callers = [
        ("ada@acme.pro+6", details("ada", Some("acme"), Some("pro"), Some(6.per_minute()))),
        ("bob@acme.pro", details("bob", Some("acme"), Some("pro"), None)),
        ("cyd@acme", details("cyd", Some("acme"), None, None)),
        ("dan", details("dan", None, None, None)),
    ];
    for (policies, how) in limits.iter().flat_map(|policies| How::BOTH.map(|how| (policies, how))) {
        let clock = ManualClock::at(at(30));
        let limit = RateLimitLayer::from_policies(policies()).unwrap();
        let mut stack = guarding(how, &clock, limit.clone(), Inner::new());
        for seconds in [30, 31, 40, 61] {
            clock.set(at(seconds));
            for (caller, key) in &callers {
                let reply = send(&mut stack, from(caller)).await;
                if reply.status() != StatusCode::OK {
                    continue;
                }
                let (_, limited, remaining, reset, _) = numbers(&reply);
                let decision = peek(&limit, key, seconds).await;
                assert_eq!(shown(&decision), (limited, remaining, reset), "{caller} at {seconds}: {limit:?}");
                assert_eq!(peek(&limit, key, seconds).await, decision, "a peek counts nothing");
            }
        }
    }
}

#[tokio::test]
async fn shows_used_up_limits_and_those_of_a_new_principal() {
    let clock = ManualClock::at(at(0));
    let limit = RateLimitLayer::new(2.per_minute());
    let mut stack = behind(&clock, limit.clone());
    for _ in 0..5 {
        send(&mut stack, from("ada")).await;
    }
    let ada = peek(&limit, &details("ada", None, None, None), 0).await;
    assert_eq!((ada.is_allowed(), shown(&ada)), (true, (Some(2), Some(0), Some(60))));
    let bob = peek(&limit, &details("bob", None, None, None), 0).await;
    assert_eq!(shown(&bob), (Some(2), Some(2), Some(60)));
    let tomorrow = peek(&limit, &details("ada", None, None, None), 86_400).await;
    assert_eq!(shown(&tomorrow), (Some(2), Some(2), Some(86_460)));
}

#[tokio::test]
async fn omits_limits_that_depend_on_the_request() {
    let slow_for_bulk = |head: tollgate::request::RequestHead<'_>, _: Option<&Principal>| {
        head.uri.path().starts_with("/bulk").then(|| 1.per_minute())
    };
    let limit = RateLimitLayer::from_policies([
        by_key(5.per_minute()).with_quota_by(slow_for_bulk),
        Policy::new("organization", 4.per_hour()).with_subject(Subject::Tenant),
        Policy::new("address", 3.per_hour()).with_subject(Subject::Address(ClientAddress::of_peer(|_| None))),
        Policy::new("shared", 2.per_hour()).with_subject(Subject::custom(|_, _| Some("all".into()))),
    ])
    .unwrap();
    let names = |decision: &Decision| -> Vec<_> {
        decision.windows().iter().map(|window| (window.policy.as_str(), window.window)).collect()
    };
    let ada = details("ada", Some("acme"), None, None);
    assert_eq!(names(&peek(&limit, &ada, 0).await), [("organization", Window::HOUR)]);

    let own = details("ada", Some("acme"), None, Some(9.per_day()));
    let expected = [(tollgate::limit::DEFAULT_POLICY, Window::DAY), ("organization", Window::HOUR)];
    assert_eq!(
        names(&peek(&limit, &own, 0).await),
        expected,
        "no function is asked about a quota of one's own"
    );

    let all = RateLimitLayer::from_policies([
        Policy::new("shared", 2.per_hour()).with_subject(Subject::custom(|_, _| Some("all".into())))
    ])
    .unwrap();
    assert_eq!(peek(&all, &ada, 0).await.tightest(), None);
}

#[tokio::test]
async fn is_unavailable_if_the_counters_cannot_be_reached() {
    let limit = limit_by_key(2.per_minute(), SlowLimiter::new(&Backend::down()));
    assert!(limit.peek(Principal::new("ada"), at(0)).await.is_err());
}
