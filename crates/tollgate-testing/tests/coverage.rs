//! Applications that leave a route open in one way or another.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, where a panic is the failure")]

use std::{convert::Infallible, future::pending, time::Duration};

use axum::{
    Router,
    http::StatusCode,
    routing::{MethodRouter, any, delete, get, options, post},
};
use tokio::time::Instant;
use tollgate::{
    AttemptLimitLayer, ClientAddress, CredentialLayer, Denial, DenialKind, PerWindow as _, RequestContext,
    ScopeLayer, Tollgate,
    layers::ReportOnly,
    respond::Grpc,
    scope::{ScopeMap, scope},
    verify::PublicRoutes,
};
use tollgate_axum::{RecordedRouter, RecordedRoutes, RefusalLayer, Refused};
use tollgate_testing::{
    TestKeys,
    coverage::{Answer, Coverage, DEADLINE, Routes},
};
use tower::{Layer as _, service_fn};
use tower_http::cors::CorsLayer;

fn stack() -> Tollgate {
    Tollgate::builder().verify(TestKeys::new().verifier()).responder(Grpc::new()).build().unwrap()
}

async fn ok() -> &'static str {
    "ok"
}

async fn panics() {
    panic!("no request was expected");
}

async fn open(app: RecordedRouter) -> String {
    coverage(app).await.to_string()
}

async fn coverage(app: RecordedRouter) -> Coverage {
    let (service, routes) = app.into_parts();
    Coverage::of(service, routes).await
}

#[tokio::test]
async fn an_application_inside_the_layer_has_no_open_route() {
    let app = RecordedRouter::new()
        .route("/", get(ok))
        .route("/jobs/{id}", get(ok).delete(ok))
        .nest("/api", RecordedRouter::new().route("/files/{*rest}", any(ok)).fallback(ok))
        .fallback(ok)
        .layer(stack());
    let coverage = coverage(app).await;
    assert!(coverage.open().is_empty(), "{coverage}");
    coverage.assert_only_open([]);
}

#[tokio::test]
async fn a_route_after_the_layer_is_open_for_the_methods_that_it_has() {
    let app = RecordedRouter::new()
        .route("/jobs", get(ok))
        .layer(stack())
        .route("/health", get(ok))
        .merge(RecordedRouter::new().route("/hooks/{name}", post(ok).delete(ok)))
        .nest("/demo", RecordedRouter::new().route("/", any(ok)))
        .nest_service("/files", any(ok));
    let expected = [
        "GET /health",
        "POST /hooks/{name}",
        "DELETE /hooks/{name}",
        "ANY /demo",
        "ANY /files",
        "ANY /files/{*rest}",
    ];
    let coverage = coverage(app).await;
    assert_eq!(coverage.to_string(), expected.join("\n"));
    coverage.assert_only_open(expected);
}

#[tokio::test]
async fn one_method_of_a_path_can_be_open() {
    let jobs = get(ok).route_layer(stack()).merge(post(ok));
    assert_eq!(open(RecordedRouter::new().route("/jobs", jobs)).await, "POST /jobs");
}

#[tokio::test]
async fn a_route_layer_leaves_the_fallback_open() {
    let app = RecordedRouter::new().route("/jobs", get(ok)).fallback(ok);
    assert_eq!(open(app.clone().route_layer(stack())).await, "fallback");
    assert_eq!(open(app.layer(stack())).await, "");

    let nested = RecordedRouter::new().route("/jobs", get(ok)).route_layer(stack()).fallback(ok);
    let app = RecordedRouter::new().nest("/api", nested).fallback_service(any(ok).layer(stack()));
    assert_eq!(open(app).await, "fallback /api");
}

#[tokio::test]
async fn a_fallback_without_a_method_is_open() {
    let app = |fallback: MethodRouter| {
        RecordedRouter::new().route("/jobs", get(ok)).route_layer(stack()).fallback_service(fallback)
    };
    let coverage = coverage(app(options(ok))).await;
    coverage.assert_only_open(["fallback"]);
    let answer = coverage.open()[0].answer();
    assert!(matches!(answer, Answer::Response { status: StatusCode::METHOD_NOT_ALLOWED, .. }), "{answer:?}");
    // What answers 405 beside a method that is guarded is no route.
    assert_eq!(open(app(get(ok).route_layer(stack()))).await, "");
}

#[tokio::test]
async fn a_path_without_a_usual_method_must_be_listed_with_its_own() {
    let app = RecordedRouter::new().route("/jobs", get(ok)).layer(stack()).route("/preflight", options(ok));
    let (service, routes) = app.into_parts();
    let failure = std::panic::catch_unwind({
        let coverage = Coverage::of(service.clone(), routes.clone()).await;
        move || coverage.assert_only_open([])
    });
    let message = failure.unwrap_err().downcast_ref::<String>().unwrap().clone();
    let expected = "`ANY /preflight` could not be checked: it has none of the usual methods. List it with its method: \
                    `Routes::route`.";
    assert!(message.ends_with(expected), "{message}");

    let routes = Routes::from(routes).route("OPTIONS", "/preflight");
    Coverage::of(service, routes).await.assert_only_open(["OPTIONS /preflight"]);
}

/// The routes of a router that another crate makes.
#[tokio::test]
async fn a_fallback_that_is_listed_is_checked() {
    let pages = Router::new().route("/about", get(ok)).fallback(ok);
    let routes = RecordedRoutes::new().path("/about").fallback("/");
    let app = RecordedRouter::new().nest("/pages", RecordedRouter::from((pages, routes)));
    assert_eq!(open(app.clone().layer(stack())).await, "");
    assert_eq!(open(app).await, "GET /pages/about\nfallback /pages");
}

#[tokio::test]
async fn a_public_route_is_open() {
    let public = PublicRoutes::new().get("/health");
    let tollgate = Tollgate::builder().verify(TestKeys::new().verifier()).public(public).build().unwrap();
    let app =
        RecordedRouter::new().route("/health", get(ok).post(ok)).route("/jobs", get(ok)).layer(tollgate);
    coverage(app).await.assert_only_open(["GET /health"]);
}

#[tokio::test]
async fn a_layer_for_cors_opens_nothing() {
    let app = RecordedRouter::new().route("/jobs", any(ok)).layer(stack()).layer(CorsLayer::permissive());
    assert_eq!(open(app.clone()).await, "");

    // It answers preflights, and a list may ask.
    let listed = [("OPTIONS", "/jobs"), ("GET", "/jobs")];
    Coverage::of(app.into_router(), listed).await.assert_only_open(["OPTIONS /jobs"]);
}

#[tokio::test]
async fn the_service_may_be_any_tower_service() {
    let service = service_fn(async |_: http::Request<_>| Ok::<_, Infallible>(http::Response::new(())));
    let routes = [("GET", "/"), ("PURGE", "/cache/{id}")];
    Coverage::of(service, routes).await.assert_only_open(["GET /", "PURGE /cache/{id}"]);
    Coverage::of(stack().layer(service), routes).await.assert_only_open([]);
}

#[tokio::test]
async fn the_applications_own_refusal_guards_nothing() {
    let app = RecordedRouter::new()
        .route("/unauthorized", get(async || StatusCode::UNAUTHORIZED))
        .route("/missing", get(async || StatusCode::NOT_FOUND))
        .route("/forbidden", get(async || Refused(Denial::new(DenialKind::Forbidden))))
        .route("/unknown", get(async || Refused(Denial::new(DenialKind::KeyUnknown))))
        .route("/guarded", get(async || Refused(Denial::new(DenialKind::CredentialMissing))))
        .layer(RefusalLayer::new());
    let expected = ["GET /unauthorized", "GET /missing", "GET /forbidden", "GET /unknown"];
    coverage(app).await.assert_only_open(expected);
}

#[tokio::test]
async fn a_stack_that_does_not_require_a_credential_leaves_everything_open() {
    let app = |tollgate: Tollgate| RecordedRouter::new().route("/jobs", get(ok)).layer(tollgate);
    let keys = TestKeys::new();
    let report_only =
        Tollgate::builder().verify(keys.verifier()).report_only(&ReportOnly::new()).build().unwrap();
    assert_eq!(open(app(report_only)).await, "GET /jobs");

    let optional =
        || Tollgate::builder().credential(CredentialLayer::new().with_anonymous()).verify(keys.verifier());
    assert_eq!(open(app(optional().build().unwrap())).await, "GET /jobs");
    // The scope layer refuses anonymous callers where a scope is required, and what is not listed.
    let scopes = ScopeMap::new().get("/jobs", scope("jobs:read"));
    assert_eq!(
        open(app(optional().scope(ScopeLayer::per_route(scopes).unwrap()).build().unwrap())).await,
        ""
    );
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_waits_fails_or_panics_is_open() {
    let app = RecordedRouter::new()
        .route("/waits", post(async || pending::<()>().await))
        .route("/panics", delete(panics));
    let begin = Instant::now();
    let coverage = coverage(app).await;
    assert_eq!(begin.elapsed(), DEADLINE);
    coverage.assert_only_open(["POST /waits", "DELETE /panics"]);
    let answers: Vec<_> = coverage.open().iter().map(|route| route.answer().clone()).collect();
    assert!(matches!(&*answers, [Answer::Pending, Answer::Panicked]), "{answers:?}");

    let failing = service_fn(async |_: http::Request<_>| Err::<http::Response<()>, _>("the disk is full"));
    let coverage = Coverage::of(failing, [("GET", "/")]).await;
    assert!(matches!(coverage.open()[0].answer(), Answer::Failed(error) if error == "the disk is full"));
}

#[tokio::test]
#[should_panic(expected = "`GET /jobs` could not be checked: it is refused with `misconfigured")]
async fn a_stack_that_is_configured_wrongly_is_no_guard() {
    let layer = ScopeLayer::new(scope("jobs:read")).unwrap();
    coverage(RecordedRouter::new().route("/jobs", get(ok).route_layer(layer))).await.assert_only_open([]);
}

#[tokio::test]
#[should_panic(expected = "`POST /jobs` could not be checked: it is refused with `")]
async fn a_limit_of_attempts_is_no_guard() {
    let attempts =
        AttemptLimitLayer::new(2.per_minute(), ClientAddress::of_peer(|_| Some([127, 0, 0, 1].into())));
    let tollgate =
        Tollgate::builder().attempt_limit(attempts).verify(TestKeys::new().verifier()).build().unwrap();
    coverage(RecordedRouter::new().route("/jobs", get(ok)).layer(tollgate)).await.assert_only_open([]);
}

#[tokio::test]
async fn the_failure_says_what_is_open_and_what_is_not() {
    let app = Router::new()
        .route("/jobs", get(ok))
        .layer(stack())
        .route("/health", get(ok))
        .route("/admin", get(async || StatusCode::FORBIDDEN));
    let coverage = Coverage::of(app, [("GET", "/jobs"), ("GET", "/health"), ("GET", "/admin")]).await;
    let failure = |expected: &'static [&'static str]| {
        let coverage = coverage.clone();
        let failed = std::panic::catch_unwind(move || coverage.assert_only_open(expected.iter().copied()));
        failed.unwrap_err().downcast_ref::<String>().unwrap().clone()
    };
    assert_eq!(
        failure(&["GET /jobs", "GET /healthz"]),
        "not exactly the expected routes are open:
  `GET /health` is open: it answers with 200 OK. Add it before the layer that guards the others, remove it \
         from `PublicRoutes`, or expect it here.
  `GET /admin` is open: no layer of Tollgate made its answer, 403 Forbidden. Add it before the layer that guards the others, \
         remove it from `PublicRoutes`, or expect it here.
  `GET /jobs` is not open: it needs a credential. List it in `PublicRoutes`, add it after the layer, or do not expect it here.
  `GET /healthz` is not open: there is no such route. The open routes are `GET /health`, `GET /admin`."
    );
}

#[tokio::test]
#[should_panic(expected = "a check of nothing always passes")]
async fn a_check_of_nothing_fails() {
    let _ = coverage(RecordedRouter::new()).await;
}

#[tokio::test]
async fn the_requests_have_no_credential_and_fit_the_route() {
    let context = async |request: axum::extract::Request| {
        assert!(
            request.headers().get("authorization").is_none() && request.headers().get("x-api-key").is_none()
        );
        assert!(RequestContext::of(request.extensions()).is_none());
        assert_eq!(request.uri().path(), "/a/placeholder/b/placeholder");
    };
    let coverage = Coverage::of(
        Router::new().route("/a/{id}/b/{*rest}", get(context)),
        Routes::new().any("/a/{id}/b/{*rest}"),
    );
    let coverage = coverage.await;
    assert!(
        matches!(coverage.open()[0].answer(), Answer::Response { status: StatusCode::OK, .. }),
        "{coverage:?}"
    );
}

mod grpc {
    use tonic::service::Routes as Services;
    use tonic_health::server::health_reporter;

    use super::*;

    const DESCRIPTOR_SET: &[u8] = tonic_health::pb::FILE_DESCRIPTOR_SET;

    #[tokio::test(start_paused = true)]
    async fn a_service_beside_the_layer_is_open() {
        let (_reporter, health) = health_reporter();
        let services = Services::new(health);
        let routes = || Routes::of_descriptor_set(DESCRIPTOR_SET);
        let expected = ["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"];

        Coverage::of(services.clone(), routes()).await.assert_only_open(expected);
        Coverage::of(stack().layer(services.clone()), routes()).await.assert_only_open([]);

        let app = Router::new().route("/prices/{symbol}", get(ok)).layer(stack());
        let leaky = app.clone().merge(services.clone().into_axum_router());
        let all = routes().merge([("GET", "/prices/{symbol}")]);
        Coverage::of(leaky, all.clone()).await.assert_only_open(expected);
        let guarded = app.merge(services.into_axum_router().layer(stack()));
        Coverage::of(guarded, all).await.assert_only_open([]);
    }

    /// An RPC that no service has, and one whose path has another method.
    #[tokio::test]
    async fn an_rpc_without_a_service_is_open() {
        let answer = async |app: Router| {
            let coverage = Coverage::of(app, Routes::of_descriptor_set(DESCRIPTOR_SET)).await;
            coverage.assert_only_open(["grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"]);
            coverage.open()[0].answer().to_string()
        };
        let unimplemented = Services::default().into_axum_router();
        assert_eq!(answer(unimplemented).await, "it answers with 200 OK, gRPC status 12");
        let other_method = Router::new().route("/grpc.health.v1.Health/{method}", get(ok));
        assert_eq!(answer(other_method).await, "it answers with 405 Method Not Allowed");
    }

    #[tokio::test]
    #[should_panic(expected = "this is not an encoded FileDescriptorSet")]
    async fn other_bytes_are_no_descriptor_set() {
        let _ = Routes::of_descriptor_set(b"syntax = \"proto3\";");
    }

    #[tokio::test]
    #[should_panic(expected = "the descriptor set has no RPC")]
    async fn a_descriptor_set_without_a_service_is_refused() {
        let _ = Routes::of_descriptor_set(b"");
    }

    #[tokio::test]
    async fn a_call_is_one_of_grpc() {
        let check = async |request: axum::extract::Request| {
            assert_eq!(request.version(), http::Version::HTTP_2);
            assert_eq!(request.headers()["content-type"], "application/grpc");
            assert_eq!(axum::body::to_bytes(request.into_body(), 100).await.unwrap(), [0; 5].as_slice());
        };
        let app = Router::new().route("/grpc.health.v1.Health/{method}", post(check));
        let coverage = Coverage::of(app, Routes::of_descriptor_set(DESCRIPTOR_SET)).await;
        assert!(
            matches!(coverage.open()[0].answer(), Answer::Response { status: StatusCode::OK, .. }),
            "{coverage:?}"
        );
    }
}

#[test]
fn the_deadline_is_as_documented() {
    assert_eq!(DEADLINE, Duration::from_secs(5));
}
