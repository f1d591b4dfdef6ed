//! What is charged, and when.

use std::{panic::AssertUnwindSafe, pin::pin, time::Duration};

use futures_util::FutureExt as _;
use http::Method;
use http_body::Body as _;
use tests::suite::{Log, is_pending};
use tollgate::{RateLimitLayer, credits::Excess, limit::Cost};

use super::*;

/// How much of a body is read.
#[derive(Clone, Copy, Debug)]
enum Read {
    ToTheEnd,
    Frames(usize),
}

use Read::{Frames, ToTheEnd};

/// What a response costs, if so much of it is read.
async fn cost_of(method: Method, path: &str, read: Read) -> u64 {
    let credits = FaultyCredits::granted("acme", 1_000);
    let service = charging(&credits);
    let mut request = by("ada", path);
    *request.method_mut() = method;
    let mut body = begin(&service, request).await.into_body();
    match read {
        ToTheEnd => while let Some(Ok(_)) = body.frame().await {},
        Frames(count) => {
            for _ in 0..count {
                body.frame().await.unwrap().unwrap();
            }
        }
    }
    drop(body);
    let (available, reserved, owed) = credits.account("acme");
    assert_eq!((reserved, owed), (0, 0), "{path} {read:?}");
    1_000 - available
}

#[tokio::test]
async fn what_is_charged_depends_on_how_the_response_ends() {
    for (path, read, cost) in [
        ("/full", ToTheEnd, ESTIMATE),
        ("/full/3", ToTheEnd, 3),
        ("/full/0", ToTheEnd, 0),
        ("/redirect", ToTheEnd, ESTIMATE),
        // A full body knows that it has ended with its only frame.
        ("/full", Frames(1), ESTIMATE),
        ("/full", Frames(0), 0),
        ("/full/3", Frames(0), 3),
        ("/empty", ToTheEnd, ESTIMATE),
        ("/empty/3", ToTheEnd, 3),
        // A stream reports with its first frame.
        ("/stream", ToTheEnd, ESTIMATE),
        ("/stream/3", ToTheEnd, 3),
        ("/stream", Frames(1), 0),
        ("/stream/3", Frames(1), 3),
        ("/stream/3", Frames(0), 0),
        // The server does not ask for more bytes than the header names.
        ("/counted", Frames(2), ESTIMATE),
        ("/counted", Frames(1), 0),
        ("/counted/3", Frames(1), 3),
        // A body that fails.
        ("/broken", ToTheEnd, 0),
        ("/broken/3", ToTheEnd, 3),
        // Responses without a body.
        ("/not-modified", Frames(0), ESTIMATE),
        ("/not-modified/3", Frames(0), 3),
        // An upgrade over HTTP/1, such as to a WebSocket.
        ("/switching", Frames(0), ESTIMATE),
        ("/switching/3", Frames(0), 3),
        // Failures.
        ("/error", ToTheEnd, 0),
        ("/error/3", ToTheEnd, 0),
        ("/missing/3", ToTheEnd, 0),
        ("/grpc-refused/3", ToTheEnd, 0),
        ("/grpc-ok", ToTheEnd, ESTIMATE),
        ("/grpc-ok", Frames(2), ESTIMATE),
        ("/grpc-ok", Frames(1), 0),
        ("/grpc-failed", ToTheEnd, 0),
        ("/grpc-failed/3", ToTheEnd, 3),
    ] {
        assert_eq!(cost_of(Method::GET, path, read).await, cost, "{path} {read:?}");
    }
}

#[tokio::test]
async fn a_response_to_head_is_charged_although_its_body_is_not_read() {
    assert_eq!(cost_of(Method::HEAD, "/full", Frames(0)).await, ESTIMATE);
    assert_eq!(cost_of(Method::HEAD, "/stream", Frames(0)).await, ESTIMATE);
    assert_eq!(cost_of(Method::HEAD, "/full/3", Frames(0)).await, 3);
    assert_eq!(cost_of(Method::HEAD, "/missing", Frames(0)).await, 0);
}

/// A WebSocket over HTTP/2 (RFC 8441): the server drops the body unread.
#[tokio::test]
async fn a_tunnel_is_charged_when_its_handshake_is_answered() {
    assert_eq!(cost_of(Method::CONNECT, "/empty", Frames(0)).await, ESTIMATE);
    assert_eq!(cost_of(Method::CONNECT, "/full", Frames(0)).await, ESTIMATE);
    assert_eq!(cost_of(Method::CONNECT, "/full/3", Frames(0)).await, 3);
    assert_eq!(cost_of(Method::CONNECT, "/missing", Frames(0)).await, 0);
}

#[tokio::test]
async fn a_failed_request_is_charged_nothing() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let service = charging(&credits);
    for path in ["/fail/3", "/panic/3"] {
        let outcome = AssertUnwindSafe(service.clone().oneshot(by("ada", path))).catch_unwind().await;
        assert!(!matches!(outcome, Ok(Ok(_))), "{path}");
        assert_eq!(credits.account("acme"), (1_000, 0, 0), "{path}");
    }
}

#[tokio::test]
async fn credits_are_reserved_until_the_body_has_ended() {
    let credits = FaultyCredits::granted("acme", 25);
    let service = charging(&credits);
    {
        let mut waiting = pin!(service.clone().oneshot(by("ada", "/never")));
        assert!(is_pending(waiting.as_mut()));
        assert_eq!(credits.account("acme"), (15, 10, 0));
    }
    assert_eq!(credits.account("acme"), (25, 0, 0), "the caller has hung up");
    let mut body = begin(&service, by("ada", "/stream")).await.into_body();
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    assert_eq!(credits.account("acme"), (15, 10, 0));
    assert!(body.frame().await.is_none());
    assert_eq!(credits.account("acme"), (15, 0, 0), "the body has ended, but is not dropped yet");
    drop(body);
    assert_eq!((credits.account("acme"), credits.settlements()), ((15, 0, 0), 2), "it is settled once");
}

/// The handler has worked before its response begins.
#[tokio::test]
async fn a_caller_that_hangs_up_before_the_response_pays_what_was_reported() {
    for (path, cost) in [("/never/3", 3), ("/never/0", 0), ("/never", 0)] {
        let credits = FaultyCredits::granted("acme", 25);
        let service = charging(&credits);
        {
            let mut waiting = pin!(service.clone().oneshot(by("ada", path)));
            assert!(is_pending(waiting.as_mut()));
        }
        assert_eq!((credits.account("acme"), credits.settlements()), ((25 - cost, 0, 0), 1), "{path}");
    }
}

#[tokio::test]
async fn a_body_that_ends_at_once_is_settled_when_the_server_asks_whether_it_has_ended() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let body = begin(&charging(&credits), by("ada", "/empty")).await.into_body();
    assert!(body.is_end_stream());
    assert_eq!(credits.account("acme"), (990, 0, 0));
}

#[tokio::test]
async fn the_excess_over_the_estimate_is_capped_taken_or_owed() {
    for (excess, granted, reported, left) in [
        (None, 1_000, 25, (990, 0, 0)),
        (Some(Excess::Cap), 1_000, 25, (990, 0, 0)),
        (Some(Excess::TakeAvailable), 1_000, 25, (975, 0, 0)),
        (Some(Excess::TakeAvailable), 15, 25, (0, 0, 0)),
        (Some(Excess::Owe(100)), 15, 25, (0, 0, 10)),
        (Some(Excess::Owe(4)), 15, 25, (0, 0, 4)),
    ] {
        let credits = FaultyCredits::granted("acme", granted);
        let layer = CreditsLayer::new(credits.clone(), ESTIMATE);
        let layer = if let Some(excess) = excess { layer.with_excess(excess) } else { layer };
        finish(&service(builder_with(layer)), by("ada", &format!("/full/{reported}"))).await;
        assert_eq!(credits.account("acme"), left, "{excess:?} {granted}");
    }
}

#[tokio::test]
async fn the_actual_cost_may_be_read_from_the_head_of_the_response() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let layer = CreditsLayer::new(credits.clone(), ESTIMATE)
        .with_actual(|response| response.headers.get("content-length")?.to_str().ok()?.parse().ok());
    let service = service(builder_with(layer));
    finish(&service, by("ada", "/counted")).await;
    assert_eq!(credits.account("acme"), (994, 0, 0));
    finish(&service, by("ada", "/full")).await;
    assert_eq!(credits.account("acme"), (984, 0, 0), "the head does not say it");
}

#[tokio::test]
async fn the_account_is_the_tenant_and_for_a_principal_without_one_its_identifier() {
    let credits = FaultyCredits::granted("acme", 1_000);
    credits.grant("dan", 1_000);
    let service = charging(&credits);
    for key in ["ada", "bob", "dan"] {
        assert_eq!(finish(&service, by(key, "/full")).await.status(), StatusCode::OK);
    }
    assert_eq!((credits.account("acme").0, credits.account("dan").0), (980, 990));
    assert_eq!(finish(&service, by("cyd", "/full")).await.status(), StatusCode::PAYMENT_REQUIRED);
}

#[tokio::test]
async fn the_cost_may_depend_on_the_plan() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let service = service(builder_with(CreditsLayer::new(credits.clone(), by_plan())));
    finish(&service, by("bob", "/full")).await;
    assert_eq!(credits.account("acme").0, 999);
    finish(&service, by("ada", "/full")).await;
    assert_eq!(credits.account("acme").0, 989);
}

#[tokio::test]
async fn a_sub_request_reports_to_the_same_meter_and_settles_nothing() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let copied = Arc::new(std::sync::Mutex::new(None));
    let keep = Arc::clone(&copied);
    let inner = BoxCloneSyncService::new(service_fn(move |request: Request<String>| {
        let mut sub_request = Request::new(String::new());
        RequestContext::copy(request.extensions(), sub_request.extensions_mut());
        RequestContext::of(sub_request.extensions()).unwrap().credits().unwrap().add(2);
        RequestContext::of(request.extensions()).unwrap().credits().unwrap().add(1);
        *keep.lock().unwrap() = Some(sub_request);
        let body = Full::<Bytes>::from("inside").map_err(infallible).boxed_unsync();
        async { Ok::<_, &'static str>(Response::new(body)) }
    }));
    let service: Gated<Handler> = builder(&credits).build().unwrap().layer(inner);
    finish(&service, by("ada", "/full")).await;
    assert_eq!(credits.account("acme"), (997, 0, 0));
    drop(copied.lock().unwrap().take());
    assert_eq!((credits.account("acme"), credits.settlements()), ((997, 0, 0), 1));
}

#[tokio::test]
async fn a_reservation_that_expired_before_its_settlement_is_charged_all_the_same() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let clock = ManualClock::at(at(0));
    let layer = CreditsLayer::new(credits.clone(), ESTIMATE).with_reservation_time(Duration::from_mins(2));
    let service = service(builder_with(layer).clock(clock.clone()));
    let mut body = begin(&service, by("ada", "/stream")).await.into_body();
    assert_eq!(credits.account_at("acme", at(119)), (990, 10, 0));
    clock.advance(Duration::from_mins(2));
    assert_eq!(credits.account_at("acme", at(120)), (1_000, 0, 0));
    while let Some(Ok(_)) = body.frame().await {}
    assert_eq!(credits.account_at("acme", at(120)), (990, 0, 0));
}

/// Without spare credits: each request reserves the same ones, after the reservation of the one before has expired.
#[tokio::test]
async fn stalled_streams_get_no_work_for_nothing() {
    let credits = FaultyCredits::granted("acme", ESTIMATE);
    let clock = ManualClock::at(at(0));
    let service = service(builder(&credits).clock(clock.clone()));
    let mut stalled = Vec::new();
    for _ in 0..5 {
        let mut body = begin(&service, by("ada", "/stream")).await.into_body();
        body.frame().await.unwrap().unwrap();
        stalled.push(body);
        clock.advance(Duration::from_mins(10));
    }
    for mut body in stalled {
        while let Some(Ok(_)) = body.frame().await {}
    }
    assert_eq!(credits.account_at("acme", at(3_000)), (0, 0, 4 * ESTIMATE));
    let refused = finish(&service, by("ada", "/full")).await;
    assert_eq!(refused.status(), StatusCode::PAYMENT_REQUIRED);
    let problem: serde_json::Value = serde_json::from_slice(refused.body()).unwrap();
    assert_eq!((&problem["needed"], &problem["owed"]), (&10.into(), &40.into()));
}

#[tokio::test]
async fn an_extreme_reservation_time_is_brought_into_its_range() {
    for (time, seconds) in [(Duration::ZERO, 1), (Duration::MAX, 7 * 24 * 3_600)] {
        let credits = FaultyCredits::granted("acme", 1_000);
        let layer = CreditsLayer::new(credits.clone(), ESTIMATE).with_reservation_time(time);
        let _body = begin(&service(builder_with(layer)), by("ada", "/stream")).await;
        assert_eq!(credits.account_at("acme", at(seconds - 1)), (990, 10, 0), "{time:?}");
        assert_eq!(credits.account_at("acme", at(seconds)), (1_000, 0, 0), "{time:?}");
    }
}

#[tokio::test]
async fn what_is_not_charged_is_logged() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let log = Log::start();
    finish(&charging(&credits), by("ada", "/full/3")).await;
    finish(&charging(&credits), by("ada", "/full/25")).await;
    let mut events = log.entries();
    events.retain(|event| event.field("message").is_some());
    let [event] = &*events else { panic!("one event, for the second request: {events:#?}") };
    assert_eq!((&*event.target, event.level), ("tollgate", tracing::Level::INFO));
    assert_eq!(event.field("message"), Some("credits not charged"));
    assert_eq!((event.field("account"), event.field("charged")), (Some("acme"), Some("10")));
    assert_eq!(event.field("uncharged"), Some("15"));
    assert!(event.field("reservation").is_some_and(|id| id.starts_with("res_")));
}

#[tokio::test]
async fn the_application_may_choose_the_account() {
    let credits = FaultyCredits::granted("wallet", 1_000);
    let layer = CreditsLayer::new(credits.clone(), ESTIMATE)
        .with_account(|principal| principal.tenant().map(|_| "wallet".into()));
    let service = service(builder_with(layer));
    assert_eq!(finish(&service, by("ada", "/full")).await.status(), StatusCode::OK);
    assert_eq!(credits.account("wallet"), (990, 0, 0));
    let refused = finish(&service, by("dan", "/full")).await;
    assert_eq!(refused.status(), StatusCode::PAYMENT_REQUIRED, "no account is named");
    assert_eq!(credits.account("wallet"), (990, 0, 0));
}

#[tokio::test]
async fn credits_places_and_charges_by_the_body_end_together() {
    use tollgate::{InFlightLimitLayer, PerWindow as _, Policy};

    let credits = FaultyCredits::granted("acme", 1_000);
    let by_body = Policy::new("bytes", 100.per_minute()).with_cost(Cost::by_body(|bytes| bytes));
    let service = service(
        builder(&credits)
            .in_flight_limit(InFlightLimitLayer::new(1))
            .rate_limit(RateLimitLayer::from_policies([by_body]).unwrap()),
    );
    let mut body = begin(&service, by("ada", "/full")).await.into_body();
    body.frame().await.unwrap().unwrap();
    assert!(!body.is_end_stream(), "its bytes are not charged yet");
    assert_eq!(credits.account("acme"), (990, 0, 0), "credits do not wait for a limiter");
    assert_eq!(finish(&service, by("ada", "/full")).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(body.frame().await.is_none());
    let next = finish(&service, by("ada", "/full")).await;
    assert_eq!(next.headers()["x-ratelimit-remaining"], "94");
    assert_eq!(credits.account("acme"), (980, 0, 0));
    // A refusal that is charged for its bytes holds no credits.
    let missing = finish(&service, by("ada", "/missing")).await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    assert_eq!(credits.account("acme"), (980, 0, 0));
}
