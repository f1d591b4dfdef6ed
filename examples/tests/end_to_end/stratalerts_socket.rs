//! `stratalerts`: its published contract row by row, for the WebSocket.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, Version};
use http_body_util::Empty;
use hyper::{client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::Role},
};

use crate::{
    client::{Client, append},
    service::{PATIENCE, Service},
};

const PATH: &str = "/ws/market/v1";

#[tokio::test]
async fn closes_with_4401_before_any_message_without_a_valid_key() {
    let service = Service::start("stratalerts").await;
    let (full, revoked) = (service.key("full"), service.key("revoked"));
    let revoked_bearer = format!("Bearer {revoked}");
    let other_bearer = format!("Bearer {}", service.key("no_ws"));
    let cases: [(&str, &[(&str, &str)]); 9] = [
        ("missing_api_key", &[]),
        ("missing_api_key", &[("authorization", "Bearer ")]),
        ("missing_api_key", &[("x-api-key", "")]),
        ("invalid_api_key", &[("authorization", "Bearer junk")]),
        ("invalid_api_key", &[("x-api-key", "junk")]),
        ("invalid_api_key", &[("authorization", &revoked_bearer)]),
        ("invalid_api_key", &[("x-api-key", revoked)]),
        ("invalid_api_key", &[("x-api-key", full), ("x-api-key", full)]),
        ("invalid_api_key", &[("x-api-key", full), ("authorization", &other_bearer)]),
    ];
    for (reason, headers) in cases {
        let closed = next(&mut connect(&service, headers).await).await;
        assert_eq!(closed, Event::Closed(4401, reason.to_owned()), "{headers:?}");
    }
    service.end().await;
}

#[tokio::test]
async fn closes_with_4403_before_any_message_without_the_subscription_or_scope() {
    let service = Service::start("stratalerts").await;
    for (name, reason) in [
        ("lapsed", "inactive_entitlement"),
        ("no_ws", "missing_scope"),
        ("metadata_prices", "missing_scope"),
        ("metadata:read", "missing_scope"),
        ("prices:read", "missing_scope"),
        ("candles:read", "missing_scope"),
        ("states:read", "missing_scope"),
        ("alerts:read", "missing_scope"),
    ] {
        let bearer = format!("Bearer {}", service.key(name));
        for header in [("authorization", &*bearer), ("x-api-key", service.key(name))] {
            let closed = next(&mut connect(&service, &[header]).await).await;
            assert_eq!(closed, Event::Closed(4403, reason.to_owned()), "{name} in {}", header.0);
        }
    }
    service.end().await;
}

#[tokio::test]
async fn accepts_both_headers_on_the_handshake() {
    let service = Service::start("stratalerts").await;
    let bearer = format!("Bearer {}", service.key("quotes_stream"));
    for header in [("authorization", &*bearer), ("x-api-key", service.key("quotes_stream"))] {
        let mut socket = connect(&service, &[header]).await;
        subscribe(&mut socket, "quotes", &["AAPL"]).await;
        assert_eq!(message(&mut socket).await, subscribed("quotes", &["AAPL"]), "{}", header.0);
    }
    service.end().await;
}

#[tokio::test]
async fn the_published_subscription_delivers_quotes_repeatedly() {
    let service = Service::start("stratalerts").await;
    let mut socket = connect(&service, &[("x-api-key", service.key("quotes_stream"))]).await;
    subscribe(&mut socket, "quotes", &["AAPL", "TSLA"]).await;

    assert_eq!(message(&mut socket).await, subscribed("quotes", &["AAPL", "TSLA"]));
    for _ in 0..3 {
        for symbol in ["AAPL", "TSLA"] {
            let update = message(&mut socket).await;
            assert_eq!((&update["channel"], &update["data"]["symbol"]), (&json!("quotes"), &json!(symbol)));
            assert!(update["data"]["last"].is_string(), "{update}");
        }
    }
    drop(socket);
    service.end().await;
}

#[tokio::test]
async fn refuses_a_channel_without_its_scope_and_keeps_the_connection() {
    let service = Service::start("stratalerts").await;
    let mut socket = connect(&service, &[("x-api-key", service.key("quotes_stream"))]).await;
    for channel in ["states", "alerts.in_force", "alerts.simultaneous_breaks"] {
        subscribe(&mut socket, channel, &["AAPL"]).await;
        assert_eq!(message(&mut socket).await, refused(channel, "missing_scope", "missing scope"));
    }
    // In a message with several topics, only this one is refused.
    let topics = json!([{ "channel": "states" }, { "channel": "quotes", "symbols": ["AAPL"] }]);
    send(&mut socket, &json!({ "op": "subscribe", "topics": topics })).await;
    assert_eq!(message(&mut socket).await, refused("states", "missing_scope", "missing scope"));
    assert_eq!(message(&mut socket).await, subscribed("quotes", &["AAPL"]));
    // The refused channel sends no data, now or later.
    for _ in 0..3 {
        assert_eq!(message(&mut socket).await["channel"], "quotes");
    }
    drop(socket);
    service.end().await;
}

#[tokio::test]
async fn a_key_with_only_the_connect_scope_gets_no_channel() {
    let service = Service::start("stratalerts").await;
    let mut socket = connect(&service, &[("x-api-key", service.key("ws:connect"))]).await;
    for channel in ["quotes", "states", "alerts.in_force", "alerts.simultaneous_breaks"] {
        subscribe(&mut socket, channel, &["AAPL"]).await;
        assert_eq!(message(&mut socket).await, refused(channel, "missing_scope", "missing scope"));
    }
    drop(socket);
    service.end().await;
}

#[tokio::test]
async fn a_key_with_all_scopes_gets_every_channel() {
    let service = Service::start("stratalerts").await;
    for channel in ["quotes", "states", "alerts.in_force", "alerts.simultaneous_breaks"] {
        let mut socket = connect(&service, &[("x-api-key", service.key("full"))]).await;
        subscribe(&mut socket, channel, &["TSLA"]).await;
        assert_eq!(message(&mut socket).await, subscribed(channel, &["TSLA"]));
        let update = message(&mut socket).await;
        assert_eq!((&update["channel"], &update["data"]["symbol"]), (&json!(channel), &json!("TSLA")));
    }
    service.end().await;
}

#[tokio::test]
async fn answers_a_malformed_message_with_an_error() {
    let service = Service::start("stratalerts").await;
    let mut socket = connect(&service, &[("x-api-key", service.key("full"))]).await;
    for (sent, hint) in [
        (Message::text("subscribe!"), "line 1"),
        (Message::text("{}"), "`op`"),
        (Message::text(r#"{"op":"fly"}"#), "`fly`, expected `subscribe`"),
        (Message::text(r#"{"op":"subscribe"}"#), "`topics`"),
        (
            Message::text(r#"{"op":"subscribe","topics":[{"channel":"weather"}]}"#),
            "`weather`, expected one of `quotes`",
        ),
        (Message::binary(&b"subscribe!"[..]), "binary"),
    ] {
        socket.send(sent).await.unwrap();
        let answer = message(&mut socket).await;
        assert_eq!(answer["error"]["code"], "malformed_message");
        assert!(answer["error"]["message"].as_str().unwrap().contains(hint), "{answer}");
    }
    subscribe(&mut socket, "quotes", &["AAPL", "NOPE"]).await;
    assert_eq!(message(&mut socket).await, refused("quotes", "unknown_symbol", "unknown symbol"));
    drop(socket);
    service.end().await;
}

#[tokio::test]
async fn answers_a_request_that_is_not_a_handshake_with_the_envelope() {
    let service = Service::start("stratalerts").await;
    let mut client = Client::connect(&service).await;
    for (headers, status, code) in [
        (vec![], 401, "missing_api_key"),
        (vec![("x-api-key", service.key("no_ws"))], 403, "missing_scope"),
        (vec![("x-api-key", service.key("lapsed"))], 403, "inactive_entitlement"),
        (vec![("x-api-key", service.key("full"))], 400, "websocket_handshake_expected"),
    ] {
        let answer = client.get(PATH, &headers).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.json()["error"]["code"], code);
    }
    service.end().await;
}

#[tokio::test]
async fn opens_and_refuses_over_http2() {
    let service = Service::start("stratalerts").await;
    let mut socket = connect_http2(&service, &[("x-api-key", service.key("full"))]).await;
    subscribe(&mut socket, "quotes", &["AAPL"]).await;
    assert_eq!(message(&mut socket).await, subscribed("quotes", &["AAPL"]));

    let mut refused = connect_http2(&service, &[]).await;
    assert_eq!(next(&mut refused).await, Event::Closed(4401, "missing_api_key".to_owned()));
    refused = connect_http2(&service, &[("x-api-key", service.key("no_ws"))]).await;
    assert_eq!(next(&mut refused).await, Event::Closed(4403, "missing_scope".to_owned()));
    // An open socket that is not read would not answer the close frame, and delay the shutdown.
    drop((socket, refused));
    service.end().await;
}

#[tokio::test]
async fn closes_open_connections_when_the_service_shuts_down() {
    let service = Service::start("stratalerts").await;
    let mut silent = connect(&service, &[("x-api-key", service.key("full"))]).await;
    let mut http2 = connect_http2(&service, &[("x-api-key", service.key("full"))]).await;
    let going_away = Event::Closed(1001, "the service is going away".to_owned());
    service.terminate().await;
    assert_eq!(next(&mut silent).await, going_away);
    assert_eq!(next(&mut http2).await, going_away);
    // Dropping them sends their answers to the close frame.
    drop((silent, http2));
    service.ended().await;
}

#[derive(Debug, PartialEq)]
enum Event {
    Message(String),
    Closed(u16, String),
}

async fn connect(service: &Service, headers: &[(&str, &str)]) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{}{PATH}", service.address()).into_client_request().unwrap();
    append(request.headers_mut(), headers);
    let stream = TcpStream::connect(service.address()).await.unwrap();
    let (socket, _) = client_async(request, stream).await.unwrap();
    socket
}

/// Opens a WebSocket by extended CONNECT (RFC 8441), on a separate connection.
async fn connect_http2(
    service: &Service,
    headers: &[(&str, &str)],
) -> WebSocketStream<impl AsyncRead + AsyncWrite + Unpin + use<>> {
    let stream = TcpStream::connect(service.address()).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let url = |path: &str| format!("http://{}{path}", service.address());
    // An extended CONNECT needs the server's settings, which arrive before its first response.
    let first = Request::get(url("/")).version(Version::HTTP_2).body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(first).await.unwrap().status(), 401);

    let mut request = Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri(url(PATH))
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(Empty::new())
        .unwrap();
    append(request.headers_mut(), headers);
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let upgraded = hyper::upgrade::on(response).await.unwrap();
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
}

async fn next<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Event {
    match timeout(PATIENCE, socket.next()).await.expect("no message").unwrap().unwrap() {
        Message::Text(text) => Event::Message(text.to_string()),
        Message::Close(Some(frame)) => Event::Closed(frame.code.into(), frame.reason.to_string()),
        other => panic!("neither a message nor a close: {other:?}"),
    }
}

async fn message<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Value {
    match next(socket).await {
        Event::Message(text) => serde_json::from_str(&text).unwrap(),
        closed @ Event::Closed(..) => panic!("{closed:?}"),
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>, message: &Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

async fn subscribe<S>(socket: &mut WebSocketStream<S>, channel: &str, symbols: &[&str])
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let topics = json!([{ "channel": channel, "symbols": symbols }]);
    send(socket, &json!({ "op": "subscribe", "topics": topics })).await;
}

fn subscribed(channel: &str, symbols: &[&str]) -> Value {
    json!({ "op": "subscribed", "channel": channel, "symbols": symbols })
}

fn refused(channel: &str, code: &str, message: &str) -> Value {
    json!({ "op": "subscribe", "channel": channel, "error": { "code": code, "message": message } })
}
