//! Open WebSockets that are closed when the key of their caller ends, over HTTP/1.1 and HTTP/2.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, where a panic is the failure")]

#[expect(dead_code, reason = "this test has a verifier of its own")]
mod common;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::ws::Message as AxumMessage,
    response::{IntoResponse, Response},
    routing::{MethodRouter, any},
};
use common::serve;
use futures_util::{FutureExt, SinkExt, StreamExt, stream::FusedStream};
use http::{Extensions, HeaderValue, Method, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};
use tollgate::{
    Answer, CredentialLayer, Denial, DenialKind, Ended, Principal, Tollgate,
    clock::ManualClock,
    layers::ReportOnly,
    store::{EndReason, EndSignal},
    verify::{Credential, RefusalText, Verify, VerifyRequest},
};
use tollgate_axum::{GuardedSocket, GuardedUpgrade, GuardedUpgradeRejection, WebSocketClose};

/// Longer than any test takes, and shorter than the deadlines of clients.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than a close takes on a busy machine.
const PROMPT: Duration = Duration::from_secs(10);
const REVOKED: (u16, &str) = (4401, "invalid_credential");
const START: SystemTime = SystemTime::UNIX_EPOCH;

/// What the handlers of a server report.
type Reports = mpsc::UnboundedSender<&'static str>;

/// Knows one key, `good`.
#[derive(Clone)]
struct OneKey(Arc<Principal>, Option<Arc<RefusalText>>);

impl Verify for OneKey {
    fn verify(&self, presented: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        Answer::Now(match presented.credential.expose_secret() {
            "good" => Ok(Arc::clone(&self.0)),
            _ => Err(Denial::new(DenialKind::KeyUnknown)),
        })
    }

    fn refusal_text(&self, _: &Credential) -> Option<Arc<RefusalText>> {
        self.1.clone()
    }
}

struct Server {
    address: SocketAddr,
    principal: Arc<Principal>,
    signal: EndSignal,
    // Shows `START`.
    clock: ManualClock,
    reports: mpsc::UnboundedReceiver<&'static str>,
}

impl Server {
    async fn start() -> Self {
        Self::with_principal(Principal::new("key_1")).await
    }

    async fn with_principal(principal: Principal) -> Self {
        Self::with_text(principal, None).await
    }

    async fn with_text(principal: Principal, text: Option<RefusalText>) -> Self {
        let clock = ManualClock::at(START);
        let signal = EndSignal::new();
        let principal = Arc::new(principal.with_end_signal(signal.clone()));
        let (sender, reports) = mpsc::unbounded_channel();
        let tollgate = Tollgate::builder()
            .credential(CredentialLayer::new().with_anonymous())
            .verify(OneKey(principal.clone(), text.map(Arc::new)))
            .clock(clock.clone())
            .responder(WebSocketClose::new())
            .build()
            .unwrap();
        Self { address: serve(app(sender).layer(tollgate)).await, principal, signal, clock, reports }
    }

    async fn connect(&self, path: &str) -> Client {
        connect(self.address, path).await
    }

    async fn report(&mut self) -> &'static str {
        timeout(PATIENCE, self.reports.recv()).await.unwrap().unwrap()
    }
}

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(address: SocketAddr, path: &str) -> Client {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    request.headers_mut().insert("x-api-key", HeaderValue::from_static("good"));
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("chat"));
    let (socket, response) = connect_async(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    socket
}

fn app(reports: Reports) -> Router {
    let route = |serve: fn(GuardedSocket, Reports) -> Serving| {
        let reports = reports.clone();
        any(move |upgrade: GuardedUpgrade| {
            let reports = reports.clone();
            async move {
                upgrade
                    .map(|upgrade| upgrade.protocols(["chat"]))
                    .with_deadline(Duration::from_secs(2))
                    .on_upgrade(move |socket| serve(socket, reports))
            }
        })
    };
    Router::new()
        .route("/echo", route(|socket, reports| Box::pin(echo(socket, reports))))
        .route("/idle", route(|socket, reports| Box::pin(idle(socket, reports))))
        .route("/flood", route(|socket, reports| Box::pin(flood(socket, reports))))
        .route("/split", route(|socket, reports| Box::pin(split(socket, reports))))
        .route("/split-flood", route(|socket, reports| Box::pin(split_flood(socket, reports))))
        .route("/split-panic", route(|socket, reports| Box::pin(split_panic(socket, reports))))
        .route("/buffered", any(buffered))
        .route("/last-words", last_words_with(reports.clone()))
        .route("/save", save_with(reports))
        .route("/own-codes", any(own_codes))
        .route("/result", any(result))
}

type Serving = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn echo(mut socket: GuardedSocket, reports: Reports) {
    assert_eq!(socket.protocol().unwrap(), "chat");
    assert!(!socket.is_terminated());
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, AxumMessage::Text(_)) && socket.send(message).await.is_err() {
            break;
        }
    }
    assert!(socket.is_terminated());
    assert!(socket.recv().await.is_none());
    if socket.send("too late".into()).await.is_err() {
        let _ = reports.send("read None, and could not send");
    }
}

/// Neither reads nor writes.
async fn idle(socket: GuardedSocket, reports: Reports) {
    let _dropped = OnDrop(reports, "dropped");
    std::future::pending::<()>().await;
    drop(socket);
}

struct OnDrop(Reports, &'static str);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

async fn flood(mut socket: GuardedSocket, reports: Reports) {
    let _dropped = OnDrop(reports, "dropped");
    while socket.send(AxumMessage::binary(vec![0; 10_000])).await.is_ok() {}
}

#[expect(clippy::unused_async, reason = "a handler")]
async fn split(socket: GuardedSocket, reports: Reports) {
    let (mut sender, mut receiver) = socket.split();
    let of_sender = OnDrop(reports.clone(), "sender");
    tokio::spawn(async move {
        let _dropped = of_sender;
        while sender.send("tick".into()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    tokio::spawn(async move {
        let _dropped = OnDrop(reports, "receiver");
        while let Some(Ok(_)) = receiver.next().await {}
    });
}

/// Writes in another task, until the socket is full.
async fn split_flood(socket: GuardedSocket, reports: Reports) {
    let (mut sender, mut receiver) = socket.split();
    tokio::spawn(async move {
        let _dropped = OnDrop(reports.clone(), "sender");
        loop {
            let mut sent = sender.send(AxumMessage::binary(vec![0; 1 << 20]));
            let sent = if let Some(sent) = (&mut sent).now_or_never() {
                sent
            } else {
                let _ = reports.send("full");
                sent.await
            };
            if sent.is_err() {
                return;
            }
        }
    });
    while let Some(Ok(_)) = receiver.next().await {}
}

/// Leaves the halves to other tasks, and panics.
async fn split_panic(socket: GuardedSocket, reports: Reports) {
    split(socket, reports).await;
    panic!("a handler that fails");
}

fn save_with(reports: Reports) -> MethodRouter {
    any(move |extensions: Extensions, upgrade: GuardedUpgrade| {
        let reports = reports.clone();
        async move { save(&extensions, upgrade, reports) }
    })
}

/// Drops the socket, and has work to do after the end of the caller. Its deadline would leave no time for that.
fn save(extensions: &Extensions, upgrade: GuardedUpgrade, reports: Reports) -> Response {
    let ended = Ended::of(extensions).unwrap();
    upgrade.map(|upgrade| upgrade.protocols(["chat"])).with_deadline(Duration::ZERO).on_upgrade(
        async move |socket| {
            drop(socket);
            let _dropped = OnDrop(reports.clone(), "dropped");
            let _ = reports.send("at work");
            let _ = ended.await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = reports.send("saved");
        },
    )
}

/// Sends when the caller has ended.
fn last_words_with(reports: Reports) -> MethodRouter {
    any(async move |extensions: Extensions, upgrade: GuardedUpgrade| {
        let ended = Ended::of(&extensions).unwrap();
        upgrade.map(|upgrade| upgrade.protocols(["chat"])).on_upgrade(async move |mut socket| {
            let _ = reports.send("at work");
            let _ = ended.await;
            let is_sent = socket.send("late".into()).await.is_ok();
            let _ = reports.send(if is_sent { "could send" } else { "could not send" });
        })
    })
}

/// Has a buffer that two messages fill, and does not flush it.
async fn buffered(upgrade: GuardedUpgrade) -> Response {
    let upgrade = upgrade
        .map(|upgrade| upgrade.protocols(["chat"]).write_buffer_size(1_990).max_write_buffer_size(2_000));
    upgrade.on_upgrade(async |mut socket| {
        for _ in 0..2 {
            socket.feed(AxumMessage::binary(vec![0; 990])).await.unwrap();
        }
        std::future::pending::<()>().await;
    })
}

/// The settings come first, and then axum's own.
async fn own_codes(upgrade: GuardedUpgrade) -> Response {
    upgrade
        .with_codes(|denial| (4001, denial.kind().reason().into()))
        .with_deadline(Duration::from_secs(2))
        .map(|upgrade| upgrade.protocols(["chat"]))
        .on_upgrade(async |mut socket| while socket.recv().await.is_some() {})
}

async fn result(upgrade: Result<GuardedUpgrade, GuardedUpgradeRejection>) -> Response {
    match upgrade {
        Ok(_) => "a handshake".into_response(),
        Err(GuardedUpgradeRejection::Upgrade(rejection)) => format!("axum: {rejection}").into_response(),
        Err(rejection) => format!("unguarded: {rejection}").into_response(),
    }
}

/// Reads to the close, and to the end of the connection after it. Returns how many messages came before.
async fn closed(client: &mut Client) -> (u16, String, usize) {
    let mut messages = 0;
    timeout(PATIENCE, async {
        loop {
            match client.next().await.unwrap().unwrap() {
                Message::Close(Some(close)) => {
                    assert!(client.next().await.is_none(), "the connection ends");
                    return (close.code.into(), close.reason.as_str().to_owned(), messages);
                }
                _ => messages += 1,
            }
        }
    })
    .await
    .unwrap()
}

async fn assert_closed(client: &mut Client, expected: (u16, &str)) {
    let start = Instant::now();
    let (code, reason, _) = closed(client).await;
    assert_eq!((code, &*reason), expected);
    // It did not wait for a deadline, or for a time limit of the client.
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}

async fn assert_echoes(client: &mut Client) {
    client.send(Message::text("Are you there?")).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("Are you there?"));
}

#[tokio::test]
async fn each_end_has_its_code_and_the_handler_sees_the_end() {
    for (reason, expected) in [
        (EndReason::Revoked, REVOKED),
        (EndReason::Expired, REVOKED),
        (EndReason::TenantSuspended, (4403, "tenant_suspended")),
    ] {
        let mut server = Server::start().await;
        let mut client = server.connect("/echo").await;
        assert_echoes(&mut client).await;
        server.signal.end(reason);
        assert_closed(&mut client, expected).await;
        assert_eq!(server.report().await, "read None, and could not send");
    }
}

#[tokio::test]
async fn closes_at_the_expiry_of_the_key() {
    // Until the clock shows the expiry, a timer looks at it again and again: each time it would have come by then.
    let life = Duration::from_millis(20);
    let server = Server::with_principal(Principal::new("key_1").with_expiry(START + life)).await;
    let mut client = server.connect("/echo").await;
    for _ in 0..3 {
        tokio::time::sleep(life).await;
        assert_echoes(&mut client).await;
    }
    server.clock.advance(life);
    assert_closed(&mut client, REVOKED).await;
}

#[tokio::test]
async fn the_reason_is_in_the_words_of_the_verifier() {
    for (reason, expected) in [
        (EndReason::Revoked, (4401, "token_rejected")),
        (EndReason::TenantSuspended, (4403, "tenant_suspended")),
    ] {
        let text = RefusalText::new("token_rejected", "The token is not accepted.");
        let server = Server::with_text(Principal::new("key_1"), Some(text)).await;
        let mut client = server.connect("/echo").await;
        assert_echoes(&mut client).await;
        server.signal.end(reason);
        assert_closed(&mut client, expected).await;
    }
}

#[tokio::test]
async fn the_end_is_one_event() {
    LazyLock::force(&LOG);
    let server = Server::with_principal(Principal::new("key_logged").with_tenant("acme")).await;
    let mut client = server.connect("/echo?secret=s3cr3t").await;
    assert_echoes(&mut client).await;
    server.signal.end(EndReason::Revoked);
    assert_closed(&mut client, REVOKED).await;
    let events = LOG.lines_with("key_logged");
    let [event] = &*events else { panic!("{events:?}") };
    for part in [
        " INFO tollgate: stream ended ",
        "layer=\"GuardedUpgrade\"",
        "reason=\"key_revoked\"",
        "code=\"invalid_credential\"",
        "status=101",
        "method=\"GET\"",
        "path=\"/echo\"",
        "detail=\"\"",
        "request_id=",
        "principal=\"key_logged\"",
        "tenant=\"acme\"",
        "report_only=false",
    ] {
        assert!(event.contains(part), "{part} is not in {event}");
    }
    assert!(!event.contains("s3cr3t"), "{event}");
}

#[tokio::test]
async fn a_handler_that_has_dropped_its_socket_finishes_its_work() {
    LazyLock::force(&LOG);
    let mut server = Server::with_principal(Principal::new("key_saving")).await;
    let _client = server.connect("/save").await;
    assert_eq!(server.report().await, "at work");
    server.signal.end(EndReason::Revoked);
    assert_eq!(server.report().await, "saved");
    assert_eq!(server.report().await, "dropped");
    assert_eq!(LOG.lines_with("key_saving"), [""; 0], "nothing was closed");
}

#[tokio::test]
async fn tasks_of_a_handler_that_has_panicked_read_the_end() {
    let mut server = Server::start().await;
    let mut client = server.connect("/split-panic").await;
    let mut dropped = [server.report().await, server.report().await];
    dropped.sort_unstable();
    assert_eq!(dropped, ["receiver", "sender"]);
    // What the tasks have sent, then the end of the connection.
    while let Some(Ok(message)) = timeout(PATIENCE, client.next()).await.unwrap() {
        assert!(message.is_text(), "{message:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_waits_to_write_is_woken() {
    let mut server = Server::start().await;
    let connection = deaf(server.address, "/split-flood").await;
    assert_eq!(server.report().await, "full");
    server.signal.end(EndReason::Revoked);
    let mut report = server.report().await;
    while report == "full" {
        report = server.report().await;
    }
    assert_eq!(report, "sender");
    drop(connection);
}

/// The log of all tests of this process: with one subscriber for each test, another test could disable the events of this one.
static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    log
});

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines_with(&self, part: &str) -> Vec<String> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn closes_a_socket_whose_handler_neither_reads_nor_writes_and_drops_the_handler_at_the_deadline() {
    let mut server = Server::start().await;
    let mut client = server.connect("/idle").await;
    server.signal.end(EndReason::Revoked);
    assert_closed(&mut client, REVOKED).await;
    assert_eq!(server.report().await, "dropped");
}

#[tokio::test]
async fn closes_a_socket_whose_handler_floods() {
    let mut server = Server::start().await;
    let mut client = server.connect("/flood").await;
    for _ in 0..100 {
        assert!(client.next().await.unwrap().unwrap().is_binary());
    }
    server.signal.end(EndReason::Revoked);
    assert_closed(&mut client, REVOKED).await;
    assert_eq!(server.report().await, "dropped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_a_socket_whose_halves_are_in_other_tasks() {
    let mut server = Server::start().await;
    let mut client = server.connect("/split").await;
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("tick"));
    server.signal.end(EndReason::Revoked);
    assert_closed(&mut client, REVOKED).await;
    let mut dropped = [server.report().await, server.report().await];
    dropped.sort_unstable();
    assert_eq!(dropped, ["receiver", "sender"], "each half was woken");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_handler() {
    let mut server = Server::start().await;
    let before = Arc::strong_count(&server.principal);
    let client = server.connect("/split").await;
    drop(client);
    server.report().await;
    server.report().await;
    // Nothing waits for the end of the key any more.
    timeout(PATIENCE, async {
        while Arc::strong_count(&server.principal) > before {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_application_can_choose_the_codes() {
    let server = Server::start().await;
    let mut client = server.connect("/own-codes").await;
    server.signal.end(EndReason::Revoked);
    assert_closed(&mut client, (4001, "key_revoked")).await;
}

/// Opens a WebSocket, and never reads.
async fn deaf(address: SocketAddr, path: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-api-key: good\r\nsec-websocket-protocol: chat\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    connection.read_exact(&mut head).await.unwrap();
    assert_eq!(head, *b"HTTP/1.1 101");
    connection
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped_at_the_deadline() {
    for path in ["/flood", "/idle"] {
        let mut server = Server::start().await;
        let mut connection = deaf(server.address, path).await;
        server.signal.end(EndReason::Revoked);
        assert_eq!(server.report().await, "dropped", "{path}");
        let mut rest = Vec::new();
        // Ends, if with an error: what was sent before the deadline can be read.
        let _ = timeout(PATIENCE, connection.read_to_end(&mut rest)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_the_one_that_was_set() {
    for path in ["/idle", "/own-codes"] {
        let server = Server::start().await;
        let mut connection = deaf(server.address, path).await;
        let start = Instant::now();
        server.signal.end(EndReason::Revoked);
        let mut received = Vec::new();
        timeout(PATIENCE, connection.read_to_end(&mut received)).await.unwrap().unwrap();
        assert_eq!(start.elapsed().as_secs(), 2, "{path}");
    }
}

#[tokio::test]
async fn nothing_is_sent_after_the_end() {
    let mut server = Server::start().await;
    let mut client = server.connect("/last-words").await;
    assert_eq!(server.report().await, "at work");
    server.signal.end(EndReason::Revoked);
    assert_eq!(closed(&mut client).await, (4401, REVOKED.1.to_owned(), 0));
    assert_eq!(server.report().await, "could not send");
}

#[tokio::test]
async fn what_is_in_a_full_buffer_is_sent_before_the_close() {
    let server = Server::start().await;
    let mut client = server.connect("/buffered").await;
    server.signal.end(EndReason::Revoked);
    assert_eq!(closed(&mut client).await, (4401, REVOKED.1.to_owned(), 2));
}

#[tokio::test]
async fn a_message_that_the_client_has_begun_does_not_hold_the_close_back() {
    let server = Server::start().await;
    let mut connection = deaf(server.address, "/echo").await;
    // A masked text frame of 100 bytes, of which 5 arrive.
    connection.write_all(b"\x81\xe4\0\0\0\0begun").await.unwrap();
    server.signal.end(EndReason::Revoked);
    let mut received = Vec::new();
    timeout(PATIENCE, connection.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(received.ends_with(b"\x88\x14\x11\x31invalid_credential"), "{received:?}");
}

#[tokio::test]
async fn an_anonymous_caller_has_no_end() {
    let server = Server::start().await;
    let mut request = format!("ws://{}/echo", server.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("chat"));
    let (mut client, _) = connect_async(request).await.unwrap();
    server.signal.end(EndReason::Revoked);
    assert_echoes(&mut client).await;
}

#[tokio::test]
async fn of_two_callers_only_the_one_that_has_ended_is_closed() {
    let (one, two) = (Server::start().await, Server::start().await);
    let (mut first, mut second) = (one.connect("/echo").await, two.connect("/echo").await);
    one.signal.end(EndReason::Revoked);
    assert_closed(&mut first, REVOKED).await;
    assert_echoes(&mut second).await;
}

#[tokio::test]
async fn a_request_that_is_no_handshake_is_rejected_as_by_axum() {
    let server = Server::start().await;
    let response = common::get(server.address, &[]).await;
    assert!(response.starts_with("HTTP/1.1 404"), "{response}");
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    let request = "GET /result HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).await.unwrap();
    assert!(response.contains("axum: "), "{response}");
}

#[tokio::test]
async fn without_a_verify_layer_the_answer_is_500() {
    let (reports, _received) = mpsc::unbounded_channel();
    let app = app(reports);
    for app in [app.clone(), app.layer(CredentialLayer::new().with_anonymous())] {
        let address = serve(app).await;
        let mut request = format!("ws://{address}/echo").into_client_request().unwrap();
        request.headers_mut().insert("x-api-key", HeaderValue::from_static("good"));
        let error = connect_async(request).await.unwrap_err();
        let tungstenite::Error::Http(response) = error else { panic!("{error}") };
        assert_eq!(response.status(), 500);
    }
}

#[tokio::test]
async fn extended_connect_is_closed_too() {
    LazyLock::force(&LOG);
    let server = Server::with_principal(Principal::new("key_over_http2")).await;
    let connection = TcpStream::connect(server.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(connection).await.unwrap();
    tokio::spawn(connection);
    while !client.is_extended_connect_protocol_enabled() {
        client = client.ready().await.unwrap();
        tokio::task::yield_now().await;
    }
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("http://localhost/idle")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .header("x-api-key", "good")
        .body(())
        .unwrap();
    let (response, mut send) = client.send_request(request, false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    server.signal.end(EndReason::Revoked);
    let mut body = response.into_body();
    let mut frame = Vec::new();
    while frame.len() < 22 {
        let data = timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        frame.extend(data);
    }
    assert_eq!(frame, b"\x88\x14\x11\x31invalid_credential");
    send.send_data(bytes::Bytes::from_static(b"\x88\x82\0\0\0\0\x11\x31"), true).unwrap();
    // The stream ends, or is reset: axum drops it.
    while let Some(Ok(data)) = timeout(PATIENCE, body.data()).await.unwrap() {
        assert!(data.is_empty(), "{data:?}");
    }
    let events = LOG.lines_with("key_over_http2");
    let [event] = &*events else { panic!("{events:?}") };
    // What its handshake was answered with.
    assert!(event.contains("status=200 method=\"CONNECT\""), "{event}");
}

#[tokio::test]
async fn in_report_only_mode_the_end_is_logged_and_counted_and_the_socket_goes_on() {
    LazyLock::force(&LOG);
    let report = ReportOnly::new();
    let (signal, counted) = (EndSignal::new(), report.clone());
    let route = any(async move |upgrade: GuardedUpgrade| {
        upgrade.with_report_only(&counted).map(|upgrade| upgrade.protocols(["chat"])).on_upgrade(
            async |mut socket| {
                while let Some(Ok(message)) = socket.recv().await {
                    let _ = socket.send(message).await;
                }
            },
        )
    });
    let principal = Arc::new(Principal::new("key_reported").with_end_signal(signal.clone()));
    let tollgate = Tollgate::builder().verify(OneKey(principal, None)).report_only(&report).build().unwrap();
    let address = serve(Router::new().route("/echo", route).layer(tollgate)).await;
    let mut client = connect(address, "/echo").await;
    assert_echoes(&mut client).await;
    assert_eq!(report.refusals(), 0);
    signal.end(EndReason::Revoked);
    for _ in 0..3 {
        assert_echoes(&mut client).await;
    }
    assert_eq!(report.refusals(), 1);
    let events = LOG.lines_with("key_reported");
    let [event] = &*events else { panic!("{events:?}") };
    for part in ["refused", "reason=\"key_revoked\"", "status=401", "path=\"/echo\"", "report_only=true"] {
        assert!(event.contains(part), "{part} is not in {event}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_sockets_of_a_key_are_closed_by_one_revocation() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = server.connect("/echo").await;
        assert_echoes(&mut client).await;
        clients.push(client);
    }
    let start = Instant::now();
    server.signal.end(EndReason::Revoked);
    for client in &mut clients {
        assert_eq!(closed(client).await.0, 4401);
    }
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}
