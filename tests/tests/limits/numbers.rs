//! The rate-limit values that callers see: on which responses, and one value each.

use http::StatusCode;
use tests::suite::{Inner, at, erase, get, send};
use tollgate::{
    DenialKind, EntitlementLayer, PerWindow as _, Policy, Quota, RateLimitLayer, RequestContext,
    RequestIdLayer, ScopeLayer, Tollgate,
    clock::ManualClock,
    limit::{Cost, RateLimitHeaders, Subject},
    scope,
};
use tower::{Layer as _, layer::layer_fn};

use crate::{Honest, behind, from, numbers, passing};

fn limit(clock: &ManualClock, name: &'static str, quota: Quota) -> RateLimitLayer {
    RateLimitLayer::from_policies([Policy::new(name, quota)]).unwrap().with_clock(clock.clone())
}

#[tokio::test]
async fn stacked_limits_write_one_value_for_each_header() {
    // (outer, inner), and then the values of the first, second and third response.
    let tight_inside = (9.per_hour(), 2.per_minute());
    let tight_outside = (2.per_minute(), 9.per_hour());
    let tight_one = |remaining| (200, Some(2), Some(remaining), Some(60), None);
    let refused = (429, Some(2), Some(0), Some(60), Some(60));
    for (outer, inner) in [tight_inside, tight_outside] {
        let clock = ManualClock::at(at(0));
        let both = (limit(&clock, "outer", outer.clone()), limit(&clock, "inner", inner.clone()));
        let mut stack = behind(&clock, both);
        for expected in [tight_one(1), tight_one(0), refused, refused] {
            let reply = send(&mut stack, from("ada")).await;
            assert_eq!(numbers(&reply), expected, "{outer} around {inner}");
            let all = reply.header("x-ratelimit-remaining");
            assert!(!all.contains([',', '|']), "one value: {all}");
        }
    }
}

#[tokio::test]
async fn three_stacked_limits_with_the_tightest_in_the_middle() {
    let clock = ManualClock::at(at(0));
    let three = (
        limit(&clock, "a", 9.per_hour()),
        limit(&clock, "b", 1.per_minute()),
        limit(&clock, "c", 5.per_day()),
    );
    let mut stack = behind(&clock, three);
    assert_eq!(numbers(&send(&mut stack, from("ada")).await), (200, Some(1), Some(0), Some(60), None));
    let refused = send(&mut stack, from("ada")).await;
    assert_eq!(numbers(&refused), (429, Some(1), Some(0), Some(60), Some(60)));
}

#[tokio::test]
async fn a_limit_that_does_not_apply_leaves_the_headers_unchanged() {
    let clock = ManualClock::at(at(0));
    let not_applicable = || Policy::new("none", 0.per_minute()).with_subject(Subject::custom(|_, _| None));
    for layers in [
        [vec![not_applicable()], vec![Policy::new("key", 3.per_minute())]],
        [vec![Policy::new("key", 3.per_minute())], vec![not_applicable()]],
    ] {
        let [outer, inner] =
            layers.map(|policies| RateLimitLayer::from_policies(policies).unwrap().with_clock(clock.clone()));
        let mut stack = behind(&clock, (outer, inner));
        assert_eq!(numbers(&send(&mut stack, from("ada")).await), (200, Some(3), Some(2), Some(60), None));
    }
}

#[tokio::test]
async fn an_unlimited_quota_has_no_rate_limit_values() {
    let clock = ManualClock::at(at(0));
    let policy = Policy::new("key", 1.per_minute()).with_tier("gold", Quota::unlimited());
    let mut stack =
        behind(&clock, RateLimitLayer::from_policies([policy]).unwrap().with_clock(clock.clone()));
    assert_eq!(passing(&mut stack, "ada.gold", 50).await, 50);
    assert_eq!(numbers(&send(&mut stack, from("ada.gold")).await), (200, None, None, None, None));
}

#[tokio::test]
async fn refusals_by_inner_layers_have_the_rate_limit_values_and_were_counted() {
    let clock = ManualClock::at(at(0));
    for (layers, kind) in [(0, DenialKind::ScopeMissing), (1, DenialKind::EntitlementInactive)] {
        let limit = limit(&clock, "key", 2.per_minute());
        let mut stack = match layers {
            0 => behind(&clock, (limit, ScopeLayer::new(scope("read")).unwrap().with_clock(clock.clone()))),
            _ => behind(&clock, (limit, EntitlementLayer::new().with_clock(clock.clone()))),
        };
        for expected in [
            (403, Some(2), Some(1), Some(60), None),
            (403, Some(2), Some(0), Some(60), None),
            (429, Some(2), Some(0), Some(60), Some(60)),
        ] {
            let reply = send(&mut stack, from("ada")).await;
            assert_eq!(numbers(&reply), expected);
            assert_eq!(reply.kind(), Some(if expected.0 == 403 { kind } else { DenialKind::RateLimited }));
        }
    }
}

#[tokio::test]
async fn the_built_stack_shows_rate_limit_values_only_to_their_owner() {
    let clock = ManualClock::at(at(0));
    let tollgate = Tollgate::builder()
        .verify(Honest)
        .rate_limit(2.per_minute())
        .scope(scope("read"))
        .clock(clock)
        .build()
        .unwrap();
    let mut stack = erase(tollgate.layer(Inner::new()));
    for bad in
        [get("/", &[]), get("/", &[("x-api-key", "")]), get("/", &[("x-api-key", "a"), ("x-api-key", "b")])]
    {
        let reply = send(&mut stack, bad).await;
        assert!(matches!(reply.status(), StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST));
        let (_, limit, remaining, reset, _) = numbers(&reply);
        assert_eq!((limit, remaining, reset), (None, None, None));
    }
    assert_eq!(numbers(&send(&mut stack, from("ada")).await), (403, Some(2), Some(1), Some(60), None));
}

#[tokio::test]
async fn rate_limit_values_of_an_upstream_are_replaced() {
    let clock = ManualClock::at(at(0));
    let upstream = layer_fn(|_: Inner| {
        Inner::answering(|_| {
            let builder =
                http::Response::builder().header("x-ratelimit-limit", "1").header("x-ratelimit-limit", "2");
            Ok(builder.body(String::new()).unwrap())
        })
    });
    let mut stack = behind(&clock, (limit(&clock, "key", 9.per_minute()), upstream));
    assert_eq!(numbers(&send(&mut stack, from("ada")).await), (200, Some(9), Some(8), Some(60), None));
}

#[tokio::test]
async fn the_inner_service_finds_the_decision_of_the_innermost_limit() {
    let clock = ManualClock::at(at(0));
    let inner = Inner::answering(|request| {
        let decision = RequestContext::of(request.extensions()).and_then(RequestContext::decision).unwrap();
        let names: Vec<_> = decision.windows().iter().map(|window| window.policy.as_str()).collect();
        Ok(http::Response::new(names.join(" ")))
    });
    let both = (limit(&clock, "outer", 9.per_minute()), limit(&clock, "inner", 9.per_hour()));
    let mut stack = behind(&clock, (RequestIdLayer::new(), both, layer_fn(move |_: Inner| inner.clone())));
    assert_eq!(send(&mut stack, from("ada")).await.body(), "inner");
}

/// Once both were taken for one: the sliding window's numbers stood in the place of the other's, its own stayed as they were.
#[tokio::test]
async fn the_cost_of_a_response_is_shown_for_each_of_two_limits_for_one_window() {
    let clock = ManualClock::at(at(0));
    let policy = Policy::new(tollgate::limit::DEFAULT_POLICY, 9.per_minute().and(5.per_minute().sliding()))
        .with_cost(Cost::by_response(|_| 2));
    let layer = RateLimitLayer::from_policies([policy])
        .unwrap()
        .with_headers(RateLimitHeaders::none().with_ietf_draft_10())
        .with_clock(clock.clone());
    let mut stack = behind(&clock, layer);
    let reply = send(&mut stack, from("ada")).await;
    assert_eq!(reply.header("ratelimit-policy"), r#""minute";q=9;w=60, "minute-2";q=5;w=60"#);
    assert_eq!(reply.header("ratelimit"), r#""minute";r=7;t=60, "minute-2";r=3;t=120"#);
}
