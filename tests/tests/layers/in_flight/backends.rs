//! Backends that are shared, slow, silent or down.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tests::suite::{Backend, Latch, SlowPlaces, at};
use tollgate::{
    Answer,
    clock::ManualClock,
    denial::Unavailable,
    in_flight::{MemoryPlaces, Place, PlaceRequest, Places},
    store::{EndReason, EndSignal},
};
use tower::timeout::TimeoutLayer;

use super::*;

/// A stack that limits a key to so many requests in flight, counted in `places`.
fn limited_by(places: &SlowPlaces, limit: u32) -> Gated<Handler> {
    service(builder().in_flight_limit(InFlightLimitLayer::new(limit).with_places("key", places.clone())))
}

#[tokio::test]
async fn a_slow_backend_admits_and_refuses_as_a_prompt_one() {
    let latch = Latch::shut();
    let service = limited_by(&SlowPlaces::new(&Backend::slow(&latch)), 1);
    let log = Log::start();
    let mut first = pin!(service.clone().oneshot(by("ada", "/endless")));
    let mut second = pin!(service.clone().oneshot(by("ada", "/full")));
    assert!(is_pending(first.as_mut()) && is_pending(second.as_mut()));
    latch.open();
    let refused = second.await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(log.refusals()[0].field("detail"), Some("1 requests of the key are in flight"));
    let admitted = first.await.unwrap();
    assert_eq!(admitted.status(), StatusCode::OK);

    assert_eq!(status(&service, "ada").await, StatusCode::TOO_MANY_REQUESTS, "the body is not read yet");
    drop(admitted);
    assert_eq!(status(&service, "ada").await, StatusCode::OK);
}

#[tokio::test]
async fn a_late_refusal_names_the_address() {
    let latch = Latch::shut();
    let address = Subject::Address(ClientAddress::of_peer(|_| Some(IpAddr::from([192, 0, 2, 1]))));
    let limit = InFlightLimitLayer::new(0).with_subject(address);
    let limit = limit.with_places("address", SlowPlaces::new(&Backend::slow(&latch)));
    let (service, log) = (service(builder().in_flight_limit(limit)), Log::start());
    latch.open();
    assert_eq!(status(&service, "ada").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(log.refusals()[0].field("detail"), Some("0 requests of 192.0.2.1 are in flight"));
}

#[tokio::test]
async fn a_backend_that_is_down_refuses_with_503_until_it_is_back() {
    let latch = Latch::shut();
    latch.open();
    for down in [Backend::down(), Backend::down_later(&latch)] {
        let backend = Backend::prompt();
        let places = SlowPlaces::new(&backend);
        let service = limited_by(&places, 2);
        let held = send(&service, by("ada", "/endless")).await;
        backend.turn_into(&down);
        let log = Log::start();
        for _ in 0..3 {
            let refused = send(&service, by("ada", "/full")).await;
            assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(refused.extensions().get().map(Denial::kind), Some(DenialKind::Unavailable));
        }
        assert_eq!(log.refusals()[0].field("layer"), Some("InFlightLimitLayer"));
        assert_eq!(log.refusals()[0].field("reason"), Some("unavailable"));

        backend.turn_into(&Backend::prompt());
        let held = [held, send(&service, by("ada", "/endless")).await];
        assert_eq!(held[1].status(), StatusCode::OK, "no refusal holds a place");
        assert_eq!(
            status(&service, "ada").await,
            StatusCode::TOO_MANY_REQUESTS,
            "the first place is still held"
        );
    }
}

#[tokio::test]
async fn report_only_lets_pass_what_a_backend_cannot_count() {
    let (report, backend) = (ReportOnly::new(), Backend::down());
    let places = SlowPlaces::new(&backend);
    let limit = InFlightLimitLayer::new(1).with_places("key", places.clone()).with_report_only(&report);
    let service = service(builder().in_flight_limit(limit));
    let _held = send(&service, by("ada", "/endless")).await;
    assert_eq!((status(&service, "ada").await, report.refusals()), (StatusCode::OK, 2));
    assert!(places.has_free("key", "ada", 1));
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_it_waits_loses_no_place() {
    let backend = Backend::slow(&Latch::shut());
    let places = SlowPlaces::new(&backend);
    let service = limited_by(&places, 1);
    for _ in 0..100 {
        {
            let mut waiting = pin!(service.clone().oneshot(by("ada", "/full")));
            assert!(is_pending(waiting.as_mut()));
            assert!(!places.has_free("key", "ada", 1), "the backend has begun");
        }
        assert!(places.has_free("key", "ada", 1));
    }
    backend.turn_into(&Backend::prompt());
    assert_eq!(status(&service, "ada").await, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_outside_ends_a_wait_for_a_backend_that_hangs() {
    let places = SlowPlaces::new(&Backend::slow(&Latch::shut()));
    let service = TimeoutLayer::new(Duration::from_secs(5)).layer(limited_by(&places, 1));
    let timed_out = service.oneshot(by("ada", "/full")).await.unwrap_err();
    assert!(timed_out.is::<tower::timeout::error::Elapsed>());
    assert!(places.has_free("key", "ada", 1));
}

#[tokio::test]
async fn a_key_that_ends_while_it_waits_is_refused_and_frees_its_place() {
    let (latch, signal) = (Latch::shut(), EndSignal::new());
    let places = SlowPlaces::new(&Backend::slow(&latch));
    let ada = Principal::new("ada").with_end_signal(signal.clone());
    let tollgate = Tollgate::builder()
        .verify(Directory::new(&Backend::prompt()).with("ada", ada))
        .in_flight_limit(InFlightLimitLayer::new(1).with_places("key", places.clone()));
    let service = service(tollgate);
    let mut waiting = pin!(service.clone().oneshot(by("ada", "/full")));
    assert!(is_pending(waiting.as_mut()));
    signal.end(EndReason::Revoked);
    latch.open();
    let refused = waiting.await.unwrap();
    assert_eq!(refused.extensions().get().map(Denial::kind), Some(DenialKind::KeyRevoked));
    assert!(places.has_free("key", "ada", 1));
}

#[tokio::test]
async fn layers_that_share_a_backend_count_together_by_name() {
    let places = MemoryPlaces::new();
    let limit = |name| {
        service(builder().in_flight_limit(InFlightLimitLayer::new(1).with_places(name, places.clone())))
    };
    let (one, same, other) = (limit("api"), limit("api"), limit("exports"));
    let held = send(&one, by("ada", "/endless")).await;
    assert_eq!(status(&same, "ada").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(status(&other, "ada").await, StatusCode::OK);
    drop((one, held));
    assert_eq!(status(&same, "ada").await, StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_outlives_its_service_frees_its_place() {
    let places = SlowPlaces::new(&Backend::prompt());
    let service = limited_by(&places, 1);
    let held = send(&service, by("ada", "/endless")).await;
    drop(service);
    assert!(!places.has_free("key", "ada", 1));
    drop(held);
    assert!(places.has_free("key", "ada", 1));
}

/// What a backend is asked.
type Asked = (String, String, String, u32, SystemTime);

/// Gives a place to each request, and keeps what it was asked.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<Asked>>>);

impl Places for Recorded {
    fn take(&self, request: &PlaceRequest<'_>) -> Answer<Result<Option<Place>, Unavailable>> {
        let PlaceRequest { name, subject, group, limit, now, .. } = *request;
        let asked = (name.into(), subject.into(), group.into(), limit, now);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        Answer::Now(Ok(Some(Place::new(|| {}))))
    }
}

#[tokio::test]
async fn a_backend_is_asked_by_name_subject_and_group() {
    let recorded = Recorded::default();
    let address = || Subject::Address(ClientAddress::of_peer(|_| Some(IpAddr::from([192, 0, 2, 1]))));
    let exports =
        || Subject::custom(|head, _| head.uri.path().starts_with("/full").then_some("exports".into()));
    let limit = |name: &'static str, subject, limit| {
        InFlightLimitLayer::new(limit).with_subject(subject).with_places(name, recorded.clone())
    };
    let directory = Directory::new(&Backend::prompt())
        .with("ada", Principal::new("ada").with_tenant("acme").with_plan(Plan::active("pro")))
        .with("eve", Principal::new("eve"));
    let tollgate = Tollgate::builder()
        .verify(directory)
        .in_flight_limit(limit("key", Subject::Key, 1).with_tier("pro", 10))
        .in_flight_limit(limit("tenant", Subject::Tenant, 2))
        .in_flight_limit(limit("address", address(), 3))
        .in_flight_limit(limit("exports", exports(), 4))
        .clock(ManualClock::at(at(7)));
    let service = service(tollgate);
    for (key, expected) in [
        (
            "ada",
            [
                ("key", "ada", "acme", 10),
                ("tenant", "acme", "acme", 2),
                ("address", "192.0.2.1", "192.0.2.1", 3),
                ("exports", "exports", "exports", 4),
            ],
        ),
        (
            "eve",
            [
                ("key", "eve", "eve", 1),
                ("tenant", "\0keve", "\0keve", 2),
                ("address", "192.0.2.1", "192.0.2.1", 3),
                ("exports", "exports", "exports", 4),
            ],
        ),
    ] {
        assert_eq!(status(&service, key).await, StatusCode::OK);
        let asked = std::mem::take(&mut *recorded.0.lock().unwrap());
        let expected = expected.map(|(name, subject, group, limit)| {
            (name.to_owned(), subject.to_owned(), group.to_owned(), limit, at(7))
        });
        assert_eq!(asked, expected);
    }
}
