//! What clients see of a refused WebSocket, over HTTP/1.1 and HTTP/2.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, where a panic is the failure")]

mod common;

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::{WebSocketUpgrade, ws},
    response::Response,
    routing::any,
};
use bytes::Bytes;
use common::{get, serve, verifier};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method, Request, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest, handshake::client},
};
use tollgate::{CredentialLayer, Tollgate, VerifyLayer, respond::Json, scope, verify::CredentialSource};
use tollgate_axum::{Authenticated, WebSocketClose, is_websocket};
use tower::ServiceBuilder;

/// Greets accepted clients.
async fn chat(_caller: Authenticated, socket: WebSocketUpgrade) -> Response {
    socket.protocols(["chat"]).on_upgrade(async |mut socket: ws::WebSocket| {
        let _ = socket.send("hello".into()).await;
    })
}

/// A deadline that a test waits for. Long enough to send the close on a busy machine.
const SOON: Duration = Duration::from_secs(2);

/// A server, and a key that it accepts.
struct Server {
    address: SocketAddr,
    key: String,
}

impl Server {
    /// Starts a server that requires a key and, if `needs_scope`, a scope that its key does not have.
    async fn start(responder: WebSocketClose, needs_scope: bool) -> Self {
        let (verifier, key) = verifier();
        let sources = [
            CredentialSource::Header(http::HeaderName::from_static("x-api-key")),
            CredentialSource::WebSocketProtocol("key."),
        ];
        let mut tollgate = Tollgate::builder()
            .credential(CredentialLayer::from_sources(sources).unwrap())
            .verify(verifier)
            .responder(responder);
        if needs_scope {
            tollgate = tollgate.scope(scope("chat:join"));
        }
        let app = Router::new().route("/", any(chat)).layer(tollgate.build().unwrap());
        Self { address: serve(app).await, key }
    }

    fn request(&self, headers: &[(&'static str, &str)]) -> client::Request {
        let mut request = format!("ws://{}/", self.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        request
    }

    async fn connect(&self, headers: &[(&'static str, &str)]) -> Connected {
        let (socket, response) = connect_async(self.request(headers)).await.unwrap();
        Connected { socket, response }
    }

    /// The status of a refused handshake.
    async fn refused(&self, headers: &[(&'static str, &str)]) -> u16 {
        match connect_async(self.request(headers)).await.unwrap_err() {
            tungstenite::Error::Http(response) => response.status().as_u16(),
            error => panic!("{error}"),
        }
    }
}

struct Connected {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    response: client::Response,
}

impl Connected {
    /// Waits for a close before any message, and for the end of the connection.
    async fn closed(mut self) -> (u16, String) {
        let first = self.socket.next().await.unwrap().unwrap();
        let Message::Close(Some(close)) = first else { panic!("{first:?}") };
        assert!(self.socket.next().await.is_none(), "the connection ends");
        (close.code.into(), close.reason.as_str().to_owned())
    }
}

#[tokio::test]
async fn an_allowed_websocket_is_not_changed() {
    let server = Server::start(WebSocketClose::new(), false).await;
    let mut connected = server.connect(&[("x-api-key", &server.key)]).await;
    assert_eq!(connected.socket.next().await.unwrap().unwrap(), Message::text("hello"));
}

#[tokio::test]
async fn the_close_code_shows_the_reason() {
    // A long deadline, so that the closing handshake ends the connection.
    let responder = WebSocketClose::new().with_deadline(Duration::from_secs(3_600));
    let server = Server::start(responder, true).await;
    for (headers, expected) in [
        (&[][..], (4401, "missing_credential")),
        (&[("x-api-key", "sk_live_nonsense")], (4401, "invalid_credential")),
        (&[("x-api-key", &*server.key)], (4403, "insufficient_scope")),
    ] {
        let connected = server.connect(headers).await;
        assert_eq!(connected.response.status(), 101);
        assert!(connected.response.headers().contains_key("x-request-id"), "as every response");
        assert_eq!(connected.closed().await, (expected.0, expected.1.to_owned()));
    }
}

#[tokio::test]
async fn an_extractor_closes_as_the_layers_do() {
    let (verifier, key) = verifier();
    let layers = ServiceBuilder::new()
        .layer(CredentialLayer::new().with_anonymous().with_responder(WebSocketClose::new()))
        .layer(VerifyLayer::new(verifier));
    let server = Server { address: serve(Router::new().route("/", any(chat)).layer(layers)).await, key };
    let connected = server.connect(&[]).await;
    assert_eq!(connected.closed().await, (4401, "missing_credential".to_owned()));
}

#[tokio::test]
async fn data_sent_before_reading_the_close_does_not_lose_the_close() {
    let server = Server::start(WebSocketClose::new(), false).await;
    let mut connected = server.connect(&[]).await;
    for _ in 0..50 {
        // The server ends the connection only after the client's close, which the client sends after it has read the server's.
        connected.socket.feed(Message::binary(vec![0x88; 100_000])).await.unwrap();
    }
    connected.socket.flush().await.unwrap();
    assert_eq!(connected.closed().await.0, 4401);
}

#[tokio::test]
async fn the_application_can_choose_the_codes() {
    let responder =
        WebSocketClose::new().with_codes(|denial| (4000, format!("no: {}", denial.kind().reason()).into()));
    let server = Server::start(responder, false).await;
    let connected = server.connect(&[]).await;
    assert_eq!(connected.closed().await, (4000, "no: credential_missing".to_owned()));
}

#[tokio::test]
async fn selects_a_listed_subprotocol_and_never_the_one_with_the_key() {
    let server = Server::start(WebSocketClose::new().with_subprotocols(["chat"]), true).await;
    let offers = format!("key.{}, chat", server.key);
    let connected = server.connect(&[("sec-websocket-protocol", &offers)]).await;
    assert_eq!(connected.response.headers()["sec-websocket-protocol"], "chat");
    assert_eq!(connected.closed().await.0, 4403);

    for offers in
        [format!("key.{}", server.key), "key.sk_live_nonsense".to_owned(), "key.a, key.b".to_owned()]
    {
        let error = connect_async(server.request(&[("sec-websocket-protocol", &offers)])).await.unwrap_err();
        // Like browsers, this client fails a handshake that selects none of its subprotocols.
        assert!(matches!(
            error,
            tungstenite::Error::Protocol(tungstenite::error::ProtocolError::SecWebSocketSubProtocolError(
                tungstenite::error::SubProtocolError::NoSubProtocol
            ))
        ));
    }
}

#[tokio::test]
async fn a_client_that_never_answers_is_dropped_at_the_deadline() {
    let server = Server::start(WebSocketClose::new().with_deadline(SOON), false).await;
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    connection
        .write_all(
            b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await
        .unwrap();
    let mut received = Vec::new();
    connection.read_to_end(&mut received).await.unwrap();
    let head_end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    assert!(received.starts_with(b"HTTP/1.1 101"));
    assert_eq!(received[head_end..], *b"\x88\x14\x11\x31missing_credential");
}

#[tokio::test]
async fn the_number_of_open_connections_is_limited() {
    let responder = WebSocketClose::new().with_max_open(1).with_deadline(Duration::from_secs(3_600));
    let server = Server::start(responder, false).await;
    let first = server.connect(&[]).await;
    assert_eq!(server.refused(&[]).await, 401);
    first.closed().await;
    // The place is free only when the server has received the close.
    while connect_async(server.request(&[])).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn other_requests_get_a_plain_refusal() {
    let json = Json::new(|denial| serde_json::json!({ "error": denial.code() }));
    let server = Server::start(WebSocketClose::otherwise(json), false).await;
    let response = get(server.address, &[]).await;
    assert!(response.starts_with("HTTP/1.1 401"), "{response}");
    assert!(response.contains("www-authenticate: Bearer"), "{response}");
    assert!(response.ends_with(r#"{"error":"missing_credential"}"#), "{response}");

    assert_eq!(server.refused(&[("sec-websocket-version", "8")]).await, 401);
    assert_eq!(server.refused(&[("upgrade", "h2c")]).await, 401);
    assert_eq!(
        Server::start(WebSocketClose::new(), false).await.refused(&[("connection", "close")]).await,
        401
    );
}

#[tokio::test]
async fn extended_connect_is_accepted_and_closed_too() {
    let responder =
        WebSocketClose::new().with_subprotocols(["chat"]).with_deadline(Duration::from_secs(3_600));
    let server = Server::start(responder, true).await;
    let mut client = Http2::connect(server.address).await;
    let offers = format!("key.{}, chat", server.key);
    let (response, mut send) = client.open(&[("sec-websocket-protocol", &offers)]).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    assert!(!response.headers().contains_key("sec-websocket-accept"));

    let mut body = response.into_body();
    let mut frame = Vec::new();
    while frame.len() < 22 {
        let data = body.data().await.unwrap().unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        frame.extend(data);
    }
    assert_eq!(frame, b"\x88\x14\x11\x33insufficient_scope");
    assert!(!body.is_end_stream());

    send.send_data(Bytes::from_static(b"\x88\x82\0\0\0\0\x11\x33"), true).unwrap();
    assert_eq!(read_to_end(&mut body).await, b"");
    assert!(body.is_end_stream(), "ends after the client's close, without a reset");
}

#[tokio::test]
async fn an_invalid_extended_connect_gets_a_plain_refusal() {
    let server = Server::start(WebSocketClose::new(), false).await;
    let mut client = Http2::connect(server.address).await;
    let (response, _send) = client.open(&[("sec-websocket-version", "8")]).await;
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn a_stream_whose_client_never_answers_is_dropped_at_the_deadline() {
    let server = Server::start(WebSocketClose::new().with_deadline(SOON), false).await;
    let mut client = Http2::connect(server.address).await;
    let (response, _send) = client.open(&[]).await;
    assert_eq!(read_to_end(&mut response.into_body()).await, b"\x88\x14\x11\x31missing_credential");
}

/// Reads until the stream ends or is reset.
async fn read_to_end(body: &mut h2::RecvStream) -> Vec<u8> {
    let mut received = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        received.extend(data);
    }
    received
}

/// An HTTP/2 client with prior knowledge, which has seen that the server allows extended CONNECT.
struct Http2(h2::client::SendRequest<Bytes>);

impl Http2 {
    async fn connect(address: SocketAddr) -> Self {
        let connection = TcpStream::connect(address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(connection).await.unwrap();
        tokio::spawn(connection);
        // The server sends its settings in the first frames.
        while !client.is_extended_connect_protocol_enabled() {
            client = client.ready().await.unwrap();
            tokio::task::yield_now().await;
        }
        Self(client)
    }

    async fn open(
        &mut self,
        headers: &[(&'static str, &str)],
    ) -> (http::Response<h2::RecvStream>, h2::SendStream<Bytes>) {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri("http://localhost/")
            .extension(h2::ext::Protocol::from_static("websocket"))
            .body(())
            .unwrap();
        request.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("13"));
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let (response, send) = self.0.send_request(request, false).unwrap();
        (response.await.unwrap(), send)
    }
}

#[tokio::test]
async fn is_websocket_recognises_both_forms_of_a_handshake() {
    async fn teapots_for_websockets(request: axum::extract::Request) -> StatusCode {
        if is_websocket(&request.into_parts().0) { StatusCode::IM_A_TEAPOT } else { StatusCode::NOT_FOUND }
    }
    let address = serve(Router::new().fallback(teapots_for_websockets)).await;
    let key = client::generate_key();
    let (version, key) = (("sec-websocket-version", "13"), ("sec-websocket-key", key.as_str()));
    let upgrade = get(address, &[("connection", "upgrade"), ("upgrade", "websocket"), version, key]).await;
    assert!(upgrade.starts_with("HTTP/1.1 418"), "{upgrade}");
    assert!(get(address, &[version, key]).await.starts_with("HTTP/1.1 404"));

    let (response, _send) = Http2::connect(address).await.open(&[]).await;
    assert_eq!(response.status(), 418);
}
