//! A store with a manager, a clock and a verifier.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Request};
use tollgate::{
    Denial, DenialKind, KeyFormat, KeyVerifier, Principal, Scopes,
    clock::{Clock as _, ManualClock},
    manage::{Actor, HistoryQuery, IssuedKey, KeyAdmin, KeyEvent, KeyManager, NewKey},
    request::RequestHead,
    store::{EndReason, KeyStore},
    verify::{Credential, CredentialSource, Verify as _, VerifyRequest},
};

use crate::at;

pub(in crate::suite) struct Setup {
    pub(in crate::suite) store: Arc<dyn Store>,
    pub(in crate::suite) manager: KeyManager,
    pub(in crate::suite) clock: ManualClock,
    verifier: KeyVerifier,
}

pub(in crate::suite) trait Store: KeyStore + KeyAdmin {}

impl<S: KeyStore + KeyAdmin> Store for S {}

impl Setup {
    pub(in crate::suite) fn new<S: KeyStore + KeyAdmin>(store: Arc<S>) -> Self {
        let format = KeyFormat::new("sk").unwrap();
        let clock = ManualClock::at(at(0));
        let manager = KeyManager::new(format.clone(), Arc::clone(&store))
            .with_clock(clock.clone())
            .with_known_scopes(Scopes::new(["read", "write", "admin:*"]).unwrap())
            .with_default_scopes(Scopes::new(["read"]).unwrap());
        let verifier = KeyVerifier::new(format, Arc::clone(&store));
        Self { store, manager, clock, verifier }
    }

    pub(in crate::suite) async fn issue(&self, name: &str) -> IssuedKey {
        self.manager.issue(NewKey::named(name), &root()).await.unwrap()
    }

    pub(in crate::suite) async fn issue_for(&self, tenant: &str, name: &str) -> IssuedKey {
        self.manager.issue(NewKey::named(name).with_tenant(tenant), &root()).await.unwrap()
    }

    /// Verifies a secret at the clock's instant.
    pub(super) async fn verify(&self, secret: &str) -> Result<Arc<Principal>, Denial> {
        let credential = Credential::new(HeaderValue::from_str(secret).unwrap(), 0, CredentialSource::Bearer);
        let (head, ()) = Request::new(()).into_parts();
        let now = self.now();
        let request = VerifyRequest::new(&credential, RequestHead::from(&head), now);
        let principal = self.verifier.verify(&request).await?;
        // As `VerifyLayer` does.
        match principal.ended(now) {
            None => Ok(principal),
            Some(EndReason::Expired) => Err(Denial::new(DenialKind::KeyExpired)),
            Some(EndReason::TenantSuspended) => Err(Denial::new(DenialKind::TenantSuspended)),
            Some(_) => Err(Denial::new(DenialKind::KeyRevoked)),
        }
    }

    /// Why a key is refused; `None` if it works.
    pub(super) async fn refusal(&self, key: &IssuedKey) -> Option<DenialKind> {
        self.verify(key.secret.expose_secret()).await.err().map(|denial| denial.kind())
    }

    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(super) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// The actions in the history of a key, the latest first.
    pub(in crate::suite) async fn actions(&self, id: &str) -> Vec<&'static str> {
        self.history(HistoryQuery::of_key(id)).await.iter().map(|event| event.action.as_str()).collect()
    }

    pub(super) async fn history(&self, query: HistoryQuery) -> Vec<KeyEvent> {
        self.manager.history(query, &root()).await.unwrap().items
    }
}

/// The actor who may do everything.
pub(in crate::suite) fn root() -> Actor {
    Actor::new("root")
}
