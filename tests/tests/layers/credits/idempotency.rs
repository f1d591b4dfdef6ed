//! `Idempotency-Key`: a repeated request is charged once.

use std::pin::pin;

use http::header::RETRY_AFTER;
use tests::suite::{Call, is_pending};
use tollgate::{
    Denial, DenialKind,
    credits::RepeatedRequest::{self, PassToHandler, Refuse},
    key::Environment,
    layers::ReportOnly,
};

use super::*;

fn keyed(credits: &FaultyCredits, repeated: RepeatedRequest) -> TollgateBuilder {
    builder_with(CreditsLayer::new(credits.clone(), ESTIMATE).with_idempotency_key(repeated))
}

fn with_idempotency_key(key: &str, path: &str, idempotency_key: &str) -> Request<String> {
    get(path, &[("x-api-key", key), ("idempotency-key", idempotency_key)])
}

fn kind<B>(response: &Response<B>) -> Option<DenialKind> {
    response.extensions().get().map(Denial::kind)
}

#[tokio::test]
async fn a_repeated_request_is_refused_and_not_charged() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let service = service(keyed(&credits, Refuse));
    assert_eq!(finish(&service, with_idempotency_key("ada", "/full", "k1")).await.status(), StatusCode::OK);
    for _ in 0..3 {
        let refused = finish(&service, with_idempotency_key("ada", "/full", "k1")).await;
        assert_eq!(
            (refused.status(), kind(&refused)),
            (StatusCode::CONFLICT, Some(DenialKind::RequestRepeated))
        );
        let problem: serde_json::Value = serde_json::from_slice(refused.body()).unwrap();
        assert_eq!(problem["charged"], ESTIMATE);
        assert!(problem["reservation"].as_str().is_some_and(|id| id.starts_with("res_")));
    }
    assert_eq!(credits.account("acme"), (990, 0, 0));
    assert_eq!(finish(&service, with_idempotency_key("ada", "/full", "k2")).await.status(), StatusCode::OK);
    assert_eq!(credits.account("acme"), (980, 0, 0), "another key is another request");
}

#[tokio::test]
async fn a_repeated_request_may_reach_the_handler_which_sees_the_same_settlement() {
    let credits = FaultyCredits::granted("acme", 10);
    let seen = Seen::default();
    let service: Gated<Handler> = keyed(&credits, PassToHandler).build().unwrap().layer(watching(&seen));
    // The second time, the account has no credits left.
    for _ in 0..3 {
        assert_eq!(
            finish(&service, with_idempotency_key("ada", "/full", "k1")).await.status(),
            StatusCode::OK
        );
    }
    assert_eq!(credits.account("acme"), (0, 0, 0));
    let seen = seen.lock().unwrap();
    let (first, repeated) = seen.split_first().unwrap();
    assert!(!first.is_repeated());
    assert_eq!((first.reserved(), first.settlement()), (ESTIMATE, None));
    for meter in repeated {
        assert!(meter.is_repeated());
        meter.add(5);
        assert_eq!((meter.reserved(), meter.reservation(), meter.reported()), (0, None, None));
        let settlement = meter.settlement().unwrap();
        assert_eq!((Some(settlement.id), settlement.charged), (first.reservation(), ESTIMATE));
    }
}

#[tokio::test]
async fn a_request_that_has_not_ended_is_refused_until_it_has() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let service = service(keyed(&credits, PassToHandler));
    let first = begin(&service, with_idempotency_key("ada", "/stream", "k1")).await;
    let refused = finish(&service, with_idempotency_key("ada", "/stream", "k1")).await;
    assert_eq!(
        (refused.status(), kind(&refused)),
        (StatusCode::CONFLICT, Some(DenialKind::RequestInProgress))
    );
    assert_eq!(refused.headers()[RETRY_AFTER], "1");
    drop(first);
    // It was charged nothing, so the key is free again.
    assert_eq!(finish(&service, with_idempotency_key("ada", "/stream", "k1")).await.status(), StatusCode::OK);
    assert_eq!(credits.account("acme"), (990, 0, 0));
}

#[tokio::test]
async fn a_request_that_failed_may_be_repeated() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let service = service(keyed(&credits, Refuse));
    for _ in 0..2 {
        let failed = finish(&service, with_idempotency_key("ada", "/error", "k1")).await;
        assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let mut waiting = pin!(service.clone().oneshot(with_idempotency_key("ada", "/never", "k2")));
        assert!(is_pending(waiting.as_mut()));
    }
    assert_eq!(credits.account("acme"), (1_000, 0, 0));
}

#[tokio::test]
async fn a_key_is_for_one_method_target_and_estimate() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let service = service(keyed(&credits, PassToHandler));
    finish(&service, with_idempotency_key("ada", "/full?page=1", "k1")).await;
    let refused = finish(&service, with_idempotency_key("ada", "/full?page=2", "k1")).await;
    assert_eq!(
        (refused.status(), kind(&refused)),
        (StatusCode::UNPROCESSABLE_ENTITY, Some(DenialKind::IdempotencyKeyReused))
    );
    let mut other = with_idempotency_key("ada", "/full?page=1", "k1");
    *other.method_mut() = http::Method::PUT;
    assert_eq!(kind(&finish(&service, other).await), Some(DenialKind::IdempotencyKeyReused));
    assert_eq!(credits.account("acme"), (990, 0, 0));
}

/// A known loss: a client's key matched another tenant's, which got the other's result for nothing.
#[tokio::test]
async fn the_same_key_of_another_tenant_is_another_key() {
    let credits = FaultyCredits::granted("acme", 1_000);
    credits.grant("globex", 1_000);
    let seen = Seen::default();
    let service: Gated<Handler> = keyed(&credits, PassToHandler).build().unwrap().layer(watching(&seen));
    for key in ["ada", "cyd", "bob"] {
        finish(&service, with_idempotency_key(key, "/full", "k1")).await;
    }
    let repeated: Vec<_> = seen.lock().unwrap().iter().map(CreditMeter::is_repeated).collect();
    assert_eq!(repeated, [false, false, true], "bob is of the tenant of ada");
    assert_eq!((credits.account("acme").0, credits.account("globex").0), (990, 990));
}

/// A handler that has not stored its response must refuse the repetition, or it works for nothing.
#[tokio::test]
async fn a_stream_that_broke_off_after_a_report_counts_as_done() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let service = service(keyed(&credits, Refuse));
    let mut begun = begin(&service, with_idempotency_key("ada", "/stream/1", "k1")).await.into_body();
    begun.frame().await.unwrap().unwrap();
    drop(begun);
    assert_eq!(credits.account("acme"), (999, 0, 0));
    let repeated = finish(&service, with_idempotency_key("ada", "/stream/1", "k1")).await;
    assert_eq!(kind(&repeated), Some(DenialKind::RequestRepeated));
    assert_eq!(repeated.extensions().get::<Denial>().unwrap().settlement().unwrap().charged, 1);
    assert_eq!(credits.account("acme"), (999, 0, 0));
}

#[tokio::test]
async fn the_same_key_in_another_environment_is_another_request() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let of = |environment| Principal::new("ada").with_tenant("acme").with_environment(environment);
    let directory = Directory::new(&World::new().backend)
        .with("live", of(Environment::Live))
        .with("test", of(Environment::Test));
    let layer = CreditsLayer::new(credits.clone(), ESTIMATE).with_idempotency_key(PassToHandler);
    let tollgate = Tollgate::builder().verify(directory).credits(layer).clock(ManualClock::at(at(0)));
    let service = service(tollgate);
    finish(&service, with_idempotency_key("test", "/full", "k1")).await;
    let refused = finish(&service, with_idempotency_key("live", "/full", "k1")).await;
    assert_eq!(kind(&refused), Some(DenialKind::IdempotencyKeyReused));
    assert_eq!(credits.account("acme"), (990, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_backend_charges_a_repeated_request_once() {
    let slow = Call::Slow(std::time::Duration::from_millis(20));
    let credits = FaultyCredits::granted("acme", 1_000).reserving(slow).settling(slow);
    let service = service(keyed(&credits, Refuse));
    let both = futures_util::future::join(
        finish(&service, with_idempotency_key("ada", "/full", "k1")),
        finish(&service, with_idempotency_key("ada", "/full", "k1")),
    );
    let (first, second) = both.await;
    assert_eq!((first.status(), kind(&second)), (StatusCode::OK, Some(DenialKind::RequestInProgress)));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let repeated = finish(&service, with_idempotency_key("ada", "/full", "k1")).await;
    assert_eq!(kind(&repeated), Some(DenialKind::RequestRepeated));
    assert_eq!(credits.account("acme"), (990, 0, 0));
}

#[tokio::test]
async fn report_only_passes_a_repeated_request_and_does_not_charge_it() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let (report, seen) = (ReportOnly::new(), Seen::default());
    let layer = CreditsLayer::new(credits.clone(), ESTIMATE).with_idempotency_key(Refuse);
    let service: Gated<Handler> =
        builder_with(layer.with_report_only(&report)).build().unwrap().layer(watching(&seen));
    for refusals in [0, 1, 2] {
        let response = finish(&service, with_idempotency_key("ada", "/full", "k1")).await;
        assert_eq!((response.status(), report.refusals()), (StatusCode::OK, refusals));
    }
    assert_eq!(credits.account("acme"), (990, 0, 0));
    let repeated: Vec<_> = seen.lock().unwrap().iter().map(CreditMeter::is_repeated).collect();
    assert_eq!(repeated, [false, true, true]);
}

#[tokio::test]
async fn an_invalid_key_is_refused_before_anything_is_reserved() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let reads = service(keyed(&credits, Refuse));
    let mut repeated = with_idempotency_key("ada", "/full", "k1");
    repeated.headers_mut().append("idempotency-key", HeaderValue::from_static("k1"));
    let invalid =
        || [with_idempotency_key("ada", "/full", ""), with_idempotency_key("ada", "/full", &"k".repeat(256))];
    for request in invalid().into_iter().chain([repeated]) {
        let refused = finish(&reads, request).await;
        assert_eq!(
            (refused.status(), kind(&refused)),
            (StatusCode::BAD_REQUEST, Some(DenialKind::IdempotencyKeyInvalid))
        );
    }
    assert_eq!((credits.account("acme"), credits.settlements()), ((1_000, 0, 0), 0));
    let ignores = charging(&credits);
    for request in invalid() {
        assert_eq!(
            finish(&ignores, request).await.status(),
            StatusCode::OK,
            "the header is not read by default"
        );
    }
}
