//! Requests as a server delivers them, and the services that answer them: in this process, without a network.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    marker::PhantomData,
    pin::pin,
    task::{Context, Poll, Waker},
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use tower::Service;

use crate::{
    cast::{self, Scenario},
    random,
};

/// A stack, its type hidden: one call through a pointer for a whole batch.
pub trait Stack {
    /// Serves `requests`, reads every response to its end, and empties the vector.
    fn serve(&mut self, requests: &mut Vec<Request<Body>>, expected: StatusCode);

    /// The response to one request, with its body. For tests, not for measurements.
    fn answer(&mut self, request: Request<Body>) -> Response<Vec<u8>>;
}

/// A service as a [`Stack`].
pub struct Driven<S>(pub S);

impl<S, B> Stack for Driven<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes>,
{
    fn serve(&mut self, requests: &mut Vec<Request<Body>>, expected: StatusCode) {
        let mut context = Context::from_waker(Waker::noop());
        for request in requests.drain(..) {
            assert!(self.0.poll_ready(&mut context).is_ready(), "the stack is not ready");
            // Nothing waits, so one poll is enough.
            let Poll::Ready(Ok(response)) = pin!(self.0.call(request)).poll(&mut context) else {
                panic!("the stack waits");
            };
            assert_eq!(response.status(), expected, "unexpected status");
            let (head, body) = response.into_parts();
            black_box(&head);
            let mut body = pin!(body);
            while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut context) {
                black_box(frame.is_ok());
            }
        }
    }

    fn answer(&mut self, request: Request<Body>) -> Response<Vec<u8>> {
        let mut context = Context::from_waker(Waker::noop());
        assert!(self.0.poll_ready(&mut context).is_ready(), "the stack is not ready");
        let Poll::Ready(Ok(response)) = pin!(self.0.call(request)).poll(&mut context) else {
            panic!("the stack waits");
        };
        let (head, body) = response.into_parts();
        let (mut body, mut read) = (pin!(body), Vec::new());
        while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut context) {
            read.extend(frame.into_data().into_iter().flatten());
        }
        Response::from_parts(head, read)
    }
}

/// The service behind all stacks. It answers at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handler<A = Bare>(PhantomData<A>);

impl<A> Handler<A> {
    /// A handler has no state.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

/// The response of a handler.
pub trait Answers: Copy + Send + Sync + 'static {
    /// The response to any request.
    fn answer(request: Request<Body>) -> Response<Body>;
}

/// A response without headers: adding one allocates the map.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bare;

impl Answers for Bare {
    fn answer(_request: Request<Body>) -> Response<Body> {
        Response::new(Body::from("[]"))
    }
}

/// A response like that of axum's `Json`: its map holds two headers, and has room for four more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl Answers for Json {
    fn answer(request: Request<Body>) -> Response<Body> {
        let mut response = Bare::answer(request);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("2"));
        response
    }
}

impl<A: Answers> Service<Request<Body>> for Handler<A> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(A::answer(request)))
    }
}

/// The path of all requests.
pub const PATH: &str = "/v1/jobs/17";

/// `count` requests for `scenario`. The callers take turns, from a random one on.
pub fn requests(scenario: Scenario, has_id: bool, count: usize) -> Vec<Request<Body>> {
    let first = usize::try_from(random::next() % cast::CALLERS as u64).unwrap();
    let credentials = scenario.presented().iter().cycle().skip(first);
    credentials.take(count).map(|credential| request(credential, has_id)).collect()
}

/// A request as hyper delivers it: ten headers with parsed names, and values that are slices of one shared buffer.
fn request(credential: &str, has_id: bool) -> Request<Body> {
    let bearer = format!("Bearer {credential}");
    let trace = if has_id {
        ("x-request-id", "0192a3b4-c5d6-7e8f-9012-3456789abcde")
    } else {
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    };
    let lines = [
        ("host", "api.example.com"),
        ("user-agent", "python-requests/2.32.3"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "en-GB,en;q=0.5"),
        ("content-type", "application/json"),
        ("content-length", "13"),
        ("x-forwarded-for", "203.0.113.7"),
        ("authorization", &bearer),
        trace,
    ];
    let mut buffer = BytesMut::from(PATH);
    for (name, value) in lines {
        buffer.extend_from_slice(name.as_bytes());
        buffer.extend_from_slice(value.as_bytes());
    }
    let buffer = buffer.freeze();

    let mut headers = HeaderMap::with_capacity(lines.len());
    let mut at = PATH.len();
    for (name, value) in lines {
        let start = at + name.len();
        let parsed = HeaderName::from_bytes(&buffer[at..start]).unwrap();
        at = start + value.len();
        headers.append(parsed, HeaderValue::from_maybe_shared(buffer.slice(start..at)).unwrap());
    }
    let mut request = Request::new(Body::from(r#"{"input": 17}"#));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_maybe_shared(buffer.slice(..PATH.len())).unwrap();
    *request.headers_mut() = headers;
    request
}

/// Sends one request of every caller, so that first-request work is done. In the over-limit scenario, it uses up the limit.
pub fn warm_up(stack: &mut dyn Stack, scenario: Scenario, has_id: bool) {
    let first = if scenario == Scenario::OverLimit { Scenario::Allowed } else { scenario };
    stack.serve(&mut requests(scenario, has_id, cast::CALLERS), first.status());
    for _ in 0..3 {
        stack.serve(&mut requests(scenario, has_id, cast::CALLERS), scenario.status());
    }
}
