//! Nobody gets in by what they leave out, and nobody is told who else is there.

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
    scope::{ScopeMap, scope},
    verify::CredentialSource,
};
use tonic::transport::Server;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};

use crate::{Keys, preflight};

fn guarded(keys: &Keys) -> TollgateBuilder {
    Tollgate::builder().verify(keys.verifier()).rate_limit(1.per_day())
}

/// Calls an RPC by `OPTIONS`: tonic does not look at the method, and a preflight needs no credential.
#[tokio::test]
async fn a_preflight_calls_no_rpc() {
    const MESSAGE: &[u8] = b"\x00\x00\x00\x00\x10\x0a\x0esecret.Service";

    let keys = Keys::new();
    let key = keys.issue(Principal::new("ada"));
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("secret.Service", tonic_health::ServingStatus::Serving).await;
    let (listener, address) = listen().await;
    let rpcs = Server::builder().layer(guarded(&keys).build().unwrap()).add_service(health);
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
        assert!(refused.body().starts_with(b"{"), "not the answer of the service: {refused:?}");
    }
    let refused = call(Method::POST, &[grpc]).await;
    assert_eq!((header(refused.headers(), "grpc-status"), refused.body().len()), ("16", 0));

    let served = call(Method::POST, &[grpc, ("x-api-key", &key)]).await;
    assert_eq!(&served.body()[..], b"\x00\x00\x00\x00\x02\x08\x01", "serving, and not counted before");
}

/// Has a handler for any method run by a preflight, or one for another method by a header that stands for the method.
#[tokio::test]
async fn a_preflight_runs_no_handler() {
    let ran = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ran);
    let wipe = move || {
        counter.fetch_add(1, Ordering::SeqCst);
        std::future::ready("wiped")
    };
    let the_header_counts = middleware::from_fn(async |mut request: Request, next: Next| {
        if let Some(method) = request.headers().get("x-http-method-override") {
            *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        }
        next.run(request).await
    });
    let inside = Router::new().route("/any", any(wipe.clone())).route("/delete", delete(wipe));
    let around = (guarded(&Keys::new()).build().unwrap(), the_header_counts);
    let app = Router::new().fallback_service(around.layer(inside));
    for path in ["/any", "/delete"] {
        let mut attack = preflight(path);
        attack.headers_mut().insert("x-http-method-override", "DELETE".parse().unwrap());
        let response = app.clone().oneshot(attack.map(Body::from)).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}

/// Tells by the refusals of preflights and of other methods which routes exist.
#[tokio::test]
async fn no_refusal_tells_strangers_which_routes_exist() {
    let map = ScopeMap::new().get("/jobs", scope("read"));
    let stack = guarded(&Keys::new()).scope(ScopeLayer::per_route(map).unwrap()).build().unwrap();
    let jobs = Router::new().route("/jobs", on_get(async || "jobs"));
    let server = serve(Router::new().fallback_service(stack.layer(jobs))).await;
    expect_no_difference(server).await;
}

/// That a stranger sees no difference between `/jobs`, which exists, and a path that does not.
async fn expect_no_difference(server: SocketAddr) {
    let mut stranger = Connection::http1(server).await;
    for method in [Method::OPTIONS, Method::GET, Method::HEAD, Method::DELETE] {
        let mut faces = Vec::new();
        for path in ["/jobs", "/none"] {
            let mut attack = preflight(path).map(Full::from);
            *attack.method_mut() = method.clone();
            let (mut head, body) = stranger.send(attack).await.into_parts();
            let id = head.headers.remove("x-request-id").unwrap();
            head.headers.remove("date");
            let body = String::from_utf8(body.to_vec()).unwrap().replace(id.to_str().unwrap(), "ID");
            assert_eq!(head.status, StatusCode::UNAUTHORIZED);
            faces.push((head.headers, body));
        }
        let [existing, other] = <[_; 2]>::try_from(faces).unwrap();
        assert_eq!(existing, other, "{method}");
    }
}

/// Sends `CONNECT`, which servers route like any other method, to be asked for the little that `GET` is asked for.
#[tokio::test]
async fn connect_is_not_asked_for_less_than_any_other_method() {
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
    assert_eq!(call(Method::CONNECT, "/read-only").await, StatusCode::FORBIDDEN, "opens no WebSocket");

    let inner = Inner::new();
    let mut stack = erase(stack.layer(inner.clone()));
    let mut connect = get("/document", &[("x-api-key", &reader)]);
    (*connect.method_mut(), *connect.version_mut()) = (Method::CONNECT, Version::HTTP_2);
    assert_eq!(send(&mut stack, connect).await.kind(), Some(DenialKind::ScopeMissing));
    assert_eq!(inner.calls(), 0);
}

/// Hopes to pass for a stranger, where strangers are served, with a key that is no good.
#[tokio::test]
async fn a_bad_key_is_no_stranger() {
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

/// Tries old keys, to learn which of them were real: an expired one must look unknown, suspended or not.
#[tokio::test]
async fn an_expired_key_of_a_suspended_tenant_looks_like_an_unknown_one() {
    let keys = Keys::new();
    let expired = keys.issue(Principal::new("ada").with_tenant("acme").with_expiry(at(0)));
    keys.store.suspend_tenant("acme");
    let late = keys.issue(Principal::new("bob").with_tenant("acme").with_expiry(at(0)));
    let stack = Tollgate::builder().verify(keys.verifier()).clock(ManualClock::at(at(1))).build().unwrap();
    let mut stack = erase(stack.layer(Inner::new()));
    let mut face = async |key: &str| {
        let reply = send(&mut stack, with_key(key)).await;
        let id = reply.header("x-request-id");
        let mut headers = reply.headers().clone();
        headers.remove("x-request-id");
        (reply.status(), headers, reply.body().replace(&id, "ID"))
    };
    let unknown = face(&keys.invent()).await;
    assert_eq!(face(&expired).await, unknown);
    assert_eq!(face(&late).await, unknown);
}

/// Reads at a proxied upstream the keys that did not come in a header of their own.
#[tokio::test]
async fn with_removal_no_key_is_left_among_subprotocols_or_in_the_query() {
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

/// Comes to an inner stack, which has keys of its own, with nothing but what an outer one has made of them.
#[tokio::test]
async fn whom_a_stack_outside_has_proven_is_nobody_to_a_stack_inside() {
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

/// Smuggles an identifier of its own making to an upstream that relies on UUIDs: in the header that it reads, and in the one
/// that an application's own layer reads further out.
#[tokio::test]
async fn an_identifier_that_only_the_outer_contract_allows_is_not_passed_on() {
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
