//! Waiting and sending again, with paused time. No sockets.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, where a panic is the failure"
)]

use std::{
    convert::Infallible,
    future::{Future, pending},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tollgate_client::{Client, ClientLayer, Retries};
use tollgate_core::clock::ManualClock;
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimitLayer};

type Body = axum::body::Body;

const ORIGIN: &str = "https://api.example.com";

fn layer(retries: Retries<Body>) -> ClientLayer<Retries<Body>> {
    ClientLayer::new("sk_live_a1B2c3D4e5F6", ORIGIN).unwrap().with_retries(retries)
}

fn retries() -> Retries<Body> {
    Retries::new(Body::new)
}

/// Answers by a script, then with 200. Counts, and checks that it is called only when it is ready.
#[derive(Clone, Default)]
struct Server(Arc<Shared>, bool);

#[derive(Default)]
struct Shared {
    script: Mutex<Vec<Response<Body>>>,
    seen: Mutex<Vec<Seen>>,
}

struct Seen {
    at: Instant,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Server {
    fn answering(script: impl IntoIterator<Item = Response<Body>>) -> Self {
        let server = Self::default();
        let mut script: Vec<_> = script.into_iter().collect();
        script.reverse();
        *server.0.script.lock().unwrap() = script;
        server
    }

    fn count(&self) -> usize {
        self.0.seen.lock().unwrap().len()
    }

    /// The time between two tries.
    fn waited(&self, index: usize) -> Duration {
        let seen = self.0.seen.lock().unwrap();
        seen[index + 1].at - seen[index].at
    }
}

impl Service<Request<Body>> for Server {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.1 = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        assert!(std::mem::take(&mut self.1), "called only when ready");
        let shared = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap();
            let trailers = body.trailers().cloned();
            let seen = Seen { at: Instant::now(), headers: head.headers, body: body.to_bytes(), trailers };
            shared.seen.lock().unwrap().push(seen);
            let next = shared.script.lock().unwrap().pop();
            Ok(next.unwrap_or_default())
        })
    }
}

fn refused(status: u16, name: &str, value: &str) -> Response<Body> {
    Response::builder().status(status).header(name, value).body("refused".into()).unwrap()
}

fn retry_after(value: &str) -> Response<Body> {
    refused(429, "retry-after", value)
}

fn exhausted(name: &str, value: &str) -> Response<Body> {
    let mut response = refused(200, name, value);
    response.headers_mut().insert("grpc-status", "8".parse().unwrap());
    response
}

fn post(body: impl Into<Body>) -> Request<Body> {
    Request::post(format!("{ORIGIN}/jobs")).body(body.into()).unwrap()
}

async fn send(server: &Server, retries: Retries<Body>, request: Request<Body>) -> Response<Body> {
    layer(retries).layer(server.clone()).oneshot(request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn waits_as_requested_and_sends_the_same_request_again() {
    let server = Server::answering([retry_after("7"), exhausted("grpc-retry-pushback-ms", "1500")]);
    let response = send(&server, retries(), post("data")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(server.count(), 3);
    for (index, least, most) in [(0, 7_000, 7_700), (1, 1_500, 1_650)] {
        let waited = server.waited(index).as_millis();
        assert!((least..=most + 1).contains(&waited), "{waited} ms"); // tokio's timers count in milliseconds
    }
    let seen = server.0.seen.lock().unwrap();
    for again in &seen[1..] {
        assert_eq!(again.body, "data");
        assert_eq!(again.headers, seen[0].headers, "the same key and the same request ID");
    }
}

#[tokio::test(start_paused = true)]
async fn a_date_is_read_by_the_given_clock() {
    let server = Server::answering([retry_after("Sun, 06 Nov 1994 08:49:42 GMT")]);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let client = layer(retries()).with_clock(ManualClock::at(now)).layer(server.clone());
    assert_eq!(client.oneshot(post("")).await.unwrap().status(), 200);
    assert_eq!(server.waited(0).as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn returns_what_is_not_to_be_sent_again_at_once_and_whole() {
    let started = Instant::now();
    for refusal in [
        retry_after("31"),
        retry_after("18446744073709551616"),
        retry_after("-1"),
        retry_after("soon"),
        refused(429, "x-ratelimit-remaining", "0"),
        refused(402, "retry-after", "1"),
        refused(409, "retry-after", "1"),
        refused(503, "retry-after", "1"),
        exhausted("grpc-message", "no credits"),
        exhausted("grpc-retry-pushback-ms", "-1"),
        exhausted("grpc-retry-pushback-ms", "30001"),
    ] {
        let expected = (refusal.status(), refusal.headers().clone());
        let server = Server::answering([refusal]);
        let response = send(&server, retries(), post("")).await;
        assert_eq!((response.status(), response.headers().clone()), expected);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "refused");
        assert_eq!(server.count(), 1, "{expected:?}");
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn sends_at_most_as_often_as_set() {
    for (retries, expected) in [
        (retries(), 3),
        (retries().with_max_tries(5), 5),
        (retries().with_max_tries(1), 1),
        (retries().with_max_tries(0), 1),
        (retries().with_max_tries(9).with_max_wait(Duration::from_secs(3)), 3),
        (retries().with_max_wait(Duration::ZERO), 1),
    ] {
        let text = format!("{retries:?}");
        let server = Server::answering((0..20).map(|_| retry_after("1")));
        assert_eq!(send(&server, retries, post("")).await.status(), 429);
        assert_eq!(server.count(), expected, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_503_is_sent_again_only_if_the_method_is_idempotent() {
    for (method, expected) in [("GET", 2), ("PUT", 2), ("POST", 1), ("PATCH", 1)] {
        let server = Server::answering([refused(503, "retry-after", "1")]);
        let request = Request::builder().method(method).uri(ORIGIN).body(Body::empty()).unwrap();
        send(&server, retries(), request).await;
        assert_eq!(server.count(), expected, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_to_another_origin_are_sent_once() {
    let server = Server::answering([retry_after("1")]);
    let request = Request::get("https://other.example/").body(Body::empty()).unwrap();
    assert_eq!(send(&server, retries(), request).await.status(), 429);
    assert_eq!(server.count(), 1);
    assert!(server.0.seen.lock().unwrap()[0].headers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn bodies_past_the_bound_are_sent_once_and_whole() {
    for (length, expected) in [(65_536, 2), (65_537, 1)] {
        let server = Server::answering([retry_after("1")]);
        send(&server, retries(), post(vec![b'x'; length])).await;
        assert_eq!(server.count(), expected, "{length}");
        let seen = server.0.seen.lock().unwrap();
        assert!(seen.iter().all(|seen| seen.body.len() == length), "{length}");
    }
    let server = Server::answering([retry_after("1")]);
    send(&server, retries().with_max_body(3), post("data")).await;
    assert_eq!(server.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn bodies_that_make_wait_are_streamed_and_sent_once() {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    sender.send("one ").await.unwrap();
    let server = Server::answering([retry_after("1")]);
    let response = tokio::spawn({
        let client = layer(retries()).layer(server.clone());
        client.oneshot(post(Body::new(Received(receiver))))
    });
    tokio::task::yield_now().await;
    sender.send("two").await.unwrap();
    drop(sender);
    assert_eq!(response.await.unwrap().unwrap().status(), 429);
    assert_eq!(server.count(), 1);
    assert_eq!(server.0.seen.lock().unwrap()[0].body, "one two");
}

/// A body whose data another task sends.
struct Received(tokio::sync::mpsc::Receiver<&'static str>);

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data.into()))))
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_are_sent_again() {
    let trailers: HeaderMap = [(http::header::ETAG, "x".parse().unwrap())].into_iter().collect();
    let body = Full::new(Bytes::from("data")).with_trailers(std::future::ready(Some(Ok(trailers.clone()))));
    let server = Server::answering([retry_after("1")]);
    send(&server, retries(), post(Body::new(body))).await;
    assert_eq!(server.count(), 2);
    for seen in &*server.0.seen.lock().unwrap() {
        assert_eq!((&*seen.body, &seen.trailers), (&b"data"[..], &Some(trailers.clone())));
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_that_can_be_cloned_need_no_reading() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let server = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes().len(), 1_000_000);
            let response = if first { retry_after("1") } else { Response::default() };
            Ok::<_, Infallible>(response)
        }
    });
    let client = ClientLayer::new("key", ORIGIN).unwrap().with_retries(Retries::cloned()).layer(server);
    let request = Request::post(ORIGIN).body(Full::new(Bytes::from(vec![0; 1_000_000]))).unwrap();
    assert_eq!(client.oneshot(request).await.unwrap().status(), 200);
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_deadline_bounds_the_wait_and_is_shortened() {
    let request = |timeout: &str| {
        let mut request = post("");
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        request
    };
    let refusals = || [exhausted("grpc-retry-pushback-ms", "2000")];
    let server = Server::answering(refusals());
    let started = Instant::now();
    send(&server, retries(), request("2S")).await;
    assert_eq!((server.count(), started.elapsed()), (1, Duration::ZERO));

    let server = Server::answering(refusals());
    send(&server, retries(), request("5S")).await;
    let seen = server.0.seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].headers["grpc-timeout"], "5S");
    let left: u64 =
        seen[1].headers["grpc-timeout"].to_str().unwrap().strip_suffix('m').unwrap().parse().unwrap();
    assert!((2_790..=3_000).contains(&left), "{left}");
    assert!(!seen[0].headers.contains_key("grpc-previous-rpc-attempts"));
    assert_eq!(seen[1].headers["grpc-previous-rpc-attempts"], "1");
}

/// A waiting request holds no place of the inner service, and the refused response is gone.
#[tokio::test(start_paused = true)]
async fn holds_no_readiness_while_waiting() {
    let server = Server::answering([retry_after("10")]);
    let mut client: Client<_, Retries<Body>> =
        layer(retries()).layer(ConcurrencyLimitLayer::new(1).layer(server.clone()));
    let first = client.ready().await.unwrap().call(post("first"));
    let mut first = pin!(first);
    tokio::select! {
        biased;
        _ = &mut first => panic!("waits"),
        () = tokio::time::sleep(Duration::from_secs(5)) => {}
    }
    let second = tokio::time::timeout(Duration::from_secs(1), client.ready()).await.unwrap().unwrap();
    assert_eq!(second.call(post("second")).await.unwrap().status(), 200);
    assert_eq!(first.await.unwrap().status(), 200);
    assert_eq!(server.count(), 3);
}

/// The next try waits until the inner service is ready, and goes nowhere if it fails.
#[tokio::test(start_paused = true)]
async fn is_polled_ready_before_each_try() {
    #[derive(Clone)]
    struct Unready(Server, u8);
    impl Service<Request<Body>> for Unready {
        type Response = Response<Body>;
        type Error = &'static str;
        type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, &'static str>> + Send>>;
        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
            self.1 += 1;
            match self.1 {
                1 => self.0.poll_ready(cx).map_err(|never| match never {}),
                2..5 => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                _ => Poll::Ready(Err("connection closed")),
            }
        }
        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let response = self.0.call(request);
            Box::pin(async { response.await.map_err(|never| match never {}) })
        }
    }
    let server = Server::answering([retry_after("1")]);
    let client = layer(retries()).layer(Unready(server.clone(), 0));
    assert_eq!(client.oneshot(post("")).await.unwrap_err(), "connection closed");
    assert_eq!(server.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn errors_pass_unchanged() {
    let service = tower::service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>("broken") });
    assert_eq!(layer(retries()).layer(service).oneshot(post("")).await.unwrap_err(), "broken");
}

/// A caller that hangs up while the response is awaited, while its request waits, or while the service is not ready: nothing goes on, and
/// nothing is kept.
#[tokio::test(start_paused = true)]
async fn a_dropped_future_ends_everything() {
    #[derive(Clone)]
    struct Stage(Arc<AtomicUsize>, &'static str);
    impl Service<Request<Body>> for Stage {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            if self.1 == "unready" && self.0.load(Ordering::Relaxed) > 0 {
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<Body>) -> Self::Future {
            let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            let answers = self.1 != "first" && !(self.1 == "second" && count == 2);
            let held = self.0.clone();
            Box::pin(async move {
                if !answers {
                    pending::<()>().await;
                }
                drop(held);
                Ok(retry_after("1"))
            })
        }
    }
    for (stage, calls) in [("first", 1), ("waiting", 1), ("unready", 1), ("second", 2)] {
        let count = Arc::new(AtomicUsize::new(0));
        let mut client = layer(retries()).layer(Stage(count.clone(), stage));
        let response = client.ready().await.unwrap().call(post("data"));
        let until = Duration::from_millis(if stage == "waiting" { 500 } else { 1_500 });
        assert!(tokio::time::timeout(until, response).await.is_err(), "{stage}");
        drop(client);
        assert_eq!(Arc::strong_count(&count), 1, "{stage}: nothing is kept");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(count.load(Ordering::Relaxed), calls, "{stage}");
    }
    // Before the first poll.
    let count = Arc::new(AtomicUsize::new(0));
    let mut client = layer(retries()).layer(Stage(count.clone(), "first"));
    drop(client.ready().await.unwrap().call(post("data")));
    drop(client);
    assert_eq!(Arc::strong_count(&count), 1);
}

/// The body of the refused response is dropped before the wait, so that it holds no connection.
#[tokio::test(start_paused = true)]
async fn the_refused_body_is_dropped_before_the_wait() {
    struct Held(#[expect(dead_code, reason = "is dropped")] Arc<()>);
    impl http_body::Body for Held {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }
    let held = Arc::new(());
    let refusal = retry_after("5").map(|_| Body::new(Held(held.clone())));
    let server = Server::answering([refusal]);
    let mut client = layer(retries()).layer(server);
    let mut response = pin!(client.ready().await.unwrap().call(post("")));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(response.as_mut().poll(&mut cx).is_pending());
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
}

#[test]
fn the_future_can_be_sent_to_another_thread() {
    fn check<T: Send>(_: T) {}
    let mut client = layer(retries()).layer(Server(Arc::default(), true));
    check(client.call(post("")));
}
