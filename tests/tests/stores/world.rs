//! A store, its manager, and what a caller sees of it.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Request};
use tests::{postgres::Postgres, suite::at};
use tollgate::{
    Denial, DenialKind, KeyFormat, KeyVerifier, MemoryKeys, Principal, Scopes,
    clock::ManualClock,
    manage::{Actor, IssuedKey, KeyAdmin, KeyManager, NewKey},
    request::RequestHead,
    store::{EndReason, KeyStore},
    usage::UsageStore,
    verify::{Credential, CredentialSource, Verify as _, VerifyRequest},
};

pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) manager: KeyManager,
    pub(crate) clock: ManualClock,
    verifier: KeyVerifier,
    /// Keeps what the store stands on until the test is over.
    _ground: Box<dyn Send + Sync>,
}

pub(crate) trait Store: KeyStore + KeyAdmin + UsageStore {}

impl<S: KeyStore + KeyAdmin + UsageStore> Store for S {}

impl World {
    #[expect(clippy::unused_async, reason = "other stores take their time to open")]
    pub(crate) async fn memory() -> Self {
        Self::on(Arc::new(MemoryKeys::new()), Box::new(()))
    }

    pub(crate) async fn sqlite_in_memory() -> Self {
        Self::sql("sqlite::memory:", Box::new(())).await
    }

    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("keys.db").display());
        Self::sql(&url, Box::new(folder)).await
    }

    pub(crate) async fn postgresql() -> Self {
        let postgres = Postgres::start().await;
        let database = postgres.fresh_database().await;
        Self::sql(&database, Box::new(Mutex::new(postgres))).await
    }

    async fn sql(url: &str, ground: Box<dyn Send + Sync>) -> Self {
        Self::on(Arc::new(tests::patient_store().connect(url).await.unwrap()), ground)
    }

    fn on(store: Arc<dyn Store>, ground: Box<dyn Send + Sync>) -> Self {
        let format = KeyFormat::new("sk").unwrap();
        let clock = ManualClock::at(at(0));
        let manager = KeyManager::new(format.clone(), as_admin(&store))
            .with_clock(clock.clone())
            .with_known_scopes(Scopes::new(["read", "write", "admin:*"]).unwrap())
            .with_default_scopes(Scopes::new(["read"]).unwrap());
        let verifier = KeyVerifier::new(format, as_store(&store));
        Self { store, manager, clock, verifier, _ground: ground }
    }

    pub(crate) async fn issue(&self, name: &str) -> IssuedKey {
        self.manager.issue(NewKey::named(name), &root()).await.unwrap()
    }

    pub(crate) async fn issue_for(&self, tenant: &str, name: &str) -> IssuedKey {
        self.manager.issue(NewKey::named(name).with_tenant(tenant), &root()).await.unwrap()
    }

    /// Presents a secret now.
    pub(crate) async fn verify(&self, secret: &str) -> Result<Arc<Principal>, Denial> {
        let credential = Credential::new(HeaderValue::from_str(secret).unwrap(), 0, CredentialSource::Bearer);
        let (head, ()) = Request::new(()).into_parts();
        let now = self.now();
        let answer = self.verifier.verify(&VerifyRequest::new(&credential, RequestHead::from(&head), now));
        let principal = answer.await?;
        // As `VerifyLayer` does.
        match principal.ended(now) {
            None => Ok(principal),
            Some(EndReason::Expired) => Err(Denial::new(DenialKind::KeyExpired)),
            Some(EndReason::TenantSuspended) => Err(Denial::new(DenialKind::TenantSuspended)),
            Some(_) => Err(Denial::new(DenialKind::KeyRevoked)),
        }
    }

    /// Why a secret is refused; `None` if it is good.
    pub(crate) async fn refusal(&self, secret: &IssuedKey) -> Option<DenialKind> {
        self.verify(secret.secret.expose_secret()).await.err().map(|denial| denial.kind())
    }

    pub(crate) fn now(&self) -> SystemTime {
        tollgate::clock::Clock::now(&self.clock)
    }

    pub(crate) fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// The actions in the history of a key, the latest first.
    pub(crate) async fn actions(&self, id: &str) -> Vec<&'static str> {
        let history =
            self.manager.history(tollgate::manage::HistoryQuery::of_key(id), &root()).await.unwrap();
        history.items.iter().map(|event| event.action.as_str()).collect()
    }

    /// What the history of a key tells of the latest event besides its action.
    pub(crate) async fn latest_detail(&self, id: &str) -> Box<str> {
        let history = self
            .manager
            .history(tollgate::manage::HistoryQuery::of_key(id).with_limit(1), &root())
            .await
            .unwrap();
        history.items[0].detail.clone()
    }
}

pub(crate) fn root() -> Actor {
    Actor::new("root")
}

fn as_admin(store: &Arc<dyn Store>) -> Arc<dyn KeyAdmin> {
    Arc::clone(store) as _
}

fn as_store(store: &Arc<dyn Store>) -> Arc<dyn KeyStore> {
    Arc::clone(store) as _
}
