//! A guarded API, the loopback servers that carry it, and callers that speak to them.
//!
//! Nothing here outlives its test: servers and connections run on the test's own runtime and end with it. Whatever cannot be
//! set up panics, and so fails the test.
#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Weak,
    time::{Duration, SystemTime},
};

use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header::HOST};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tollgate::{
    Answer, CredentialLayer, EntitlementLayer, Environment, KeyFormat, KeyVerifier, MemoryKeys,
    PerWindow as _, Plan, Principal, Quota, RateLimitLayer, RequestIdLayer, ScopeLayer, Scopes, Tollgate,
    VerifyLayer,
    clock::ManualClock,
    denial::Unavailable,
    respond::Grpc,
    scope,
    store::{KeyLookup, KeyRecord, KeyStore, StoreListener, Subscription},
};
use tower::{
    Service, ServiceBuilder,
    layer::util::{Identity, Stack},
};

/// Fails a test that would hang.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_mins(1), future).await.expect("an answer within a minute")
}

/// An API, its keys, and the layers that guard it: as one stack, or one by one.
///
/// Both share one limiter, and a clock that stands still, so that no window turns in the middle of a test.
#[derive(Clone, Debug)]
pub struct Api {
    /// A key with the scope `jobs:read` and an active plan.
    pub key: String,
    /// The same but for the scope.
    pub key_without_scope: String,
    /// A key in the right format that was not issued.
    pub unknown_key: String,
    format: KeyFormat,
    keys: MemoryKeys,
    clock: ManualClock,
    verify: VerifyLayer,
    rate_limit: RateLimitLayer,
    scope: ScopeLayer,
    serves_grpc: bool,
}

/// The six layers, one by one, in the order of a request.
pub type SixLayers = Stack<
    ScopeLayer,
    Stack<
        EntitlementLayer,
        Stack<RateLimitLayer, Stack<VerifyLayer, Stack<CredentialLayer, Stack<RequestIdLayer, Identity>>>>,
    >,
>;

impl Default for Api {
    fn default() -> Self {
        Self::new()
    }
}

impl Api {
    /// An API that asks for `jobs:read`, with a quota that no test uses up.
    pub fn new() -> Self {
        let format = KeyFormat::new("sk").expect("a valid format");
        let keys = MemoryKeys::new();
        let issue = |principal| {
            let key = keys.issue(&format, Environment::Live, principal).expect("randomness");
            key.expose_secret().to_owned()
        };
        let scopes = Scopes::new(["jobs:read"]).expect("a valid scope");
        Self {
            key: issue(Principal::new("key_1").with_plan(Plan::active("pro")).with_scopes(scopes)),
            key_without_scope: issue(Principal::new("key_2").with_plan(Plan::active("pro"))),
            unknown_key: format.generate(Environment::Live).expect("randomness").expose_secret().to_owned(),
            clock: ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_030)),
            verify: VerifyLayer::new(KeyVerifier::new(format.clone(), keys.clone())),
            format,
            keys,
            rate_limit: RateLimitLayer::new(1_000_000.per_minute()),
            scope: ScopeLayer::new(scope("jobs:read")).expect("a valid scope"),
            serves_grpc: false,
        }
    }

    /// With another quota for each key.
    pub fn with_quota(self, quota: Quota) -> Self {
        Self { rate_limit: RateLimitLayer::new(quota), ..self }
    }

    /// With other scopes.
    pub fn with_scope(self, scope: impl Into<ScopeLayer>) -> Self {
        Self { scope: scope.into(), ..self }
    }

    /// With refusals that gRPC callers understand.
    pub fn with_grpc(self) -> Self {
        Self { serves_grpc: true, ..self }
    }

    /// With keys in a store that takes its time.
    pub fn with_slow_backend(self) -> Self {
        let store = Slow(self.keys.clone());
        self.with_store(store)
    }

    /// With a key store that is down.
    pub fn with_backend_down(self) -> Self {
        self.with_store(Down)
    }

    fn with_store(self, store: impl KeyStore) -> Self {
        Self { verify: VerifyLayer::new(KeyVerifier::new(self.format.clone(), store)), ..self }
    }

    /// The built stack.
    pub fn stack(&self) -> Tollgate {
        let builder = Tollgate::builder()
            .verify(self.verify.clone())
            .rate_limit(self.rate_limit.clone())
            .entitlement(EntitlementLayer::new())
            .scope(self.scope.clone())
            .clock(self.clock.clone());
        let builder = if self.serves_grpc { builder.responder(Grpc::new()) } else { builder };
        builder.build().expect("a stack that can work")
    }

    /// The six layers, stacked by a `ServiceBuilder`.
    pub fn six_layers(&self) -> SixLayers {
        let layers = self.each_layer();
        ServiceBuilder::new()
            .layer(layers.0)
            .layer(layers.1)
            .layer(layers.2)
            .layer(layers.3)
            .layer(layers.4)
            .layer(layers.5)
            .into_inner()
    }

    /// The six layers, in the order of a request.
    pub fn each_layer(
        &self,
    ) -> (RequestIdLayer, CredentialLayer, VerifyLayer, RateLimitLayer, EntitlementLayer, ScopeLayer) {
        let request_id = RequestIdLayer::new().with_clock(self.clock.clone());
        (
            if self.serves_grpc { request_id.with_responder(Grpc::new()) } else { request_id },
            CredentialLayer::new().with_clock(self.clock.clone()),
            self.verify.clone().with_clock(self.clock.clone()),
            self.rate_limit.clone().with_clock(self.clock.clone()),
            EntitlementLayer::new().with_clock(self.clock.clone()),
            self.scope.clone().with_clock(self.clock.clone()),
        )
    }

    /// `router` behind the layers.
    pub fn guard(&self, router: Router, how: How) -> Router {
        match how {
            How::Built => router.layer(self.stack()),
            How::Separate => router.layer(self.six_layers()),
        }
    }
}

/// How the layers are put together.
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// As one, by [`Tollgate::builder`].
    Built,
    /// One by one.
    Separate,
}

impl How {
    /// Both ways.
    pub const BOTH: [Self; 2] = [Self::Built, Self::Separate];
}

/// A store that takes its time.
struct Slow(MemoryKeys);

impl KeyStore for Slow {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        let found = self.0.find(lookup);
        Answer::later(async {
            tokio::task::yield_now().await;
            found.await
        })
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        self.0.subscribe(listener)
    }
}

/// A store that is down.
struct Down;

impl KeyStore for Down {
    fn find(&self, _lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        Answer::Now(Err(Unavailable::new("the key store refused the connection")))
    }

    fn subscribe(&self, _listener: Weak<dyn StoreListener>) -> Subscription {
        Subscription::trust_for(Duration::ZERO)
    }
}

/// Listens on a free port of the loopback.
pub async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// Serves a router by axum, over HTTP/1.1 and HTTP/2.
pub async fn serve(router: Router) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(axum::serve(listener, router).into_future());
    address
}

/// The same, with the address of the connection's other end in every request's extensions.
pub async fn serve_with_peers(router: Router) -> SocketAddr {
    let (listener, address) = listen().await;
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(axum::serve(listener, service).into_future());
    address
}

/// Serves a service by hyper alone, over HTTP/1.1 and HTTP/2.
pub async fn serve_by_hyper<S, B>(service: S) -> SocketAddr
where
    S: Service<Request<hyper::body::Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                // A caller that hangs up is no concern of the server's.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// One TCP connection to a server.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    sender: Sender,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Connects for HTTP/1.1.
    pub async fn http1(address: SocketAddr) -> Self {
        let stream = TokioIo::new(within(TcpStream::connect(address)).await.expect("a server"));
        let (sender, connection) = within(http1::handshake(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self { address, sender: Sender::Http1(sender) }
    }

    /// Connects for HTTP/1.1 from another address of the loopback.
    pub async fn http1_from(own: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((own, 0).into()).expect("an address of the loopback");
        let stream = TokioIo::new(within(socket.connect(address)).await.expect("a server"));
        let (sender, connection) = within(http1::handshake(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self { address, sender: Sender::Http1(sender) }
    }

    /// Connects for HTTP/2, knowing beforehand that the server speaks it.
    pub async fn http2(address: SocketAddr) -> Self {
        let stream = TokioIo::new(within(TcpStream::connect(address)).await.expect("a server"));
        let (sender, connection) =
            within(http2::handshake(TokioExecutor::new(), stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self { address, sender: Sender::Http2(sender) }
    }

    /// Sends a `GET` request, with or without a key.
    pub async fn get(&mut self, path: &str, key: Option<&str>) -> Response<Bytes> {
        self.send(request(Method::GET, path, key)).await
    }

    /// Sends a request and waits for the whole response.
    pub async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Response<Bytes> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                let host = HeaderValue::try_from(self.address.to_string()).expect("an address");
                request.headers_mut().insert(HOST, host);
                within(sender.ready()).await.expect("an open connection");
                within(sender.send_request(request)).await
            }
            Sender::Http2(sender) => {
                let uri = format!("http://{}{}", self.address, request.uri());
                *request.uri_mut() = Uri::try_from(uri).expect("a URI");
                within(sender.ready()).await.expect("an open connection");
                within(sender.send_request(request)).await
            }
        };
        let (parts, body) = response.expect("a response").into_parts();
        let body = within(body.collect()).await.expect("a whole body").to_bytes();
        Response::from_parts(parts, body)
    }
}

/// A request without a body, with or without a key.
pub fn request(method: Method, path: &str, key: Option<&str>) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(key) = key {
        request = request.header("x-api-key", key);
    }
    request.body(Full::default()).expect("a request")
}

/// A header's text; empty if it is not there.
pub fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The `code` of a problem.
pub fn code(body: &[u8]) -> String {
    let problem: serde_json::Value = serde_json::from_slice(body).expect("a problem");
    problem.get("code").and_then(|code| code.as_str()).unwrap_or_default().to_owned()
}
