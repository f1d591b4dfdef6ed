//! What cannot be seen from outside: which routes are open, an organization is suspended, a caller hangs up, the service restarts.

use std::{io, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::connect_info::MockConnectInfo,
};
use futures_util::stream::poll_fn;
use http::{Request, StatusCode};
use serde_json::Value;
use tokio::{sync::Notify, time::sleep};
use tollgate::manage::Actor;
use tollgate_testing::coverage::Coverage;
use tower::ServiceExt;

use super::*;

#[tokio::test]
async fn only_the_clock_needs_no_credential() {
    let store = keys::store().await.unwrap();
    let manager = keys::manager(format(), store.clone(), ServiceClock::Running).unwrap();
    let (sessions, _) = dashboard::sign_in().unwrap();
    let app = app(format(), &store, manager, sessions, ServiceClock::Running).unwrap();

    let (service, routes) = app.into_parts();
    Coverage::of(service, routes).await.assert_only_open(["POST /_demo/clock"]);
}

#[tokio::test]
async fn refuses_the_keys_of_an_organization_while_it_is_suspended() {
    let service = Service::start().await;
    let ask = async |name: &str| {
        let (status, body) = service.send(service.request(name, "GET", "/v1/credits")).await;
        (status.as_u16(), body["error"].as_str().unwrap_or_default().to_owned())
    };
    let suspended = (403, "ORGANIZATION_SUSPENDED".to_owned());
    let admitted = (200, String::new());
    let actor = Actor::new("support");
    for _ in 0..2 {
        for (name, acme_is_suspended, expected) in [
            ("full", false, &admitted),
            ("full", true, &suspended),
            ("sibling", true, &suspended),
            ("read_only", true, &suspended),
            ("other_org", true, &admitted),
            ("read_only", false, &admitted),
        ] {
            if acme_is_suspended {
                service.manager.suspend_tenant(keys::ACME, &actor).await.unwrap();
            } else {
                service.manager.resume_tenant(keys::ACME, &actor).await.unwrap();
            }
            assert_eq!(ask(name).await, *expected, "{name}");
        }
    }
}

#[tokio::test]
async fn charges_a_job_whose_caller_hangs_up_in_the_response() {
    let service = Service::start().await;
    let response = service.api.clone().oneshot(service.request("full", "POST", "/v1/scan")).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    drop(response);
    assert_eq!(service.balance().await, 195);
}

#[tokio::test]
async fn charges_nothing_if_the_caller_hangs_up_before_the_body_has_ended() {
    let service = Service::start().await;
    let (head, _) = service.request("full", "POST", "/v1/scan").into_parts();
    let is_read = Arc::new(Notify::new());
    let reading = Arc::clone(&is_read);
    let endless = Body::from_stream(poll_fn(move |_| {
        reading.notify_one();
        Poll::<Option<io::Result<Bytes>>>::Pending
    }));
    tokio::select! {
        _ = service.api.clone().oneshot(Request::from_parts(head, endless)) => panic!("the body never ends"),
        () = is_read.notified() => {}
    }
    assert_eq!(service.balance().await, 200);
}

#[tokio::test]
async fn refuses_to_repeat_a_request_whose_job_is_gone() {
    let first = Service::start().await;
    let request = |service: &Service| {
        let mut request = service.request("full", "POST", "/v1/scan");
        request.headers_mut().insert("idempotency-key", "k-1".parse().unwrap());
        request
    };
    let (status, job) = first.send(request(&first)).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(first.balance().await, 195);
    assert_eq!(first.send(request(&first)).await, (StatusCode::CREATED, job));

    let restarted = first.restarted();
    let (status, body) = restarted.send(request(&restarted)).await;
    assert_eq!((status, &body["error"]), (StatusCode::CONFLICT, &"REQUEST_REPEATED".into()));
    assert_eq!(restarted.balance().await, 195);
}

struct Service {
    api: Router,
    manager: KeyManager,
    store: SqlKeys,
    keys: Credentials,
}

impl Service {
    async fn start() -> Self {
        let store = keys::store().await.unwrap();
        let manager = keys::manager(format(), store.clone(), ServiceClock::Running).unwrap();
        let keys = keys::issue(&manager).await.unwrap();
        credits::grant(&store.credits(), keys::ORGANIZATIONS, &ServiceClock::Running).await.unwrap();
        Self { api: served(&store), manager, store, keys }
    }

    /// The same store behind a new API, which has no jobs.
    fn restarted(self) -> Self {
        Self { api: served(&self.store), ..self }
    }

    fn request(&self, name: &str, method: &str, path: &str) -> Request<Body> {
        let (_, key) = self.keys.iter().find(|(key_name, _)| key_name == name).unwrap();
        let bearer = format!("Bearer {}", key.expose_secret());
        let request = Request::builder().method(method).uri(path).header("authorization", bearer);
        request.body(Body::from("{}")).unwrap()
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let (head, body) = self.api.clone().oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (head.status, serde_json::from_slice(&body).unwrap())
    }

    /// The balance of acme when all its jobs are settled.
    async fn balance(&self) -> u64 {
        for _ in 0..20 {
            let (_, credits) = self.send(self.request("full", "GET", "/v1/credits")).await;
            if credits["reserved"] == 0 {
                return credits["balance"].as_u64().unwrap();
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("a job is not settled");
    }
}

fn format() -> KeyFormat {
    KeyFormat::new("op").unwrap()
}

fn served(store: &SqlKeys) -> Router {
    let attempts = AttemptLimitLayer::new(100.per_minute(), ClientAddress::of_peer(peer_address));
    let api = api(format(), store, attempts, ServiceClock::Running).unwrap();
    api.into_router().layer(MockConnectInfo(SocketAddr::from(([127, 0, 0, 1], 4711))))
}
