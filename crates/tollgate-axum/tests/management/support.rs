//! A router with keys in memory and the actor `ada` of the tenant `acme`.

use std::{
    cell::RefCell,
    io,
    sync::Once,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Router, body::Body};
use http::{HeaderMap, Method, Request, request::Parts};
use serde_json::{Value, json};
use tollgate::{
    Answer as StoreAnswer, Denial, KeyFormat, MemoryKeys, Scopes,
    clock::ManualClock,
    key::Digest,
    manage::{
        Actor, Command, HistoryQuery, KeyAdmin, KeyAdminError, KeyChange, KeyDetails, KeyEvent, KeyManager,
        KeyQuery, Page, TenantChange, TenantDetails,
    },
    store::{KeyLookup, KeyStatus, KeyStore},
};
use tollgate_axum::management::{Action, KeyRouter};
use tower::ServiceExt;

pub(crate) const NOW: &str = "2026-03-01T22:58:30Z";

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_772_405_910)
}

pub(crate) struct App {
    pub(crate) router: Router,
    pub(crate) keys: MemoryKeys,
    pub(crate) clock: ManualClock,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// `null` if the body is not JSON.
    pub(crate) json: Value,
}

pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) secret: String,
}

pub(crate) fn manager(store: &(impl KeyAdmin + Clone), clock: &ManualClock) -> KeyManager {
    KeyManager::new(KeyFormat::new("sk").unwrap(), store.clone())
        .with_clock(clock.clone())
        .with_known_scopes(Scopes::new(["jobs:read", "jobs:create"]).unwrap())
        .with_default_scopes(Scopes::new(["jobs:read"]).unwrap())
}

pub(crate) async fn ada(_head: Parts, _action: Action) -> Result<Actor, Denial> {
    Ok(Actor::of_tenant("ada", "acme"))
}

impl App {
    pub(crate) fn new() -> Self {
        Self::with(|router| router)
    }

    pub(crate) fn with(set: impl FnOnce(KeyRouter) -> KeyRouter) -> Self {
        let keys = MemoryKeys::new();
        Self::over(keys.clone(), &keys, |manager| set(KeyRouter::new(manager, ada)))
    }

    /// A router whose manager allows every scope.
    pub(crate) fn of_open_manager(set: impl FnOnce(KeyRouter) -> KeyRouter) -> Self {
        Self::of_manager(|manager| set(KeyRouter::new(manager, ada)))
    }

    /// A router of a manager with the default settings.
    pub(crate) fn of_manager(router: impl FnOnce(KeyManager) -> KeyRouter) -> Self {
        let keys = MemoryKeys::new();
        let clock = ManualClock::at(now());
        let manager = KeyManager::new(KeyFormat::new("sk").unwrap(), keys.clone()).with_clock(clock.clone());
        Self { router: router(manager).into_router(), keys, clock }
    }

    pub(crate) fn of_store(store: &Stub) -> Self {
        Self::over(MemoryKeys::new(), store, |manager| KeyRouter::new(manager, ada))
    }

    pub(crate) fn authorized(authorize: impl tollgate_axum::management::Authorize) -> Self {
        let keys = MemoryKeys::new();
        Self::over(keys.clone(), &keys, |manager| KeyRouter::new(manager, authorize))
    }

    fn over(
        keys: MemoryKeys,
        store: &(impl KeyAdmin + Clone),
        router: impl FnOnce(KeyManager) -> KeyRouter,
    ) -> Self {
        start_log();
        let clock = ManualClock::at(now());
        Self { router: router(manager(store, &clock)).into_router(), keys, clock }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[JSON], &body.to_string()).await
    }

    pub(crate) async fn post_nothing(&self, path: &str) -> Answer {
        self.send(Method::POST, path, &[], "").await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, &[JSON], &body.to_string()).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = axum::body::to_bytes(body, 1_000_000).await.unwrap();
        let json = serde_json::from_slice(&body).unwrap_or_default();
        let body = String::from_utf8(body.into()).unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, body, json }
    }

    /// Issues a key one microsecond later, so that it is newer than earlier ones.
    pub(crate) async fn issue_later(&self, name: &str) -> Key {
        self.clock.advance(Duration::from_micros(1));
        self.issue(name).await
    }

    pub(crate) async fn issue(&self, name: &str) -> Key {
        let answer = self.post("/", &json!({ "name": name })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let text = |member: &str| answer.json[member].as_str().unwrap().to_owned();
        Key { id: text("id"), secret: text("secret") }
    }

    /// The names of the keys in a list.
    pub(crate) async fn names(&self, query: &str) -> Vec<String> {
        let answer = self.get(&format!("/{query}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let items = answer.json["items"].as_array().unwrap().iter();
        items.map(|key| key["name"].as_str().unwrap().to_owned()).collect()
    }
}

pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    pub(crate) fn detail(&self) -> &str {
        self.json["detail"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().unwrap())
    }
}

pub(crate) fn is_accepted(keys: &MemoryKeys, secret: &str) -> bool {
    let StoreAnswer::Now(found) = keys.find(&KeyLookup::new(&[Digest::of(secret)], now())) else {
        unreachable!()
    };
    found.unwrap().is_some_and(|record| record.status() == KeyStatus::Active)
}

/// A store with one key, or with one error for every call.
#[derive(Clone)]
pub(crate) struct Stub(pub(crate) Result<KeyDetails, KeyAdminError>);

impl KeyAdmin for Stub {
    fn change(&self, _: Command<KeyChange>) -> StoreAnswer<Result<KeyDetails, KeyAdminError>> {
        self.0.clone().into()
    }

    fn change_tenant(
        &self,
        command: Command<TenantChange>,
    ) -> StoreAnswer<Result<TenantDetails, KeyAdminError>> {
        self.tenant(command.change.tenant())
    }

    fn tenant(&self, tenant: &str) -> StoreAnswer<Result<TenantDetails, KeyAdminError>> {
        self.0.clone().map(|_| TenantDetails::new(tenant)).into()
    }

    fn list(&self, _: &KeyQuery) -> StoreAnswer<Result<Page<KeyDetails>, KeyAdminError>> {
        self.0.clone().map(|details| Page::new(vec![details], None)).into()
    }

    fn history(&self, _: &HistoryQuery) -> StoreAnswer<Result<Page<KeyEvent>, KeyAdminError>> {
        self.0.clone().map(|_| Page::new(Vec::new(), None)).into()
    }
}

thread_local! {
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The log of this thread since its first app.
pub(crate) fn log() -> String {
    LOG.with_borrow(|log| String::from_utf8(log.clone()).unwrap())
}

/// One subscriber for all tests of the process: with several, the interest cached per callsite could disable a test's log.
fn start_log() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(|| ThisThread)
            .init();
    });
}

struct ThisThread;

impl io::Write for ThisThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
