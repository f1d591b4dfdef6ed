//! Limits of requests in flight: what takes a place, and what frees it.
//!
//! | module | tests |
//! |---|---|
//! | `backends` | backends that are shared, slow, silent or down |

mod backends;

use std::{convert::Infallible, future::pending, net::IpAddr, panic::AssertUnwindSafe, pin::pin, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use tests::suite::{Directory, Log, World, get, is_pending, with_key};
use tokio::sync::mpsc;
use tollgate::{
    ClientAddress, CredentialLayer, Denial, DenialKind, InFlightLimitLayer, PerWindow as _, Plan, Policy,
    Principal, RateLimitLayer, RequestContext, Tollgate,
    layers::{Gated, ReportOnly, TollgateBuilder},
    limit::{Cost, Subject},
    scope,
};
use tower::{Layer, Service, ServiceExt as _, service_fn, util::BoxCloneSyncService};

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Handler = BoxCloneSyncService<Request<String>, Response<Body>, &'static str>;

/// A stack without a layer that limits requests in flight.
fn builder() -> TollgateBuilder {
    let directory = Directory::new(&World::new().backend)
        .with("ada", Principal::new("ada").with_tenant("acme"))
        .with("bob", Principal::new("bob").with_tenant("acme"))
        .with("cyd", Principal::new("cyd").with_tenant("globex").with_plan(Plan::active("pro")))
        .with("dan", Principal::new("dan").with_tenant("globex").with_plan(Plan::lapsed("pro")));
    Tollgate::builder().verify(directory)
}

/// Answers each path in its own way. `/stream` streams what `frames` receives.
#[expect(clippy::panic, reason = "a handler that panics is under test")]
fn handler(frames: Option<mpsc::UnboundedReceiver<&'static str>>) -> Handler {
    let frames = Arc::new(std::sync::Mutex::new(frames));
    BoxCloneSyncService::new(service_fn(move |request: Request<String>| {
        let frames = Arc::clone(&frames);
        async move {
            let body = match request.uri().path() {
                "/full" => Full::from("inside").boxed_unsync(),
                "/empty" => Empty::new().boxed_unsync(),
                "/endless" => {
                    StreamBody::new(stream::repeat_with(|| Ok(Frame::data("x".into())))).boxed_unsync()
                }
                "/stream" => {
                    let frames = frames.lock().unwrap().take().unwrap();
                    let frames = stream::unfold(frames, async |mut frames| {
                        let data = frames.recv().await?;
                        Some((Ok(Frame::data(Bytes::from(data))), frames))
                    });
                    StreamBody::new(frames).boxed_unsync()
                }
                "/fail" => return Err("the handler failed"),
                "/panic" => panic!("the handler panicked"),
                _ => pending().await,
            };
            Ok(Response::new(body))
        }
    }))
}

fn service(tollgate: TollgateBuilder) -> Gated<Handler> {
    tollgate.build().unwrap().layer(handler(None))
}

fn limited(limit: u32) -> Gated<Handler> {
    service(builder().in_flight_limit(InFlightLimitLayer::new(limit)))
}

fn by(key: &str, path: &str) -> Request<String> {
    get(path, &[("x-api-key", key)])
}

async fn send<S, B>(service: &S, request: Request<String>) -> Response<B>
where
    S: Service<Request<String>, Response = Response<B>, Error = &'static str> + Clone,
{
    service.clone().oneshot(request).await.unwrap()
}

async fn status<S, B>(service: &S, key: &str) -> StatusCode
where
    S: Service<Request<String>, Response = Response<B>, Error = &'static str> + Clone,
{
    // The response is dropped with its body.
    send(service, by(key, "/full")).await.status()
}

#[tokio::test]
async fn admits_as_many_as_the_limit_and_not_one_more() {
    let service = limited(3);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(send(&service, by("ada", "/endless")).await);
    }
    for _ in 0..5 {
        let refused = send(&service, by("ada", "/full")).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.extensions().get().map(Denial::kind), Some(DenialKind::TooManyInFlight));
        assert!(!refused.headers().contains_key("retry-after"));
        let body = refused.into_body().collect().await.unwrap().to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["code"], "too_many_concurrent_requests");
    }
    assert_eq!(status(&service, "bob").await, StatusCode::OK, "another key has places of its own");
    held.pop();
    assert_eq!(status(&service, "ada").await, StatusCode::OK);
    assert_eq!(status(&service, "ada").await, StatusCode::OK, "its place is free again");
}

#[tokio::test]
async fn no_place_is_lost_with_dropped_futures_bodies_failures_and_panics() {
    let service = limited(2);
    for round in 0..200 {
        // A response that is dropped before it is there, one before its body ended, and one whose body was begun.
        drop(service.clone().oneshot(by("ada", "/full")));
        {
            let mut waiting = pin!(service.clone().oneshot(by("ada", "/never")));
            assert!(is_pending(waiting.as_mut()));
        }
        drop(send(&service, by("ada", "/endless")).await);
        let mut begun = send(&service, by("ada", "/endless")).await.into_body();
        begun.frame().await.unwrap().unwrap();
        drop(begun);
        assert_eq!(service.clone().oneshot(by("ada", "/fail")).await.unwrap_err(), "the handler failed");
        if round < 3 {
            let panics = AssertUnwindSafe(service.clone().oneshot(by("ada", "/panic"))).catch_unwind().await;
            assert!(panics.is_err());
        }
    }
    let held = [send(&service, by("ada", "/endless")).await, send(&service, by("ada", "/endless")).await];
    assert_eq!(status(&service, "ada").await, StatusCode::TOO_MANY_REQUESTS, "exactly two");
    drop(held);
}

#[tokio::test]
async fn a_stream_holds_its_place_until_it_has_ended() {
    let (frames, received) = mpsc::unbounded_channel();
    let service = builder().in_flight_limit(InFlightLimitLayer::new(1)).build().unwrap();
    let service = service.layer(handler(Some(received)));
    let mut body = send(&service, by("ada", "/stream")).await.into_body();
    for text in ["one", "two"] {
        frames.send(text).unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), text);
        assert_eq!(status(&service, "ada").await, StatusCode::TOO_MANY_REQUESTS);
    }
    drop(frames);
    assert!(body.frame().await.is_none());
    assert_eq!(status(&service, "ada").await, StatusCode::OK, "the body has ended, but is not dropped yet");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_place_is_free_when_the_reader_can_know_that_the_body_has_ended() {
    // A server that sees the end does not poll again: its caller may send the next request before the body is dropped.
    let service = limited(1);
    let mut full = send(&service, by("ada", "/full")).await.into_body();
    assert!(!full.is_end_stream());
    assert_eq!(status(&service, "ada").await, StatusCode::TOO_MANY_REQUESTS);
    full.frame().await.unwrap().unwrap();
    assert_eq!(status(&service, "ada").await, StatusCode::OK);
    assert!(full.is_end_stream());

    let empty = send(&service, by("ada", "/empty")).await.into_body();
    assert!(empty.is_end_stream());
    assert_eq!(status(&service, "ada").await, StatusCode::OK);
    drop((full, empty));
    assert_eq!(status(&service, "ada").await, StatusCode::OK, "a place is freed once");
    let _held = send(&service, by("ada", "/endless")).await;
    assert_eq!(status(&service, "ada").await, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_request_that_is_refused_further_in_frees_its_place_and_counts_in_no_quota_further_out() {
    let service = service(
        builder()
            .in_flight_limit(InFlightLimitLayer::new(1))
            .rate_limit(3.per_minute())
            .scope(scope("jobs:read")),
    );
    for _ in 0..3 {
        let refused = send(&service, by("ada", "/full")).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    }
    let used_up = send(&service, by("ada", "/full")).await;
    assert_eq!(used_up.extensions().get().map(Denial::kind), Some(DenialKind::RateLimited));

    let service = limited_and_counted();
    let held = send(&service, by("ada", "/endless")).await;
    assert_eq!(held.headers()["x-ratelimit-remaining"], "8");
    for _ in 0..20 {
        assert_eq!(status(&service, "ada").await, StatusCode::TOO_MANY_REQUESTS);
    }
    drop(held);
    let next = send(&service, by("ada", "/full")).await;
    assert_eq!(next.headers()["x-ratelimit-remaining"], "7", "requests without a place are not counted");
}

fn limited_and_counted() -> Gated<Handler> {
    service(builder().in_flight_limit(InFlightLimitLayer::new(1)).rate_limit(9.per_minute()))
}

#[tokio::test]
async fn a_place_and_a_charge_by_the_body_end_together() {
    let by_body = Policy::new("bytes", 100.per_minute()).with_cost(Cost::by_body(|bytes| bytes));
    let service = service(
        builder()
            .in_flight_limit(InFlightLimitLayer::new(1))
            .rate_limit(RateLimitLayer::from_policies([by_body]).unwrap()),
    );
    let mut body = send(&service, by("ada", "/full")).await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "inside");
    assert_eq!(status(&service, "ada").await, StatusCode::TOO_MANY_REQUESTS, "its bytes are not charged yet");
    assert!(body.frame().await.is_none());
    assert_eq!(send(&service, by("ada", "/full")).await.headers()["x-ratelimit-remaining"], "94");
}

#[tokio::test]
async fn counts_by_tenant_and_gives_a_tier_its_own_limit() {
    let service = service(
        builder()
            .in_flight_limit(InFlightLimitLayer::new(1).with_subject(Subject::Tenant).with_tier("pro", 2)),
    );
    let _held = send(&service, by("ada", "/endless")).await;
    assert_eq!(status(&service, "bob").await, StatusCode::TOO_MANY_REQUESTS, "of the same tenant");
    let _held = send(&service, by("cyd", "/endless")).await;
    assert_eq!(status(&service, "dan").await, StatusCode::TOO_MANY_REQUESTS, "its plan has lapsed");
    let _held = send(&service, by("cyd", "/endless")).await;
    assert_eq!(status(&service, "cyd").await, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn several_limits_hold_together() {
    let address = ClientAddress::of_peer(|head| {
        let address = head.headers.get("x-address")?.to_str().ok()?;
        address.parse::<IpAddr>().ok()
    });
    let service = service(
        builder()
            .credential(CredentialLayer::new().with_anonymous())
            .in_flight_limit(InFlightLimitLayer::new(2))
            .in_flight_limit(InFlightLimitLayer::new(3).with_subject(Subject::Address(address))),
    );
    let from = |address, path, key: Option<&'static str>| {
        let mut headers = vec![("x-address", address)];
        headers.extend(key.map(|key| ("x-api-key", key)));
        get(path, &headers)
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(send(&service, from("192.0.2.1", "/endless", Some("ada"))).await);
    }
    let refused = send(&service, from("192.0.2.2", "/full", Some("ada"))).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "the key has no place left");
    held.push(send(&service, from("192.0.2.1", "/endless", None)).await);
    let log = Log::start();
    for key in [None, Some("bob")] {
        let refused = send(&service, from("192.0.2.1", "/full", key)).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "the address has no place left");
    }
    for refusal in log.refusals() {
        assert_eq!(refusal.field("reason"), Some("too_many_in_flight"));
        assert_eq!(refusal.field("detail"), Some("3 requests of 192.0.2.1 are in flight"));
    }
    for _ in 0..3 {
        let admitted = send(&service, from("192.0.2.2", "/full", Some("bob"))).await;
        assert_eq!(admitted.status(), StatusCode::OK, "the refusals above have freed bob's places");
    }
}

#[tokio::test]
async fn report_only_lets_pass_and_takes_no_place() {
    let report = ReportOnly::new();
    let service = service(builder().in_flight_limit(InFlightLimitLayer::new(1).with_report_only(&report)));
    let first = send(&service, by("ada", "/endless")).await;
    let second = send(&service, by("ada", "/endless")).await;
    assert_eq!((second.status(), report.refusals()), (StatusCode::OK, 1));
    drop(first);
    assert_eq!(status(&service, "ada").await, StatusCode::OK);
    assert_eq!(report.refusals(), 1, "the second request holds no place");
}

#[tokio::test]
async fn a_sub_request_does_not_hold_the_place_of_its_request() {
    let copied = Arc::new(std::sync::Mutex::new(None));
    let seen = Arc::clone(&copied);
    let inner = service_fn(move |request: Request<String>| {
        let mut sub_request = Request::new(String::new());
        RequestContext::copy(request.extensions(), sub_request.extensions_mut());
        *seen.lock().unwrap() = Some(sub_request);
        async { Ok::<_, &'static str>(Response::new(Full::<Bytes>::from("inside"))) }
    });
    let tollgate = builder().in_flight_limit(InFlightLimitLayer::new(1)).build().unwrap();
    let service = tollgate.layer(inner);
    for _ in 0..3 {
        assert_eq!(status(&service, "ada").await, StatusCode::OK);
        assert!(copied.lock().unwrap().is_some());
    }
}

#[tokio::test]
async fn anonymous_requests_need_a_limit_that_counts_them() {
    let anonymous = || builder().credential(CredentialLayer::new().with_anonymous());
    let error = anonymous().in_flight_limit(InFlightLimitLayer::new(1)).build().unwrap_err();
    assert!(error.to_string().contains("add one by Subject::Address"), "{error}");

    // A layer of its own does not count them.
    let layers = tower::ServiceBuilder::new()
        .layer(CredentialLayer::new().with_anonymous())
        .layer(tollgate::VerifyLayer::new(Directory::default()))
        .layer(InFlightLimitLayer::new(0));
    let service = layers.service(handler(None));
    assert_eq!(send(&service, get("/full", &[])).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_limit_of_zero_admits_none() {
    assert_eq!(status(&limited(0), "ada").await, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn clones_and_services_of_one_layer_count_together() {
    let layer = InFlightLimitLayer::new(1);
    let one = service(builder().in_flight_limit(layer.clone()));
    let two = service(builder().in_flight_limit(layer));
    let held = send(&one, by("ada", "/endless")).await;
    assert_eq!(status(&two, "ada").await, StatusCode::TOO_MANY_REQUESTS);
    drop(held);
    assert_eq!(status(&two, "ada").await, StatusCode::OK);
}

#[tokio::test]
async fn of_many_at_once_exactly_the_limit_is_admitted() {
    let service = limited(10);
    let responses: Vec<_> = stream::iter(0..200)
        .map(|_| send(&service, with_key_to_endless()))
        .buffer_unordered(50)
        .collect()
        .await;
    let admitted = responses.iter().filter(|response| response.status() == StatusCode::OK).count();
    assert_eq!(admitted, 10);
}

fn with_key_to_endless() -> Request<String> {
    let mut request = with_key("ada");
    *request.uri_mut() = "/endless".parse().unwrap();
    request
}

#[tokio::test]
async fn a_request_that_waits_further_in_holds_its_place() {
    use tests::suite::{Backend, Latch, SlowLimiter, limit_by_key};
    use tollgate::EntitlementLayer;

    let latch = Latch::shut();
    let slow = limit_by_key(9.per_minute(), SlowLimiter::new(&Backend::slow(&latch)));
    let stack = builder().in_flight_limit(InFlightLimitLayer::new(1)).rate_limit(slow);
    let service = service(stack.entitlement(EntitlementLayer::new()));
    {
        let mut waiting = pin!(service.clone().oneshot(by("cyd", "/full")));
        assert!(is_pending(waiting.as_mut()));
        assert_eq!(status(&service, "cyd").await, StatusCode::TOO_MANY_REQUESTS);
    }
    latch.open();
    assert_eq!(status(&service, "cyd").await, StatusCode::OK, "the request that waited is dropped");
    assert_eq!(status(&service, "dan").await, StatusCode::FORBIDDEN, "its plan has lapsed");
    assert_eq!(status(&service, "dan").await, StatusCode::FORBIDDEN, "the refusal freed its place");
}
