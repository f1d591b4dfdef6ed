//! Around an axum router: which paths are covered, in which order the layers run, and that counters are shared.

use axum::{Router, extract::Request, routing::get};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderValue, Method, StatusCode};
use tests::hosts::{Api, Connection, How, code, header, request, serve};
use tollgate::{
    Denial, PerWindow as _, RequestContext, ScopeLayer,
    scope::{Requirement, ScopeMap, scope},
};
use tower::{ServiceBuilder, util::MapResponseLayer};

fn jobs() -> Router {
    Router::new().route("/jobs", get(async || "jobs").post(async |body: Bytes| body))
}

#[tokio::test]
async fn a_layer_around_a_router_guards_unknown_paths_too() {
    for how in How::BOTH {
        let api = Api::new();
        let server = serve(api.guard(jobs(), how)).await;
        for mut caller in [Connection::http1(server).await, Connection::http2(server).await] {
            for path in ["/jobs", "/nowhere"] {
                let refused = caller.get(path, None).await;
                assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
                assert_eq!(header(refused.headers(), "www-authenticate"), r#"Bearer realm="api""#);
                assert_eq!(header(refused.headers(), "cache-control"), "private, no-store");
                assert!(refused.headers().contains_key("x-request-id"));
                assert!(!refused.headers().contains_key("x-ratelimit-limit"));
                assert_eq!(code(refused.body()), "missing_credential");
            }
            let found = caller.get("/jobs", Some(&api.key)).await;
            assert_eq!((found.status(), &found.body()[..]), (StatusCode::OK, &b"jobs"[..]));

            let unknown = caller.get("/nowhere", Some(&api.key)).await;
            assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
            let method = caller.send(request(Method::DELETE, "/jobs", Some(&api.key))).await;
            assert_eq!(method.status(), StatusCode::METHOD_NOT_ALLOWED);
            for response in [unknown, method] {
                for name in
                    ["x-request-id", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]
                {
                    assert!(response.headers().contains_key(name), "{name}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_route_layer_leaves_the_fallback_open() {
    let api = Api::new();
    for router in [jobs().route_layer(api.stack()), jobs().route_layer(api.six_layers())] {
        let mut caller = Connection::http1(serve(router).await).await;
        let open = caller.get("/nowhere", None).await;
        assert_eq!(open.status(), StatusCode::NOT_FOUND);
        assert!(!open.headers().contains_key("x-request-id"));
        assert_eq!(caller.get("/jobs", None).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(caller.get("/jobs", Some(&api.key)).await.status(), StatusCode::OK);
        // A known path with another method belongs to the route, not to the fallback.
        let method = caller.send(request(Method::DELETE, "/jobs", None)).await;
        assert_eq!(method.status(), StatusCode::UNAUTHORIZED);
    }
}

/// Adds the log detail of a denial to the response, for the test only.
fn with_log_detail(router: Router) -> Router {
    router.layer(MapResponseLayer::new(|mut response: axum::response::Response| {
        let detail = response.extensions().get::<Denial>().map(|denial| denial.log_detail().to_owned());
        if let Some(detail) = detail {
            response.headers_mut().insert("x-log", HeaderValue::try_from(detail).unwrap());
        }
        response
    }))
}

const SCOPE_TOO_EARLY: &str =
    "ScopeLayer ran before any VerifyLayer: put a CredentialLayer and a VerifyLayer outside it";
const VERIFY_TOO_EARLY: &str = "VerifyLayer ran before any CredentialLayer: put a CredentialLayer outside it";

#[tokio::test]
async fn a_service_builder_runs_top_to_bottom_and_chained_layers_bottom_to_top() {
    let api = Api::new();
    let (request_id, credential, verify, rate_limit, entitlement, scope) = api.each_layer();
    let right = [
        jobs().layer(
            ServiceBuilder::new()
                .layer(request_id.clone())
                .layer(credential.clone())
                .layer(verify.clone())
                .layer(rate_limit.clone())
                .layer(entitlement.clone())
                .layer(scope.clone()),
        ),
        jobs()
            .layer(scope.clone())
            .layer(entitlement.clone())
            .layer(rate_limit.clone())
            .layer(verify.clone())
            .layer(credential.clone())
            .layer(request_id.clone()),
    ];
    for router in right {
        let mut caller = Connection::http1(serve(with_log_detail(router)).await).await;
        assert_eq!(caller.get("/jobs", None).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(caller.get("/jobs", Some(&api.key_without_scope)).await.status(), StatusCode::FORBIDDEN);
        let allowed = caller.get("/jobs", Some(&api.key)).await;
        assert_eq!(allowed.status(), StatusCode::OK);
        assert!(allowed.headers().contains_key("x-request-id"));
    }

    let wrong = [
        (
            jobs().layer(
                ServiceBuilder::new()
                    .layer(scope.clone())
                    .layer(entitlement.clone())
                    .layer(rate_limit.clone())
                    .layer(verify.clone())
                    .layer(credential.clone())
                    .layer(request_id.clone()),
            ),
            SCOPE_TOO_EARLY,
        ),
        (
            jobs()
                .layer(request_id.clone())
                .layer(credential.clone())
                .layer(verify.clone())
                .layer(rate_limit.clone())
                .layer(entitlement.clone())
                .layer(scope.clone()),
            SCOPE_TOO_EARLY,
        ),
        (jobs().layer(credential.clone()).layer(verify.clone()).layer(request_id.clone()), VERIFY_TOO_EARLY),
        (
            jobs().layer(verify.clone()).layer(entitlement).layer(credential.clone()),
            "EntitlementLayer ran before any VerifyLayer: put a CredentialLayer and a VerifyLayer outside it",
        ),
        (
            jobs().layer(verify).layer(rate_limit).layer(credential),
            "RateLimitLayer ran before any VerifyLayer: put a CredentialLayer and a VerifyLayer outside it",
        ),
    ];
    for (router, detail) in wrong {
        let mut caller = Connection::http1(serve(with_log_detail(router)).await).await;
        let response = caller.get("/jobs", Some(&api.key)).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let log = header(response.headers(), "x-log");
        assert!(log.starts_with(detail), "{log}");
        assert!(log.contains("the last one added is the outermost"), "{log}");
        assert_eq!(code(response.body()), "internal");
        assert!(
            !String::from_utf8_lossy(response.body()).contains("Layer"),
            "the body does not name the layer"
        );
    }
}

#[tokio::test]
async fn nested_stacks_use_the_same_request_id() {
    let handler = async |request: Request| {
        let context = RequestContext::of(request.extensions()).unwrap();
        context.request_id().unwrap().to_string()
    };
    for how in How::BOTH {
        let api = Api::new();
        let admin = api.guard(Router::new().route("/", get(handler)), how);
        let router = api.guard(Router::new().nest("/admin", admin), how);
        let mut caller = Connection::http1(serve(router).await).await;
        let response = caller.get("/admin", Some(&api.key)).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.body(), header(response.headers(), "x-request-id"));
    }
}

#[tokio::test]
async fn a_scope_layer_on_a_route_works_inside_a_stack_around_the_router() {
    let router = || {
        Router::new()
            .route("/jobs", get(async || "jobs").route_layer(ScopeLayer::new(scope("jobs:read")).unwrap()))
            .route("/open", get(async || "open"))
    };
    for how in How::BOTH {
        let api = Api::new().with_scope(ScopeLayer::new(Requirement::none()).unwrap());
        let mut caller = Connection::http1(serve(api.guard(router(), how)).await).await;
        assert_eq!(caller.get("/open", None).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(caller.get("/jobs", None).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(caller.get("/open", Some(&api.key_without_scope)).await.status(), StatusCode::OK);
        assert_eq!(caller.get("/jobs", Some(&api.key)).await.status(), StatusCode::OK);

        let refused = caller.get("/jobs", Some(&api.key_without_scope)).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert_eq!(
            header(refused.headers(), "www-authenticate"),
            r#"Bearer realm="api",error="insufficient_scope",scope="jobs:read""#
        );
        assert_eq!(header(refused.headers(), "x-ratelimit-remaining"), "999998");
        let problem: serde_json::Value = serde_json::from_slice(refused.body()).unwrap();
        assert_eq!(problem["request_id"], header(refused.headers(), "x-request-id"));
    }
    // Without the stack, the route refuses.
    let mut caller = Connection::http1(serve(with_log_detail(router())).await).await;
    let alone = caller.get("/jobs", Some("key")).await;
    assert_eq!(alone.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(header(alone.headers(), "x-log").starts_with(SCOPE_TOO_EARLY));
    assert_eq!(caller.get("/open", None).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn head_is_guarded_and_counted_like_get() {
    let map = ScopeMap::new().get("/jobs", scope("jobs:read"));
    for how in How::BOTH {
        let api = Api::new().with_scope(ScopeLayer::per_route(map.clone()).unwrap()).with_quota(2.per_hour());
        let server = serve(api.guard(jobs(), how)).await;
        let mut callers = [Connection::http1(server).await, Connection::http2(server).await];
        for (caller, remaining) in callers.iter_mut().zip(["1", "0"]) {
            let refused = caller.send(request(Method::HEAD, "/jobs", None)).await;
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
            assert!(refused.body().is_empty());
            assert!(refused.headers().contains_key("www-authenticate"));

            let allowed = caller.send(request(Method::HEAD, "/jobs", Some(&api.key))).await;
            assert_eq!(allowed.status(), StatusCode::OK);
            assert!(allowed.body().is_empty());
            assert_eq!(header(allowed.headers(), "content-length"), "4");
            assert_eq!(header(allowed.headers(), "x-ratelimit-remaining"), remaining);
        }
        for caller in &mut callers {
            let limited = caller.send(request(Method::HEAD, "/jobs", Some(&api.key))).await;
            assert_eq!(limited.status(), StatusCode::TOO_MANY_REQUESTS);
            assert!(limited.body().is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_connections_and_routes_share_one_quota() {
    for how in How::BOTH {
        let api = Api::new().with_quota(30.per_hour());
        let router = jobs().route("/results", get(async || "results"));
        let server = serve(api.guard(router, how)).await;
        let callers = (0..10).map(async |number| {
            let mut caller = match number % 2 {
                0 => Connection::http1(server).await,
                _ => Connection::http2(server).await,
            };
            let mut allowed = 0;
            for path in ["/jobs", "/results", "/jobs", "/results", "/jobs"] {
                match caller.get(path, Some(&api.key)).await.status() {
                    StatusCode::OK => allowed += 1,
                    status => assert_eq!(status, StatusCode::TOO_MANY_REQUESTS),
                }
            }
            allowed
        });
        assert_eq!(join_all(callers).await.into_iter().sum::<u32>(), 30);

        let mut late = Connection::http1(server).await;
        let refused = late.get("/jobs", Some(&api.key)).await;
        assert_eq!(header(refused.headers(), "x-ratelimit-remaining"), "0");
        // The clock is stopped at 30 seconds past the hour.
        assert_eq!(header(refused.headers(), "retry-after"), "3570");
        assert_eq!(late.get("/jobs", Some(&api.key_without_scope)).await.status(), StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn a_handler_reads_the_principal_and_the_request_id() {
    let handler = async |request: Request| {
        let context = RequestContext::of(request.extensions()).unwrap();
        let id = context.request_id().unwrap();
        format!("{} {id}", context.principal().unwrap().id())
    };
    for how in How::BOTH {
        let api = Api::new();
        let mut caller =
            Connection::http1(serve(api.guard(Router::new().route("/", get(handler)), how)).await).await;
        let response = caller.get("/", Some(&api.key)).await;
        let expected = format!("key_1 {}", header(response.headers(), "x-request-id"));
        assert_eq!(response.body(), expected.as_bytes());
    }
}
