//! The principals that are in use, and how to find their keys again.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tollgate_core::{
    denial::Unavailable,
    key::Digest,
    store::{EndReason, EndSignal, KeyLookup, KeyRecord, KeyStatus, KeyStore, StoreEvent, WeakEndSignal},
};

/// How many lookups are in progress at the same time, at most.
const MOST_LOOKUPS: usize = 16;

/// The principals that were found, for as long as anything holds them.
#[derive(Default)]
pub(super) struct HeldPrincipals(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    by_key: HashMap<Box<str>, Vec<Found>>,
    // How many keys were left after the last sweep.
    swept: usize,
}

/// A principal that was found, and by what.
#[derive(Clone)]
struct Found {
    signal: WeakEndSignal,
    tenant: Option<Box<str>>,
    digests: Arc<[Digest]>,
    at: SystemTime,
}

/// Whose keys are to be read again.
#[derive(Debug, Default)]
pub(super) struct Changed {
    keys: HashSet<Box<str>>,
    tenants: HashSet<Box<str>>,
}

/// A principal that is to be checked.
pub(super) struct Held {
    id: Box<str>,
    signal: EndSignal,
    digests: Arc<[Digest]>,
    at: SystemTime,
}

impl Changed {
    pub(super) fn add(&mut self, event: &StoreEvent) {
        match event {
            StoreEvent::Key { id, .. } => self.keys.insert(id.clone()),
            StoreEvent::Tenant { tenant, .. } => self.tenants.insert(tenant.clone()),
            _ => false,
        };
    }
}

impl HeldPrincipals {
    pub(super) fn add(&self, record: &KeyRecord, digests: &[Digest], at: SystemTime) {
        let (principal, mut inner) = (record.principal(), self.lock());
        if inner.by_key.len() > 2 * inner.swept.max(1_024) {
            inner.sweep();
        }
        let of_key = inner.by_key.entry(principal.id().into()).or_default();
        of_key.retain(|one| one.signal.is_held() && !one.signal.is(principal.end_signal()));
        of_key.push(Found {
            signal: principal.end_signal().downgrade(),
            tenant: principal.tenant().map(Into::into),
            digests: digests.into(),
            at,
        });
    }

    pub(super) fn all(&self) -> Vec<Held> {
        let mut inner = self.lock();
        inner.sweep();
        let all = inner.by_key.iter();
        all.flat_map(|(id, of_key)| of_key.iter().filter_map(|one| one.held(id))).collect()
    }

    pub(super) fn of(&self, changed: &Changed) -> Vec<Held> {
        let inner = self.lock();
        let mut held = Vec::new();
        for id in &changed.keys {
            let of_key = inner.by_key.get(id).into_iter().flatten();
            held.extend(of_key.filter_map(|one| one.held(id)));
        }
        if !changed.tenants.is_empty() {
            let is_of_tenant =
                |one: &&Found| one.tenant.as_ref().is_some_and(|tenant| changed.tenants.contains(tenant));
            for (id, of_key) in inner.by_key.iter().filter(|(id, _)| !changed.keys.contains(*id)) {
                held.extend(of_key.iter().filter(is_of_tenant).filter_map(|one| one.held(id)));
            }
        }
        held
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code panics between two related changes, so a panic on another thread leaves the value valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Removes the principals that nothing holds any more.
    fn sweep(&mut self) {
        self.by_key.retain(|_, of_key| {
            of_key.retain(|one| one.signal.is_held());
            !of_key.is_empty()
        });
        self.swept = self.by_key.len();
    }
}

impl Found {
    fn held(&self, id: &str) -> Option<Held> {
        let signal = self.signal.upgrade().filter(|signal| signal.reason().is_none())?;
        Some(Held { id: id.into(), signal, digests: Arc::clone(&self.digests), at: self.at })
    }
}

/// Ends those whose keys the store does not find as active any more.
///
/// # Errors
/// If the store does not answer. Some may have been ended by then.
pub(super) async fn check(store: &dyn KeyStore, held: Vec<Held>) -> Result<(), Unavailable> {
    let checks = stream::iter(held).map(|held| held.check(store)).buffer_unordered(MOST_LOOKUPS);
    checks.try_collect().await
}

/// Ends all of them.
pub(super) fn end(held: Vec<Held>) {
    for held in held {
        held.signal.end(EndReason::Revoked);
    }
}

impl Held {
    async fn check(self, store: &dyn KeyStore) -> Result<(), Unavailable> {
        // As of the instant of the first lookup: a secret that was rotated away with an overlap ends no principal afterwards.
        let found = store.find(&KeyLookup::new(&self.digests, self.at)).await?;
        let reason = match found.map(|record| (record.status(), record)) {
            Some((KeyStatus::Active, record)) if record.principal().id() == &*self.id => return Ok(()),
            Some((KeyStatus::TenantSuspended, _)) => EndReason::TenantSuspended,
            _ => EndReason::Revoked,
        };
        self.signal.end(reason);
        Ok(())
    }
}

impl fmt::Debug for HeldPrincipals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldPrincipals").field("keys", &self.lock().by_key.len()).finish()
    }
}
