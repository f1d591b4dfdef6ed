//! Limits of requests in flight, with callers that hang up.

use std::{convert::Infallible, net::SocketAddr};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::{
    hosts::{serve, within},
    suite::{Backend, Latch, SlowPlaces},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tollgate::{Environment, InFlightLimitLayer, KeyFormat, KeyVerifier, MemoryKeys, Principal, Tollgate};

/// As many as a key may have in flight.
const LIMIT: usize = 5;

/// The limit of a key.
fn limit() -> InFlightLimitLayer {
    InFlightLimitLayer::new(u32::try_from(LIMIT).unwrap())
}

/// How a response goes on after its head.
const PATHS: [&str; 2] = ["/endless", "/silent"];

/// A server whose responses do not end, and a key.
async fn server(limit: InFlightLimitLayer) -> (SocketAddr, String) {
    let format = KeyFormat::new("sk").unwrap();
    let keys = MemoryKeys::new();
    let key = keys.issue(&format, Environment::Live, Principal::new("key_1")).unwrap();
    let tollgate =
        Tollgate::builder().verify(KeyVerifier::new(format, keys)).in_flight_limit(limit).build().unwrap();
    let endless =
        async || Body::from_stream(stream::repeat(Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 1_000]))));
    let silent = async || {
        let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"first"))]);
        Body::from_stream(first.chain(stream::pending()))
    };
    let router = Router::new()
        .route("/endless", get(endless))
        .route("/silent", get(silent))
        .route("/never", get(std::future::pending::<()>))
        .route("/short", get(async || "short"))
        .layer(tollgate);
    (serve(router).await, key.expose_secret().to_owned())
}

/// A request over a connection of its own, as far as the status of its response. Dropped, it hangs up.
pub(crate) struct Http1 {
    _connection: TcpStream,
    pub(crate) status: String,
}

impl Http1 {
    pub(crate) async fn send(address: SocketAddr, path: &str, key: &str) -> TcpStream {
        let mut connection = within(TcpStream::connect(address)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        connection
    }

    pub(crate) async fn get(address: SocketAddr, path: &str, key: &str) -> Self {
        let mut connection = Self::send(address, path, key).await;
        let mut status = [0; 12];
        within(connection.read_exact(&mut status)).await.unwrap();
        Self { _connection: connection, status: String::from_utf8_lossy(&status).into_owned() }
    }

    /// Repeats the request until it is admitted: a server notices after a moment that a caller has hung up.
    async fn admitted(address: SocketAddr, path: &str, key: &str) -> Self {
        within(async {
            loop {
                let response = Self::get(address, path, key).await;
                if response.status.ends_with("200") {
                    return response;
                }
                assert!(response.status.ends_with("429"), "{}", response.status);
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

async fn expect_exactly_the_limit(address: SocketAddr, key: &str) {
    let mut held = Vec::new();
    for _ in 0..LIMIT {
        held.push(Http1::admitted(address, "/silent", key).await);
    }
    for _ in 0..20 {
        assert!(Http1::get(address, "/short", key).await.status.ends_with("429"), "a place was given twice");
    }
}

#[tokio::test]
async fn http_1_callers_that_hang_up_lose_no_place() {
    let (address, key) = server(limit()).await;
    for number in 0..200 {
        drop(Http1::admitted(address, PATHS[number % PATHS.len()], &key).await);
        if number % 10 == 0 {
            // Hangs up before there is a response.
            drop(Http1::send(address, "/never", &key).await);
        }
    }
    expect_exactly_the_limit(address, &key).await;
}

#[tokio::test]
async fn callers_that_hang_up_while_a_backend_answers_lose_no_place() {
    let (backend, most) = (Backend::slow(&Latch::shut()), u32::try_from(LIMIT).unwrap());
    let places = SlowPlaces::new(&backend);
    let (address, key) = server(limit().with_places("key", places.clone())).await;
    let until_free = async |is_free, limit| {
        within(async {
            while places.has_free("key", "key_1", limit) != is_free {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    for _ in 0..20 {
        let mut waiting = Vec::new();
        for _ in 0..LIMIT {
            waiting.push(Http1::send(address, "/short", &key).await);
        }
        until_free(false, most).await;
        drop(waiting);
        until_free(true, 1).await;
    }
    backend.turn_into(&Backend::prompt());
    expect_exactly_the_limit(address, &key).await;
}

pub(crate) async fn http2(address: SocketAddr) -> http2::SendRequest<Empty<Bytes>> {
    let stream = TokioIo::new(within(TcpStream::connect(address)).await.unwrap());
    let (sender, connection) = within(http2::handshake(TokioExecutor::new(), stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) async fn http2_get(
    sender: &mut http2::SendRequest<Empty<Bytes>>,
    path: &str,
    key: &str,
) -> Response<Incoming> {
    let request = Request::get(format!("http://localhost{path}")).header("x-api-key", key);
    within(sender.ready()).await.unwrap();
    within(sender.send_request(request.body(Empty::new()).unwrap())).await.unwrap()
}

#[tokio::test]
async fn http_2_streams_that_are_reset_lose_no_place() {
    let (address, key) = server(limit()).await;
    let mut sender = http2(address).await;
    let mut admitted = 0;
    within(async {
        while admitted < 200 {
            let mut response = http2_get(&mut sender, PATHS[admitted % PATHS.len()], &key).await;
            match response.status() {
                StatusCode::OK => {
                    admitted += 1;
                    if admitted % 2 == 0 {
                        response.body_mut().frame().await.unwrap().unwrap();
                    }
                }
                status => assert_eq!(status, StatusCode::TOO_MANY_REQUESTS),
            }
            // Dropped, the stream is reset.
        }
    })
    .await;
    // The connection is lost while streams are open.
    let mut open = Vec::new();
    within(async {
        while open.len() < LIMIT {
            let response = http2_get(&mut sender, "/silent", &key).await;
            if response.status() == StatusCode::OK {
                open.push(response);
            }
        }
    })
    .await;
    drop((sender, open));
    expect_exactly_the_limit(address, &key).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_reads_its_responses_to_the_end_is_never_refused() {
    let (address, key) = server(limit()).await;
    let mut sender = http2(address).await;
    // Four places are taken, so that one is left.
    let mut held = Vec::new();
    for _ in 1..LIMIT {
        held.push(http2_get(&mut sender, "/silent", &key).await);
    }
    for number in 0..300 {
        let response = http2_get(&mut sender, "/short", &key).await;
        assert_eq!(response.status(), StatusCode::OK, "request {number}");
        let body = within(response.into_body().collect()).await.unwrap().to_bytes();
        assert_eq!(body, "short");
    }
}
