//! Limiters that are slow or fail at a deferred charge: no response is lost.

use std::{
    convert::Infallible,
    future::ready,
    io,
    pin::{Pin, pin},
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use tests::{
    hosts::How,
    suite::{Backend, Inner, Latch, Log, Reply, SlowLimiter, at, is_pending, is_ready_now, send},
};
use tollgate::{
    PerWindow as _, Policy, RateLimitLayer, ScopeLayer, Tollgate,
    clock::ManualClock,
    layers::ResponseFuture,
    limit::Cost,
    scope::{Requirement, ScopeMap},
};
use tower::{Layer as _, Service as _, service_fn};
use tracing::Level;

use crate::{Honest, asking, from, guarding, numbers};

/// A limit of ten, whose limiter fails or becomes slow as soon as the inner service is called.
struct Failing {
    clock: ManualClock,
    limiter: Backend,
    failure: Backend,
}

impl Failing {
    fn new(failure: Backend) -> Self {
        Self { clock: ManualClock::at(at(0)), limiter: Backend::prompt(), failure }
    }

    fn limit(&self, cost: Cost) -> RateLimitLayer {
        let policy = Policy::new("key", 10.per_minute()).with_cost(cost);
        RateLimitLayer::from_policies([policy])
            .unwrap()
            .with_limiter(SlowLimiter::new(&self.limiter))
            .unwrap()
    }

    /// Answers 404, after the limiter has begun to fail.
    fn inner(&self) -> Inner {
        let (limiter, failure) = (self.limiter.clone(), self.failure.clone());
        Inner::answering(move |_| {
            limiter.turn_into(&failure);
            let mut response = Response::new("inside".to_owned());
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok(response)
        })
    }

    fn recover(&self) {
        self.limiter.turn_into(&Backend::prompt());
    }
}

fn three() -> Cost {
    Cost::by_response(|_| 3)
}

fn bytes() -> Cost {
    Cost::by_body(|bytes| bytes)
}

#[tokio::test]
async fn a_limiter_that_admits_slowly_makes_the_deferred_charge() {
    for how in How::BOTH {
        let latch = Latch::shut();
        let failing = Failing::new(Backend::slow(&latch));
        failing.limiter.turn_into(&failing.failure);
        let inner = failing.inner();
        let mut stack = guarding(how, &failing.clock, failing.limit(three()), inner.clone());
        assert!(is_ready_now(&mut stack));
        let mut response = pin!(stack.call(from("ada")));
        assert!(is_pending(response.as_mut()));
        assert_eq!(inner.calls(), 0);
        latch.open();
        let reply = Reply::read(response.await.unwrap()).await;
        assert_eq!(numbers(&reply), (404, Some(10), Some(7), Some(60), None), "{how:?}");
    }
}

#[tokio::test]
async fn a_response_waits_for_a_slow_deferred_charge() {
    for how in How::BOTH {
        let latch = Latch::shut();
        let failing = Failing::new(Backend::slow(&latch));
        let inner = failing.inner();
        let mut stack = guarding(how, &failing.clock, failing.limit(three()), inner.clone());
        assert!(is_ready_now(&mut stack));
        let mut response = pin!(stack.call(from("ada")));
        assert!(is_pending(response.as_mut()) && is_pending(response.as_mut()));
        assert_eq!(inner.calls(), 1, "the response is there");
        latch.open();
        let reply = Reply::read(response.await.unwrap()).await;
        assert_eq!(numbers(&reply), (404, Some(10), Some(7), Some(60), None), "{how:?}");
        assert_eq!(reply.body(), "inside");
        assert_eq!(numbers(&send(&mut stack, from("ada")).await).2, Some(4), "charged once");
    }
}

#[tokio::test]
async fn a_refusal_by_an_inner_layer_waits_for_it_too() {
    for how in How::BOTH {
        let (latch, backend) = (Latch::shut(), Backend::prompt());
        let cost = {
            let (backend, slow) = (backend.clone(), Backend::slow(&latch));
            // Asked for what a response costs, before the limiter is.
            Cost::by_response(move |_| {
                backend.turn_into(&slow);
                3
            })
        };
        let policy = Policy::new("key", 10.per_minute()).with_cost(cost);
        let limit = RateLimitLayer::from_policies([policy])
            .unwrap()
            .with_limiter(SlowLimiter::new(&backend))
            .unwrap();
        let mut stack = guarding(how, &ManualClock::at(at(0)), limit, Inner::new());
        assert!(is_ready_now(&mut stack));
        let mut response = pin!(stack.call(asking("ada", "/elsewhere")));
        assert!(is_pending(response.as_mut()));
        latch.open();
        let reply = Reply::read(response.await.unwrap()).await;
        assert_eq!(numbers(&reply), (404, Some(10), Some(7), Some(60), None), "{how:?}");
        assert_eq!(reply.header("content-type"), "application/problem+json");
        assert_eq!(reply.header("cache-control"), "private, no-store");
    }
}

#[tokio::test]
async fn a_limiter_that_is_down_at_the_deferred_charge_loses_no_response() {
    let latch = Latch::shut();
    latch.open();
    for how in How::BOTH {
        for down in [Backend::down(), Backend::down_later(&latch)] {
            for cost in [three(), bytes()] {
                let failing = Failing::new(down.clone());
                let mut stack = guarding(how, &failing.clock, failing.limit(cost), failing.inner());
                let log = Log::start();
                let reply = send(&mut stack, from("ada")).await;
                assert_eq!(numbers(&reply), (404, Some(10), Some(10), Some(60), None), "as of its admission");
                assert_eq!(reply.body(), "inside");

                let warnings: Vec<_> =
                    log.entries().into_iter().filter(|entry| entry.level <= Level::WARN).collect();
                assert_eq!(warnings.len(), 1, "{warnings:?}");
                assert_eq!((&*warnings[0].target, warnings[0].level), ("tollgate", Level::WARN));
                assert_eq!(warnings[0].field("message"), Some("deferred charge failed"));
                assert_eq!(warnings[0].field("detail"), Some("the test has switched this backend off"));
                let refused = send(&mut stack, from("ada")).await;
                assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "the next one is not admitted");
                failing.recover();
                assert_eq!(numbers(&send(&mut stack, from("ada")).await).0, 404);
            }
        }
    }
}

#[tokio::test]
async fn the_end_of_a_body_waits_for_a_slow_deferred_charge() {
    let latch = Latch::shut();
    let failing = Failing::new(Backend::slow(&latch));
    let tollgate = Tollgate::builder().verify(Honest).rate_limit(failing.limit(bytes()));
    let mut service = tollgate.clock(failing.clock.clone()).build().unwrap().layer(failing.inner());
    assert!(is_ready_now(&mut service));
    let mut body = service.call(from("ada")).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "inside");
    assert!(!body.is_end_stream(), "the body must be polled until its end is charged");
    assert!(is_pending(pin!(body.frame())) && is_pending(pin!(body.frame())));
    latch.open();
    assert!(body.frame().await.is_none());
    assert!(body.is_end_stream());
    drop(body);

    failing.recover();
    assert!(is_ready_now(&mut service));
    let next = service.call(from("ada")).await.unwrap();
    assert_eq!(next.headers()["x-ratelimit-remaining"], "4");
}

/// Two frames, the second of which may be an error. Panics when it is read past its end, as streams may.
fn strict(is_broken: bool) -> impl http_body::Body<Data = Bytes, Error = io::Error> {
    let frames = stream::unfold(0, move |at| {
        ready(match at {
            0 => Some((Ok(Frame::data(Bytes::from("half"))), 1)),
            1 if is_broken => Some((Err(io::Error::other("the body's own")), 2)),
            _ => None,
        })
    });
    StreamBody::new(Box::pin(frames))
}

#[tokio::test]
async fn a_body_that_has_ended_is_not_read_again_while_its_end_waits() {
    for is_broken in [false, true] {
        let latch = Latch::shut();
        let failing = Failing::new(Backend::slow(&latch));
        let (limiter, slow) = (failing.limiter.clone(), failing.failure.clone());
        let inner = service_fn(move |_: Request<String>| {
            limiter.turn_into(&slow);
            ready(Ok::<_, Infallible>(Response::new(strict(is_broken))))
        });
        let tollgate = Tollgate::builder().verify(Honest).rate_limit(failing.limit(bytes()));
        let mut service = tollgate.clock(failing.clock.clone()).build().unwrap().layer(inner);
        assert!(is_ready_now(&mut service));
        let mut body = pin!(service.call(from("ada")).await.unwrap().into_body());
        assert!(body.as_mut().frame().await.unwrap().is_ok());
        if is_broken {
            let error = body.as_mut().frame().await.unwrap().unwrap_err();
            assert_eq!(error.to_string(), "the body's own", "an error is passed on at once, and not lost");
            continue;
        }
        assert!(is_pending(pin!(body.as_mut().frame())) && is_pending(pin!(body.as_mut().frame())));
        latch.open();
        assert!(body.as_mut().frame().await.is_none());
    }
}

#[tokio::test]
async fn the_cost_of_a_dropped_body_is_charged() {
    for how in How::BOTH {
        let failing = Failing::new(Backend::slow(&Latch::shut()));
        let mut stack = guarding(how, &failing.clock, failing.limit(bytes()), failing.inner());
        assert!(is_ready_now(&mut stack));
        let mut body = stack.call(from("ada")).await.unwrap().into_body();
        assert!(body.frame().await.is_some());
        drop(body);
        failing.recover();
        assert!(is_ready_now(&mut stack));
        let next = stack.call(from("ada")).await.unwrap();
        assert_eq!(next.headers()["x-ratelimit-remaining"], "4", "{how:?}");
    }
}

#[tokio::test]
async fn a_future_that_is_polled_after_its_end_stays_pending() {
    let map = || ScopeLayer::per_route(ScopeMap::new().get("/jobs", Requirement::none())).unwrap();
    for (path, status) in [("/jobs", 404), ("/elsewhere", 404)] {
        let latch = Latch::shut();
        let failing = Failing::new(Backend::prompt());
        let cost = {
            let (limiter, slow) = (failing.limiter.clone(), Backend::slow(&latch));
            Cost::by_response(move |_| {
                limiter.turn_into(&slow);
                3
            })
        };
        let tollgate = Tollgate::builder().verify(Honest).rate_limit(failing.limit(cost)).scope(map());
        let mut service = tollgate.clock(failing.clock.clone()).build().unwrap().layer(failing.inner());
        assert!(is_ready_now(&mut service));
        let mut response = pin!(service.call(asking("ada", path)));
        assert!(is_pending(response.as_mut()));
        latch.open();
        assert_eq!(response.as_mut().await.unwrap().status(), status);
        assert!(is_pending(response.as_mut()) && is_pending(response.as_mut()));
    }
}

/// Checked by the compiler: a meter in a body, and settlements in a future, take nothing of what servers ask of both.
#[test]
fn futures_can_be_sent_and_bodies_shared() {
    fn is_sent<T: Send>() {}
    fn is_shared<T: Send + Sync + Unpin>() {}
    is_sent::<ResponseFuture<Inner, String>>();
    is_shared::<tollgate::layers::Body<String>>();
    is_shared::<Pin<Box<tollgate::layers::Body<StreamBody<stream::Empty<Result<Frame<Bytes>, Infallible>>>>>>>(
    );
}
