//! No route is open, a stream closes when its key ends, and a lapsed subscription is reported first.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};
use tollgate::{
    Plan, Scopes,
    clock::{Clock, SystemClock},
    manage::{Actor, KeyManager, NewKey},
};
use tollgate_testing::coverage::Coverage;

use super::*;

#[tokio::test]
async fn every_route_needs_a_key() {
    let store = keys::store().await.unwrap();
    let app = app(KeyFormat::new("strat").unwrap(), store, Shutdown::never()).unwrap();
    let (service, routes) = app.into_parts();
    Coverage::of(service, routes).await.assert_only_open([]);
}

#[tokio::test]
async fn closes_an_open_stream_when_its_key_is_revoked() {
    let service = Service::start().await;
    let (id, mut stream) = service.connect(caller("revoked")).await;
    let (_, mut other) = service.connect(caller("other")).await;

    assert_answers(&mut stream).await;
    service.manager.revoke(&id, &actor()).await.unwrap();
    assert_eq!(close(&mut stream).await, (4401, "invalid_api_key".to_owned()));
    assert_answers(&mut other).await;
}

#[tokio::test]
async fn closes_an_open_stream_when_its_key_expires() {
    let service = Service::start().await;
    // On a busy machine, a key can expire before its stream opens: try longer lives.
    for seconds in [1, 3, 9, 27] {
        let expiry = SystemClock.now() + Duration::from_secs(seconds);
        let (_, mut stream) = service.connect(caller(&format!("brief {seconds}")).with_expiry(expiry)).await;
        stream.send(Message::text("Are you there?")).await.unwrap();
        if next(&mut stream).await.is_text() {
            assert_eq!(close(&mut stream).await, (4401, "invalid_api_key".to_owned()));
            assert!(expiry <= SystemClock.now());
            return;
        }
    }
    panic!("every key expired before its stream opened");
}

#[tokio::test]
async fn reports_a_lapsed_subscription_before_a_missing_scope() {
    let service = Service::start().await;
    let lapsed = NewKey::named("lapsed").with_plan(Plan::lapsed(keys::PLAN));
    let (_, mut stream) = service.connect(lapsed).await;
    assert_eq!(close(&mut stream).await, (4403, "inactive_entitlement".to_owned()));
}

fn caller(name: &str) -> NewKey {
    let scopes = Scopes::new(["ws:connect"]).unwrap();
    NewKey::named(name).with_scopes(scopes).with_plan(Plan::active(keys::PLAN))
}

fn actor() -> Actor {
    Actor::new("test")
}

/// The API on a socket.
struct Service {
    manager: KeyManager,
    address: SocketAddr,
}

impl Service {
    async fn start() -> Self {
        let format = KeyFormat::new("strat").unwrap();
        let store = keys::store().await.unwrap();
        let manager = keys::manager(format.clone(), store.clone()).unwrap();
        let app = app(format, store, Shutdown::never()).unwrap().into_router();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
        });
        Self { manager, address }
    }

    /// Issues a key and connects with it. Returns the key's ID and the stream.
    async fn connect(&self, key: NewKey) -> (Box<str>, WebSocketStream<TcpStream>) {
        let key = self.manager.issue(key, &actor()).await.unwrap();
        let mut request = format!("ws://{}{}", self.address, socket::PATH).into_client_request().unwrap();
        request.headers_mut().insert("x-api-key", key.secret.expose_secret().parse().unwrap());
        let stream = TcpStream::connect(self.address).await.unwrap();
        (key.details.id, client_async(request, stream).await.unwrap().0)
    }
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
    timeout(Duration::from_mins(1), stream.next()).await.expect("no message").unwrap().unwrap()
}
