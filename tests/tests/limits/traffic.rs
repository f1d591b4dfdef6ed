//! What a body costs: its bytes, once, when it has ended or is dropped.

use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use tests::{
    hosts::{Connection, How, header, request, serve_by_hyper},
    suite::{Erasable, Failure, Inner, at, is_ready_now, send},
};
use tollgate::{
    CredentialLayer, PerWindow as _, Policy, RateLimitLayer, RequestContext, Tollgate, VerifyLayer,
    clock::ManualClock,
    limit::{Charge, Cost, LimitRequest, Limiter as _, MemoryLimiter},
    respond::Grpc,
};
use tower::{Layer as _, Service as _, ServiceBuilder, ServiceExt as _, service_fn};

use crate::{Honest, asking, from, guarding, numbers, passing};

/// What was asked of a cost by the body, and what is counted by it.
#[derive(Clone)]
struct Traffic {
    clock: ManualClock,
    counters: Arc<MemoryLimiter>,
    bodies: Arc<Mutex<Vec<u64>>>,
}

impl Traffic {
    fn new() -> Self {
        Self { clock: ManualClock::at(at(0)), counters: Arc::default(), bodies: Arc::default() }
    }

    /// A hundred a minute, of which each body takes one for itself and one for each of its bytes.
    fn limit(&self) -> RateLimitLayer {
        let bodies = Arc::clone(&self.bodies);
        let cost = Cost::by_body(move |bytes| {
            bodies.lock().unwrap().push(bytes);
            bytes + 1
        });
        RateLimitLayer::from_policies([Policy::new("traffic", 100.per_minute()).with_cost(cost)])
            .unwrap()
            .with_limiter(Arc::clone(&self.counters))
            .unwrap()
    }

    /// How long the bodies were that were asked about.
    fn bodies(&self) -> Vec<u64> {
        self.bodies.lock().unwrap().clone()
    }

    /// What is counted for a caller.
    async fn used(&self, caller: &str) -> u64 {
        let quota = 100.per_minute();
        let peek = [Charge::new("traffic", caller, caller, &quota).with_cost(0)];
        let decision = self.counters.acquire(&LimitRequest::new(&peek, at(0))).await.unwrap();
        decision.windows()[0].used
    }
}

type Frames = stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;

/// A body of these pieces, each a frame of its own, and of trailers if there are any pieces.
fn streamed(pieces: &[&'static str]) -> StreamBody<Frames> {
    let mut frames: Vec<_> = pieces.iter().map(|piece| Ok(Frame::data(Bytes::from(*piece)))).collect();
    if !pieces.is_empty() {
        let trailers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("ignored"))]);
        frames.push(Ok(Frame::trailers(trailers)));
    }
    StreamBody::new(stream::iter(frames))
}

/// A service that answers with such a body.
fn streaming(pieces: &'static [&'static str]) -> impl Erasable<StreamBody<Frames>> {
    service_fn(async |_| Ok(Response::new(streamed(pieces))))
}

#[tokio::test]
async fn a_streamed_body_is_charged_once_at_its_end_and_the_next_response_shows_it() {
    for how in How::BOTH {
        let traffic = Traffic::new();
        let mut stack = guarding(how, &traffic.clock, traffic.limit(), streaming(&["one", " and ", "two"]));
        let response = stack.ready().await.unwrap().call(from("ada")).await.unwrap();
        assert_eq!(header(response.headers(), "x-ratelimit-remaining"), "100", "{how:?}");
        let mut body = response.into_body();
        for _ in 0..4 {
            assert!(body.frame().await.is_some());
            assert_eq!(traffic.used("ada").await, 0, "only the end is charged for");
        }
        assert!(body.frame().await.is_none());
        assert_eq!(traffic.used("ada").await, 12);
        drop(body);
        assert_eq!((traffic.used("ada").await, traffic.bodies()), (12, vec![11]), "once");
        assert_eq!(numbers(&send(&mut stack, from("ada")).await).2, Some(88));
    }
}

#[tokio::test]
async fn an_empty_body_costs_as_much_as_zero_bytes() {
    for how in How::BOTH {
        let traffic = Traffic::new();
        let empty = service_fn(async |_| Ok(Response::new(Empty::<Bytes>::new())));
        let mut stack = guarding(how, &traffic.clock, traffic.limit(), empty);
        assert_eq!(numbers(&send(&mut stack, from("ada")).await).2, Some(100));
        assert_eq!(numbers(&send(&mut stack, from("ada")).await).2, Some(99), "{how:?}");
        assert_eq!(traffic.bodies(), [0, 0]);
    }
}

#[tokio::test]
async fn a_body_that_is_dropped_costs_what_was_read() {
    for how in How::BOTH {
        for (read, used) in [(0, 1), (1, 4), (2, 9)] {
            let traffic = Traffic::new();
            let mut stack =
                guarding(how, &traffic.clock, traffic.limit(), streaming(&["one", " and ", "two"]));
            let response = stack.ready().await.unwrap().call(from("ada")).await.unwrap();
            let mut body = response.into_body();
            for _ in 0..read {
                assert!(body.frame().await.is_some());
            }
            assert_eq!(traffic.used("ada").await, 0);
            drop(body);
            assert_eq!(traffic.used("ada").await, used, "{how:?}, {read} frames");
        }
    }
}

#[tokio::test]
async fn a_refusal_by_an_inner_layer_costs_its_bytes() {
    for how in How::BOTH {
        let traffic = Traffic::new();
        let mut stack = guarding(how, &traffic.clock, traffic.limit(), Inner::new());
        let refused = send(&mut stack, asking("ada", "/elsewhere")).await;
        assert_eq!(refused.status(), StatusCode::NOT_FOUND);
        let length = refused.body().len() as u64;
        assert!(length > 10);
        assert_eq!(traffic.bodies(), [length], "{how:?}");
    }
}

#[tokio::test]
async fn a_refusal_by_the_limit_itself_costs_nothing() {
    for how in How::BOTH {
        let traffic = Traffic::new();
        let inner = Inner::answering(|_| Ok(Response::new("x".repeat(200))));
        let mut stack = guarding(how, &traffic.clock, traffic.limit(), inner);
        assert_eq!(passing(&mut stack, "ada", 9).await, 1, "the first one takes more than there is");
        assert_eq!(traffic.bodies(), [200], "{how:?}");
        traffic.clock.set(at(60));
        assert_eq!(passing(&mut stack, "ada", 9).await, 1);
    }
}

#[tokio::test]
async fn a_body_that_fails_costs_what_was_read_and_passes_its_own_error_on() {
    let traffic = Traffic::new();
    let breaking = service_fn(async |_: Request<String>| {
        let frames = [Ok(Frame::data(Bytes::from("half"))), Err(io::Error::other("the body's own"))];
        Ok::<_, Infallible>(Response::new(StreamBody::new(stream::iter(frames))))
    });
    let tollgate = Tollgate::builder().verify(Honest).rate_limit(traffic.limit());
    let mut service = tollgate.clock(traffic.clock.clone()).build().unwrap().layer(breaking);
    assert!(is_ready_now(&mut service));
    let mut body = service.call(from("ada")).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "the body's own");
    drop(body);
    assert_eq!((traffic.used("ada").await, traffic.bodies()), (5, vec![4]));
}

#[tokio::test]
async fn a_body_reports_the_same_size_and_end_as_without_a_limit() {
    let traffic = Traffic::new();
    let layers = ServiceBuilder::new()
        .layer(CredentialLayer::new().with_clock(traffic.clock.clone()))
        .layer(VerifyLayer::new(Honest))
        .layer(traffic.limit());
    let mut service = layers.service(Inner::new());
    assert!(is_ready_now(&mut service));
    let body = service.call(from("ada")).await.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(6));
    let mut body = pin!(body);
    assert_eq!(body.as_mut().collect().await.unwrap().to_bytes(), "inside");
    assert!(body.is_end_stream());
}

/// A gRPC status without a message is sent in headers that end the stream; where an empty frame of data follows them, clients
/// take it for a message that never came, and their callers for an error of the server. It was so behind a meter.
#[tokio::test]
async fn a_body_without_bytes_passes_its_trailers_on_and_is_charged() {
    for how in How::BOTH {
        let traffic = Traffic::new();
        let empty = service_fn(async |_| Ok::<_, Failure>(Response::new(Empty::<Bytes>::new())));
        let mut stack = guarding(how, &traffic.clock, traffic.limit(), empty);
        for path in ["/jobs", "/elsewhere"] {
            let mut request = asking("ada", path);
            *request.method_mut() = Method::POST;
            *request.version_mut() = Version::HTTP_2;
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            RequestContext::set_responder(request.extensions_mut(), Arc::new(Grpc::new()));
            let response = stack.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert!(response.body().is_end_stream(), "{how:?} {path}");
        }
        assert_eq!((traffic.used("ada").await, traffic.bodies()), (2, vec![0, 0]), "{how:?}");
    }
}

/// Ten frames of five bytes each, with whatever headers a test wants.
async fn ten_frames(
    request: Request<hyper::body::Incoming>,
) -> Result<Response<StreamBody<Frames>>, Infallible> {
    let mut response = Response::new(streamed(&["12345"; 10]));
    match request.uri().path() {
        "/long" => {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("50"));
        }
        "/none" => {
            *response.status_mut() = StatusCode::NO_CONTENT;
            *response.body_mut() = streamed(&[]);
        }
        _ => {}
    }
    Ok(response)
}

#[tokio::test]
async fn behind_a_real_server_every_body_is_charged_whatever_its_encoding() {
    // One HTTP/1.1 connection answers one request after the other, so the next response shows it.
    for (method, path, encoding, bytes) in [
        (Method::GET, "/chunked", ("transfer-encoding", "chunked"), 50),
        (Method::GET, "/long", ("content-length", "50"), 50),
        (Method::HEAD, "/long", ("content-length", "50"), 0),
        (Method::GET, "/none", ("content-length", ""), 0),
    ] {
        let traffic = Traffic::new();
        let tollgate = Tollgate::builder().verify(Honest).rate_limit(traffic.limit());
        let tollgate = tollgate.clock(traffic.clock.clone()).build().unwrap();
        let server = serve_by_hyper(tollgate.layer(service_fn(ten_frames))).await;
        let mut caller = Connection::http1(server).await;
        let first = caller.send(request(method.clone(), path, Some("ada"))).await;
        assert_eq!(header(first.headers(), encoding.0), encoding.1, "{method} {path}");
        assert_eq!(first.body().len() as u64, bytes, "{method} {path}");
        assert_eq!(header(first.headers(), "x-ratelimit-remaining"), "100");
        let next = caller.send(request(Method::HEAD, "/long", Some("ada"))).await;
        assert_eq!(
            header(next.headers(), "x-ratelimit-remaining"),
            (99 - bytes).to_string(),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn over_http_2_many_bodies_at_once_are_charged_each() {
    let traffic = Traffic::new();
    let tollgate = Tollgate::builder().verify(Honest).rate_limit(traffic.limit());
    let tollgate = tollgate.clock(traffic.clock.clone()).build().unwrap();
    let server = serve_by_hyper(tollgate.layer(service_fn(ten_frames))).await;
    let callers = stream::iter(0..8).map(async |number| {
        let mut caller = Connection::http2(server).await;
        let path = if number % 2 == 0 { "/chunked" } else { "/none" };
        let response = caller.get(path, Some(&format!("caller{number}"))).await;
        assert_eq!(response.body().len(), if number % 2 == 0 { 50 } else { 0 });
    });
    callers.buffer_unordered(8).collect::<Vec<()>>().await;
    for number in 0..8 {
        let expected = if number % 2 == 0 { 51 } else { 1 };
        assert_eq!(traffic.used(&format!("caller{number}")).await, expected);
    }
}
