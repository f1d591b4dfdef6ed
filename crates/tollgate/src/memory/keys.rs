//! Keys in this process.

mod admin;
mod history;
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
    manage::{Actor, TenantChange},
    store::{KeyLookup, KeyRecord, KeyStore, Listeners, StoreListener, Subscription},
    verify::{Plan, Principal},
};

use self::{
    ledger::{Ledger, Notifications},
    table::Table,
};
use super::{MemoryUsage, lock};

/// A key store in memory: for tests, for demonstrations, and for services whose keys come from a file at start-up.
///
/// Clones share their state. Only digests are stored, not secrets.
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
/// These methods are shortcuts for principals that are written in code. A [`KeyManager`](crate::manage::KeyManager) manages the same
/// keys, as it does those of any other store. The history holds the last 1,000 events of each tenant, the last 1,000 of keys without
/// a tenant, and the last 100,000 of all.
#[derive(Clone, Default)]
pub struct MemoryKeys(Arc<Inner>);

struct Inner {
    peppers: Peppers,
    by_digest: Table,
    // Changes hold this lock, so that they happen one after another. Lookups do not.
    ledger: Mutex<Ledger>,
    usage: MemoryUsage,
    listeners: Listeners,
}

impl MemoryKeys {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that makes digests with these peppers. Its verifier must have the same ones.
    pub fn with_peppers(peppers: Peppers) -> Self {
        Self(Arc::new(Inner::with_peppers(peppers)))
    }

    /// Issues a new key for `principal` and returns it; the store does not keep the secret. A key that exists for the principal's
    /// identifier is replaced at the same moment, and is unknown from then on.
    ///
    /// # Errors
    /// If the operating system provides no randomness.
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

    /// Adds a key that was issued elsewhere. It must come from a trusted source, since secrets can be chosen so that they slow
    /// lookups down. Another key that exists for the principal's identifier is replaced at the same moment. A key that is
    /// imported again belongs to this principal from then on, even if it was revoked.
    pub fn import(&self, secret: &str, principal: Principal) {
        self.put(secret, "", principal);
    }

    fn put(&self, secret: &str, display_prefix: &str, principal: Principal) {
        let digest = self.0.peppers.current(secret);
        self.0.change(|ledger, records| {
            ledger.put(records, digest, display_prefix, principal, SystemClock.now());
        });
    }

    /// Revokes the key with this identifier: it is refused from now on, and its open streams end. The record is kept. Returns
    /// `false` if there is no such key.
    pub fn revoke(&self, id: &str) -> bool {
        self.0.change(|ledger, records| ledger.revoke(records, id, &in_process(), SystemClock.now()).is_ok())
    }

    /// Deletes the key with this identifier and its record: it is unknown from now on, and its open streams end. Returns
    /// `false` if there is no such key.
    pub fn delete(&self, id: &str) -> bool {
        self.0.change(|ledger, records| ledger.delete(records, id, &in_process(), SystemClock.now()).is_ok())
    }

    /// Suspends a tenant: all its keys are refused from now on, including later ones, and its open streams end.
    pub fn suspend_tenant(&self, tenant: &str) {
        self.change_tenant_here(&TenantChange::Suspend { tenant: tenant.into() });
    }

    /// Ends the suspension of a tenant. Revoked keys stay revoked.
    pub fn resume_tenant(&self, tenant: &str) {
        self.change_tenant_here(&TenantChange::Resume { tenant: tenant.into() });
    }

    /// Sets the plan of a tenant: all its keys without a plan of their own have it from now on, including later ones. `None` removes
    /// it.
    pub fn set_tenant_plan(&self, tenant: &str, plan: impl Into<Option<Plan>>) {
        self.change_tenant_here(&TenantChange::SetPlan { tenant: tenant.into(), plan: plan.into() });
    }

    fn change_tenant_here(&self, change: &TenantChange) {
        self.0.change(|ledger, records| {
            ledger.change_tenant(records, change, &in_process(), SystemClock.now())
        });
    }
}

/// The actor in the history of changes that the program itself makes.
fn in_process() -> Actor {
    Actor::new("in process")
}

impl Inner {
    fn with_peppers(peppers: Peppers) -> Self {
        Self {
            peppers,
            by_digest: Table::default(),
            ledger: Mutex::default(),
            usage: MemoryUsage::new(),
            listeners: Listeners::connected(),
        }
    }

    /// Makes a change, then sends its notifications without a lock: a stream or a listener may run at once, and change keys.
    fn change<T>(&self, change: impl FnOnce(&mut Ledger, &Table) -> T) -> T {
        let (outcome, Notifications { ended, event }, removed) = {
            let mut ledger = lock(&self.ledger);
            let outcome = change(&mut ledger, &self.by_digest);
            (outcome, ledger.take_notifications(), self.by_digest.take_removed())
        };
        drop(removed);
        for (signal, reason) in ended {
            signal.end(reason);
        }
        if let Some(event) = event {
            self.listeners.notify(&event);
        }
        outcome
    }
}

impl KeyStore for MemoryKeys {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        Answer::Now(Ok(lookup.digests.iter().find_map(|digest| self.0.by_digest.find(digest))))
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        self.0.listeners.subscribe(listener)
    }
}

impl Default for Inner {
    fn default() -> Self {
        Self::with_peppers(Peppers::default())
    }
}

impl fmt::Debug for MemoryKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKeys").field("keys", &self.0.by_digest.len()).finish()
    }
}
