//! What is refused, what is let through, and what the caller sees.

use http::header::RETRY_AFTER;
use tests::suite::Log;
use tollgate::{
    CredentialLayer, Denial, DenialKind, ScopeLayer, VerifyLayer,
    credits::CreditCosts,
    guard::{GuardRequest, guard_sync_fn},
    layers::ReportOnly,
    respond::{Grpc, Json},
    scope,
};

use super::*;

fn kind<B>(response: &Response<B>) -> Option<DenialKind> {
    response.extensions().get().map(Denial::kind)
}

#[tokio::test]
async fn a_problem_tells_the_balance_and_what_is_needed() {
    let credits = FaultyCredits::granted("acme", 7);
    let log = Log::start();
    let refused = finish(&charging(&credits), by("ada", "/full")).await;
    assert_eq!(refused.status(), StatusCode::PAYMENT_REQUIRED);
    assert!(!refused.headers().contains_key(RETRY_AFTER));
    assert!(!refused.headers().contains_key("x-credits-remaining"));
    let problem: serde_json::Value = serde_json::from_slice(refused.body()).unwrap();
    assert_eq!((&problem["balance"], &problem["needed"]), (&7.into(), &10.into()));
    assert_eq!(problem["code"], "insufficient_credits");
    assert_eq!(log.refusals()[0].field("detail"), Some("needs 10 credits, 7 are available"));
    assert_eq!(credits.account("acme"), (7, 0, 0));
}

#[tokio::test]
async fn other_responders_see_the_shortage_too() {
    let credits = FaultyCredits::granted("acme", 7);
    let json = Json::new(|denial| {
        let shortage = denial.shortage().unwrap();
        serde_json::json!({ "error": denial.code(), "has": shortage.available, "needs": shortage.needed })
    });
    let refused = finish(&service(builder(&credits).responder(json)), by("ada", "/full")).await;
    assert_eq!(refused.body(), r#"{"error":"insufficient_credits","has":7,"needs":10}"#);

    let mut grpc = by("ada", "/full");
    *grpc.method_mut() = http::Method::POST;
    *grpc.version_mut() = http::Version::HTTP_2;
    grpc.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let refused = finish(&service(builder(&credits).responder(Grpc::new())), grpc).await;
    assert_eq!(
        (refused.status(), &refused.headers()["grpc-status"]),
        (StatusCode::OK, &HeaderValue::from_static("8"))
    );
}

#[tokio::test]
async fn a_header_shows_what_remains_if_it_is_wanted() {
    let credits = FaultyCredits::granted("acme", 25);
    let layer = CreditsLayer::new(credits.clone(), ESTIMATE).with_remaining_header();
    let service = service(builder_with(layer));
    for (status, remaining) in [(200, "15"), (200, "5"), (402, "5")] {
        let response = finish(&service, by("ada", "/full")).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["x-credits-remaining"], remaining);
    }
    let plain = finish(&charging(&FaultyCredits::granted("acme", 25)), by("ada", "/full")).await;
    assert!(!plain.headers().contains_key("x-credits-remaining"));
    assert!(tollgate::limit::exposed_headers().contains(&"x-credits-remaining".parse().unwrap()));
}

#[tokio::test]
async fn of_concurrent_requests_only_those_are_admitted_for_which_there_are_credits() {
    let credits = FaultyCredits::granted("acme", 45);
    let service = charging(&credits);
    let mut held = Vec::new();
    for number in 0..10 {
        let response = begin(&service, by("ada", "/stream")).await;
        assert_eq!(response.status().is_success(), number < 4);
        held.push(response);
    }
    assert_eq!(credits.account("acme"), (5, 40, 0));
}

#[tokio::test]
async fn a_request_that_another_gate_refuses_reserves_nothing() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let by_scope = service(builder(&credits).scope(scope("jobs:read")));
    let by_guard = service(
        builder(&credits)
            .guard(guard_sync_fn(|_: &GuardRequest<'_>| Err(Denial::new(DenialKind::Forbidden)))),
    );
    for service in [by_scope, by_guard] {
        assert_eq!(finish(&service, by("ada", "/full")).await.status(), StatusCode::FORBIDDEN);
    }
    assert_eq!((credits.account("acme"), credits.settlements()), ((1_000, 0, 0), 0));
}

#[tokio::test]
async fn a_refusal_by_a_layer_further_in_is_charged_nothing() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let inner = ScopeLayer::new(scope("jobs:read")).unwrap().layer(handler());
    let service = builder(&credits).build().unwrap().layer(inner);
    let refused = service.oneshot(by("ada", "/full")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!((credits.account("acme"), credits.settlements()), ((1_000, 0, 0), 1));
}

/// A refusal may have another status than an error: a refused WebSocket is opened and closed.
#[tokio::test]
async fn a_refusal_further_in_is_charged_nothing_whatever_its_status() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let inner = service_fn(async |_: Request<String>| {
        let mut response = Response::new(Empty::<Bytes>::new());
        response.extensions_mut().insert(Denial::new(DenialKind::Forbidden));
        Ok::<_, &'static str>(response)
    });
    let service = builder(&credits).build().unwrap().layer(inner);
    let refused = service.oneshot(by("ada", "/full")).await.unwrap();
    assert_eq!(refused.into_body().collect().await.unwrap().to_bytes(), "");
    assert_eq!(credits.account("acme"), (1_000, 0, 0));
}

#[tokio::test]
async fn a_free_route_needs_no_credits_and_no_caller() {
    let costs = || CreditCosts::new().get("/full", 1).otherwise(0).unwrap();
    let credits = FaultyCredits::default();
    let seen = Seen::default();
    let anonymous = || {
        builder_with(CreditsLayer::new(credits.clone(), costs()))
            .credential(CredentialLayer::new().with_anonymous())
    };
    let service: Gated<Handler> = anonymous().build().unwrap().layer(watching(&seen));
    for (path, key, status) in
        [("/free", Some("ada"), 200), ("/free", None, 200), ("/full", Some("ada"), 402), ("/full", None, 401)]
    {
        let headers: Vec<_> = key.map(|key| ("x-api-key", key)).into_iter().collect();
        assert_eq!(finish(&service, get(path, &headers)).await.status(), status, "{path} {key:?}");
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2, "the handler has a meter, to which it may report");
    for meter in &*seen {
        meter.add(5);
        assert_eq!((meter.reserved(), meter.reservation(), meter.reported()), (0, None, None));
        assert!(!meter.is_repeated());
    }
}

/// A caller whose verification was waived is not authenticated: it gets what is free, and nothing else.
#[tokio::test]
async fn a_waived_caller_passes_on_a_free_route_only() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let costs = CreditCosts::new().get("/full", 1).otherwise(0).unwrap();
    let report = ReportOnly::new();
    let layers = tower::ServiceBuilder::new()
        .layer(CredentialLayer::new().with_report_only(&report))
        .layer(CreditsLayer::new(credits.clone(), costs).with_clock(ManualClock::at(at(0))));
    let service = layers.service(handler());
    for (path, status) in [("/redirect", 303), ("/full", 401)] {
        let response = service.clone().oneshot(get(path, &[])).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
    }
    assert_eq!((report.refusals(), credits.account("acme")), (2, (1_000, 0, 0)));
}

#[tokio::test]
async fn an_account_with_too_many_open_reservations_is_refused_with_429() {
    let credits = FaultyCredits::granted("acme", 1_000_000);
    let service = service(builder_with(CreditsLayer::new(credits.clone(), 1)));
    let log = Log::start();
    let mut open = Vec::new();
    for _ in 0..tollgate::bounds::MAX_OPEN_RESERVATIONS {
        open.push(begin(&service, by("ada", "/stream")).await);
    }
    let refused = finish(&service, by("ada", "/full")).await;
    assert_eq!(
        (refused.status(), kind(&refused)),
        (StatusCode::TOO_MANY_REQUESTS, Some(DenialKind::TooManyInFlight))
    );
    assert_eq!(log.refusals()[0].field("detail"), Some("the account has 5000 open reservations"));
    assert!(log.entries().iter().all(|event| event.level > tracing::Level::WARN));
    open.pop();
    assert_eq!(finish(&service, by("ada", "/full")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_preflight_is_not_charged() {
    let credits = FaultyCredits::default();
    let service = service(builder(&credits).credential(CredentialLayer::new().dangerous_preflights()));
    let mut preflight =
        get("/full", &[("origin", "https://a.example"), ("access-control-request-method", "GET")]);
    *preflight.method_mut() = http::Method::OPTIONS;
    assert_eq!(finish(&service, preflight).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn report_only_lets_pass_without_a_reservation() {
    let credits = FaultyCredits::granted("acme", 15);
    let (report, seen, log) = (ReportOnly::new(), Seen::default(), Log::start());
    let layer = CreditsLayer::new(credits.clone(), ESTIMATE).with_report_only(&report);
    let service: Gated<Handler> = builder_with(layer).build().unwrap().layer(watching(&seen));
    for (refusals, left) in [(0, 5), (1, 5), (2, 5)] {
        assert_eq!(finish(&service, by("ada", "/full")).await.status(), StatusCode::OK);
        assert_eq!((report.refusals(), credits.account("acme")), (refusals, (left, 0, 0)));
    }
    assert_eq!(log.refusals()[0].field("reason"), Some("credits_exhausted"));
    let reserved: Vec<_> = seen.lock().unwrap().iter().map(CreditMeter::reserved).collect();
    assert_eq!(reserved, [ESTIMATE, 0, 0]);
}

#[tokio::test]
async fn a_stack_has_one_layer_of_credits() {
    let credits = FaultyCredits::default();
    let twice = builder(&credits).credits(CreditsLayer::new(credits, 1)).build().unwrap_err();
    assert!(twice.to_string().contains("two of CreditsLayer"), "{twice}");
}

#[tokio::test]
async fn the_layer_alone_charges_too() {
    let credits = FaultyCredits::granted("acme", 15);
    let directory =
        Directory::new(&World::new().backend).with("ada", Principal::new("ada").with_tenant("acme"));
    let layers = tower::ServiceBuilder::new()
        .layer(CredentialLayer::new())
        .layer(VerifyLayer::new(directory))
        .layer(CreditsLayer::new(credits.clone(), ESTIMATE).with_clock(ManualClock::at(at(0))));
    let service = layers.service(handler());
    let admitted = service.clone().oneshot(by("ada", "/full/3")).await.unwrap();
    admitted.into_body().collect().await.unwrap();
    assert_eq!(credits.account("acme"), (12, 0, 0));
    let admitted = service.clone().oneshot(by("ada", "/full")).await.unwrap();
    let refused = service.oneshot(by("ada", "/full")).await.unwrap();
    assert_eq!((admitted.status(), kind(&refused)), (StatusCode::OK, Some(DenialKind::CreditsExhausted)));
}
