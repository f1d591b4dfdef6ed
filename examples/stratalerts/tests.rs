//! What a stream does when its key ends, and which channel asks for which scope.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};
use tollgate::{Clock, SystemClock};

use super::*;

#[tokio::test]
async fn an_open_stream_is_cut_when_its_key_is_revoked() {
    let keys = MemoryKeys::new();
    let mut stream = connect(&keys, caller("revoked")).await;
    let mut other = connect(&keys, caller("other")).await;

    assert_answers(&mut stream).await;
    keys.revoke("revoked");
    assert_eq!(close(&mut stream).await, (4401, "invalid_api_key".to_owned()));
    assert_answers(&mut other).await;
}

#[tokio::test]
async fn an_open_stream_is_cut_when_its_key_expires() {
    let keys = MemoryKeys::new();
    let mut stream = connect(&keys, caller("brief").with_expiry(now() + Duration::from_secs(1))).await;
    assert_answers(&mut stream).await;
    assert_eq!(close(&mut stream).await, (4401, "invalid_api_key".to_owned()));
}

#[tokio::test]
async fn a_lapsed_subscription_is_told_before_a_missing_scope() {
    let keys = MemoryKeys::new();
    let lapsed = Principal::new("lapsed").with_plan(Plan::lapsed("api-access"));
    let mut stream = connect(&keys, lapsed).await;
    assert_eq!(close(&mut stream).await, (4403, "inactive_entitlement".to_owned()));
}

fn caller(id: &str) -> Principal {
    Principal::new(id).with_scopes(Scopes::new(["ws:connect"]).unwrap()).with_plan(Plan::active("api-access"))
}

fn now() -> SystemTime {
    SystemClock.now()
}

/// Serves the API to one new key, and connects with it.
async fn connect(keys: &MemoryKeys, principal: Principal) -> WebSocketStream<TcpStream> {
    let format = KeyFormat::new("strat").unwrap();
    let key = keys.issue(&format, Environment::Live, principal).unwrap();
    let app = app(KeyVerifier::new(format, keys.clone()), Shutdown::never()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
    });

    let mut request = format!("ws://{address}{}", socket::PATH).into_client_request().unwrap();
    request.headers_mut().insert("x-api-key", key.expose_secret().parse().unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    client_async(request, stream).await.unwrap().0
}

async fn assert_answers(stream: &mut WebSocketStream<TcpStream>) {
    stream.send(Message::text("Are you there?")).await.unwrap();
    assert!(next(stream).await.is_text());
}

async fn close(stream: &mut WebSocketStream<TcpStream>) -> (u16, String) {
    match next(stream).await {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("no close: {other:?}"),
    }
}

async fn next(stream: &mut WebSocketStream<TcpStream>) -> Message {
    timeout(Duration::from_secs(10), stream.next()).await.expect("nothing came").unwrap().unwrap()
}
