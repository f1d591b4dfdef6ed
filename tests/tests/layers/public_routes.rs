//! Routes that need no credential: they pass every layer, and nothing else does.

use std::net::{IpAddr, Ipv4Addr};

use axum::{Router, body::Body, routing::get as route};
use http::{Method, Request, StatusCode, Version};
use tests::suite::{
    Backend, Directory, FaultyCredits, Inner, Reply, SlowEntitlements, SlowLimiter, Stack, at, erase, get,
    limit_by_key, send, with_key,
};
use tollgate::{
    AttemptLimitLayer, ClientAddress, CredentialLayer, CreditsLayer, Denial, DenialKind, EntitlementLayer,
    GuardLayer, InFlightLimitLayer, MessageLayer, PerWindow as _, PlanLayer, Policy, Principal,
    RateLimitLayer, RequestContext, ScopeLayer, StreamEndLayer, Tollgate, UsageLayer, VerifyLayer,
    clock::ManualClock,
    guard::{GuardRequest, guard_sync_fn},
    layers::{ReportOnly, TollgateBuilder},
    limit::Subject,
    scope::{Requirement, ScopeMap},
    usage::{Usage, UsageSink},
    verify::{CredentialSource, PublicRoutes},
};
use tollgate_axum::Authenticated;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};

const HEALTH: &str = "/health";

fn routes() -> PublicRoutes {
    PublicRoutes::new().get(HEALTH).post("/open/{id}")
}

fn credential() -> CredentialLayer {
    CredentialLayer::new().with_public(routes()).unwrap()
}

/// A directory that does not answer.
fn down() -> Directory {
    Directory::new(&Backend::down())
}

/// A sink that fails the test when it is used.
struct Unused;

impl UsageSink for Unused {
    fn record(&self, _: &Usage<'_>) {
        unreachable!("a public route is not recorded");
    }
}

fn never() -> Requirement {
    Requirement::any_of([""; 0])
}

fn denying() -> GuardLayer {
    GuardLayer::new(guard_sync_fn(|_: &GuardRequest<'_>| Err(Denial::new(DenialKind::Forbidden))))
}

fn nowhere() -> ClientAddress {
    ClientAddress::of_peer(|_| Some(IpAddr::V4(Ipv4Addr::LOCALHOST)))
}

fn by_address() -> RateLimitLayer {
    let policy = Policy::new("address", 0.per_day()).with_subject(Subject::Address(nowhere()));
    RateLimitLayer::from_policies([policy]).unwrap()
}

/// A stack that refuses whatever it can refuse.
fn closed() -> TollgateBuilder {
    Tollgate::builder()
        .attempt_limit(AttemptLimitLayer::new(0.per_day(), nowhere()))
        .verify(down())
        .plan(SlowEntitlements(Backend::down()))
        .in_flight_limit(InFlightLimitLayer::new(0))
        .rate_limit(0.per_day())
        .entitlement(EntitlementLayer::new())
        .scope(never())
        .guard(denying())
        .credits(CreditsLayer::new(FaultyCredits::default(), 1))
        .usage(Unused)
        .messages(messages())
        .stream_end(StreamEndLayer::new())
}

/// Refuses every message.
fn messages() -> MessageLayer {
    MessageLayer::from_rate_limit(0.per_day())
}

/// Each layer alone inside a `CredentialLayer` with public routes, as strict as it can be.
fn every_layer(inner: &Inner) -> Vec<(&'static str, Stack)> {
    macro_rules! within_credential {
        ($($layer:expr),* $(,)?) => {
            vec![$((stringify!($layer), erase(ServiceBuilder::new().layer(credential()).layer($layer).service(inner.clone())))),*]
        };
    }
    let mut stacks = within_credential![
        VerifyLayer::new(down()),
        PlanLayer::new(SlowEntitlements(Backend::down())),
        InFlightLimitLayer::new(0),
        InFlightLimitLayer::new(0).with_subject(Subject::Address(nowhere())),
        RateLimitLayer::new(0.per_day()),
        limit_by_key(0.per_day(), SlowLimiter::new(&Backend::down())),
        by_address(),
        EntitlementLayer::new(),
        ScopeLayer::new(never()).unwrap(),
        ScopeLayer::per_route(ScopeMap::new()).unwrap(),
        denying(),
        CreditsLayer::new(FaultyCredits::default(), 1),
        UsageLayer::new(Unused),
        messages(),
        StreamEndLayer::new(),
    ];
    let built = closed().public(routes()).build().unwrap();
    stacks.push(("Tollgate", erase(built.layer(inner.clone()))));
    stacks
}

/// What callers may send: nothing, a key that no one knows, and what is not a credential at all.
fn callers(path: &str) -> Vec<Request<String>> {
    vec![
        get(path, &[]),
        get(path, &[("x-api-key", "unknown")]),
        get(path, &[("authorization", "")]),
        get(path, &[("authorization", "Digest x"), ("x-api-key", "a,b")]),
        get(path, &[("authorization", "Bearer one"), ("x-api-key", "two")]),
    ]
}

#[tokio::test]
async fn a_public_route_passes_every_layer_with_any_credential() {
    let inner = Inner::new();
    for (layer, mut stack) in every_layer(&inner) {
        for request in callers(HEALTH) {
            let sent = format!("{layer} {:?}", request.headers());
            let reply = send(&mut stack, request).await;
            assert_eq!(reply.status(), StatusCode::OK, "{sent}");
            let seen = inner.take_last();
            let context = RequestContext::of(seen.extensions()).unwrap();
            assert!(context.is_identified(), "{sent}");
            assert!(context.principal().is_none() && context.credential().is_none(), "{sent}");
            assert!(reply.header("cache-control").is_empty() && reply.header("vary").is_empty(), "{sent}");
            let read = ["authorization", "x-api-key"].into_iter().filter_map(|name| seen.headers().get(name));
            assert!(read.into_iter().all(http::HeaderValue::is_sensitive), "{sent}");
        }
        let reply = send(&mut stack, get("/jobs", &[])).await;
        assert_ne!(reply.status(), StatusCode::OK, "{layer}: other routes are guarded");
    }
}

#[tokio::test]
async fn what_is_spelled_differently_is_not_public() {
    let inner = Inner::new();
    let mut stack = erase(closed_to_strangers().layer(inner.clone()));
    for path in
        ["/health/", "//health", "/Health", "/%68ealth", "/health/x", "/", "/open", "/open/", "/open/1/2"]
    {
        for mut request in callers(path) {
            let sent = format!("{path} {:?}", request.headers());
            *request.method_mut() = if path.starts_with("/open") { "POST" } else { "GET" }.parse().unwrap();
            assert!(send(&mut stack, request).await.kind().is_some(), "{sent}");
        }
    }
    assert_eq!(inner.calls(), 0);
}

fn closed_to_strangers() -> Tollgate {
    Tollgate::builder().verify(Directory::default()).public(routes()).build().unwrap()
}

#[tokio::test]
async fn only_the_listed_methods_are_public() {
    let mut stack = erase(closed_to_strangers().layer(Inner::new()));
    for (method, path, is_public) in [
        ("GET", HEALTH, true),
        ("HEAD", HEALTH, true),
        ("POST", HEALTH, false),
        ("OPTIONS", HEALTH, false),
        ("POST", "/open/1", true),
        ("GET", "/open/1", false),
    ] {
        let mut request = get(path, &[]);
        *request.method_mut() = method.parse().unwrap();
        let is_open = send(&mut stack, request).await.status() == StatusCode::OK;
        assert_eq!(is_open, is_public, "{method} {path}");
    }
    let any = PublicRoutes::new().any("/any").route(Method::DELETE, "/gone");
    let stack = Tollgate::builder().verify(Directory::default()).public(any).build().unwrap();
    let mut stack = erase(stack.layer(Inner::new()));
    for (method, path) in [("GET", "/any"), ("PATCH", "/any"), ("DELETE", "/gone")] {
        let mut request = get(path, &[]);
        *request.method_mut() = method.parse().unwrap();
        assert_eq!(send(&mut stack, request).await.status(), StatusCode::OK, "{method} {path}");
    }
}

/// Whether a stack lets a request without a credential pass.
async fn is_open(stack: &mut Stack, method: &str, path: &str, version: Version) -> bool {
    let mut request = get(path, &[]);
    *request.method_mut() = method.parse().unwrap();
    *request.version_mut() = version;
    send(stack, request).await.status() == StatusCode::OK
}

/// Stacks with the same public routes: the builder's, and the layer's for credentials.
fn with_map(public: &PublicRoutes, map: &ScopeMap) -> [Stack; 2] {
    let builder = || Tollgate::builder().verify(Directory::default()).scope(map.clone());
    let layer = CredentialLayer::new().with_public(public.clone()).unwrap();
    [builder().public(public.clone()), builder().credential(layer)]
        .map(|stack| erase(stack.build().unwrap().layer(Inner::new())))
}

/// Of a public route and one of the map of scopes, the more specific one counts.
#[tokio::test]
async fn a_route_of_the_scope_map_is_not_opened_by_a_less_specific_pattern() {
    let public = PublicRoutes::new().get("/jobs/{id}").any("/files/{*path}").any("/any").get("/open/{*path}");
    let public = public.get("/open/exact").any("/");
    let map = ScopeMap::new()
        .get("/jobs/secret", never())
        .delete("/jobs/gone", never())
        .any("/files/private/{*path}", never())
        .post("/any", never())
        .any("/", never())
        .any("/open/exact", never());
    for mut stack in with_map(&public, &map) {
        for (method, path, is_public) in [
            ("GET", "/jobs/1", true),
            ("GET", "/jobs/secret", false),
            ("HEAD", "/jobs/secret", false),
            ("GET", "/jobs/gone", false),
            ("GET", "/files/a", true),
            ("GET", "/files/private", true),
            ("GET", "/files/private/a", false),
            ("PUT", "/files/private/a/b", false),
            ("GET", "/any", true),
            ("POST", "/any", false),
            // Listed public itself.
            ("GET", "/", true),
            ("GET", "/open/exact", true),
            ("HEAD", "/open/exact", true),
            ("POST", "/open/exact", false),
        ] {
            assert_eq!(
                is_open(&mut stack, method, path, Version::HTTP_11).await,
                is_public,
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn a_route_may_be_excepted() {
    let public = PublicRoutes::new().get("/jobs/{id}").except(Method::GET, "/jobs/secret");
    let public = public.get("/head").except(Method::HEAD, "/head").any("/any").except(Method::PUT, "/any");
    let layer = CredentialLayer::new().with_public(public).unwrap();
    let mut stack = erase(layer.layer(Inner::new()));
    for (method, path, is_public) in [
        ("GET", "/jobs/1", true),
        ("GET", "/jobs/secret", false),
        ("POST", "/jobs/secret", false),
        ("GET", "/head", true),
        ("HEAD", "/head", false),
        ("GET", "/any", true),
        ("PUT", "/any", false),
    ] {
        assert_eq!(is_open(&mut stack, method, path, Version::HTTP_11).await, is_public, "{method} {path}");
    }
    // Exceptions from nothing.
    let nothing = CredentialLayer::new().with_public(PublicRoutes::new().except(Method::GET, "/a")).unwrap();
    let mut stack = erase(nothing.layer(Inner::new()));
    assert!(!is_open(&mut stack, "GET", "/a", Version::HTTP_11).await);
}

/// A service or a proxy further inside may read such a path as that of another route.
#[tokio::test]
async fn a_path_with_two_readings_is_not_public_by_a_parameter() {
    let public = PublicRoutes::new().get("/static/{*path}").get("/v/{name}").get("/exact/../%2f");
    let stack = Tollgate::builder().verify(Directory::default()).public(public).build().unwrap();
    let mut stack = erase(stack.layer(Inner::new()));
    for (path, is_public) in [
        ("/static/a/b.css", true),
        ("/static/.well-known/a", true),
        ("/static/a..b/..c/...", true),
        ("/static/%61%20b", true),
        ("/static/../admin", false),
        ("/static/..", false),
        ("/static/a/./b", false),
        ("/static/.", false),
        ("/static/%2e%2e/admin", false),
        ("/static/%2E%2e/admin", false),
        ("/static/.%2E/admin", false),
        ("/static/%2e/admin", false),
        ("/static/..%2fadmin", false),
        ("/static/a%2Fb", false),
        ("/static/..%5cadmin", false),
        ("/static/a%5Cb", false),
        ("/static//admin", false),
        ("/static/a//", false),
        ("/v/..", false),
        ("/v/%2E%2E", false),
        ("/v/a%2fb", false),
        ("/v/a", true),
        // The pattern says so itself.
        ("/exact/../%2f", true),
    ] {
        assert_eq!(is_open(&mut stack, "GET", path, Version::HTTP_11).await, is_public, "{path}");
    }
}

/// `GET` opens the `CONNECT` by which a WebSocket begins over HTTP/2, and no other.
#[tokio::test]
async fn a_websocket_is_public_over_each_version_of_http() {
    let public = PublicRoutes::new().get("/ws").any("/any").except(Method::CONNECT, "/any");
    let public = public.any("/posts").except(Method::GET, "/posts");
    let stack = Tollgate::builder().verify(Directory::default()).public(public).build().unwrap();
    let mut stack = erase(stack.layer(Inner::new()));
    for (method, path, version, is_public) in [
        ("GET", "/ws", Version::HTTP_11, true),
        ("CONNECT", "/ws", Version::HTTP_2, true),
        ("CONNECT", "/ws", Version::HTTP_11, false),
        ("POST", "/ws", Version::HTTP_2, false),
        ("GET", "/any", Version::HTTP_2, true),
        ("CONNECT", "/any", Version::HTTP_2, false),
        ("POST", "/posts", Version::HTTP_2, true),
        ("GET", "/posts", Version::HTTP_2, false),
        ("HEAD", "/posts", Version::HTTP_2, false),
        ("CONNECT", "/posts", Version::HTTP_2, false),
    ] {
        assert_eq!(
            is_open(&mut stack, method, path, version).await,
            is_public,
            "{method} {path} {version:?}"
        );
    }
}

/// A layer inside a nested router compares paths without the prefix.
#[tokio::test]
async fn a_nested_layer_sees_paths_without_the_prefix() {
    let layer = |path: &str| {
        let public = PublicRoutes::new().get(path);
        Tollgate::builder().verify(Directory::default()).public(public).build().unwrap()
    };
    for (pattern, status) in [("/health", StatusCode::OK), ("/v1/health", StatusCode::UNAUTHORIZED)] {
        let nested = Router::new().route("/health", route(async || "")).layer(layer(pattern));
        let app = Router::new().nest("/v1", nested);
        let request = get("/v1/health", &[]).map(Body::from);
        assert_eq!(app.oneshot(request).await.unwrap().status(), status, "{pattern}");
    }
}

#[tokio::test]
async fn a_public_route_gets_a_request_id() {
    let reply = send(&mut erase(closed_to_strangers().layer(Inner::new())), get(HEALTH, &[])).await;
    assert!(!reply.header("x-request-id").is_empty());
}

#[tokio::test]
async fn a_credential_is_removed_from_a_request_for_a_public_route() {
    let sources = [CredentialSource::Bearer, CredentialSource::DangerousQuery("key")];
    let layer = CredentialLayer::from_sources(sources).unwrap().with_removal().with_public(routes()).unwrap();
    let inner = Inner::new();
    let mut stack = erase(layer.layer(inner.clone()));
    let request = get("/health?a=1&key=secret", &[("authorization", "Bearer secret")]);
    assert_eq!(send(&mut stack, request).await.status(), StatusCode::OK);
    let seen = inner.take_last();
    assert_eq!((seen.uri().to_string().as_str(), seen.headers().len()), ("/health?a=1", 0));
}

/// A known key: the request is not counted for it, and its other requests still are.
#[tokio::test]
async fn a_request_with_a_known_key_is_not_counted() {
    let directory = Directory::default().with("key", Principal::new("ada"));
    let stack = Tollgate::builder()
        .verify(directory)
        .rate_limit(1.per_day())
        .public(routes())
        .clock(ManualClock::at(at(0)))
        .build()
        .unwrap();
    let mut stack = erase(stack.layer(Inner::new()));
    for _ in 0..3 {
        let reply = send(&mut stack, get(HEALTH, &[("authorization", "Bearer key")])).await;
        assert_eq!((reply.status(), reply.header("x-ratelimit-remaining").as_str()), (StatusCode::OK, ""));
    }
    let status = async |stack: &mut Stack| send(stack, with_key("key")).await.status();
    assert_eq!(status(&mut stack).await, StatusCode::OK);
    assert_eq!(status(&mut stack).await, StatusCode::TOO_MANY_REQUESTS);
}

/// A probe with an old key does not use up the attempts of its address, and passes when others have.
#[tokio::test]
async fn a_public_route_is_no_attempt() {
    let builder = || Tollgate::builder().verify(Directory::default()).clock(ManualClock::at(at(0)));
    let limit = || AttemptLimitLayer::new(1.per_day(), nowhere());
    for stack in [builder().public(routes()), builder().credential(credential())] {
        let mut stack = erase(stack.attempt_limit(limit()).build().unwrap().layer(Inner::new()));
        for _ in 0..3 {
            let probe = get(HEALTH, &[("x-api-key", "unknown")]);
            assert_eq!(send(&mut stack, probe).await.status(), StatusCode::OK);
        }
        assert_eq!(send(&mut stack, with_key("unknown")).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(send(&mut stack, with_key("unknown")).await.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(send(&mut stack, get(HEALTH, &[])).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn report_only_mode_has_nothing_to_report() {
    let report = ReportOnly::new();
    let stack = closed().public(routes()).report_only(&report).build().unwrap();
    let mut stack = erase(stack.layer(Inner::new()));
    for request in callers(HEALTH) {
        assert_eq!(send(&mut stack, request).await.status(), StatusCode::OK);
    }
    assert_eq!(report.refusals(), 0);
}

/// An outer stack's principal is not that of a public route, and an outer stack's public route is not public further inside.
#[tokio::test]
async fn each_credential_layer_decides_anew() {
    let known = Directory::default().with("key", Principal::new("ada"));
    let open = || closed_to_strangers();
    let strict = Tollgate::builder().verify(known).build().unwrap();
    let inner = Inner::new();

    let mut stack = erase(ServiceBuilder::new().layer(strict.clone()).layer(open()).service(inner.clone()));
    let reply = send(&mut stack, get(HEALTH, &[("authorization", "Bearer key")])).await;
    assert_eq!(reply.status(), StatusCode::OK);
    assert!(RequestContext::of(inner.take_last().extensions()).unwrap().principal().is_none());

    let mut stack = erase(ServiceBuilder::new().layer(open()).layer(strict).service(inner.clone()));
    let reply: Reply = send(&mut stack, get(HEALTH, &[])).await;
    assert_eq!(reply.kind(), Some(DenialKind::CredentialMissing));
}

#[tokio::test]
async fn a_handler_that_requires_a_caller_answers_401_on_a_public_route() {
    let caller = async |caller: Authenticated| caller.id().to_owned();
    let maybe = async |caller: Option<Authenticated>| caller.is_none().to_string();
    let stack = Tollgate::builder()
        .verify(Directory::default().with("key", Principal::new("ada")))
        .public(PublicRoutes::new().get("/caller").get("/maybe"))
        .build()
        .unwrap();
    let app = Router::new().route("/caller", route(caller)).route("/maybe", route(maybe)).layer(stack);
    for (path, status) in [("/caller", StatusCode::UNAUTHORIZED), ("/maybe", StatusCode::OK)] {
        let request = get(path, &[("authorization", "Bearer key")]).map(Body::from);
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), status, "{path}");
    }
}

/// What requires a principal, but no scope, is not open to anonymous callers.
#[tokio::test]
async fn an_anonymous_caller_is_not_any_principal() {
    let map = || {
        let map =
            ScopeMap::new().get("/open", Requirement::none()).get("/jobs", Requirement::authenticated());
        map.get("/either", Requirement::authenticated() | Requirement::none())
    };
    let stack = Tollgate::builder()
        .credential(CredentialLayer::new().with_anonymous())
        .verify(Directory::default().with("key", Principal::new("ada")))
        .scope(map())
        .build()
        .unwrap();
    let mut stack = erase(stack.layer(Inner::new()));
    for (path, anonymous) in
        [("/open", StatusCode::OK), ("/jobs", StatusCode::UNAUTHORIZED), ("/either", StatusCode::OK)]
    {
        assert_eq!(send(&mut stack, get(path, &[])).await.status(), anonymous, "{path}");
        let known = get(path, &[("authorization", "Bearer key")]);
        assert_eq!(send(&mut stack, known).await.status(), StatusCode::OK, "{path}");
    }
}

#[test]
fn what_cannot_work_is_an_error_at_start_up() {
    let stack = || Tollgate::builder().verify(Directory::default());
    let own = stack().credential(credential()).public(routes());
    for (stack, sentence) in [
        (
            stack().public(PublicRoutes::new().get("/a").get("/a")),
            "PublicRoutes lists GET /a twice: keep one",
        ),
        (stack().public(routes()).public(routes()), "PublicRoutes lists GET /health twice: keep one"),
        (
            stack().public(PublicRoutes::new().get("health")),
            "PublicRoutes, path health: a path begins with / and writes its parameters as {name} or {*rest}",
        ),
        (
            stack()
                .public(PublicRoutes::new().get("/jobs/{id}"))
                .scope(ScopeMap::new().post("/jobs/{name}", never())),
            "PublicRoutes and ScopeMap (which must name the same parameters in the same path), path /jobs/{name}: Insertion failed due to \
             conflict with previously registered route: /jobs/{id}",
        ),
        (
            stack().public(PublicRoutes::new().get("/a").except(Method::GET, "/a")),
            "PublicRoutes lists GET /a twice: keep one",
        ),
        (
            own,
            "CredentialLayer has public routes of its own: give all of them to Tollgate's builder, by .public(..)",
        ),
    ] {
        assert_eq!(stack.build().unwrap_err().to_string(), sentence);
    }
    assert!(CredentialLayer::new().with_public(PublicRoutes::new().get("/a/{")).is_err());
    assert!(PublicRoutes::new().get("/a/{").validate().is_err());
    assert!(stack().public(routes()).public(PublicRoutes::new().get("/ready")).build().is_ok());
}
