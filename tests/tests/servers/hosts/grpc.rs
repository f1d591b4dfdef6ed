//! Around tonic's server, and around gRPC in an axum router: the responses that gRPC callers get.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, routing::get};
use bytes::Bytes;
use futures_util::{StreamExt as _, future::join_all};
use http::{Method, Response, StatusCode};
use tests::hosts::{Api, Connection, How, header, listen, request, serve, within};
use tollgate::{
    Answer, Denial, DenialKind, PerWindow as _, Principal, RequestContext, ScopeLayer, Tollgate,
    respond::Grpc,
    scope::{ScopeMap, scope},
    verify::{Verify, VerifyRequest},
};
use tonic::{
    Code, Status,
    service::{Routes, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Server},
};
use tonic_health::{
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::health_reporter,
};
use tower::{BoxError, Layer, Service, ServiceBuilder, limit::ConcurrencyLimitLayer};

/// Serves tonic's health service behind `layer`, and counts the connections.
async fn serve_health<L, B>(layer: L) -> (SocketAddr, Arc<AtomicUsize>)
where
    L: Layer<Routes> + Clone + Send + 'static,
    L::Service: Service<
            http::Request<tonic::body::Body>,
            Response = Response<B>,
            Error: Into<BoxError> + Send,
            Future: Send,
        > + Clone
        + Send
        + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (_, health) = health_reporter();
    let (listener, address) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let incoming = futures_util::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    })
    .inspect(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let incoming = Box::pin(incoming);
    tokio::spawn(Server::builder().layer(layer).add_service(health).serve_with_incoming(incoming));
    (address, connections)
}

struct Caller(HealthClient<Channel>);

impl Caller {
    async fn connect(server: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{server}")).unwrap();
        Self(HealthClient::new(within(endpoint.connect()).await.unwrap()))
    }

    fn request(service: &str, metadata: &[(&'static str, &str)]) -> tonic::Request<HealthCheckRequest> {
        let mut request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
        for (name, value) in metadata {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    /// Calls the health check. Returns the metadata of the response, or the status.
    async fn check(
        &mut self,
        metadata: &[(&'static str, &str)],
    ) -> Result<tonic::metadata::MetadataMap, Status> {
        let response = within(self.0.check(Self::request("", metadata))).await?;
        assert_eq!(response.get_ref().status, 1, "serving");
        Ok(response.metadata().clone())
    }

    async fn check_with_key(&mut self, key: &str) -> Result<tonic::metadata::MetadataMap, Status> {
        self.check(&[("x-api-key", key)]).await
    }
}

fn entry<'m>(metadata: &'m tonic::metadata::MetadataMap, name: &str) -> &'m str {
    metadata.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[tokio::test]
async fn callers_see_the_code_and_the_message_of_every_refusal() {
    let api = Api::new().with_grpc().with_quota(2.per_hour());
    let (built, built_connections) = serve_health(api.stack()).await;
    let separate = Api::new().with_grpc().with_quota(2.per_hour());
    let (six, six_connections) = serve_health(separate.six_layers()).await;
    // In tonic's builder, the layer added first is the outermost, as in a `ServiceBuilder`.
    for (api, server, connections) in [(api, built, built_connections), (separate, six, six_connections)] {
        let mut caller = Caller::connect(server).await;
        let bearer = |key: &str| format!("Bearer {key}");

        let status = caller.check(&[]).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unauthenticated, "This request needs a credential.")
        );
        assert!(!entry(status.metadata(), "x-request-id").is_empty());
        let status = caller.check(&[("authorization", &bearer(&api.unknown_key))]).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unauthenticated, "The credential is not valid.")
        );
        let status = caller.check_with_key("not a key").await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        let status = caller.check_with_key(&api.key_without_scope).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::PermissionDenied, "The credential lacks a required scope.")
        );

        let metadata =
            caller.check(&[("authorization", &bearer(&api.key)), ("x-request-id", "mine")]).await.unwrap();
        assert_eq!(entry(&metadata, "x-request-id"), "mine");
        assert_eq!(entry(&metadata, "x-ratelimit-remaining"), "1");
        let metadata = caller.check_with_key(&api.key).await.unwrap();
        assert_eq!(entry(&metadata, "x-ratelimit-remaining"), "0");

        let status = caller.check(&[("x-api-key", &api.key), ("x-request-id", "late")]).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::ResourceExhausted, "The limit is used up. Retry later.")
        );
        assert_eq!(entry(status.metadata(), "x-request-id"), "late");
        assert_eq!(entry(status.metadata(), "x-ratelimit-remaining"), "0");
        assert_eq!(connections.load(Ordering::SeqCst), 1, "refusals keep the connection open");
    }
}

#[tokio::test]
async fn a_method_that_a_scope_map_does_not_list_is_unimplemented() {
    let map = ScopeMap::new().post("/grpc.health.v1.Health/Watch", scope("jobs:read"));
    let api = Api::new().with_grpc().with_scope(ScopeLayer::per_route(map).unwrap());
    for server in [serve_health(api.stack()).await.0, serve_health(api.six_layers()).await.0] {
        let mut caller = Caller::connect(server).await;
        let status = caller.check_with_key(&api.key).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unimplemented, "This path does not exist."));
        assert_eq!(caller.check(&[]).await.unwrap_err().code(), Code::Unauthenticated);
    }
}

/// A gRPC status is a response with status 200. Programs that count refusals by their status, such as fail2ban, took every guess
/// that called itself gRPC for a success.
#[tokio::test]
async fn only_a_stack_that_serves_grpc_refuses_with_a_grpc_status() {
    for (api, expected) in [(Api::new(), StatusCode::UNAUTHORIZED), (Api::new().with_grpc(), StatusCode::OK)]
    {
        for how in How::BOTH {
            let router = Router::new().route("/jobs", get(async || "jobs").post(async || "created"));
            let mut caller = Connection::http2(serve(api.guard(router, how)).await).await;
            let mut guess = request(Method::POST, "/jobs", Some(&api.unknown_key));
            guess.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            let refused = caller.send(guess).await;
            assert_eq!(refused.status(), expected, "{how:?}");
            let is_grpc = refused.headers().contains_key("grpc-status");
            assert_eq!(is_grpc, expected == StatusCode::OK, "{how:?}");
        }
    }
}

#[tokio::test]
async fn a_failed_backend_makes_the_service_unavailable() {
    let api = Api::new().with_grpc().with_backend_down();
    for server in [serve_health(api.stack()).await.0, serve_health(api.six_layers()).await.0] {
        let mut caller = Caller::connect(server).await;
        let status = caller.check_with_key(&api.key).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unavailable, "The service cannot answer at the moment. Retry later.")
        );
        assert_eq!(caller.check(&[]).await.unwrap_err().code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn a_stack_in_the_wrong_order_is_an_internal_error() {
    let (request_id, credential, verify, ..) = Api::new().with_grpc().each_layer();
    let wrong = ServiceBuilder::new().layer(request_id).layer(verify).layer(credential).into_inner();
    let mut caller = Caller::connect(serve_health(wrong).await.0).await;
    let status = caller.check_with_key("key").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "The service is not set up correctly."));
}

#[tokio::test]
async fn waits_for_a_slow_backend() {
    let api = Api::new().with_grpc().with_slow_backend();
    for server in [serve_health(api.stack()).await.0, serve_health(api.six_layers()).await.0] {
        let mut caller = Caller::connect(server).await;
        caller.check_with_key(&api.key).await.unwrap();
        let status = caller.check_with_key(&api.unknown_key).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn messages_decode_to_the_original_text() {
    const MESSAGE: &str = "100%20 closed, 9 % open: naïve café \u{1F6A7}\r\n\"~\"";

    struct Closed;

    impl Verify for Closed {
        fn verify(&self, _: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
            Answer::Now(Err(Denial::new(DenialKind::Forbidden).with_detail(MESSAGE)))
        }
    }

    let tollgate = Tollgate::builder().verify(Closed).responder(Grpc::new()).build().unwrap();
    let mut caller = Caller::connect(serve_health(tollgate).await.0).await;
    let status = caller.check_with_key("key").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, MESSAGE));
}

#[tokio::test]
async fn streams_pass_and_are_refused_before_they_begin() {
    let api = Api::new().with_grpc();
    for server in [serve_health(api.stack()).await.0, serve_health(api.six_layers()).await.0] {
        let mut caller = Caller::connect(server).await;
        let watch = Caller::request("", &[("x-api-key", &api.key)]);
        let mut stream = within(caller.0.watch(watch)).await.unwrap().into_inner();
        assert_eq!(within(stream.message()).await.unwrap().unwrap().status, 1);

        let status = within(caller.0.watch(Caller::request("", &[]))).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        // An error of the service, in the trailers of its stream.
        let unknown = Caller::request("nowhere", &[("x-api-key", &api.key)]);
        assert_eq!(within(caller.0.check(unknown)).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn refuses_large_messages_unread() {
    let api = Api::new().with_grpc();
    for (server, connections) in [serve_health(api.stack()).await, serve_health(api.six_layers()).await] {
        let mut caller = Caller::connect(server).await;
        let large = "x".repeat(1_000_000);
        for _ in 0..10 {
            let status = within(caller.0.check(Caller::request(&large, &[]))).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        }
        caller.check_with_key(&api.key).await.unwrap();
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_on_one_connection_hold_no_permit() {
    for api in [Api::new().with_grpc(), Api::new().with_grpc().with_slow_backend()] {
        let one_at_a_time = ConcurrencyLimitLayer::new(1);
        let inside = ServiceBuilder::new().layer(api.stack()).layer(one_at_a_time.clone()).into_inner();
        let outside = ServiceBuilder::new().layer(one_at_a_time).layer(api.six_layers()).into_inner();
        for server in [serve_health(inside).await.0, serve_health(outside).await.0] {
            let caller = Caller::connect(server).await;
            let calls = (0..60).map(async |number| {
                let mut caller = Caller(caller.0.clone());
                match number % 3 {
                    0 => caller.check_with_key(&api.key).await.map(|_| ()).unwrap(),
                    1 => assert_eq!(caller.check(&[]).await.unwrap_err().code(), Code::Unauthenticated),
                    _ => {
                        let status = caller.check_with_key(&api.key_without_scope).await.unwrap_err();
                        assert_eq!(status.code(), Code::PermissionDenied);
                    }
                }
            });
            join_all(calls).await;
        }
    }
}

#[tokio::test]
async fn grpc_and_http_share_a_router_behind_one_stack() {
    // An interceptor of tonic can read the request context, like a handler.
    let check_principal = |request: tonic::Request<()>| {
        let principal = RequestContext::of(request.extensions()).and_then(RequestContext::principal);
        match principal {
            Some(principal) if principal.id() == "key_1" => Ok(request),
            _ => Err(Status::internal("no principal")),
        }
    };
    let grpc = || {
        let (_, health) = health_reporter();
        Routes::new(InterceptedService::new(health, check_principal)).into_axum_router()
    };
    for how in How::BOTH {
        let api = Api::new().with_grpc();
        let router = Router::new().route("/jobs", get(async || "jobs")).merge(grpc());
        let server = serve(api.guard(router, how)).await;

        let mut caller = Caller::connect(server).await;
        assert_eq!(caller.check(&[]).await.unwrap_err().code(), Code::Unauthenticated);
        caller.check_with_key(&api.key).await.unwrap();
        assert_eq!(
            caller.check_with_key(&api.key_without_scope).await.unwrap_err().code(),
            Code::PermissionDenied
        );
        let mut caller = Connection::http1(server).await;
        let refused = caller.get("/jobs", None).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(header(refused.headers(), "content-type"), "application/problem+json");
        assert_eq!(caller.get("/jobs", Some(&api.key)).await.body(), "jobs");
    }
}

#[tokio::test]
async fn routes_merged_after_the_layer_are_not_guarded() {
    for how in How::BOTH {
        let (_, health) = health_reporter();
        let guarded = Api::new().guard(Router::new().route("/jobs", get(async || "jobs")), how);
        let server = serve(guarded.merge(Routes::new(health).into_axum_router())).await;
        Caller::connect(server).await.check(&[]).await.unwrap();
        let mut caller = Connection::http1(server).await;
        assert_eq!(caller.get("/jobs", None).await.status(), StatusCode::UNAUTHORIZED);
    }
}
