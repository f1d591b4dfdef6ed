//! The principals that are in use, and how to find their keys again.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tollgate_core::{
    clock::{Clock as _, SystemClock},
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
    // Whether principals have ended, as far as is said.
    keys: HashMap<Box<str>, bool>,
    tenants: HashMap<Box<str>, bool>,
}

/// A principal that is to be checked.
pub(super) struct Held {
    id: Box<str>,
    signal: EndSignal,
    digests: Arc<[Digest]>,
    /// At which instant its secret has to be valid. A secret that was rotated away with an overlap ends no principal when the overlap is
    /// over: so it is the instant of the first lookup, unless principals have ended.
    as_of: SystemTime,
}

impl Changed {
    pub(super) fn add(&mut self, event: &StoreEvent) {
        let (all, name, end) = match event {
            StoreEvent::Key { id, end, .. } => (&mut self.keys, id, end),
            StoreEvent::Tenant { tenant, end, .. } => (&mut self.tenants, tenant, end),
            _ => return,
        };
        *all.entry(name.clone()).or_default() |= end.is_some();
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
        all.flat_map(|(id, of_key)| of_key.iter().filter_map(|one| one.held(id, true))).collect()
    }

    pub(super) fn of(&self, changed: &Changed) -> Vec<Held> {
        let inner = self.lock();
        let mut held = Vec::new();
        for (id, have_ended) in &changed.keys {
            let of_key = inner.by_key.get(id).into_iter().flatten();
            held.extend(of_key.filter_map(|one| one.held(id, *have_ended)));
        }
        if !changed.tenants.is_empty() {
            for (id, of_key) in inner.by_key.iter().filter(|(id, _)| !changed.keys.contains_key(*id)) {
                held.extend(of_key.iter().filter_map(|one| {
                    let have_ended = changed.tenants.get(one.tenant.as_ref()?)?;
                    one.held(id, *have_ended)
                }));
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
    fn held(&self, id: &str, have_ended: bool) -> Option<Held> {
        let signal = self.signal.upgrade().filter(|signal| signal.reason().is_none())?;
        let as_of = if have_ended { SystemClock.now() } else { self.at };
        Some(Held { id: id.into(), signal, digests: Arc::clone(&self.digests), as_of })
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
        let found = store.find(&KeyLookup::new(&self.digests, self.as_of)).await?;
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
