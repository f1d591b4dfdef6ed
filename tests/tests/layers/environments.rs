//! Live and test: what a key's environment is, and that nothing crosses.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{Router, body::Body, extract::FromRef, response::Response, routing::get as on_get};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tests::suite::{Directory, Inner, Log, Reply, Stack, erase, get, is_ready_now, send, with_key};
use tollgate::{
    CredentialLayer, DenialKind, Environment, GuardLayer, KeyFormat, KeyVerifier, MemoryKeys, Principal,
    Tollgate, VerifyLayer, guard::only_environment,
};
use tollgate_axum::{ByEnvironment, InEnvironment};
use tower::{Layer as _, Service, ServiceExt as _};

fn format() -> KeyFormat {
    KeyFormat::new("sk").unwrap()
}

fn generated(environment: Environment) -> String {
    format().generate(environment).unwrap().expose_secret().to_owned()
}

fn stack(verifier: KeyVerifier) -> Stack {
    erase(Tollgate::builder().verify(verifier).build().unwrap().layer(Inner::new()))
}

fn words(reply: &Reply) -> (StatusCode, String, String) {
    let body = reply.json();
    (reply.status(), reply.header("www-authenticate"), format!("{} {}", body["code"], body["detail"]))
}

#[tokio::test]
async fn refuses_a_key_whose_prefix_names_another_environment_than_its_record() {
    let keys = MemoryKeys::new();
    let (says_live, says_test) = (generated(Environment::Live), generated(Environment::Test));
    keys.import(&says_live, Principal::new("is_test").with_environment(Environment::Test));
    keys.import(&says_test, Principal::new("is_live").with_environment(Environment::Live));
    let held = generated(Environment::Live);
    keys.import(&held, Principal::new("held").with_tenant("held").with_environment(Environment::Test));
    keys.suspend_tenant("held");
    let new = |format| KeyVerifier::new(format, keys.clone());
    let without_environment = || format().without_environment().without_checksum();
    for (name, verifier) in [
        ("one format", new(format())),
        ("a second format", new(KeyFormat::new("old").unwrap()).with_format(format())),
        ("behind a format without environments", new(without_environment()).with_format(format())),
        ("behind an opaque format", new(KeyFormat::opaque()).with_format(format())),
    ] {
        let mut stack = stack(verifier);
        let unknown = send(&mut stack, with_key(&generated(Environment::Live))).await;
        assert_eq!(unknown.kind(), Some(DenialKind::KeyUnknown));
        for key in [&says_live, &says_test, &held] {
            let reply = send(&mut stack, with_key(key)).await;
            assert_eq!(reply.kind(), Some(DenialKind::WrongEnvironment), "{name}");
            assert_eq!(words(&reply), words(&unknown), "{name}");
        }
    }
}

#[tokio::test]
async fn the_log_names_both_environments() {
    let (keys, key) = (MemoryKeys::new(), generated(Environment::Live));
    keys.import(&key, Principal::new("ada").with_environment(Environment::Test));
    let log = Log::start();
    send(&mut stack(KeyVerifier::new(format(), keys)), with_key(&key)).await;
    let refusals = log.refusals();
    let detail = refusals[0].field("detail").unwrap();
    assert!(detail.contains("says live") && detail.contains("record test"), "{detail}");
}

#[tokio::test]
async fn where_the_key_or_the_record_names_no_environment_they_cannot_disagree() {
    let (keys, inner) = (MemoryKeys::new(), Inner::new());
    let (bare, opaque) = (generated(Environment::Test), "f81d4fae-7dec-11d0-a765");
    keys.import(&bare, Principal::new("bare"));
    keys.import(opaque, Principal::new("opaque").with_environment(Environment::Test));
    let verifier = KeyVerifier::new(format(), keys).with_format(KeyFormat::opaque());
    let verify = VerifyLayer::new(verifier);
    let credential = CredentialLayer::new();
    let mut any = erase(credential.layer(verify.clone().layer(inner.clone())));
    for key in [&*bare, opaque] {
        assert_eq!(send(&mut any, with_key(key)).await.status(), StatusCode::OK);
    }
    // A record without an environment has none, whatever its key says.
    let of = |environment| {
        erase(credential.layer(verify.clone().with_environment(environment).layer(inner.clone())))
    };
    assert_eq!(send(&mut of(Environment::Test), with_key(&bare)).await.status(), 401);
    assert_eq!(send(&mut of(Environment::Test), with_key(opaque)).await.status(), 200);
    assert_eq!(send(&mut of(Environment::Live), with_key(opaque)).await.status(), 401);
}

fn people() -> Directory {
    let person = |environment| Principal::new("ada").with_environment(environment);
    Directory::default()
        .with("live", person(Environment::Live))
        .with("test", person(Environment::Test))
        .with("none", Principal::new("bob"))
}

fn tollgate() -> Tollgate {
    Tollgate::builder().credential(CredentialLayer::new().with_anonymous()).verify(people()).build().unwrap()
}

#[tokio::test]
async fn a_guard_keeps_other_environments_off_a_route() {
    let inner = Inner::new();
    let guard = GuardLayer::new(only_environment(Environment::Live));
    let mut stack = erase(tollgate().layer(guard.layer(inner.clone())));
    assert_eq!(send(&mut stack, with_key("live")).await.status(), 200);
    for (key, kind) in [
        ("test", DenialKind::WrongEnvironment),
        ("none", DenialKind::WrongEnvironment),
        ("unknown", DenialKind::KeyUnknown),
    ] {
        let reply = send(&mut stack, with_key(key)).await;
        assert_eq!((reply.status(), reply.kind()), (StatusCode::UNAUTHORIZED, Some(kind)));
    }
    assert_eq!(send(&mut stack, get("/jobs", &[])).await.kind(), Some(DenialKind::CredentialMissing));
    assert_eq!(inner.calls(), 1);
}

/// The status and the body.
async fn answer(app: &Router, headers: &[(&str, &str)]) -> (u16, String) {
    let response = app.clone().oneshot(get("/corpus", headers).map(Body::from)).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[derive(Clone)]
struct App {
    corpora: ByEnvironment<&'static str>,
}

impl FromRef<App> for ByEnvironment<&'static str> {
    fn from_ref(app: &App) -> Self {
        app.corpora
    }
}

#[tokio::test]
async fn a_state_and_a_router_are_those_of_the_principal() {
    let corpus = async |InEnvironment(corpus): InEnvironment<&'static str>| corpus;
    let corpora = ByEnvironment::new("production", "sandbox");
    let by_state = Router::new().route("/corpus", on_get(corpus)).with_state(App { corpora });
    let router = |corpus: &'static str| Router::new().route("/corpus", on_get(async move || corpus));
    let by_router =
        Router::new().fallback_service(ByEnvironment::new(router("production"), router("sandbox")));
    for app in [by_state, by_router] {
        let guarded = app.clone().layer(tollgate());
        for (key, corpus, other) in [("live", "production", "test"), ("test", "sandbox", "live")] {
            let key = format!("Bearer {key}");
            let expected = (200, corpus.to_owned());
            assert_eq!(answer(&guarded, &[("authorization", &key)]).await, expected);
            // What a request says of its environment does not matter where the principal has one.
            for header in ["x-environment", "environment", "x-tollgate-environment"] {
                assert_eq!(answer(&guarded, &[("authorization", &key), (header, other)]).await, expected);
            }
        }
        let (status, body) = answer(&guarded, &[("authorization", "Bearer none")]).await;
        assert!(status == 500 && body.contains("internal"), "{status} {body}");
        let headers = [("authorization", "Bearer none"), ("x-environment", "live")];
        assert_eq!(answer(&guarded, &headers).await.0, 500);
        assert_eq!(answer(&guarded, &[]).await.0, 401);
        assert_eq!(answer(&guarded, &[("x-environment", "live")]).await.0, 401);
        assert_eq!(answer(&app, &[("authorization", "Bearer live")]).await.0, 500, "no layer");
    }
}

/// A service that insists on being called only when it is ready.
struct Strict {
    is_open: bool,
    is_ready: bool,
    polls: Arc<AtomicUsize>,
}

impl Strict {
    fn new(is_open: bool) -> Self {
        Self { is_open, is_ready: false, polls: Arc::default() }
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { is_open: self.is_open, is_ready: false, polls: Arc::clone(&self.polls) }
    }
}

impl Service<Request<String>> for Strict {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.is_ready = self.is_open;
        if self.is_open { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, _request: Request<String>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called without being ready");
        ready(Ok(Response::default()))
    }
}

#[tokio::test]
async fn calls_only_a_service_that_is_ready_and_polls_no_other() {
    let (live, test) = (Strict::new(true), Strict::new(false));
    let mut service = tollgate().layer(ByEnvironment::new(live.clone(), test.clone()));
    assert!(is_ready_now(&mut service), "the one that is not ready does not keep the other from requests");
    for _ in 0..2 {
        let response = service.ready().await.unwrap().call(with_key("live")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!((live.polls.load(Ordering::Relaxed), test.polls.load(Ordering::Relaxed)), (2, 0));
    let waiting = service.ready().await.unwrap().call(with_key("test"));
    assert!(tests::suite::is_pending(std::pin::pin!(waiting)));
    let refused = service.ready().await.unwrap().call(get("/jobs", &[])).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!((live.polls.load(Ordering::Relaxed), test.polls.load(Ordering::Relaxed)), (2, 1));
}
