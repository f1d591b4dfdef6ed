//! A missing or invalid credential never gives access, and a refusal reveals no keys or routes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    middleware::{self, Next},
    routing::{any, delete, get as on_get},
};
use http::{HeaderName, Method, StatusCode, Version};
use http_body_util::Full;
use tests::{
    hosts::{Connection, header, listen, request, serve},
    suite::{Directory, Inner, Reply, at, erase, get, send, with_key},
};
use tollgate::{
    CredentialLayer, DenialKind, PerWindow as _, Principal, RequestContext, RequestIdLayer, ScopeLayer,
    Scopes, Tollgate, VerifyLayer,
    clock::ManualClock,
    layers::TollgateBuilder,
    respond::Grpc,
    scope::{ScopeMap, scope},
    verify::CredentialSource,
};
use tonic::transport::Server;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};

use super::{Keys, preflight};

fn guarded(keys: &Keys) -> TollgateBuilder {
    Tollgate::builder().verify(keys.verifier()).rate_limit(1.per_day())
}

/// The attacker calls an RPC with `OPTIONS`: tonic ignores the method, and a preflight needs no credential.
#[tokio::test]
async fn a_preflight_cannot_call_an_rpc() {
    const MESSAGE: &[u8] = b"\x00\x00\x00\x00\x10\x0a\x0esecret.Service";

    let keys = Keys::new();
    let key = keys.issue(Principal::new("ada"));
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("secret.Service", tonic_health::ServingStatus::Serving).await;
    let (listener, address) = listen().await;
    let tollgate = guarded(&keys).responder(Grpc::new()).build().unwrap();
    let rpcs = Server::builder().layer(tollgate).add_service(health);
    tokio::spawn(rpcs.serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener)));

    let mut caller = Connection::http2(address).await;
    let mut call = async |method: Method, headers: &[(&'static str, &str)]| {
        let mut call = request(method, "/grpc.health.v1.Health/Check", None);
        *call.body_mut() = Full::from(MESSAGE);
        call.headers_mut().insert("te", "trailers".parse().unwrap());
        for (name, value) in headers {
            call.headers_mut().insert(*name, value.parse().unwrap());
        }
        caller.send(call).await
    };
    let grpc = ("content-type", "application/grpc");
    let cors = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    for headers in [&[][..], &[grpc], &cors, &[cors[0], cors[1], grpc]] {
        let refused = call(Method::OPTIONS, headers).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{headers:?}");
        assert!(refused.body().starts_with(b"{"), "answered by the gate, not by the service: {refused:?}");
    }
    let refused = call(Method::POST, &[grpc]).await;
    assert_eq!((header(refused.headers(), "grpc-status"), refused.body().len()), ("16", 0));

    let served = call(Method::POST, &[grpc, ("x-api-key", &key)]).await;
    assert_eq!(&served.body()[..], b"\x00\x00\x00\x00\x02\x08\x01", "the service answers SERVING");
}

/// The attacker runs a handler by a preflight: a handler for any method, or for the method in an override header.
#[tokio::test]
async fn a_preflight_cannot_run_a_handler() {
    let ran = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ran);
    let wipe = move || {
        counter.fetch_add(1, Ordering::SeqCst);
        std::future::ready("wiped")
    };
    let method_override = middleware::from_fn(async |mut request: Request, next: Next| {
        if let Some(method) = request.headers().get("x-http-method-override") {
            *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        }
        next.run(request).await
    });
    let inside = Router::new().route("/any", any(wipe.clone())).route("/delete", delete(wipe));
    let around = (guarded(&Keys::new()).build().unwrap(), method_override);
    let app = Router::new().fallback_service(around.layer(inside));
    for path in ["/any", "/delete"] {
        let mut attack = preflight(path);
        attack.headers_mut().insert("x-http-method-override", "DELETE".parse().unwrap());
        let response = app.clone().oneshot(attack.map(Body::from)).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}

/// The attacker compares refusals to learn which routes exist.
#[tokio::test]
async fn refusals_do_not_reveal_which_routes_exist() {
    let map = ScopeMap::new().get("/jobs", scope("read"));
    let stack = guarded(&Keys::new()).scope(ScopeLayer::per_route(map).unwrap()).build().unwrap();
    let jobs = Router::new().route("/jobs", on_get(async || "jobs"));
    let server = serve(Router::new().fallback_service(stack.layer(jobs))).await;
    expect_no_difference(server).await;
}

/// Asserts that, without a key, `/jobs` and a path that does not exist get the same response.
async fn expect_no_difference(server: SocketAddr) {
    let mut anonymous = Connection::http1(server).await;
    for method in [Method::OPTIONS, Method::GET, Method::HEAD, Method::DELETE] {
        let mut responses = Vec::new();
        for path in ["/jobs", "/none"] {
            let mut attack = preflight(path).map(Full::from);
            *attack.method_mut() = method.clone();
            let (mut head, body) = anonymous.send(attack).await.into_parts();
            let id = head.headers.remove("x-request-id").unwrap();
            head.headers.remove("date");
            let body = String::from_utf8(body.to_vec()).unwrap().replace(id.to_str().unwrap(), "ID");
            assert_eq!(head.status, StatusCode::UNAUTHORIZED);
            responses.push((head.headers, body));
        }
        let [existing, other] = <[_; 2]>::try_from(responses).unwrap();
        assert_eq!(existing, other, "{method}");
    }
}

/// The attacker sends `CONNECT`, which routers treat like any method, to need only the scope of `GET`.
#[tokio::test]
async fn connect_requires_the_scope_for_any_method() {
    let keys = Keys::new();
    let reader = keys.issue(Principal::new("ada").with_scopes(Scopes::new(["read"]).unwrap()));
    let map = ScopeMap::new()
        .get("/document", scope("read"))
        .any("/document", scope("write"))
        .get("/read-only", scope("read"));
    let stack = Tollgate::builder().verify(keys.verifier()).scope(ScopeLayer::per_route(map).unwrap());
    let stack = stack.build().unwrap();

    let app = Router::new().route("/document", any(async || "ran")).route("/read-only", any(async || "ran"));
    let server = serve(app.layer(stack.clone())).await;
    let call = async |method: Method, path: &str| {
        let mut caller = Connection::http1(server).await;
        caller.send(request(method, path, Some(&reader))).await.status()
    };
    assert_eq!(call(Method::GET, "/document").await, StatusCode::OK);
    assert_eq!(call(Method::POST, "/document").await, StatusCode::FORBIDDEN);
    assert_eq!(call(Method::CONNECT, "/document").await, StatusCode::FORBIDDEN);
    assert_eq!(
        call(Method::CONNECT, "/read-only").await,
        StatusCode::METHOD_NOT_ALLOWED,
        "this request opens no WebSocket"
    );

    let inner = Inner::new();
    let mut stack = erase(stack.layer(inner.clone()));
    let mut connect = get("/document", &[("x-api-key", &reader)]);
    (*connect.method_mut(), *connect.version_mut()) = (Method::CONNECT, Version::HTTP_2);
    assert_eq!(send(&mut stack, connect).await.kind(), Some(DenialKind::ScopeMissing));
    assert_eq!(inner.calls(), 0);
}

/// The attacker sends an invalid key where anonymous callers are allowed, and hopes to count as anonymous.
#[tokio::test]
async fn an_invalid_key_is_not_treated_as_anonymous() {
    let keys = Keys::new();
    let revoked = keys.issue(Principal::new("revoked"));
    assert!(keys.store.revoke("revoked"));
    let expired = keys.issue(Principal::new("expired").with_expiry(at(0)));
    let clock = ManualClock::at(at(1));
    let sources = [
        CredentialSource::Bearer,
        CredentialSource::Header(HeaderName::from_static("x-api-key")),
        CredentialSource::WebSocketProtocol("key."),
        CredentialSource::DangerousQuery("key"),
    ];
    let inner = Inner::new();
    let layers = (
        CredentialLayer::from_sources(sources).unwrap().with_anonymous().with_clock(clock.clone()),
        VerifyLayer::new(keys.verifier()).with_clock(clock),
    );
    let mut stack = erase(layers.layer(inner.clone()));
    for key in [&*revoked, &expired, &keys.invent(), "sk_live_junk", "x"] {
        for bad in [
            with_key(key),
            get("/jobs", &[("x-api-key", key)]),
            get("/jobs", &[("sec-websocket-protocol", &format!("chat, key.{key}"))]),
            get(&format!("/jobs?a=b&key={key}"), &[]),
        ] {
            assert_eq!(send(&mut stack, bad).await.status(), StatusCode::UNAUTHORIZED);
        }
    }
    assert_eq!(inner.calls(), 0);
    assert_eq!(send(&mut stack, get("/jobs", &[])).await.status(), StatusCode::OK);
}

/// The attacker tries old keys to learn which of them were real. An expired key looks unknown, even if its tenant is suspended.
#[tokio::test]
async fn an_expired_key_of_a_suspended_tenant_looks_like_an_unknown_one() {
    let keys = Keys::new();
    let expired = keys.issue(Principal::new("ada").with_tenant("acme").with_expiry(at(0)));
    keys.store.suspend_tenant("acme");
    let late = keys.issue(Principal::new("bob").with_tenant("acme").with_expiry(at(0)));
    let stack = Tollgate::builder().verify(keys.verifier()).clock(ManualClock::at(at(1))).build().unwrap();
    let mut stack = erase(stack.layer(Inner::new()));
    let mut response = async |key: &str| {
        let reply = send(&mut stack, with_key(key)).await;
        let id = reply.header("x-request-id");
        let mut headers = reply.headers().clone();
        headers.remove("x-request-id");
        (reply.status(), headers, reply.body().replace(&id, "ID"))
    };
    let unknown = response(&keys.invent()).await;
    assert_eq!(response(&expired).await, unknown);
    assert_eq!(response(&late).await, unknown);
}

/// The attacker reads, at a proxied upstream, keys that came in the query or among the WebSocket subprotocols.
#[tokio::test]
async fn with_removal_no_key_is_left_in_subprotocols_or_the_query() {
    const KEY: &str = "s3cr3t";

    let sources = [CredentialSource::WebSocketProtocol("key."), CredentialSource::DangerousQuery("key")];
    let layers = (
        CredentialLayer::from_sources(sources).unwrap().with_removal(),
        VerifyLayer::new(Directory::default().with(KEY, Principal::new("ada"))),
    );
    for (path, protocols, expected) in [
        ("/jobs", "chat, key.s3cr3t, v2", ("/jobs", "chat, v2")),
        ("/jobs", "key.s3cr3t", ("/jobs", "")),
        ("/jobs?key=s3cr3t", "chat", ("/jobs", "chat")),
        ("/jobs?a=b&key=s3cr3t&c", "", ("/jobs?a=b&c", "")),
        ("/jobs?key=s3cr3t", "key.s3cr3t", ("/jobs", "")),
        ("https://api.example/jobs?key=s3cr3t&d=e", "", ("https://api.example/jobs?d=e", "")),
        // A service decodes names and values, so a key that is encoded differently is the same key.
        ("/jobs?a=b&k%65y=s3cr3t", "", ("/jobs?a=b", "")),
        ("/jobs?key=%733cr3t&%6B%45%79=c", "", ("/jobs?%6B%45%79=c", "")),
        ("/jobs", "chat,, key.s3cr3t,", ("/jobs", "chat")),
    ] {
        let inner = Inner::new();
        let protocol = ("sec-websocket-protocol", protocols);
        let headers = if protocols.is_empty() { &[][..] } else { &[protocol] };
        let reply = send(&mut erase(layers.layer(inner.clone())), get(path, headers)).await;
        assert_eq!(reply.kind(), None, "{path} {protocols}");
        let inside = inner.take_last();
        let left = header(inside.headers(), "sec-websocket-protocol");
        assert_eq!((&*inside.uri().to_string(), left), expected);
        assert!(RequestContext::of(inside.extensions()).and_then(RequestContext::principal).is_some());
    }
}

/// The attacker reaches an inner stack, which has its own keys, with only the identity that an outer stack has set.
#[tokio::test]
async fn an_identity_from_an_outer_stack_is_ignored_by_an_inner_stack() {
    let identified = |stack: Tollgate, inner: &Inner| {
        let layers = ServiceBuilder::new().map_request(|mut request: http::Request<String>| {
            RequestContext::authenticate(request.extensions_mut(), Arc::new(Principal::new("ada")));
            request
        });
        erase(layers.layer(stack).service(inner.clone()))
    };
    let builder = Tollgate::builder().verify(Keys::new().verifier());

    let inner = Inner::new();
    let mut strict = identified(builder.clone().build().unwrap(), &inner);
    let reply = send(&mut strict, get("/jobs", &[])).await;
    assert_eq!((reply.kind(), inner.calls()), (Some(DenialKind::CredentialMissing), 0));

    let optional = builder.credential(CredentialLayer::new().with_anonymous()).build().unwrap();
    assert_eq!(send(&mut identified(optional, &inner), get("/jobs", &[])).await.kind(), None);
    let inside = inner.take_last();
    assert!(RequestContext::of(inside.extensions()).and_then(RequestContext::principal).is_none());
}

/// The attacker sends an invented request ID to an upstream that relies on UUIDs: in the upstream's header, and in the header of
/// the application's outer layer.
#[tokio::test]
async fn a_request_id_that_only_the_outer_layer_allows_is_not_propagated() {
    let inner = Inner::new();
    let upstream = RequestIdLayer::new()
        .with_header(HeaderName::from_static("x-correlation-id"))
        .with_uuids_only()
        .with_propagation();
    let mut stack = erase((RequestIdLayer::new(), upstream).layer(inner.clone()));
    let sent = [("x-request-id", "not-a-uuid"), ("x-correlation-id", "<script>")];
    let reply: Reply = send(&mut stack, get("/jobs", &sent)).await;
    let inside = inner.take_last();
    let passed_on: Vec<_> = inside.headers().get_all("x-correlation-id").iter().collect();
    assert_eq!(passed_on.len(), 1);
    assert_eq!(passed_on[0].len(), 36, "a UUID");
    assert_eq!(reply.header("x-correlation-id"), passed_on[0].to_str().unwrap());
}
