//! Streams over real connections, whose callers' keys end.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    response::sse::{Event, Sse},
    routing::post,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, future::join_all, stream};
use http::{
    HeaderMap, Request, Response,
    header::{CONTENT_TYPE, HeaderValue},
};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use tests::{
    hosts::{listen, serve, within},
    suite::Log,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};
use tollgate::{
    Environment, KeyFormat, KeyVerifier, MemoryKeys, Principal, StreamEndLayer, Tollgate, respond::Grpc,
};
use tonic::{
    Code,
    transport::{Endpoint, Server},
};
use tonic_health::{
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::health_reporter,
};

/// How soon a stream ends after the revocation. A busy machine may take longer than the few milliseconds that it takes.
const BOUND: Duration = Duration::from_secs(10);

/// A stack that ends streams, and two keys.
struct Api {
    keys: MemoryKeys,
    tollgate: Tollgate,
    key: String,
    other_key: String,
}

impl Api {
    fn new() -> Self {
        let format = KeyFormat::new("sk").unwrap();
        let keys = MemoryKeys::new();
        let issue = |id: &str, tenant: &str| {
            let principal = Principal::new(id).with_tenant(tenant);
            keys.issue(&format, Environment::Live, principal).unwrap().expose_secret().to_owned()
        };
        let (key, other_key) = (issue("key_1", "acme"), issue("key_2", "globex"));
        let tollgate = Tollgate::builder()
            .verify(KeyVerifier::new(format, keys.clone()))
            .stream_end(StreamEndLayer::new())
            .responder(Grpc::new())
            .build()
            .unwrap();
        Self { keys, tollgate, key, other_key }
    }
}

/// Sends one frame, and nothing more.
fn open(content_type: &'static str) -> Response<Body> {
    let first =
        stream::once(async { Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"\0\0\0\0\x01x"))) });
    let mut response = Response::new(Body::new(StreamBody::new(first.chain(stream::pending()))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

async fn serve_streams(api: &Api) -> SocketAddr {
    let router = Router::new()
        .route("/grpc", post(async || open("application/grpc")))
        .route("/events", post(async || open("text/event-stream")))
        .route("/sse", post(async || Sse::new(stream::pending::<Result<Event, Infallible>>())))
        .layer(api.tollgate.clone());
    serve(router).await
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr) -> Sender {
    let stream = hyper_util::rt::TokioIo::new(within(TcpStream::connect(address)).await.unwrap());
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) = within(hyper::client::conn::http2::handshake(executor, stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn call(sender: &mut Sender, path: &str, key: &str) -> Response<Incoming> {
    let request = Request::post(format!("http://localhost{path}"))
        .header("x-api-key", key)
        .header(CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .body(Full::default())
        .unwrap();
    within(sender.ready()).await.unwrap();
    within(sender.send_request(request)).await.unwrap()
}

async fn first_frame(response: &mut Response<Incoming>) {
    let frame = within(response.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), &b"\0\0\0\0\x01x"[..]);
}

/// Reads an open stream to its end. Gives its trailers, and when it has ended.
async fn trailers(response: Response<Incoming>) -> (Option<HeaderMap>, tokio::time::Instant) {
    let collected = within(response.into_body().collect()).await.unwrap();
    let trailers = collected.trailers().cloned();
    assert_eq!(collected.to_bytes(), "", "nothing but the end");
    (trailers, tokio::time::Instant::now())
}

#[tokio::test]
async fn a_grpc_stream_gets_its_status_in_trailers() {
    for suspended in [false, true] {
        let api = Api::new();
        let mut sender = connect(serve_streams(&api).await).await;
        let mut response = call(&mut sender, "/grpc", &api.key).await;
        first_frame(&mut response).await;
        if suspended {
            api.keys.suspend_tenant("acme");
        } else {
            assert!(api.keys.revoke("key_1"));
        }
        let trailers = trailers(response).await.0.unwrap();
        assert_eq!(trailers["grpc-status"], if suspended { "7" } else { "16" });
        assert!(!trailers.contains_key(CONTENT_TYPE));
    }
}

#[tokio::test]
async fn the_events_of_axum_end() {
    let api = Api::new();
    let mut sender = connect(serve_streams(&api).await).await;
    let response = call(&mut sender, "/sse", &api.key).await;
    assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
    api.keys.revoke("key_1");
    assert_eq!(trailers(response).await.0, None);
}

/// Reads the body of a request in a task of its own, which reports each piece. It answers with a stream, or never.
async fn serve_client_streams(api: &Api, answers: bool) -> (SocketAddr, mpsc::UnboundedReceiver<Bytes>) {
    let (pieces, received) = mpsc::unbounded_channel();
    let handler = post(async move |request: Request<Body>| {
        let mut body = request.into_body();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                let _ = pieces.send(frame.into_data().unwrap_or_default());
            }
        });
        if !answers {
            std::future::pending::<()>().await;
        }
        open("application/grpc")
    });
    (serve(Router::new().route("/", handler).layer(api.tollgate.clone())).await, received)
}

#[tokio::test]
async fn a_client_stream_ends_in_its_response_and_its_request_goes_on() {
    for answers in [false, true] {
        let log = Log::start();
        let api = Api::new();
        let (address, mut received) = serve_client_streams(&api, answers).await;
        let stream = hyper_util::rt::TokioIo::new(within(TcpStream::connect(address)).await.unwrap());
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) =
            within(hyper::client::conn::http2::handshake(executor, stream)).await.unwrap();
        tokio::spawn(connection);
        let (pieces, sent) = mpsc::unbounded_channel::<Bytes>();
        let sent = stream::unfold(sent, async |mut sent| {
            Some((Ok::<_, Infallible>(Frame::data(sent.recv().await?)), sent))
        });
        let request = Request::post(format!("http://{address}/"))
            .header("x-api-key", &api.key)
            .header(CONTENT_TYPE, "application/grpc")
            .body(StreamBody::new(Box::pin(sent)))
            .unwrap();
        let response = tokio::spawn(sender.send_request(request));
        pieces.send(Bytes::from_static(b"one")).unwrap();
        assert_eq!(within(received.recv()).await.unwrap(), "one", "the handler is at work");

        let status = if answers {
            let mut response = within(response).await.unwrap().unwrap();
            first_frame(&mut response).await;
            api.keys.revoke("key_1");
            trailers(response).await.0.unwrap()["grpc-status"].clone()
        } else {
            api.keys.revoke("key_1");
            let response = within(response).await.unwrap().unwrap();
            assert!(response.headers().contains_key("x-request-id"));
            let [refusal] = &log.refusals()[..] else { unreachable!("one event") };
            assert_eq!(refusal.field("layer"), Some("StreamEndLayer"));
            response.headers()["grpc-status"].clone()
        };
        assert_eq!(status, "16");
        // The task holds the body of the request: the end of the response does not stop it.
        pieces.send(Bytes::from_static(b"two")).unwrap();
        assert_eq!(within(received.recv()).await.unwrap(), "two");
    }
}

#[tokio::test]
async fn server_sent_events_end_over_both_versions_of_http() {
    let api = Api::new();
    let address = serve_streams(&api).await;
    let mut sender = connect(address).await;
    let mut response = call(&mut sender, "/events", &api.key).await;
    first_frame(&mut response).await;

    let mut http1 = within(TcpStream::connect(address)).await.unwrap();
    let head = format!(
        "POST /events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\nx-api-key: {}\r\n\r\n",
        api.key
    );
    http1.write_all(head.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    within(async {
        while !received.ends_with(b"x\r\n") {
            http1.read_buf(&mut received).await.unwrap();
        }
    })
    .await;

    api.keys.revoke("key_1");
    assert_eq!(trailers(response).await.0, None);
    within(http1.read_to_end(&mut received)).await.unwrap();
    assert!(received.ends_with(b"x\r\n0\r\n\r\n"), "the last chunk: the body is complete");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_of_a_key_end_after_one_revocation_and_none_of_another() {
    const STREAMS: usize = 1_000;
    // hyper admits 200 streams per connection.
    const PER_CONNECTION: usize = 100;

    let api = Api::new();
    let address = serve_streams(&api).await;
    let mut open = Vec::new();
    let mut others = Vec::new();
    for _ in 0..STREAMS / PER_CONNECTION {
        let mut sender = connect(address).await;
        for _ in 0..PER_CONNECTION {
            let mut response = call(&mut sender, "/grpc", &api.key).await;
            first_frame(&mut response).await;
            open.push(tokio::spawn(trailers(response)));
        }
        let mut response = call(&mut sender, "/grpc", &api.other_key).await;
        first_frame(&mut response).await;
        others.push((sender, tokio::spawn(trailers(response))));
    }
    assert!(open.iter().all(|stream| !stream.is_finished()), "none ends before");

    let revoked_at = tokio::time::Instant::now();
    assert!(api.keys.revoke("key_1"));
    for ended in join_all(open).await {
        let (trailers, ended_at) = ended.unwrap();
        assert_eq!(trailers.unwrap()["grpc-status"], "16");
        let after = ended_at.duration_since(revoked_at);
        assert!(after < BOUND, "{after:?}");
    }
    assert!(others.iter().all(|(_, stream)| !stream.is_finished()), "none of another key ends");
    for (sender, _) in &mut others {
        let mut response = call(sender, "/grpc", &api.other_key).await;
        first_frame(&mut response).await;
    }
}

#[tokio::test]
async fn a_client_of_tonic_sees_the_status_of_its_stream() {
    let api = Api::new();
    let (_reporter, health) = health_reporter();
    let (listener, address) = listen().await;
    let incoming = Box::pin(stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    }));
    let server = Server::builder().layer(api.tollgate.clone()).add_service(health);
    tokio::spawn(server.serve_with_incoming(incoming));

    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(within(endpoint.connect()).await.unwrap());
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.metadata_mut().insert("x-api-key", api.key.parse().unwrap());
    let mut statuses = within(client.watch(request)).await.unwrap().into_inner();
    assert_eq!(within(statuses.message()).await.unwrap().unwrap().status, 1, "serving");

    api.keys.revoke("key_1");
    let status = within(statuses.message()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "The credential is not valid."));
}
