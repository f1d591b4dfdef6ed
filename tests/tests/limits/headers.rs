//! The rate-limit headers and their values.

use std::time::Duration;

use axum::{Router, routing::get};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use tests::{
    hosts::{Connection, How, serve},
    suite::{Inner, Reply, at, send},
};
use tollgate::{
    CreditsLayer, PerWindow as _, Policy, Quota, RateLimitLayer, Tollgate,
    clock::ManualClock,
    credits::MemoryCredits,
    limit::{Cost, DEFAULT_POLICY, RateLimitHeaders, Window, exposed_headers},
    scope::{Requirement, ScopeMap, scope},
};
use tower_http::cors::CorsLayer;

use crate::{Honest, asking, behind, from, guarding};

/// All headers of limits, as `name: value`, sorted.
fn shown(reply: &Reply) -> Vec<String> {
    let is_of_limits = |name: &str| name.contains("ratelimit") || name == "retry-after";
    let all = reply.headers().iter().filter(|(name, _)| is_of_limits(name.as_str()));
    sorted(all.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())))
}

fn sorted(lines: impl IntoIterator<Item: Into<String>>) -> Vec<String> {
    let mut lines: Vec<String> = lines.into_iter().map(Into::into).collect();
    lines.sort();
    lines
}

/// The clock stands 30 seconds after midnight.
fn clock() -> ManualClock {
    ManualClock::at(at(30))
}

/// A second of that day since the Unix epoch.
fn second(of_day: u64) -> u64 {
    2_000_073_600 + of_day
}

/// The rate-limit headers of the response to `ada`'s first request.
async fn first(headers: RateLimitHeaders, quota: Quota) -> Vec<String> {
    let mut stack =
        guarding(How::Built, &clock(), RateLimitLayer::new(quota).with_headers(headers), Inner::new());
    shown(&send(&mut stack, from("ada")).await)
}

fn two_windows() -> Quota {
    60.per_minute().and(1_000.per_hour())
}

#[tokio::test]
async fn the_usual_headers_show_the_tightest_window() {
    let [minute, hour] = [second(60), second(3_600)];
    let usual = ["x-ratelimit-limit: 60".to_owned(), "x-ratelimit-remaining: 59".to_owned()];
    for headers in [RateLimitHeaders::new(), RateLimitHeaders::default()] {
        let reset = format!("x-ratelimit-reset: {minute}");
        assert_eq!(first(headers, two_windows()).await, sorted([usual.to_vec(), vec![reset]].concat()));
    }
    let tight = first(RateLimitHeaders::new(), 60.per_minute().and(5.per_hour())).await;
    let reset = format!("x-ratelimit-reset: {hour}");
    assert_eq!(tight, ["x-ratelimit-limit: 5", "x-ratelimit-remaining: 4", &reset]);
}

#[tokio::test]
async fn each_option_adds_its_headers() {
    let (new, none) = (RateLimitHeaders::new(), RateLimitHeaders::none());
    let [minute, hour] = [second(60), second(3_600)].map(|second| second.to_string());
    let usual = |reset: &str| {
        vec![
            "x-ratelimit-limit: 60".to_owned(),
            "x-ratelimit-remaining: 59".to_owned(),
            format!("x-ratelimit-reset: {reset}"),
        ]
    };
    let each = |minute: &str, hour: &str| {
        vec![
            "x-ratelimit-limit-hour: 1000".to_owned(),
            "x-ratelimit-limit-minute: 60".to_owned(),
            "x-ratelimit-remaining-hour: 999".to_owned(),
            "x-ratelimit-remaining-minute: 59".to_owned(),
            format!("x-ratelimit-reset-hour: {hour}"),
            format!("x-ratelimit-reset-minute: {minute}"),
        ]
    };
    let draft = vec![
        r#"ratelimit: "minute";r=59;t=30, "hour";r=999;t=3570"#.to_owned(),
        r#"ratelimit-policy: "minute";q=60;w=60, "hour";q=1000;w=3600"#.to_owned(),
    ];
    for (headers, parts) in [
        (none, vec![]),
        (none.with_seconds_to_reset(), vec![]),
        (new.with_seconds_to_reset(), vec![usual("30")]),
        (none.with_each_window(), vec![each(&minute, &hour)]),
        (new.with_each_window(), vec![usual(&minute), each(&minute, &hour)]),
        (new.with_each_window().with_seconds_to_reset(), vec![usual("30"), each("30", "3570")]),
        (none.with_ietf_draft_10(), vec![draft.clone()]),
        (new.with_ietf_draft_10(), vec![usual(&minute), draft.clone()]),
        (none.with_ietf_draft_10().with_each_window(), vec![each(&minute, &hour), draft.clone()]),
        (
            new.with_seconds_to_reset().with_each_window().with_ietf_draft_10(),
            vec![usual("30"), each("30", "3570"), draft],
        ),
    ] {
        assert_eq!(first(headers, two_windows()).await, sorted(parts.concat()), "{headers:?}");
    }
}

#[tokio::test]
async fn a_refusal_has_the_same_headers_and_retry_after() {
    let headers = RateLimitHeaders::new().with_seconds_to_reset().with_each_window().with_ietf_draft_10();
    for how in How::BOTH {
        let limit = RateLimitLayer::new(1.per_minute().and(9.per_hour())).with_headers(headers);
        let mut stack = guarding(how, &clock(), limit, Inner::new());
        send(&mut stack, from("ada")).await;
        let refused = send(&mut stack, from("ada")).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(
            shown(&refused),
            sorted([
                r#"ratelimit: "minute";r=0;t=30, "hour";r=8;t=3570"#,
                r#"ratelimit-policy: "minute";q=1;w=60, "hour";q=9;w=3600"#,
                "retry-after: 30",
                "x-ratelimit-limit-hour: 9",
                "x-ratelimit-limit-minute: 1",
                "x-ratelimit-limit: 1",
                "x-ratelimit-remaining-hour: 8",
                "x-ratelimit-remaining-minute: 0",
                "x-ratelimit-remaining: 0",
                "x-ratelimit-reset-hour: 3570",
                "x-ratelimit-reset-minute: 30",
                "x-ratelimit-reset: 30",
            ]),
            "{how:?}"
        );
    }
}

#[tokio::test]
async fn without_headers_a_refusal_still_has_retry_after() {
    for how in How::BOTH {
        let limit = RateLimitLayer::new(1.per_minute()).with_headers(RateLimitHeaders::none());
        let mut stack = guarding(how, &clock(), limit, Inner::new());
        assert_eq!(shown(&send(&mut stack, from("ada")).await), [""; 0]);
        assert_eq!(shown(&send(&mut stack, from("ada")).await), sorted(["retry-after: 30"]), "{how:?}");
    }
}

#[tokio::test]
async fn refusals_by_inner_layers_have_all_headers() {
    let headers = RateLimitHeaders::none().with_each_window().with_ietf_draft_10();
    for how in How::BOTH {
        let limit = RateLimitLayer::new(7.per_day()).with_headers(headers);
        let mut stack = guarding(how, &clock(), limit, Inner::new());
        let refused = send(&mut stack, asking("ada", "/elsewhere")).await;
        assert_eq!(refused.status(), StatusCode::NOT_FOUND);
        assert_eq!(
            shown(&refused),
            sorted([
                r#"ratelimit: "day";r=6;t=86370"#.to_owned(),
                r#"ratelimit-policy: "day";q=7;w=86400"#.to_owned(),
                "x-ratelimit-limit-day: 7".to_owned(),
                "x-ratelimit-remaining-day: 6".to_owned(),
                format!("x-ratelimit-reset-day: {}", second(86_400)),
            ]),
            "{how:?}"
        );
    }
}

#[tokio::test]
async fn a_stacked_limit_writes_its_headers_where_there_are_none_or_where_its_window_is_tighter() {
    let usual = |[limit, remaining]: [u64; 2], reset: u64| {
        vec![
            format!("x-ratelimit-limit: {limit}"),
            format!("x-ratelimit-remaining: {remaining}"),
            format!("x-ratelimit-reset: {reset}"),
        ]
    };
    let draft = |name: &str, [quota, window]: [u64; 2], [remaining, reset]: [u64; 2]| {
        vec![
            format!(r#"ratelimit: "{name}";r={remaining};t={reset}"#),
            format!(r#"ratelimit-policy: "{name}";q={quota};w={window}"#),
        ]
    };
    // `tight` has 2 a minute, `wide` 9 an hour.
    let (tight, wide) = ([2, 1], [9, 8]);
    let tight_draft = draft("tight-minute", [2, 60], [1, 30]);
    let wide_draft = draft("wide-hour", [9, 3_600], [8, 3_570]);
    let (minute, hour) = (second(60), second(3_600));
    let (new, none) = (RateLimitHeaders::new(), RateLimitHeaders::none());
    let delta = new.with_seconds_to_reset();
    let draft_10 = none.with_ietf_draft_10();
    for (of_tight, of_wide, expected) in [
        (new, delta, usual(tight, minute)),
        (delta, new, usual(tight, 30)),
        (new, none, usual(tight, minute)),
        (none, new, usual(wide, hour)),
        (none, none, vec![]),
        (draft_10, none, tight_draft.clone()),
        (none, draft_10, wide_draft),
        (draft_10, draft_10, tight_draft.clone()),
        (draft_10, new, [tight_draft, usual(wide, hour)].concat()),
    ] {
        for is_tight_outside in [true, false] {
            let clock = clock();
            let limit = |name, quota, headers| {
                let layer = RateLimitLayer::from_policies([Policy::new(name, quota)]).unwrap();
                layer.with_headers(headers).with_clock(clock.clone())
            };
            let [tight, wide] =
                [limit("tight", 2.per_minute(), of_tight), limit("wide", 9.per_hour(), of_wide)];
            let both = if is_tight_outside { (tight, wide) } else { (wide, tight) };
            let mut stack = behind(&clock, both);
            let values = shown(&send(&mut stack, from("ada")).await);
            assert_eq!(values, sorted(expected.clone()), "{of_tight:?}, {of_wide:?}, {is_tight_outside}");
        }
    }
}

#[tokio::test]
async fn the_values_of_a_refusal_by_a_stacked_limit_stay() {
    for (outer, inner) in [(1.per_hour(), 0.per_minute()), (9.per_hour(), 0.per_minute())] {
        let clock = clock();
        let both = (
            RateLimitLayer::new(outer).with_clock(clock.clone()),
            RateLimitLayer::new(inner).with_clock(clock.clone()),
        );
        let refused = send(&mut behind(&clock, both), from("ada")).await;
        let expected = ["x-ratelimit-limit: 0", "x-ratelimit-remaining: 0"].map(str::to_owned);
        let reset = format!("x-ratelimit-reset: {}", second(60));
        assert_eq!(shown(&refused), sorted([expected.to_vec(), vec![reset]].concat()));
    }
}

#[tokio::test]
async fn a_window_without_a_name_is_named_by_its_seconds() {
    let quota = 5.per(Window::lasting(Duration::from_mins(15)));
    let headers = RateLimitHeaders::none().with_each_window().with_ietf_draft_10();
    assert_eq!(
        first(headers, quota).await,
        sorted([
            r#"ratelimit: "900s";r=4;t=870"#.to_owned(),
            r#"ratelimit-policy: "900s";q=5;w=900"#.to_owned(),
            "x-ratelimit-limit-900s: 5".to_owned(),
            "x-ratelimit-remaining-900s: 4".to_owned(),
            format!("x-ratelimit-reset-900s: {}", second(900)),
        ])
    );
}

#[tokio::test]
async fn a_bucket_shows_its_size_and_the_time_in_which_it_fills() {
    let headers = RateLimitHeaders::new().with_seconds_to_reset().with_each_window().with_ietf_draft_10();
    assert_eq!(
        first(headers, 60.per_minute().with_burst(10)).await,
        sorted([
            r#"ratelimit: "10s";r=9;t=1"#,
            r#"ratelimit-policy: "10s";q=10;w=10"#,
            "x-ratelimit-limit-10s: 10",
            "x-ratelimit-limit: 10",
            "x-ratelimit-remaining-10s: 9",
            "x-ratelimit-remaining: 9",
            "x-ratelimit-reset-10s: 1",
            "x-ratelimit-reset: 1",
        ])
    );
}

#[tokio::test]
async fn of_policies_with_one_window_the_tighter_one_is_shown_under_its_name() {
    let policies = [
        Policy::new("key", 9.per_minute()),
        Policy::new("tenant", 5.per_minute()).with_subject(tollgate::limit::Subject::Tenant),
        Policy::new("day", 7.per_day()),
    ];
    let limit = RateLimitLayer::from_policies(policies)
        .unwrap()
        .with_headers(RateLimitHeaders::new().with_each_window().with_seconds_to_reset());
    let mut stack = guarding(How::Built, &clock(), limit, Inner::new());
    let reply = send(&mut stack, from("ada@acme")).await;
    for (name, value) in [
        ("x-ratelimit-limit-minute", "5"),
        ("x-ratelimit-remaining-minute", "4"),
        ("x-ratelimit-limit-day", "7"),
        ("x-ratelimit-limit", "5"),
    ] {
        assert_eq!(reply.header(name), value);
    }
}

/// RFC 9651 section 3.3.3: of a string's letters, quotes and backslashes would have to be escaped, and no others than ASCII's
/// visible ones may stand there.
#[tokio::test]
async fn every_policy_name_makes_a_valid_structured_field() {
    for (name, entry) in [
        ("organization", "organization-minute"),
        (DEFAULT_POLICY, "minute"),
        ("a \"quoted\" name", "a quoted name-minute"),
        ("back\\slash", "backslash-minute"),
        ("schlüssel\r\nx: y", "schlsselx: y-minute"),
    ] {
        let limit = RateLimitLayer::from_policies([Policy::new(name, 60.per_minute())])
            .unwrap()
            .with_headers(RateLimitHeaders::none().with_ietf_draft_10());
        let mut stack = guarding(How::Built, &clock(), limit, Inner::new());
        assert_eq!(
            shown(&send(&mut stack, from("ada")).await),
            sorted([
                format!(r#"ratelimit: "{entry}";r=59;t=30"#),
                format!(r#"ratelimit-policy: "{entry}";q=60;w=60"#),
            ])
        );
    }
}

#[tokio::test]
async fn no_number_exceeds_the_range_of_a_structured_field() {
    let shown = first(RateLimitHeaders::none().with_ietf_draft_10(), u64::MAX.per_day()).await;
    let expected = [
        r#"ratelimit: "day";r=999999999999999;t=86370"#,
        r#"ratelimit-policy: "day";q=999999999999999;w=86400"#,
    ];
    assert_eq!(shown, sorted(expected));
}

#[tokio::test]
async fn an_unlimited_quota_adds_no_headers() {
    let all = RateLimitHeaders::new().with_each_window().with_ietf_draft_10();
    assert_eq!(first(all, Quota::unlimited()).await, [""; 0]);
}

#[tokio::test]
async fn a_charge_for_the_response_is_shown_in_all_headers() {
    let limit = RateLimitLayer::from_policies([
        Policy::new(DEFAULT_POLICY, 60.per_minute()).with_cost(Cost::by_response(|_| 5))
    ])
    .unwrap()
    .with_headers(RateLimitHeaders::new().with_seconds_to_reset().with_each_window().with_ietf_draft_10());
    let mut stack = guarding(How::Built, &clock(), limit, Inner::new());
    let reply = send(&mut stack, from("ada")).await;
    for (name, value) in [
        ("x-ratelimit-remaining", "55"),
        ("x-ratelimit-remaining-minute", "55"),
        ("ratelimit", r#""minute";r=55;t=30"#),
    ] {
        assert_eq!(reply.header(name), value);
    }
}

/// A router with all rate-limit headers, behind CORS.
async fn serve_across_origins() -> std::net::SocketAddr {
    let quota = 1_000.per_second().and(3.per_minute()).and(1_000.per_hour()).and(1_000.per_day());
    let headers = RateLimitHeaders::new().with_each_window().with_ietf_draft_10();
    let tollgate = Tollgate::builder()
        .verify(Honest)
        .rate_limit(RateLimitLayer::new(quota).with_headers(headers))
        .scope(ScopeMap::new().get("/jobs", scope("none")).get("/paid", Requirement::none()))
        .credits(CreditsLayer::new(MemoryCredits::new(), 1).with_remaining_header())
        .clock(clock());
    let cors = CorsLayer::new().allow_origin(tower_http::cors::Any).expose_headers(exposed_headers());
    let router = Router::new().route("/jobs", get(async || "jobs"));
    serve(router.layer(tollgate.build().unwrap()).layer(cors)).await
}

/// A request by a page of another origin.
fn from_a_page(path: &str, key: Option<&str>) -> Request<Full<bytes::Bytes>> {
    let mut request = tests::hosts::request(Method::GET, path, key);
    request.headers_mut().insert("origin", "https://page.example".parse().unwrap());
    request
}

/// The names that a page may read: those exposed, and those that every page may (the Fetch standard, section 3.3.3).
fn readable(headers: &HeaderMap) -> Vec<String> {
    let exposed = headers["access-control-expose-headers"].to_str().unwrap();
    let always = "cache-control,content-language,content-length,content-type,expires,last-modified,pragma";
    exposed.split(',').chain(always.split(',')).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_page_of_another_origin_may_read_the_headers_of_the_layers() {
    let server = serve_across_origins().await;
    let mut caller = Connection::http1(server).await;
    // Headers that are not Tollgate's, or of no use to a page.
    let others = ["date", "vary", "access-control-allow-origin", "access-control-expose-headers"];
    let mut statuses = Vec::new();
    for key in [None, Some("ada"), Some("ada"), Some("ada"), Some("ada")] {
        let response = caller.send(from_a_page("/jobs", key)).await;
        let readable = readable(response.headers());
        for name in response.headers().keys().map(http::HeaderName::as_str) {
            assert!(others.contains(&name) || readable.iter().any(|known| known == name), "{name}");
        }
        statuses.push(response.status().as_u16());
    }
    assert_eq!(statuses, [401, 403, 403, 403, 429]);
}

#[tokio::test]
async fn every_exposed_header_is_one_that_the_layers_set() {
    let server = serve_across_origins().await;
    let mut caller = Connection::http1(server).await;
    let mut seen = Vec::new();
    let ada = Some("ada");
    for (path, key) in [("/jobs", None), ("/paid", ada), ("/jobs", ada), ("/jobs", ada), ("/jobs", ada)] {
        let response = caller.send(from_a_page(path, key)).await;
        seen.extend(response.headers().keys().cloned());
    }
    // Those of a gRPC status are set only by the responder `Grpc`.
    for name in exposed_headers().into_iter().filter(|name| !name.as_str().starts_with("grpc-")) {
        assert!(seen.contains(&name), "{name}");
    }
}
