//! Keys in this process.

mod table;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, Weak},
};

use tollgate_core::{
    Answer, ApiKey, Change, Digest, EndReason, EndSignal, Environment, KeyFormat, KeyLookUp, KeyRecord,
    KeyStatus, KeyStore, Peppers, Principal, RandomnessUnavailable, Unavailable, WatchKeys, Watchers,
};

use self::table::Table;
use super::lock;

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
#[derive(Clone, Default)]
pub struct MemoryKeys(Arc<Inner>);

#[derive(Default)]
struct Inner {
    peppers: Peppers,
    by_digest: Table,
    // Whoever changes keys holds this lock, so that changes happen one after another; whoever finds a key does not.
    ledger: Mutex<Ledger>,
    watchers: Watchers,
}

/// What only changes need to know.
#[derive(Default)]
struct Ledger {
    digests: HashMap<Box<str>, Digest>,
    suspended: HashSet<Box<str>>,
    // The newest record's: it rises over all keys, so that one which comes back after it was deleted is newer than before.
    generation: u64,
}

impl Ledger {
    fn next_generation(&mut self) -> u64 {
        self.generation = self.generation.saturating_add(1);
        self.generation
    }
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
        self.import(key.expose_secret(), principal.with_environment(environment));
        Ok(key)
    }

    /// Takes over a key that was issued elsewhere: from a trusted place, since whoever can choose many secrets can choose
    /// ones that slow look-ups down. Another key that the principal's identifier had before is replaced at the same
    /// moment. The same key, imported again, proves this principal from now on, also if it was revoked.
    pub fn import(&self, secret: &str, principal: Principal) {
        let id: Box<str> = principal.id().into();
        let digest = self.0.peppers.current(secret);
        let mut endings = Endings::default();
        let generation = {
            let mut ledger = lock(&self.0.ledger);
            let is_suspended = principal.tenant().is_some_and(|tenant| ledger.suspended.contains(tenant));
            let status = if is_suspended { KeyStatus::TenantSuspended } else { KeyStatus::Active };

            if let Some(replaced) =
                ledger.digests.insert(id.clone(), digest).filter(|former| *former != digest)
            {
                self.0.remove(&replaced, &mut endings);
            }
            let former = self.0.by_digest.find(&digest);
            let generation = ledger.next_generation();
            // A key has a signal of its own, or revoking it would end another that was made of the same principal. It keeps
            // the one it has, since streams may wait for that.
            let mut signal = EndSignal::new();
            if let Some(former) = former {
                let former = former.principal();
                if status == KeyStatus::Active
                    && *former.id() == *id
                    && former.end_signal().reason().is_none()
                {
                    signal = former.end_signal().clone();
                } else {
                    endings.add(former, EndReason::Revoked);
                }
                if *former.id() != *id {
                    ledger.digests.remove(former.id());
                }
            }
            let principal = Arc::new(principal.with_end_signal(signal));
            self.0.by_digest.insert(digest, KeyRecord::new(principal, status, generation));
            generation
        };
        self.0.announce(endings, &Change::Key { id, generation, end: None });
    }

    /// Revokes the key with this identifier: it is refused from now on, and open streams are told. The record is kept.
    /// `false` if there is no such key.
    pub fn revoke(&self, id: &str) -> bool {
        let mut endings = Endings::default();
        let generation = {
            let mut ledger = lock(&self.0.ledger);
            let generation = ledger.next_generation();
            let Some(digest) = ledger.digests.get(id) else { return false };
            self.0.by_digest.change(digest, |record| {
                set_status(record, KeyStatus::Revoked, generation, &mut endings);
            });
            generation
        };
        self.0.announce(endings, &Change::Key { id: id.into(), generation, end: Some(EndReason::Revoked) });
        true
    }

    /// Deletes the key with this identifier and its record: it is unknown from now on, and open streams are told. `false` if
    /// there is no such key.
    pub fn delete(&self, id: &str) -> bool {
        let mut endings = Endings::default();
        let generation = {
            let mut ledger = lock(&self.0.ledger);
            let Some(digest) = ledger.digests.remove(id) else { return false };
            self.0.remove(&digest, &mut endings);
            ledger.next_generation()
        };
        self.0.announce(endings, &Change::Key { id: id.into(), generation, end: Some(EndReason::Revoked) });
        true
    }

    /// Suspends a tenant: all its keys are refused from now on, those issued later included, and open streams are told.
    pub fn suspend_tenant(&self, tenant: &str) {
        self.change_tenant(tenant, KeyStatus::Active, KeyStatus::TenantSuspended, |ledger| {
            ledger.suspended.insert(tenant.into());
        });
    }

    /// Lifts the suspension of a tenant. Keys that are revoked stay revoked.
    pub fn resume_tenant(&self, tenant: &str) {
        self.change_tenant(tenant, KeyStatus::TenantSuspended, KeyStatus::Active, |ledger| {
            ledger.suspended.remove(tenant);
        });
    }

    fn change_tenant(&self, tenant: &str, from: KeyStatus, to: KeyStatus, note: impl FnOnce(&mut Ledger)) {
        let mut endings = Endings::default();
        let generation = {
            let mut ledger = lock(&self.0.ledger);
            note(&mut ledger);
            let generation = ledger.next_generation();
            self.0.by_digest.change_all(|record| {
                if record.principal().tenant() == Some(tenant) && record.status() == from {
                    set_status(record, to, generation, &mut endings);
                }
            });
            generation
        };
        let end = (to == KeyStatus::TenantSuspended).then_some(EndReason::TenantSuspended);
        self.0.announce(endings, &Change::Tenant { tenant: tenant.into(), generation, end });
    }
}

impl KeyStore for MemoryKeys {
    fn find(&self, look_up: &KeyLookUp<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        Answer::Now(Ok(look_up.digests.iter().find_map(|digest| self.0.by_digest.find(digest))))
    }

    fn watch(&self, watcher: Weak<dyn WatchKeys>) {
        let told_first = watcher.upgrade();
        self.0.watchers.add(watcher);
        if let Some(watcher) = told_first {
            watcher.changed(&Change::Resumed);
        }
    }
}

impl Inner {
    fn remove(&self, digest: &Digest, endings: &mut Endings) {
        if let Some(record) = self.by_digest.remove(digest) {
            endings.add(record.principal(), EndReason::Revoked);
        }
    }

    /// Tells everybody who is concerned, when no lock is held any more: a stream or a reader may run at once, and change keys.
    fn announce(&self, endings: Endings, change: &Change) {
        for (signal, reason) in endings.0 {
            signal.end(reason);
        }
        self.watchers.tell(change);
    }
}

/// Signals to be sent once no lock is held.
#[derive(Default)]
struct Endings(Vec<(EndSignal, EndReason)>);

impl Endings {
    fn add(&mut self, principal: &Principal, reason: EndReason) {
        self.0.push((principal.end_signal().clone(), reason));
    }
}

/// Puts the record of a key in another status in the place of its record. What becomes active again gets a signal that was
/// not sent yet.
fn set_status(record: &mut KeyRecord, status: KeyStatus, generation: u64, endings: &mut Endings) {
    let mut principal = Arc::clone(record.principal());
    match status {
        KeyStatus::Revoked => endings.add(&principal, EndReason::Revoked),
        KeyStatus::TenantSuspended => endings.add(&principal, EndReason::TenantSuspended),
        _ => principal = Arc::new(Principal::clone(&principal).with_end_signal(EndSignal::new())),
    }
    *record = KeyRecord::new(principal, status, generation);
}

impl fmt::Debug for MemoryKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKeys").field("keys", &self.0.by_digest.len()).finish()
    }
}
