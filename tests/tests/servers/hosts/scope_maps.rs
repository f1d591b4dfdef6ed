//! Scopes per route: a scope map matches paths exactly like axum's router.

use axum::{
    Router,
    body::Body,
    routing::{get, post},
};
use http::{Method, StatusCode};
use tests::hosts::{Api, Connection, How, code, header, request, serve};
use tollgate::{
    Denial, ScopeLayer,
    scope::{Requirement, ScopeMap, scope},
};
use tower::ServiceExt as _;

#[tokio::test]
async fn a_map_around_the_outer_router_matches_whole_paths() {
    let map = ScopeMap::new()
        .get("/v1/jobs/{id}", scope("jobs:read"))
        .post("/v1/jobs", scope("jobs:create"))
        .get("/v1/open", Requirement::none());
    let jobs = Router::new()
        .route("/jobs/{id}", get(async || "job"))
        .route("/jobs", post(async || "created"))
        .route("/open", get(async || "open"))
        .route("/unlisted", get(async || "unlisted"));
    for how in How::BOTH {
        let api = Api::new().with_scope(ScopeLayer::per_route(map.clone()).unwrap());
        let mut caller =
            Connection::http2(serve(api.guard(Router::new().nest("/v1", jobs.clone()), how)).await).await;
        for (method, path, key, expected) in [
            (Method::GET, "/v1/jobs/7", &api.key, StatusCode::OK),
            (Method::GET, "/v1/jobs/7?x=/v1/open", &api.key_without_scope, StatusCode::FORBIDDEN),
            (Method::POST, "/v1/jobs", &api.key, StatusCode::FORBIDDEN),
            (Method::GET, "/v1/open", &api.key_without_scope, StatusCode::OK),
            (Method::GET, "/v1/unlisted", &api.key, StatusCode::NOT_FOUND),
            // Paths that match neither in the map nor in the router.
            (Method::GET, "/v1//open", &api.key, StatusCode::NOT_FOUND),
            (Method::GET, "/v1/open/", &api.key, StatusCode::NOT_FOUND),
            (Method::GET, "/v1/%6Fpen", &api.key, StatusCode::NOT_FOUND),
            (Method::GET, "/jobs/7", &api.key, StatusCode::NOT_FOUND),
        ] {
            let response = caller.send(request(method, path, Some(key))).await;
            assert_eq!(response.status(), expected, "{path}");
        }
    }
}

/// A caller with a good key was refused with 403 for a mistyped path, and for a method that the path does not have.
#[tokio::test]
async fn a_caller_with_a_key_gets_404_or_405_for_what_the_map_does_not_list() {
    let map = ScopeMap::new()
        .get("/jobs/{id}", scope("jobs:read"))
        .delete("/jobs/{id}", scope("jobs:delete"))
        .get("/open", Requirement::none());
    let router =
        Router::new().route("/jobs/{id}", get(async || "job")).route("/forgotten", get(async || "forgotten"));
    for how in How::BOTH {
        let api = Api::new().with_scope(ScopeLayer::per_route(map.clone()).unwrap());
        let server = serve(api.guard(router.clone(), how)).await;
        for mut caller in [Connection::http1(server).await, Connection::http2(server).await] {
            for (method, path, expected, allow) in [
                (Method::GET, "/nowhere", (StatusCode::NOT_FOUND, "not_found"), ""),
                (Method::GET, "/forgotten", (StatusCode::NOT_FOUND, "not_found"), ""),
                (
                    Method::POST,
                    "/jobs/7",
                    (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
                    "GET, DELETE, HEAD",
                ),
                (Method::PUT, "/open", (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"), "GET, HEAD"),
            ] {
                for key in [&api.key, &api.key_without_scope] {
                    let refused = caller.send(request(method.clone(), path, Some(key))).await;
                    assert_eq!((refused.status(), &*code(refused.body())), expected, "{method} {path}");
                    assert_eq!(header(refused.headers(), "allow"), allow, "{method} {path}");
                    assert_eq!(header(refused.headers(), "www-authenticate"), "", "{method} {path}");
                }
                // Callers without a key learn nothing.
                for key in [None, Some(&*api.unknown_key)] {
                    let refused = caller.send(request(method.clone(), path, key)).await;
                    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_map_around_a_nested_router_matches_paths_without_the_prefix() {
    let map = ScopeMap::new().get("/jobs/{id}", scope("jobs:read"));
    let jobs = Router::new().route("/jobs/{id}", get(async || "job"));
    for how in How::BOTH {
        let api = Api::new().with_scope(ScopeLayer::per_route(map.clone()).unwrap());
        let router = Router::new().nest("/v1", api.guard(jobs.clone(), how));
        let mut caller = Connection::http1(serve(router).await).await;
        assert_eq!(caller.get("/v1/jobs/7", None).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(caller.get("/v1/jobs/7", Some(&api.key)).await.status(), StatusCode::OK);
        let refused = caller.get("/v1/jobs/7", Some(&api.key_without_scope)).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        // axum sends unknown paths of a nested router to the outer fallback, past the layers of the nested router.
        assert_eq!(caller.get("/v1/nowhere", None).await.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_map_matches_the_same_route_as_the_router() {
    const PATTERNS: [&str; 13] = [
        "/a",
        "/a/",
        "/a/b",
        "/{x}",
        "/a/{x}",
        "/{x}/b",
        "/{x}/{y}",
        "/a/{x}/b",
        "/a/{*r}",
        "/{x}/{*r}",
        "/{*r}",
        "/a/{x}/{*r}",
        "/a{x}",
    ];
    let segments = || ["", "/", "/a", "/b", "/ab"].into_iter();
    let paths: Vec<String> = segments()
        .flat_map(|first| segments().map(move |second| format!("{first}{second}")))
        .flat_map(|start| segments().map(move |third| format!("{start}{third}")))
        .filter(|path| !path.is_empty())
        .collect();

    let mut compared = 0;
    for (at, first) in PATTERNS.iter().enumerate() {
        for second in &PATTERNS[at + 1..] {
            let map = ScopeMap::new()
                .get(*first, scope(format!("of:{first}")))
                .get(*second, scope(format!("of:{second}")));
            // The map refuses conflicting patterns, like the router.
            let Ok(scopes) = ScopeLayer::per_route(map) else { continue };
            let api = Api::new().with_scope(scopes);
            let echo = |pattern: &'static str| get(move || std::future::ready(format!("of:{pattern}")));
            let router = Router::new().route(first, echo(first)).route(second, echo(second));
            let guarded = api.guard(router.clone(), How::Built);
            for path in &paths {
                let found =
                    router.clone().oneshot(request(Method::GET, path, None).map(Body::new)).await.unwrap();
                let expected = match found.status() {
                    StatusCode::NOT_FOUND => String::new(),
                    _ => {
                        String::from_utf8(axum::body::to_bytes(found.into_body(), 100).await.unwrap().into())
                            .unwrap()
                    }
                };
                let refused = request(Method::GET, path, Some(&api.key_without_scope)).map(Body::new);
                let refused = guarded.clone().oneshot(refused).await.unwrap();
                let denial = refused.extensions().get::<Denial>().unwrap();
                assert_eq!(denial.scope().unwrap_or_default(), expected, "{path} of {first} and {second}");
                compared += 1;
            }
        }
    }
    assert!(compared > 5_000, "{compared}");
}

#[tokio::test]
async fn an_empty_segment_does_not_bypass_a_scope() {
    let map =
        ScopeMap::new().get("/teams/{team}/{*path}", scope("admin")).get("/{*path}", scope("jobs:read"));
    let router = Router::new()
        .route("/teams/{team}/{*path}", get(async || "for admins"))
        .route("/{*path}", get(async || "for readers"));
    let api = Api::new().with_scope(ScopeLayer::per_route(map).unwrap());
    let mut caller = Connection::http1(serve(api.guard(router, How::Built)).await).await;
    let reader = Some(&*api.key);
    assert_eq!(caller.get("/teams", reader).await.body(), "for readers");
    assert_eq!(caller.get("/teams/blue/secrets", reader).await.status(), StatusCode::FORBIDDEN);
    assert_ne!(caller.get("/teams//secrets", reader).await.body(), "for admins");
}
