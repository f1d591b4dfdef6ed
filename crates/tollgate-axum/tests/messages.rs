//! Messages of WebSockets that are charged one by one, over real sockets.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, where a panic is the failure")]

mod common;

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::{WebSocketUpgrade, ws},
    response::Response,
    routing::any,
};
use common::{get, serve, verifier};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};
use tollgate::{
    Environment, KeyFormat, KeyVerifier, MemoryKeys, MessageLayer, PerWindow, Principal, RateLimitLayer,
    Tollgate, clock::ManualClock, layers::TollgateBuilder,
};
use tollgate_axum::{CloseCodes, Messages};

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Sends each message back, and closes at the first one that is refused.
async fn chat(Messages(meter): Messages, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |mut socket: ws::WebSocket| {
        while let Some(Ok(ws::Message::Text(text))) = socket.recv().await {
            if let Err(denial) = meter.charge(1).await {
                let (code, reason) = CloseCodes::default().of(&denial);
                let close = ws::CloseFrame { code, reason: reason.as_ref().into() };
                let _ = socket.send(ws::Message::Close(Some(close))).await;
                break;
            }
            if socket.send(ws::Message::Text(text)).await.is_err() {
                break;
            }
        }
    })
}

/// A server with a clock, and a key that it accepts.
struct Server {
    address: SocketAddr,
    key: String,
    clock: ManualClock,
}

impl Server {
    async fn start(
        (verifier, key): (KeyVerifier, String),
        layers: impl FnOnce(TollgateBuilder) -> TollgateBuilder,
    ) -> Self {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_073_600));
        let tollgate = Tollgate::builder().verify(verifier).clock(clock.clone());
        let app = Router::new().route("/", any(chat)).layer(layers(tollgate).build().unwrap());
        Self { address: serve(app).await, key, clock }
    }

    async fn connect(&self) -> Client {
        let mut request = format!("ws://{}/", self.address).into_client_request().unwrap();
        request.headers_mut().insert("x-api-key", self.key.parse().unwrap());
        connect_async(request).await.unwrap().0
    }
}

/// Sends a message. Returns the answer, or the code and the reason of the close.
async fn say(client: &mut Client, text: &str) -> Result<String, (u16, String)> {
    client.send(Message::text(text)).await.unwrap();
    match client.next().await.unwrap().unwrap() {
        Message::Text(text) => Ok(text.as_str().to_owned()),
        Message::Close(Some(close)) => Err((close.code.into(), close.reason.as_str().to_owned())),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_message_beyond_the_limit_closes_the_websocket() {
    let layer = MessageLayer::from_rate_limit(2.per_minute());
    let server = Server::start(verifier(), |builder| builder.messages(layer)).await;
    let mut client = server.connect().await;
    assert_eq!(say(&mut client, "one").await, Ok("one".into()));
    assert_eq!(say(&mut client, "two").await, Ok("two".into()));
    assert_eq!(say(&mut client, "three").await, Err((4429, "rate_limited".into())));

    // The key has used up its minute on all its WebSockets. Requests are not counted.
    assert_eq!(say(&mut server.connect().await, "four").await, Err((4429, "rate_limited".into())));
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(say(&mut server.connect().await, "five").await, Ok("five".into()));
}

#[tokio::test]
async fn messages_and_requests_count_together() {
    let limits = RateLimitLayer::new(5.per_minute());
    let messages = MessageLayer::from_rate_limit(limits.clone());
    let server = Server::start(verifier(), |builder| builder.rate_limit(limits).messages(messages)).await;
    let mut client = server.connect().await; // 1
    assert_eq!(say(&mut client, "two").await, Ok("two".into()));
    assert_eq!(say(&mut client, "three").await, Ok("three".into()));
    let other = get(server.address, &[("x-api-key", &server.key)]).await; // 4
    assert!(other.contains("x-ratelimit-remaining: 1\r\n"), "{other}");
    assert_eq!(say(&mut client, "five").await, Ok("five".into()));
    assert_eq!(say(&mut client, "six").await, Err((4429, "rate_limited".into())));
    assert!(get(server.address, &[("x-api-key", &server.key)]).await.starts_with("HTTP/1.1 429"));
}

#[tokio::test]
async fn a_message_of_a_revoked_key_closes_the_websocket() {
    let (format, keys) = (KeyFormat::new("sk").unwrap(), MemoryKeys::new());
    let key = keys.issue(&format, Environment::Live, Principal::new("key_1")).unwrap();
    let with_key = (KeyVerifier::new(format, keys.clone()), key.expose_secret().to_owned());
    let layer = MessageLayer::from_rate_limit(60.per_minute());
    let server = Server::start(with_key, |builder| builder.messages(layer)).await;
    let mut client = server.connect().await;
    assert_eq!(say(&mut client, "one").await, Ok("one".into()));
    assert!(keys.revoke("key_1"));
    assert_eq!(say(&mut client, "two").await, Err((4401, "invalid_credential".into())));
}
