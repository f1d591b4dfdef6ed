//! What cannot be seen from outside: which routes are open, an organization is suspended, a user has no profile, the issuer rotates its keys.

use std::net::SocketAddr;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::connect_info::MockConnectInfo,
};
use http::{Request, StatusCode};
use tokio::task::JoinSet;
use tollgate::{
    clock::{Clock as _, ManualClock, SystemClock},
    manage::{Actor, KeyManager},
};
use tollgate_testing::coverage::Coverage;
use tower::ServiceExt as _;

use super::*;

const BALANCE: &str = "/v1/scanner/credits/balance";

/// A member of initech, which is suspended.
const BILL: &str = "b7f0a3de-51c4-4a86-8a3f-2c9d7e6b5f22";

fn admitted(balance: u64) -> (u16, String) {
    (200, format!(r#"{{"balance":{balance}}}"#))
}

fn refused(status: u16, text: &str) -> (u16, String) {
    (status, format!(r#"{{"error":"{text}"}}"#))
}

#[tokio::test]
async fn only_the_clock_needs_no_credential() {
    let store = keys::store().await.unwrap();
    let supabase = Supabase::start(ServiceClock::Running).await;
    let users = Users::open(store.clone()).await.unwrap();
    let sessions = users::verifier(supabase.issuer().unwrap(), users, store.clone());

    let (service, routes) = app(&store, sessions, ServiceClock::Running).unwrap().into_parts();
    Coverage::of(service, routes).await.assert_only_open(["POST /_demo/clock"]);
}

#[tokio::test]
async fn a_suspension_is_seen_at_once_by_keys_and_sessions_that_were_used_before() {
    let service = Service::start().await;
    let actor = Actor::new("support");
    let inactive = refused(403, "Organization is not active");
    let members = ["test", "read_only", "fast", "jwt"];
    for _ in 0..3 {
        // Twice, so that all of them are cached.
        for name in [members, members].concat() {
            assert_eq!(service.ask(service.credential(name)).await, admitted(1_000), "{name}");
        }
        service.manager.suspend_tenant(keys::GLOBEX, &actor).await.unwrap();
        for name in members {
            assert_eq!(service.ask(service.credential(name)).await, inactive, "{name}");
        }
        assert_eq!(service.ask(&service.supabase.sign_in(users::ADA)).await, inactive, "a new session");
        assert_eq!(service.ask(service.credential("live")).await, admitted(100), "another organization");
        service.manager.resume_tenant(keys::GLOBEX, &actor).await.unwrap();
    }
}

#[tokio::test]
async fn refuses_a_user_of_a_suspended_organization_and_one_without_a_profile() {
    let service = Service::start().await;
    let bill = service.supabase.sign_in(BILL);
    let stranger = service.supabase.sign_in("0e3f5d1c-3f0b-4f66-9a39-57c1b8a0d433");
    for _ in 0..2 {
        assert_eq!(service.ask(&bill).await, refused(403, "Organization is not active"));
        assert_eq!(service.ask(&stranger).await, refused(401, error::INVALID_SESSION));
    }
    service.manager.resume_tenant(keys::INITECH, &Actor::new("support")).await.unwrap();
    assert_eq!(service.ask(&bill).await, admitted(100));
}

#[tokio::test]
async fn accepts_a_session_with_much_metadata() {
    let service = Service::start().await;
    for (length, status) in [(9_000, 200), (20_000, 401)] {
        let mut claims = service.supabase.claims(users::ADA, service.clock.now());
        claims["user_metadata"] = "x".repeat(length).into();
        let token = service.supabase.authority.mint(claims);
        assert_eq!(service.ask(&token).await.0, status, "{length}");
    }
}

#[tokio::test]
async fn a_rotation_of_the_issuers_keys_loses_no_request() {
    let service = Service::start().await;
    let old = service.supabase.sign_in(users::ADA);
    assert_eq!(service.ask(&old).await, admitted(1_000));

    let first = "key-1";
    service.supabase.authority.rotate();
    let mut requests = JoinSet::new();
    for number in 0..40 {
        let token = if number % 2 == 0 { old.clone() } else { service.supabase.sign_in(users::ADA) };
        let (api, request) = (service.api.clone(), request(&token));
        requests.spawn(async move { api.oneshot(request).await.unwrap().status() });
    }
    assert_eq!(requests.join_all().await, [StatusCode::OK; 40]);
    assert_eq!(
        service.supabase.authority.requests(),
        2,
        "the key set was fetched at the start, and once more"
    );

    // When the old key is withdrawn, its tokens end with the key set that has it: after 5 minutes.
    let new = service.supabase.sign_in(users::ADA);
    service.supabase.authority.withdraw_key(first);
    assert_eq!(service.ask(&old).await, admitted(1_000));
    service.clock.advance(std::time::Duration::from_secs(5 * 60 + 1));
    assert_eq!(service.ask(&old).await, refused(401, error::INVALID_SESSION));
    assert_eq!(service.ask(&new).await, admitted(1_000));
}

struct Service {
    api: Router,
    manager: KeyManager,
    supabase: Supabase,
    credentials: Credentials,
    clock: ManualClock,
}

impl Service {
    async fn start() -> Self {
        let manual = ManualClock::at(SystemClock.now());
        let clock = ServiceClock::Stopped(manual.clone());
        let store = keys::store().await.unwrap();
        let manager = keys::manager(store.clone(), clock.clone()).unwrap();
        let mut credentials = keys::issue(&manager).await.unwrap();
        credits::grant(&store.credits(), &clock).await.unwrap();
        let supabase = Supabase::start(clock.clone()).await;
        credentials.extend(supabase.credentials().await);
        let users = Users::open(store.clone()).await.unwrap();
        let sessions = users::verifier(supabase.issuer().unwrap(), users, store.clone());
        sessions.connect().await.unwrap();
        let api = api(&store, sessions, clock).unwrap().into_router();
        let api = api.layer(MockConnectInfo(SocketAddr::from(([127, 0, 0, 1], 4711))));
        Self { api, manager, supabase, credentials, clock: manual }
    }

    fn credential(&self, name: &str) -> &str {
        let found = self.credentials.iter().find(|(other, _)| *other == name);
        found.map(|(_, secret)| &**secret).unwrap()
    }

    /// Asks for the balance.
    async fn ask(&self, credential: &str) -> (u16, String) {
        let (head, body) = self.api.clone().oneshot(request(credential)).await.unwrap().into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (head.status.as_u16(), String::from_utf8(body.into()).unwrap())
    }
}

fn request(credential: &str) -> Request<Body> {
    let request = Request::get(BALANCE).header("authorization", format!("Bearer {credential}"));
    request.body(Body::empty()).unwrap()
}
