//! Costs that are known from the request, or only from its response: rate-limit values and refusals show them.

use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tests::{
    hosts::How,
    suite::{Failure, Inner, Log, at, is_pending, is_ready_now, send, try_send},
};
use tollgate::{
    DenialKind, PerWindow as _, Policy, Quota, RateLimitLayer, ScopeLayer,
    clock::ManualClock,
    layers::ReportOnly,
    limit::{Cost, DEFAULT_POLICY, RateLimitHeaders},
    scope,
};
use tower::{Service as _, layer::layer_fn, service_fn};

use crate::{asking, behind, from, guarding, numbers, passing};

/// A service that answers with the status at the end of the path, or else 200.
fn statuses() -> Inner {
    Inner::answering(|request| {
        let mut response = Response::new("inside".to_owned());
        let status = request.uri().path().rsplit('/').next().and_then(|status| status.parse().ok());
        *response.status_mut() = status.unwrap_or(StatusCode::OK);
        Ok(response)
    })
}

fn limit(quota: Quota, cost: Cost) -> RateLimitLayer {
    RateLimitLayer::from_policies([Policy::new(DEFAULT_POLICY, quota).with_cost(cost)]).unwrap()
}

/// Only failures count.
fn failures() -> Cost {
    Cost::by_response(|response| u64::from(response.status.is_client_error()))
}

#[tokio::test]
async fn each_request_is_charged_all_of_its_units_or_none() {
    for how in How::BOTH {
        let clock = ManualClock::at(at(0));
        let mut stack = guarding(how, &clock, limit(10.per_minute(), Cost::units(4)), Inner::new());
        for expected in [
            (200, Some(10), Some(6), Some(60), None),
            (200, Some(10), Some(2), Some(60), None),
            (429, Some(10), Some(0), Some(60), Some(60)),
            (429, Some(10), Some(0), Some(60), Some(60)),
        ] {
            assert_eq!(numbers(&send(&mut stack, from("ada")).await), expected, "{how:?}");
        }
        clock.set(at(60));
        assert_eq!(passing(&mut stack, "ada", 9).await, 2);
    }
}

/// `Retry-After` was the time until the window's end, also for a request that never fits.
#[tokio::test]
async fn a_request_that_never_fits_has_no_retry_after_and_the_log_says_why() {
    for (quota, limit_text) in
        [(60.per_minute(), "60 per minute"), (9.per_hour().with_burst(5), "5 per 2000 s")]
    {
        for how in How::BOTH {
            let clock = ManualClock::at(at(0));
            let cost = Cost::by_request(|head, _| if head.uri.path() == "/jobs/all" { 100 } else { 1 });
            let mut stack = guarding(how, &clock, limit(quota.clone(), cost), Inner::new());
            let log = Log::start();
            let (status, _, remaining, _, retry_after) =
                numbers(&send(&mut stack, asking("ada", "/jobs/all")).await);
            assert_eq!((status, remaining, retry_after), (429, Some(0), None), "{quota}");
            let entries = log.entries();
            let detail = entries[0].field("detail").unwrap();
            assert!(detail.contains("costs more than the policy \"default\" ever admits"), "{detail}");
            assert!(detail.contains(limit_text), "{detail}");
            assert_eq!(passing(&mut stack, "ada", 3).await, 3, "other requests fit");
        }
    }
}

#[tokio::test]
async fn a_limit_of_zero_means_never() {
    let clock = ManualClock::at(at(0));
    let mut stack = behind(&clock, RateLimitLayer::new(0.per_minute()).with_clock(clock.clone()));
    let log = Log::start();
    assert_eq!(numbers(&send(&mut stack, from("ada")).await), (429, Some(0), Some(0), Some(60), None));
    let entries = log.entries();
    assert!(entries[0].field("detail").unwrap().contains("its limit is 0 per minute"), "{entries:?}");
}

#[test]
fn a_fixed_cost_above_a_limit_is_a_configuration_error() {
    let policy = |quota: Quota| Policy::new("exports", quota).with_cost(100);
    for policy in [
        policy(60.per_minute()),
        policy(1_000.per_minute()).with_tier("basic", 1_000.per_day().and(99.per_hour())),
        policy(1_000.per_second().with_burst(99)),
    ] {
        let error = RateLimitLayer::from_policies([policy]).unwrap_err().to_string();
        assert!(error.contains("\"exports\"") && error.contains("cost of 100"), "{error}");
    }
    let never = policy(1_000.per_minute()).with_tier("none", 0.per_minute());
    assert!(RateLimitLayer::from_policies([never]).is_ok(), "a limit of 0 is meant");
}

/// 20 units remained of a limit of 60, and the refusal of a request that costs 40 said so: a caller that tests the header for 0
/// repeated the request without a pause.
#[tokio::test]
async fn a_caller_that_repeats_its_request_until_nothing_remains_is_refused_once() {
    let clock = ManualClock::at(at(0));
    let mut stack = guarding(How::Built, &clock, limit(60.per_minute(), Cost::units(40)), Inner::new());
    let mut statuses = Vec::new();
    loop {
        let (status, _, remaining, ..) = numbers(&send(&mut stack, from("ada")).await);
        statuses.push(status);
        if remaining == Some(0) || statuses.len() > 9 {
            break;
        }
    }
    assert_eq!(statuses, [200, 429]);
}

/// 500 kilobytes are less of a day's 1,048,576 than 40 requests are of 60.
#[tokio::test]
async fn shows_the_limit_with_the_smallest_remaining_share_if_units_differ() {
    let clock = ManualClock::at(at(0));
    let requests = || Policy::new("requests", 60.per_minute());
    let traffic = || {
        let kilobytes =
            Cost::by_request(|head, _| head.headers["x-kilobytes"].to_str().unwrap().parse().unwrap());
        Policy::new("traffic", 1_048_576.per_day()).with_cost(kilobytes)
    };
    let layer =
        |policies: Vec<Policy>| RateLimitLayer::from_policies(policies).unwrap().with_clock(clock.clone());
    let one_layer = behind(&clock, layer(vec![requests(), traffic()]));
    let outside = behind(&clock, (layer(vec![requests()]), layer(vec![traffic()])));
    let inside = behind(&clock, (layer(vec![traffic()]), layer(vec![requests()])));
    for mut stack in [one_layer, outside, inside] {
        for (kilobytes, expected) in [("1", (60, 59)), ("1048075", (1_048_576, 500))] {
            let request = tests::suite::get("/jobs", &[("x-api-key", "ada"), ("x-kilobytes", kilobytes)]);
            let (status, limit, remaining, ..) = numbers(&send(&mut stack, request).await);
            assert_eq!((status, limit.zip(remaining)), (200, Some(expected)));
        }
    }
}

#[tokio::test]
async fn a_request_without_cost_is_never_refused_and_never_counted() {
    for how in How::BOTH {
        let clock = ManualClock::at(at(0));
        let cost = Cost::by_request(|head, _| match head.uri.path() {
            "/jobs/search" => 7,
            "/jobs/usage" => 0,
            _ => 1,
        });
        let mut stack = guarding(how, &clock, limit(10.per_minute(), cost), Inner::new());
        for (path, status, remaining) in [
            ("/jobs/usage", 200, 10),
            ("/jobs/search", 200, 3),
            ("/jobs/search", 429, 0),
            ("/jobs/usage", 200, 3),
            ("/jobs", 200, 2),
            ("/jobs", 200, 1),
            ("/jobs", 200, 0),
            ("/jobs", 429, 0),
            ("/jobs/usage", 200, 0),
            ("/jobs/usage", 200, 0),
        ] {
            let retry_after = (status == 429).then_some(60);
            let expected = (status, Some(10), Some(remaining), Some(60), retry_after);
            assert_eq!(numbers(&send(&mut stack, asking("ada", path)).await), expected, "{how:?} {path}");
        }
    }
}

#[tokio::test]
async fn a_cost_may_depend_on_the_principal() {
    let clock = ManualClock::at(at(0));
    let cost = Cost::by_request(|_, principal| {
        u64::from(principal.is_none_or(|principal| principal.id() != "root"))
    });
    let limit = limit(1.per_minute(), cost).with_clock(clock.clone());
    let mut stack = behind(&clock, limit);
    assert_eq!(passing(&mut stack, "root", 9).await, 9);
    assert_eq!(passing(&mut stack, "ada", 9).await, 1);
}

#[tokio::test]
async fn only_failures_count_and_the_response_itself_shows_them() {
    for how in How::BOTH {
        let clock = ManualClock::at(at(0));
        let inner = statuses();
        let mut stack = guarding(how, &clock, limit(2.per_minute(), failures()), inner.clone());
        for (path, status, remaining) in [
            ("/jobs", 200, 2),
            ("/jobs/503", 503, 2),
            ("/jobs/404", 404, 1),
            ("/jobs", 200, 1),
            ("/jobs/400", 400, 0),
            ("/jobs", 429, 0),
            ("/jobs/404", 429, 0),
        ] {
            let reply = send(&mut stack, asking("ada", path)).await;
            let retry_after = (status == 429).then_some(60);
            let expected = (status, Some(2), Some(remaining), Some(60), retry_after);
            assert_eq!(numbers(&reply), expected, "{how:?} {path}");
        }
        assert_eq!(inner.calls(), 5);
        assert_eq!(
            passing(&mut stack, "bob", 1).await,
            1,
            "other callers are not charged for these failures"
        );
        clock.set(at(60));
        assert_eq!(passing(&mut stack, "ada", 9).await, 9);
    }
}

#[tokio::test]
async fn a_refusal_by_an_inner_layer_is_a_response_with_its_denial() {
    for how in How::BOTH {
        let clock = ManualClock::at(at(0));
        let cost = Cost::by_response(|response| match response.denial().map(tollgate::Denial::kind) {
            Some(DenialKind::RouteUnlisted) if response.status == StatusCode::NOT_FOUND => 3,
            Some(_) => 100,
            None => 0,
        });
        let mut stack = guarding(how, &clock, limit(5.per_minute(), cost), Inner::new());
        for (path, status, remaining) in
            [("/jobs", 200, 5), ("/elsewhere", 404, 2), ("/elsewhere", 404, 0), ("/elsewhere", 429, 0)]
        {
            let (got, _, left, ..) = numbers(&send(&mut stack, asking("ada", path)).await);
            assert_eq!((got, left), (status, Some(remaining)), "{how:?} {path}");
        }
    }
}

#[tokio::test]
async fn a_request_that_its_own_limit_refuses_costs_nothing() {
    for how in How::BOTH {
        let clock = ManualClock::at(at(0));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let cost = Cost::by_response(move |response| {
            seen.lock().unwrap().push(response.status.as_u16());
            1
        });
        let mut stack = guarding(how, &clock, limit(1.per_minute(), cost), Inner::new());
        assert_eq!(passing(&mut stack, "ada", 9).await, 1);
        assert_eq!(*asked.lock().unwrap(), [200], "{how:?}");
    }
}

#[tokio::test]
async fn an_error_and_a_dropped_response_cost_nothing() {
    let inner = service_fn(async |request: Request<String>| match request.uri().path() {
        "/jobs/error" => Err(Failure("the inner service's own error")),
        "/jobs/never" => pending().await,
        _ => Ok(Response::new("inside".to_owned())),
    });
    for how in How::BOTH {
        let clock = ManualClock::at(at(0));
        let mut stack = guarding(how, &clock, limit(2.per_minute(), Cost::by_response(|_| 1)), inner);
        assert!(try_send(&mut stack, asking("ada", "/jobs/error")).await.is_err());
        for polls in [0, 1] {
            assert!(is_ready_now(&mut stack));
            let mut response = stack.call(asking("ada", "/jobs/never"));
            assert!(polls == 0 || is_pending(Pin::new(&mut response)));
        }
        assert_eq!(numbers(&send(&mut stack, from("ada")).await).2, Some(1), "{how:?}");
    }
}

#[tokio::test]
async fn policies_of_one_layer_may_count_in_different_ways() {
    for how in How::BOTH {
        let clock = ManualClock::at(at(0));
        let layer = RateLimitLayer::from_policies([
            Policy::new("requests", 100.per_minute()),
            Policy::new("failures", 100.per_minute()).with_cost(failures()),
            Policy::new("traffic", 100.per_minute()).with_cost(Cost::by_body(|bytes| bytes)),
        ])
        .unwrap()
        .with_headers(RateLimitHeaders::none().with_ietf_draft_10());
        let mut stack = guarding(how, &clock, layer, statuses());
        // Each body has six bytes, which the next response shows first.
        for (path, [requests, failures, traffic]) in [
            ("/jobs", [99, 100, 100]),
            ("/jobs/404", [98, 99, 94]),
            ("/jobs", [97, 99, 88]),
            ("/jobs/404", [96, 98, 82]),
        ] {
            let shown = send(&mut stack, asking("ada", path)).await.header("ratelimit");
            let expected = format!(
                r#""requests-minute";r={requests};t=60, "failures-minute";r={failures};t=60, "traffic-minute";r={traffic};t=60"#
            );
            assert_eq!(shown, expected, "{how:?} {path}");
        }
    }
}

#[tokio::test]
async fn a_policy_that_refuses_keeps_the_others_from_counting() {
    for how in How::BOTH {
        let clock = ManualClock::at(at(0));
        let layer = RateLimitLayer::from_policies([
            Policy::new("requests", 9.per_hour()),
            Policy::new("failures", 1.per_minute()).with_cost(failures()),
        ])
        .unwrap();
        let mut stack = guarding(how, &clock, layer, statuses());
        assert_eq!(send(&mut stack, asking("ada", "/jobs/404")).await.status(), StatusCode::NOT_FOUND);
        assert_eq!(passing(&mut stack, "ada", 20).await, 0);
        clock.set(at(60));
        assert_eq!(passing(&mut stack, "ada", 20).await, 8, "{how:?}");
    }
}

#[tokio::test]
async fn the_last_request_may_exceed_the_rest_and_the_next_ones_wait() {
    for how in How::BOTH {
        let clock = ManualClock::at(at(0));
        let mut stack = guarding(how, &clock, limit(10.per_minute(), Cost::by_response(|_| 7)), Inner::new());
        for expected in [
            (200, Some(10), Some(3), Some(60), None),
            (200, Some(10), Some(0), Some(60), None),
            (429, Some(10), Some(0), Some(60), Some(60)),
        ] {
            assert_eq!(numbers(&send(&mut stack, from("ada")).await), expected, "{how:?}");
        }
        clock.set(at(59));
        assert_eq!(passing(&mut stack, "ada", 1).await, 0);
        clock.set(at(60));
        assert_eq!(numbers(&send(&mut stack, from("ada")).await), (200, Some(10), Some(3), Some(120), None));
    }
}

#[tokio::test]
async fn a_bucket_may_be_charged_beyond_its_size_and_refills_first() {
    for how in How::BOTH {
        let clock = ManualClock::at(at(0));
        let quota = 60.per_minute().with_burst(10);
        let mut stack = guarding(how, &clock, limit(quota, Cost::by_response(|_| 14)), Inner::new());
        let first = numbers(&send(&mut stack, from("ada")).await);
        assert_eq!(first, (200, Some(10), Some(0), Some(14), None), "{how:?}");
        // The bucket lacks four tokens, and one must be there: it gets one token each second.
        clock.set(at(4));
        let refused = numbers(&send(&mut stack, from("ada")).await);
        assert_eq!(refused, (429, Some(10), Some(0), Some(14), Some(1)), "{how:?}");
        clock.set(at(5));
        assert_eq!(passing(&mut stack, "ada", 1).await, 1);
    }
}

#[tokio::test]
async fn the_charge_of_one_of_two_limits_is_shown_among_the_values_of_both() {
    for is_outer in [false, true] {
        let clock = ManualClock::at(at(0));
        let requests = RateLimitLayer::from_policies([Policy::new("requests", 9.per_hour())]).unwrap();
        let failing = Policy::new("failures", 3.per_minute()).with_cost(failures());
        let failing = RateLimitLayer::from_policies([failing]).unwrap();
        let (outer, inner) = if is_outer { (failing, requests) } else { (requests, failing) };
        let replaced = layer_fn(|_| statuses());
        let mut stack = behind(&clock, (outer.with_clock(clock.clone()), inner, replaced));
        for (path, expected) in [
            // 8 of 9 requests are a smaller share than 3 of 3 failures.
            ("/jobs", (200, Some(9), Some(8), Some(3_600), None)),
            ("/jobs/404", (404, Some(3), Some(2), Some(60), None)),
            ("/jobs/404", (404, Some(3), Some(1), Some(60), None)),
            ("/jobs/404", (404, Some(3), Some(0), Some(60), None)),
            ("/jobs", (429, Some(3), Some(0), Some(60), Some(60))),
        ] {
            let reply = send(&mut stack, asking("ada", path)).await;
            assert_eq!(numbers(&reply), expected, "{path}, outer: {is_outer}");
        }
    }
}

#[tokio::test]
async fn of_stacked_limits_with_deferred_charges_the_tighter_one_is_shown() {
    let clock = ManualClock::at(at(0));
    let by_failures = |name, quota: Quota| {
        let layer = RateLimitLayer::from_policies([Policy::new(name, quota).with_cost(failures())]).unwrap();
        layer.with_clock(clock.clone()).with_headers(RateLimitHeaders::none().with_ietf_draft_10())
    };
    let innermost = RateLimitLayer::from_policies([Policy::new("requests", 9.per_day())]).unwrap();
    let both = (by_failures("outer", 3.per_minute()), by_failures("inner", 5.per_hour()));
    let mut stack = behind(&clock, (both, innermost, layer_fn(|_| statuses())));
    for expected in [(r#""outer-minute";r=2;t=60"#, "8"), (r#""outer-minute";r=1;t=60"#, "7")] {
        let reply = send(&mut stack, asking("ada", "/jobs/404")).await;
        // The outer layer's draft is tighter than the inner one's. The innermost layer alone writes the usual headers.
        assert_eq!((&*reply.header("ratelimit"), &*reply.header("x-ratelimit-remaining")), expected);
    }
}

#[tokio::test]
async fn an_outer_limit_may_count_the_refusals_of_an_inner_one() {
    let clock = ManualClock::at(at(0));
    let outer = Policy::new("refusals", 2.per_hour()).with_cost(Cost::by_response(|response| {
        u64::from(response.denial().is_some_and(|denial| denial.kind() == DenialKind::RateLimited))
    }));
    let outer = RateLimitLayer::from_policies([outer]).unwrap().with_clock(clock.clone());
    let mut stack = behind(&clock, (outer, RateLimitLayer::new(1.per_minute())));
    let statuses = async |stack: &mut _| {
        let mut waits = Vec::new();
        for _ in 0..4 {
            waits.push(numbers(&send(stack, from("ada")).await).4);
        }
        waits
    };
    assert_eq!(statuses(&mut stack).await, [None, Some(60), Some(60), Some(3_600)]);
}

#[tokio::test]
async fn one_window_that_is_counted_in_two_ways_is_shown_in_both() {
    let clock = ManualClock::at(at(0));
    let quota = 2.per_minute().and(100.per_minute().sliding());
    let mut stack = guarding(How::Built, &clock, limit(quota, Cost::by_response(|_| 1)), Inner::new());
    for remaining in [1, 0] {
        let reply = numbers(&send(&mut stack, from("ada")).await);
        assert_eq!(reply, (200, Some(2), Some(remaining), Some(60), None));
    }
}

#[tokio::test]
async fn in_report_only_mode_costs_are_counted_and_nothing_is_refused() {
    for how in How::BOTH {
        let clock = ManualClock::at(at(0));
        let report = ReportOnly::new();
        let limit = limit(2.per_minute(), failures()).with_report_only(&report);
        let mut stack = guarding(how, &clock, limit, statuses());
        for (path, status, remaining, refusals) in [
            ("/jobs/404", 404, 1, 0),
            ("/jobs/404", 404, 0, 0),
            ("/jobs/404", 404, 0, 1),
            ("/jobs", 200, 0, 2),
        ] {
            let reply = numbers(&send(&mut stack, asking("ada", path)).await);
            assert_eq!(reply, (status, Some(2), Some(remaining), Some(60), None), "{how:?}");
            assert_eq!(report.refusals(), refusals);
        }
    }
}

#[tokio::test]
async fn a_quota_by_function_may_change_between_requests_and_keeps_the_count() {
    for how in How::BOTH {
        let clock = ManualClock::at(at(0));
        let policy = Policy::new(DEFAULT_POLICY, 10.per_minute())
            .with_tier("pro", 20.per_minute())
            .with_quota_by(|head, _| head.uri.path().starts_with("/jobs/bulk").then(|| 3.per_minute()));
        let mut stack = guarding(how, &clock, RateLimitLayer::from_policies([policy]).unwrap(), Inner::new());
        for (caller, path, expected) in [
            ("ada", "/jobs", (200, Some(10), Some(9), Some(60), None)),
            ("ada", "/jobs", (200, Some(10), Some(8), Some(60), None)),
            ("ada", "/jobs/bulk", (200, Some(3), Some(0), Some(60), None)),
            ("ada", "/jobs/bulk", (429, Some(3), Some(0), Some(60), Some(60))),
            ("ada", "/jobs", (200, Some(10), Some(6), Some(60), None)),
            // Where the function says nothing, the tier does; the principal's own quota outranks both.
            ("ada.pro", "/jobs", (200, Some(20), Some(15), Some(60), None)),
            ("ada.pro", "/jobs/bulk", (429, Some(3), Some(0), Some(60), Some(60))),
            ("ada+7", "/jobs/bulk", (200, Some(7), Some(1), Some(60), None)),
            ("ada.pro+7", "/jobs", (200, Some(7), Some(0), Some(60), None)),
        ] {
            let reply = send(&mut stack, asking(caller, path)).await;
            assert_eq!(numbers(&reply), expected, "{how:?} {caller} {path}");
        }
    }
}

#[tokio::test]
async fn the_function_is_called_for_every_request_to_which_it_applies() {
    let clock = ManualClock::at(at(0));
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let policy = Policy::new(DEFAULT_POLICY, 10.per_minute()).with_quota_by(move |_, principal| {
        assert_eq!(principal.unwrap().id(), "ada");
        counter.fetch_add(1, Ordering::Relaxed);
        Some(2.per_minute())
    });
    let limit = RateLimitLayer::from_policies([policy]).unwrap().with_clock(clock.clone());
    let mut stack = behind(&clock, (limit, ScopeLayer::new(scope("none")).unwrap()));
    for status in [403, 403, 429] {
        assert_eq!(send(&mut stack, from("ada")).await.status(), status);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    // The function is not called for a principal with a quota of its own.
    assert_eq!(send(&mut stack, from("bob+1")).await.status(), 403);
    clock.advance(Duration::from_mins(1));
    assert_eq!(send(&mut stack, from("ada")).await.status(), 403);
}
