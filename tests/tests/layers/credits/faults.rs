//! Backends that are slow, fail or lose answers, and callers that hang up meanwhile. The timers are paused, so that waits take no time.

use std::{panic::AssertUnwindSafe, pin::pin, time::Duration};

use futures_util::FutureExt as _;
use http_body::Body as _;
use tests::suite::{
    Call::{self, Fails, FailsLater, Hangs, HangsUndone, LosesAnswer, Prompt, Slow},
    Log, is_pending,
};
use tokio::time::{Instant, sleep};
use tollgate::{Denial, DenialKind};
use tracing::Level;

use super::*;

const MOMENT: Duration = Duration::from_millis(20);

/// Lets all settlements end.
async fn settled() {
    sleep(Duration::from_mins(3)).await;
}

/// The next settlements go so, and the ones after them are prompt.
const SETTLEMENTS: [&[Call]; 8] = [
    &[],
    &[Slow(MOMENT)],
    &[Fails],
    &[FailsLater, FailsLater],
    &[LosesAnswer],
    &[Hangs],
    &[HangsUndone],
    &[Hangs, Slow(Duration::from_mins(10)), LosesAnswer, Fails],
];

#[tokio::test(start_paused = true)]
async fn two_hundred_cancelled_requests_and_dropped_bodies_leave_no_reservation_and_no_loss() {
    for reserve in [Prompt, Slow(MOMENT)] {
        for settlements in SETTLEMENTS {
            let credits = FaultyCredits::granted("acme", 1_000_000).reserving(reserve);
            let service = charging(&credits);
            for round in 0..200_u32 {
                let credits = credits.clone().settling_next(settlements.iter().copied());
                // Cancelled before it begins, while the reservation is made, and while the handler works.
                drop(service.clone().oneshot(by("ada", "/full")));
                for wait in [Duration::ZERO, MOMENT * 2] {
                    let request = pin!(service.clone().oneshot(by("ada", "/never")));
                    assert!(tokio::time::timeout(wait, request).await.is_err());
                }
                // Bodies that are dropped before and after they were begun, and one that fails.
                drop(begin(&service, by("ada", "/stream")).await);
                let mut begun = begin(&service, by("ada", "/stream")).await.into_body();
                begun.frame().await.unwrap().unwrap();
                drop(begun);
                finish(&service, by("ada", "/broken")).await;
                assert_eq!(
                    service.clone().oneshot(by("ada", "/fail")).await.unwrap_err(),
                    "the handler failed"
                );
                if round < 3 {
                    let panics = service.clone().oneshot(by("ada", "/panic"));
                    assert!(AssertUnwindSafe(panics).catch_unwind().await.is_err());
                }
                drop(credits);
            }
            settled().await;
            assert_eq!(credits.account("acme"), (1_000_000, 0, 0), "{reserve:?} {settlements:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn successful_requests_are_charged_once_however_their_settlements_go() {
    for reserve in [Prompt, Slow(MOMENT)] {
        for settlements in SETTLEMENTS {
            let credits = FaultyCredits::granted("acme", 1_000_000).reserving(reserve);
            let service = charging(&credits);
            for _ in 0..50 {
                let _ = credits.clone().settling_next(settlements.iter().copied());
                finish(&service, by("ada", "/full")).await;
                finish(&service, by("ada", "/stream/3")).await;
            }
            settled().await;
            assert_eq!(credits.account("acme"), (1_000_000 - 50 * 13, 0, 0), "{reserve:?} {settlements:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_response_waits_until_its_credits_are_settled() {
    for (path, charged) in [
        ("/full", 10),
        ("/full/7", 7),
        ("/empty", 10),
        ("/stream/3", 3),
        ("/grpc-ok", 10),
        ("/grpc-failed", 0),
        ("/not-modified", 10),
        ("/error", 0),
        ("/missing", 0),
    ] {
        let credits = FaultyCredits::granted("acme", 1_000).settling(Slow(MOMENT));
        finish(&charging(&credits), by("ada", path)).await;
        assert_eq!(credits.account("acme"), (1_000 - charged, 0, 0), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_frame_of_a_body_is_given_out_once_its_credits_are_settled() {
    let credits = FaultyCredits::granted("acme", 1_000).settling(Slow(MOMENT));
    let mut body = begin(&charging(&credits), by("ada", "/full")).await.into_body();
    assert!(is_pending(pin!(body.frame())));
    assert!(!body.is_end_stream(), "its last frame is still to come");
    assert_eq!(body.size_hint().exact(), Some(6));
    assert_eq!(credits.account("acme"), (990, 10, 0));
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "inside");
    assert_eq!((credits.account("acme"), body.is_end_stream()), ((990, 0, 0), true));
}

/// A known loss: the error of a stream never released its reservation.
#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_releases_its_reservation() {
    let credits = FaultyCredits::granted("acme", 1_000).settling(Slow(MOMENT));
    let service = charging(&credits);
    let mut body = begin(&service, by("ada", "/broken")).await.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(credits.account("acme"), (990, 10, 0));
    assert!(body.frame().await.unwrap().is_err());
    settled().await;
    assert_eq!(credits.account("acme"), (1_000, 0, 0), "before the body is dropped");
}

#[tokio::test]
async fn a_service_that_panics_when_it_is_called_is_charged_nothing() {
    let credits = FaultyCredits::granted("acme", 1_000);
    let panics = service_fn(|request: Request<String>| {
        let meter = RequestContext::of(request.extensions()).and_then(RequestContext::credits);
        meter.unwrap().set(7);
        panic!("the service panicked") as std::future::Ready<Result<Response<Body>, &'static str>>
    });
    let service = builder(&credits).build().unwrap().layer(panics);
    assert!(AssertUnwindSafe(service.oneshot(by("ada", "/"))).catch_unwind().await.is_err());
    assert_eq!(credits.account("acme"), (1_000, 0, 0));
}

/// A known loss: the answer to a commit was lost, and the repeated commit was paid again.
#[tokio::test(start_paused = true)]
async fn a_settlement_whose_answer_was_lost_is_charged_once() {
    let credits = FaultyCredits::granted("acme", 1_000).settling_next([LosesAnswer, LosesAnswer]);
    finish(&charging(&credits), by("ada", "/full")).await;
    settled().await;
    assert_eq!((credits.account("acme"), credits.settlements()), ((990, 0, 0), 3));
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_fails_three_times_is_charged_once() {
    for failure in [Fails, FailsLater, Hangs, HangsUndone] {
        let credits = FaultyCredits::granted("acme", 1_000).settling_next([failure; 3]);
        let service = charging(&credits);
        let begun = Instant::now();
        finish(&service, by("ada", "/full")).await;
        assert!(begun.elapsed() <= Duration::from_secs(5), "the response waits for the first try only");
        settled().await;
        assert_eq!((credits.account("acme"), credits.settlements()), ((990, 0, 0), 4), "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_is_never_confirmed_is_given_up_and_logged() {
    let credits = FaultyCredits::granted("acme", 1_000).settling(Fails);
    let log = Log::start();
    finish(&charging(&credits), by("ada", "/full/7")).await;
    settled().await;
    let tries = credits.settlements();
    assert!((5..=20).contains(&tries), "{tries}");
    settled().await;
    assert_eq!(credits.settlements(), tries, "no task is left");
    let events = log.entries();
    let warnings: Vec<_> = events.iter().filter(|event| event.level <= Level::WARN).collect();
    let [event] = &*warnings else { panic!("{events:#?}") };
    assert_eq!((&*event.target, event.level), ("tollgate", Level::WARN));
    assert_eq!(event.field("message"), Some("reservation not settled"));
    assert_eq!((event.field("account"), event.field("actual")), (Some("acme"), Some("7")));
    assert_eq!(event.field("detail"), Some("the test has broken this call"));
    assert!(event.field("reservation").is_some_and(|id| id.starts_with("res_")));
    assert_eq!(credits.account_at("acme", at(599)), (990, 10, 0));
    assert_eq!(credits.account_at("acme", at(600)), (1_000, 0, 0), "the reservation has expired");
}

#[tokio::test(start_paused = true)]
async fn an_application_may_wait_for_its_settlements_before_it_ends() {
    let credits = FaultyCredits::granted("acme", 1_000).settling_next([Hangs, FailsLater, Slow(MOMENT)]);
    let layer = CreditsLayer::new(credits.clone(), ESTIMATE);
    layer.wait_until_settled().await;
    let begun = Instant::now();
    finish(&service(builder_with(layer.clone())), by("ada", "/full")).await;
    layer.wait_until_settled().await;
    assert!(begun.elapsed() > Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((credits.account("acme"), credits.settlements()), ((990, 0, 0), 3));
    let credits = credits.settling(HangsUndone);
    finish(&service(builder_with(layer.clone())), by("ada", "/full")).await;
    layer.wait_until_settled().await;
    assert_eq!(credits.account("acme"), (980, 10, 0), "given up");
}

/// A runtime that is shut down drops the tasks that repeat settlements.
#[test]
fn a_settlement_that_is_dropped_or_has_no_runtime_is_logged() {
    let credits = FaultyCredits::granted("acme", 1_000).settling(HangsUndone);
    let log = Log::start();
    let new_runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let runtime = new_runtime();
    // The body is dropped: its end would wait for the settlement.
    runtime.block_on(async { drop(begin(&charging(&credits), by("ada", "/full/7")).await) });
    drop(runtime);
    let runtime = new_runtime();
    let response = runtime.block_on(begin(&charging(&credits), by("ada", "/full/8")));
    drop(runtime);
    drop(response);
    let mut events = log.entries();
    events.retain(|event| event.field("message").is_some());
    let seen: Vec<_> =
        events.iter().map(|event| (event.level, event.field("message"), event.field("actual"))).collect();
    let unsettled = |actual| (Level::WARN, Some("reservation not settled"), Some(actual));
    assert_eq!(seen, [unsettled("7"), unsettled("8")]);
    assert!(events[0].field("detail").unwrap().contains("the tokio runtime was shut down"));
    assert_eq!(events[1].field("detail"), Some("the response was dropped outside a tokio runtime"));
}

/// Tasks of callers that hang up hold the places of their requests.
#[tokio::test(start_paused = true)]
async fn callers_that_hang_up_begin_no_more_reservations_than_they_have_places() {
    use tollgate::InFlightLimitLayer;

    let credits = FaultyCredits::granted("acme", 1_000).reserving(HangsUndone);
    let service = service(builder(&credits).in_flight_limit(InFlightLimitLayer::new(3)));
    for number in 0..10 {
        let mut request = pin!(service.clone().oneshot(by("ada", "/full")));
        assert_eq!(is_pending(request.as_mut()), number < 3, "{number}");
    }
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 3);
    settled().await;
    let mut request = pin!(service.clone().oneshot(by("ada", "/full")));
    assert!(is_pending(request.as_mut()), "the places are free again");
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_arrives_after_its_deadline_is_refused_and_released() {
    let credits = FaultyCredits::granted("acme", 1_000).reserving(Slow(Duration::from_secs(8)));
    let (service, log) = (charging(&credits), Log::start());
    let begun = Instant::now();
    let refused = finish(&service, by("ada", "/full")).await;
    assert_eq!(refused.extensions().get().map(Denial::kind), Some(DenialKind::Unavailable));
    assert_eq!(
        (refused.status(), begun.elapsed()),
        (StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(5))
    );
    assert_eq!(log.refusals()[0].field("detail"), Some("no answer from the backend of credits within 5s"));
    sleep(Duration::from_secs(4)).await;
    assert_eq!((credits.account("acme"), credits.settlements()), ((1_000, 0, 0), 1), "made, and released");
}

#[tokio::test(start_paused = true)]
async fn a_reservation_whose_caller_hangs_up_is_released_when_it_arrives() {
    let credits = FaultyCredits::granted("acme", 1_000).reserving(Slow(MOMENT));
    let service = charging(&credits);
    {
        let mut waiting = pin!(service.clone().oneshot(by("ada", "/full")));
        assert!(is_pending(waiting.as_mut()));
    }
    settled().await;
    assert_eq!((credits.account("acme"), credits.settlements()), ((1_000, 0, 0), 1));
}

#[tokio::test(start_paused = true)]
async fn a_reservation_that_hangs_holds_no_request_and_no_task() {
    let credits = FaultyCredits::granted("acme", 1_000).reserving(Hangs);
    let layer = CreditsLayer::new(credits.clone(), ESTIMATE).with_deadline(Duration::from_secs(1));
    let service = service(builder_with(layer));
    let begun = Instant::now();
    let refused = finish(&service, by("ada", "/full")).await;
    assert_eq!(
        (refused.status(), begun.elapsed()),
        (StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(1))
    );
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks(), 1);
    settled().await;
    assert_eq!(tasks(), 0);
    assert_eq!(credits.account_at("acme", at(600)), (1_000, 0, 0), "what it may have reserved has expired");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_fails_to_reserve_refuses() {
    for call in [Fails, FailsLater, LosesAnswer] {
        let credits = FaultyCredits::granted("acme", 1_000).reserving(call);
        let refused = finish(&charging(&credits), by("ada", "/full")).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{call:?}");
        assert_eq!(credits.account_at("acme", at(600)), (1_000, 0, 0));
    }
}

/// A principal may end while its reservation is made.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_after_the_wait_releases_its_reservation() {
    use tollgate::store::{EndReason, EndSignal};

    let (credits, signal) = (FaultyCredits::granted("acme", 1_000).reserving(Slow(MOMENT)), EndSignal::new());
    let ada = Principal::new("ada").with_tenant("acme").with_end_signal(signal.clone());
    let directory = Directory::new(&World::new().backend).with("ada", ada);
    let layer = CreditsLayer::new(credits.clone(), ESTIMATE);
    let tollgate = Tollgate::builder().verify(directory).credits(layer).clock(ManualClock::at(at(0)));
    let service = service(tollgate);
    let mut waiting = pin!(service.clone().oneshot(by("ada", "/full")));
    assert!(is_pending(waiting.as_mut()));
    signal.end(EndReason::Revoked);
    assert_eq!(waiting.await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!((credits.account("acme"), credits.settlements()), ((1_000, 0, 0), 1));
}
