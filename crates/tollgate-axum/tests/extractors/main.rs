//! Extractors, with the layers they require and without them, and handlers that refuse.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

#[path = "../common/mod.rs"]
mod common;
mod refused;

use std::{
    io,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Body, handler::Handler, routing::get as on_get};
use common::{get, serve, verifier};
use tollgate::{
    CredentialLayer, CreditsLayer, Denial, DenialKind, MessageLayer, PerWindow, Plan, Policy, Principal,
    RateLimitLayer, RequestContext, RequestIdLayer, Tollgate, VerifyLayer,
    clock::{Clock as _, SystemClock},
    credits::{CreditAdmin as _, Credits as _, MemoryCredits, NewGrant},
    limit::Subject,
    manage::{Actor, Command},
    respond::Json,
};
use tollgate_axum::{ActivePlan, Authenticated, Context, Credits, Messages, RateLimit, Rejection, RequestId};
use tower::ServiceBuilder;

async fn whoami(caller: Authenticated) -> String {
    format!("caller={}", caller.id())
}

async fn greet(caller: Option<Authenticated>) -> String {
    format!("caller={}", caller.as_ref().map_or("anonymous", |caller| caller.id()))
}

async fn request_id(RequestId(id): RequestId) -> String {
    format!("request={id}")
}

async fn maybe_request_id(id: Option<RequestId>) -> String {
    format!("request={}", id.as_ref().map_or("unknown", |id| id.as_str()))
}

async fn limits(limits: RateLimit) -> String {
    format!("remaining={}", limits.tightest().unwrap().remaining())
}

async fn maybe_limits(limits: Option<RateLimit>) -> String {
    format!("limited={}", limits.is_some())
}

async fn tier(plan: ActivePlan) -> String {
    format!("tier={}", plan.tier())
}

async fn maybe_tier(plan: Option<ActivePlan>) -> String {
    format!("tier={}", plan.as_ref().map_or("none", |plan| plan.tier()))
}

async fn charged(credits: Credits) -> String {
    credits.set(3);
    format!("reserved={}", credits.reserved())
}

async fn maybe_charged(credits: Option<Credits>) -> String {
    format!("charged={}", credits.is_some())
}

async fn messages(messages: Messages) -> String {
    format!("messages={}", messages.charge(1).await.is_ok())
}

async fn maybe_messages(messages: Option<Messages>) -> String {
    format!("messages={}", messages.is_some())
}

async fn whole_context(context: Context) -> String {
    format!("context={}", context.principal().map_or("anonymous", |principal| principal.id()))
}

async fn maybe_context(context: Option<Context>) -> String {
    format!("context={}", context.is_some())
}

fn app<T: 'static>(handler: impl Handler<T, ()>) -> Router {
    Router::new().route("/", on_get(handler))
}

/// An app in optional mode, and a key.
fn optional<T: 'static>(handler: impl Handler<T, ()>) -> (Router, String) {
    let (verifier, key) = verifier();
    let layers = ServiceBuilder::new()
        .layer(CredentialLayer::new().with_anonymous().with_realm("jobs"))
        .layer(VerifyLayer::new(verifier));
    (app(handler).layer(layers), key)
}

#[tokio::test]
async fn returns_the_results_of_the_layers() {
    let (verifier, key) = verifier();
    let tollgate = Tollgate::builder().verify(verifier).rate_limit(60.per_minute()).build().unwrap();
    let everything = async |caller: Authenticated, RequestId(id): RequestId, limits: RateLimit| {
        let window = limits.tightest().unwrap();
        format!("{} {id} {}/{}", caller.tenant().unwrap(), window.remaining(), window.limit)
    };
    let address = serve(app(everything).layer(tollgate)).await;
    let response = get(address, &[("x-api-key", &key), ("x-request-id", "r-1")]).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(response.ends_with("\r\n\r\nacme r-1 59/60"), "{response}");
}

#[tokio::test]
async fn distinguishes_anonymous_and_authenticated_requests() {
    let (app, key) = optional(greet);
    let address = serve(app).await;
    assert!(get(address, &[("x-api-key", &key)]).await.ends_with("caller=key_1"));
    assert!(get(address, &[]).await.ends_with("caller=anonymous"));

    let (app, key) = optional(whoami);
    let address = serve(app).await;
    assert!(get(address, &[("x-api-key", &key)]).await.ends_with("caller=key_1"));
}

#[tokio::test]
async fn refuses_anonymous_requests_like_the_layers() {
    let (app, _) = optional(whoami);
    let response = get(serve(app).await, &[]).await;
    assert!(response.starts_with("HTTP/1.1 401"), "{response}");
    assert!(response.contains("www-authenticate: Bearer realm=\"jobs\"\r\n"), "{response}");
    assert!(response.contains("cache-control: private, no-store\r\n"), "{response}");
    assert!(response.contains("content-type: application/problem+json\r\n"), "{response}");
    assert!(response.contains("\"code\":\"missing_credential\""), "{response}");
}

#[tokio::test]
async fn a_preflight_is_anonymous() {
    let (verifier, _) = verifier();
    let credential = CredentialLayer::new().dangerous_preflights();
    let tollgate = Tollgate::builder().credential(credential).verify(verifier).build().unwrap();
    let app = Router::new().route("/", axum::routing::options(greet)).layer(tollgate);
    let request = http::Request::options("/")
        .header("origin", "https://example.com")
        .header("access-control-request-method", "GET");
    let response = tower::ServiceExt::oneshot(app, request.body(Body::empty()).unwrap());
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let body = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
    assert_eq!(body, "caller=anonymous");
}

#[tokio::test]
async fn refuses_with_the_responder_of_the_layers_and_they_see_the_denial() {
    let (verifier, _) = verifier();
    let json = Json::new(|denial| serde_json::json!({ "oops": denial.code() }));
    let seen = Arc::new(Mutex::new(None));
    let kind_seen = Arc::clone(&seen);
    let app = app(whoami).layer(
        ServiceBuilder::new()
            .map_response(move |response: http::Response<_>| {
                *kind_seen.lock().unwrap() = response.extensions().get().map(Denial::kind);
                response
            })
            .layer(CredentialLayer::new().with_anonymous().with_responder(json))
            .layer(VerifyLayer::new(verifier)),
    );
    let response = get(serve(app).await, &[]).await;
    assert!(response.ends_with(r#"{"oops":"missing_credential"}"#), "{response}");
    assert_eq!(*seen.lock().unwrap(), Some(DenialKind::CredentialMissing));
}

#[tokio::test]
async fn a_missing_layer_is_a_500_and_the_log_names_it() {
    let (verifier, key) = verifier();
    let tollgate = Tollgate::builder().verify(verifier).build().unwrap();
    for (app, extractor, missing) in [
        (app(whoami), "Authenticated", "VerifyLayer"),
        (app(greet), "Authenticated", "VerifyLayer"),
        (app(whoami).layer(RequestIdLayer::new()), "Authenticated", "VerifyLayer"),
        (app(greet).layer(CredentialLayer::new()), "Authenticated", "VerifyLayer"),
        (app(request_id), "RequestId", "RequestIdLayer"),
        (app(request_id).layer(CredentialLayer::new()), "RequestId", "RequestIdLayer"),
        (app(tier), "ActivePlan", "VerifyLayer"),
        (app(maybe_tier).layer(CredentialLayer::new()), "ActivePlan", "VerifyLayer"),
        (app(charged), "Credits", "CreditsLayer"),
        (app(charged).layer(tollgate.clone()), "Credits", "CreditsLayer"),
        (app(messages), "Messages", "MessageLayer"),
        (app(messages).layer(tollgate.clone()), "Messages", "MessageLayer"),
        (app(limits), "RateLimit", "RateLimitLayer"),
        (app(limits).layer(tollgate), "RateLimit", "RateLimitLayer"),
    ] {
        let log = Log::default();
        let _guard = log.capture();
        let response = get(serve(app).await, &[("x-api-key", &key)]).await;
        assert!(response.starts_with("HTTP/1.1 500"), "{response}");
        assert!(response.contains("\"code\":\"internal\""), "{response}");
        assert!(!response.contains("Layer"), "not for callers: {response}");

        let log = log.text();
        assert_eq!(log.matches("refused").count(), 1, "{log}");
        assert!(log.contains("ERROR"), "{log}");
        assert!(log.contains(&format!("layer=\"{extractor}\"")), "{log}");
        assert!(
            log.contains(&format!("put a {missing}")) || log.contains(&format!("and a {missing}")),
            "{log}"
        );
        assert!(!log.contains(&key), "{log}");
    }
}

#[tokio::test]
async fn a_handler_charges_its_messages() {
    let (verifier, key) = verifier();
    let layer = MessageLayer::from_rate_limit(1.per_day());
    let tollgate = Tollgate::builder().verify(verifier).messages(layer).build().unwrap();
    let address = serve(app(messages).layer(tollgate.clone())).await;
    for expected in ["messages=true", "messages=false"] {
        let response = get(address, &[("x-api-key", &key)]).await;
        assert!(response.ends_with(expected), "{response}");
    }
    for (app, expected) in
        [(app(maybe_messages).layer(tollgate), "messages=true"), (app(maybe_messages), "messages=false")]
    {
        assert!(get(serve(app).await, &[("x-api-key", &key)]).await.ends_with(expected));
    }
}

#[tokio::test]
async fn a_handler_reports_what_its_request_has_cost() {
    let (verifier, key) = verifier();
    let (credits, now) = (MemoryCredits::new(), SystemClock.now());
    credits.grant(Command::new(NewGrant::new("acme", 100), Actor::new("billing"), now)).await.unwrap();
    let layer = CreditsLayer::new(credits.clone(), 10);
    let tollgate = Tollgate::builder().verify(verifier).credits(layer).build().unwrap();
    let response = get(serve(app(charged).layer(tollgate.clone())).await, &[("x-api-key", &key)]).await;
    assert!(response.ends_with("reserved=10"), "{response}");
    assert_eq!(credits.balance("acme", now).await.unwrap().available, 97);
    for (app, expected) in
        [(app(maybe_charged).layer(tollgate), "charged=true"), (app(maybe_charged), "charged=false")]
    {
        assert!(get(serve(app).await, &[("x-api-key", &key)]).await.ends_with(expected));
    }
}

#[tokio::test]
async fn returns_an_active_plan_only() {
    for (plan, required, optional) in [
        (Some(Plan::active("pro")), "tier=pro", "tier=pro"),
        (Some(Plan::lapsed("pro")), "inactive_entitlement", "tier=none"),
        (None, "inactive_entitlement", "tier=none"),
    ] {
        let principal = plan.into_iter().fold(Principal::new("ada"), Principal::with_plan);
        let known = ServiceBuilder::new().map_request(move |mut request: http::Request<Body>| {
            RequestContext::authenticate(request.extensions_mut(), Arc::new(principal.clone()));
            request
        });
        for (app, expected) in [(app(tier), required), (app(maybe_tier), optional)] {
            let response = get(serve(app.layer(known.clone())).await, &[]).await;
            assert!(response.contains(expected), "{response}");
        }
    }
    let (anonymous, _) = optional(tier);
    assert!(get(serve(anonymous).await, &[]).await.contains("missing_credential"));
    let (anonymous, _) = optional(maybe_tier);
    assert!(get(serve(anonymous).await, &[]).await.ends_with("tier=none"));
}

#[tokio::test]
async fn returns_the_whole_context() {
    let (app, key) = optional(whole_context);
    let address = serve(app).await;
    assert!(get(address, &[("x-api-key", &key)]).await.ends_with("context=key_1"));
    assert!(get(address, &[]).await.ends_with("context=anonymous"));
}

#[tokio::test]
async fn what_is_optional_may_be_missing() {
    let elsewhere = Policy::new("elsewhere", 1.per_minute()).with_subject(Subject::custom(|_, _| None));
    for (app, expected) in [
        (app(maybe_request_id), "request=unknown"),
        (app(maybe_request_id).layer(RequestIdLayer::new()), "request=r-1"),
        (app(request_id).layer(RequestIdLayer::new()), "request=r-1"),
        (app(maybe_context), "context=false"),
        (app(maybe_context).layer(RequestIdLayer::new()), "context=true"),
        (app(maybe_limits), "limited=false"),
        (app(maybe_limits).layer(RateLimitLayer::from_policies([elsewhere]).unwrap()), "limited=false"),
        (app(maybe_limits).layer(shared_limit()), "limited=true"),
        (app(limits).layer(shared_limit()), "remaining=4"),
    ] {
        let response = get(serve(app).await, &[("x-request-id", "r-1")]).await;
        assert!(response.ends_with(&format!("\r\n\r\n{expected}")), "{response}");
    }
}

fn shared_limit() -> RateLimitLayer {
    let all = Subject::custom(|_, _| Some("all".into()));
    RateLimitLayer::from_policies([Policy::new("all", 5.per_minute()).with_subject(all)]).unwrap()
}

#[tokio::test]
async fn a_rejection_that_a_handler_inspects_is_not_logged_and_shows_no_secret() {
    let handler = async |caller: Result<Authenticated, Rejection>| format!("{:?}", caller.unwrap_err());
    let log = Log::default();
    let _guard = log.capture();
    let response = get(serve(app(handler)).await, &[("x-api-key", "s3cret")]).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(response.contains("Misconfigured"), "{response}");
    assert!(!response.contains("s3cret"), "{response}");
    assert_eq!(log.text(), "");
}

/// The log of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture(&self) -> impl Drop {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
