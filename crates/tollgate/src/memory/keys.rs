//! Keys in this process.

mod admin;
mod ledger;
mod table;

use std::{
    fmt,
    sync::{Arc, Mutex, Weak},
};

use tollgate_core::{
    answer::Answer,
    clock::{Clock as _, SystemClock},
    denial::Unavailable,
    key::{ApiKey, Environment, KeyFormat, Peppers, RandomnessUnavailable},
    manage::Actor,
    store::{KeyLookup, KeyRecord, KeyStore, Listeners, StoreEvent, StoreListener},
    verify::Principal,
};

use self::{
    ledger::{Events, Ledger},
    table::Table,
};
use super::{MemoryUsage, lock};

/// Keys in this process: for tests, for demonstrations, and for services whose keys come from a file at start-up.
///
/// Clones are the same store. Only digests are kept.
///
/// ```
/// use tollgate::{Environment, KeyFormat, MemoryKeys, Principal, Scopes};
///
/// let keys = MemoryKeys::new();
/// let principal = Principal::new("key_1").with_tenant("acme").with_scopes(Scopes::new(["read"])?);
/// let key = keys.issue(&KeyFormat::new("sk")?, Environment::Live, principal)?;
/// println!("Copy it now, it is not shown again: {}", key.expose_secret());
///
/// assert!(keys.revoke("key_1"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Those are shortcuts for whoever writes principals in code. A [`KeyManager`](crate::manage::KeyManager) manages the same keys as it
/// does those of any other store; of the history, the last 10,000 events are kept.
#[derive(Clone, Default)]
pub struct MemoryKeys(Arc<Inner>);

#[derive(Default)]
struct Inner {
    peppers: Peppers,
    by_digest: Table,
    // Whoever changes keys holds this lock, so that changes happen one after another; whoever finds a key does not.
    ledger: Mutex<Ledger>,
    usage: MemoryUsage,
    listeners: Listeners,
}

impl MemoryKeys {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store whose digests are made with these peppers. Give its verifier the same ones.
    pub fn with_peppers(peppers: Peppers) -> Self {
        Self(Arc::new(Inner { peppers, ..Inner::default() }))
    }

    /// Issues a new key for `principal` and shows it this once. The key that the principal's identifier had before is
    /// replaced at the same moment: unknown from now on.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    pub fn issue(
        &self,
        format: &KeyFormat,
        environment: Environment,
        principal: Principal,
    ) -> Result<ApiKey, RandomnessUnavailable> {
        let key = format.generate(environment)?;
        let principal = principal.with_environment(environment);
        self.put(key.expose_secret(), key.display_prefix(), principal);
        Ok(key)
    }

    /// Takes over a key that was issued elsewhere: from a trusted place, since whoever can choose many secrets can choose
    /// ones that slow look-ups down. Another key that the principal's identifier had before is replaced at the same
    /// moment. The same key, imported again, proves this principal from now on, also if it was revoked.
    pub fn import(&self, secret: &str, principal: Principal) {
        self.put(secret, "", principal);
    }

    fn put(&self, secret: &str, display_prefix: &str, principal: Principal) {
        let digest = self.0.peppers.current(secret);
        self.0.change(|ledger, records| {
            ledger.put(records, digest, display_prefix, principal, SystemClock.now());
        });
    }

    /// Revokes the key with this identifier: it is refused from now on, and open streams are told. The record is kept.
    /// `false` if there is no such key.
    pub fn revoke(&self, id: &str) -> bool {
        self.0.change(|ledger, records| ledger.revoke(records, id, &in_process(), SystemClock.now()).is_ok())
    }

    /// Deletes the key with this identifier and its record: it is unknown from now on, and open streams are told. `false` if
    /// there is no such key.
    pub fn delete(&self, id: &str) -> bool {
        self.0.change(|ledger, records| ledger.delete(records, id, &in_process(), SystemClock.now()).is_ok())
    }

    /// Suspends a tenant: all its keys are refused from now on, those issued later included, and open streams are told.
    pub fn suspend_tenant(&self, tenant: &str) {
        self.0.change(|ledger, records| ledger.suspend(records, tenant, &in_process(), SystemClock.now()));
    }

    /// Lifts the suspension of a tenant. Keys that are revoked stay revoked.
    pub fn resume_tenant(&self, tenant: &str) {
        self.0.change(|ledger, records| ledger.resume(records, tenant, &in_process(), SystemClock.now()));
    }
}

/// Who stands in the history for changes that the program itself makes.
fn in_process() -> Actor {
    Actor::new("in process")
}

impl Inner {
    /// Makes a change, then tells everybody who is concerned, when no lock is held any more: a stream or a listener may run at
    /// once, and change keys.
    fn change<T>(&self, change: impl FnOnce(&mut Ledger, &Table) -> T) -> T {
        let (outcome, Events { ended, change }, gone) = {
            let mut ledger = lock(&self.ledger);
            let outcome = change(&mut ledger, &self.by_digest);
            (outcome, ledger.take_events(), self.by_digest.take_gone())
        };
        drop(gone);
        for (signal, reason) in ended {
            signal.end(reason);
        }
        if let Some(change) = change {
            self.listeners.notify(&change);
        }
        outcome
    }
}

impl KeyStore for MemoryKeys {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        Answer::Now(Ok(lookup.digests.iter().find_map(|digest| self.0.by_digest.find(digest))))
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) {
        let told_first = listener.upgrade();
        self.0.listeners.add(listener);
        if let Some(listener) = told_first {
            listener.on_event(&StoreEvent::Connected);
        }
    }
}

impl fmt::Debug for MemoryKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKeys").field("keys", &self.0.by_digest.len()).finish()
    }
}
