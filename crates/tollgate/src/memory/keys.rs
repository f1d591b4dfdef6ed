//! Keys in this process.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    hash::{BuildHasherDefault, Hasher},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use dashmap::DashMap;
use tollgate_core::{
    Answer, ApiKey, Change, Changes, Digest, EndReason, EndSignal, Environment, KeyFormat, KeyRecord,
    KeyStatus, KeyStore, Peppers, Principal, RandomnessUnavailable, Unavailable,
};

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
    by_digest: DashMap<Digest, Arc<KeyRecord>, BuildHasherDefault<DigestIsHash>>,
    // Whoever changes keys holds this lock, so that changes happen one after another; whoever finds a key does not.
    ledger: Mutex<Ledger>,
    feeds: Feeds,
}

/// What only changes need to know.
#[derive(Default)]
struct Ledger {
    digests: HashMap<Box<str>, Digest>,
    suspended: HashSet<Box<str>>,
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

    /// Issues a new key for `principal` and shows it this once. A key that the principal's identifier had before is revoked
    /// at the same moment.
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

    /// Takes over a key that was issued elsewhere. Another key that the principal's identifier had before is revoked at the
    /// same moment; the same key, imported again, proves this principal from now on.
    pub fn import(&self, secret: &str, principal: Principal) {
        let mut ledger = lock(&self.0.ledger);
        let id: Box<str> = principal.id().into();
        let digest = self.0.peppers.current(secret);
        let is_suspended = principal.tenant().is_some_and(|tenant| ledger.suspended.contains(tenant));
        let status = if is_suspended { KeyStatus::TenantSuspended } else { KeyStatus::Active };
        let before = self.0.by_digest.get(&digest).map(|entry| Arc::clone(entry.value()));
        let generation = before.as_ref().map_or(0, |before| before.generation().saturating_add(1));
        let signal =
            before.and_then(|before| ledger.replace(&before, digest, &id, status)).unwrap_or_default();
        let principal = Arc::new(principal.with_end_signal(signal));
        self.0.by_digest.insert(digest, Arc::new(KeyRecord::new(principal, status, generation)));
        let former = ledger.digests.insert(id.clone(), digest);
        if let Some(former) = former.filter(|former| *former != digest) {
            self.0.change(&former, KeyStatus::Revoked);
        }
        drop(ledger);
        self.0.tell(&Change::Key(id));
    }

    /// Revokes the key with this identifier: it is refused from now on, and open streams are told. The record is kept.
    /// `false` if there is no such key.
    pub fn revoke(&self, id: &str) -> bool {
        let ledger = lock(&self.0.ledger);
        let Some(digest) = ledger.digests.get(id) else { return false };
        self.0.change(digest, KeyStatus::Revoked);
        drop(ledger);
        self.0.tell(&Change::Key(id.into()));
        true
    }

    /// Suspends a tenant: all its keys are refused from now on, those issued later included, and open streams are told.
    pub fn suspend_tenant(&self, tenant: &str) {
        let mut ledger = lock(&self.0.ledger);
        ledger.suspended.insert(tenant.into());
        self.0.change_tenant(tenant, KeyStatus::Active, KeyStatus::TenantSuspended);
        drop(ledger);
        self.0.tell(&Change::Tenant(tenant.into()));
    }

    /// Lifts the suspension of a tenant. Keys that are revoked stay revoked.
    pub fn resume_tenant(&self, tenant: &str) {
        let mut ledger = lock(&self.0.ledger);
        ledger.suspended.remove(tenant);
        self.0.change_tenant(tenant, KeyStatus::TenantSuspended, KeyStatus::Active);
        drop(ledger);
        self.0.tell(&Change::Tenant(tenant.into()));
    }
}

impl KeyStore for MemoryKeys {
    fn find(&self, digests: &[Digest]) -> Answer<Result<Option<Arc<KeyRecord>>, Unavailable>> {
        let found = digests.iter().find_map(|digest| self.0.by_digest.get(digest));
        Answer::Now(Ok(found.map(|entry| Arc::clone(entry.value()))))
    }

    fn changes(&self) -> Changes {
        let feed = Arc::new(Mutex::new(Feed::default()));
        let mut feeds = lock(&self.0.feeds.0);
        feeds.retain(|feed| feed.strong_count() > 0);
        feeds.push(Arc::downgrade(&feed));
        Changes::new(Subscription(feed))
    }
}

impl Ledger {
    /// Makes way for another record of the same key. Gives back the signal by which the key still ends, if its owner stays
    /// the same: whoever holds the former principal is to be told. Otherwise every key has a signal of its own, or revoking
    /// one would end another that was made of the same principal.
    fn replace(
        &mut self,
        before: &KeyRecord,
        digest: Digest,
        owner: &str,
        status: KeyStatus,
    ) -> Option<EndSignal> {
        let (former, signal) = (before.principal().id(), before.principal().end_signal());
        if status == KeyStatus::Active && former == owner && signal.reason().is_none() {
            return Some(signal.clone());
        }
        signal.end(match status {
            KeyStatus::TenantSuspended => EndReason::TenantSuspended,
            _ => EndReason::Revoked,
        });
        if former != owner && self.digests.get(former) == Some(&digest) {
            self.digests.remove(former);
        }
        None
    }
}

impl Inner {
    fn change(&self, digest: &Digest, status: KeyStatus) {
        if let Some(mut entry) = self.by_digest.get_mut(digest) {
            let changed = changed(&entry, status);
            *entry.value_mut() = changed;
        }
    }

    fn change_tenant(&self, tenant: &str, from: KeyStatus, to: KeyStatus) {
        for mut entry in self.by_digest.iter_mut() {
            if entry.principal().tenant() == Some(tenant) && entry.status() == from {
                let changed = changed(&entry, to);
                *entry.value_mut() = changed;
            }
        }
    }

    /// Tells the feeds, and wakes their readers when no lock is held any more: a reader may run at once, and change keys.
    fn tell(&self, change: &Change) {
        let mut readers = Vec::new();
        lock(&self.feeds.0).retain(|feed| {
            let Some(feed) = feed.upgrade() else { return false };
            readers.extend(lock(&feed).push(change.clone()));
            true
        });
        readers.into_iter().for_each(Waker::wake);
    }
}

/// The record after a change of status. What was ended is told so; what becomes active again gets a signal that was not
/// sent yet.
fn changed(record: &KeyRecord, status: KeyStatus) -> Arc<KeyRecord> {
    let principal = match status {
        KeyStatus::Active => Arc::new(Principal::clone(record.principal()).with_end_signal(EndSignal::new())),
        _ => Arc::clone(record.principal()),
    };
    match status {
        KeyStatus::Revoked => principal.end_signal().end(EndReason::Revoked),
        KeyStatus::TenantSuspended => principal.end_signal().end(EndReason::TenantSuspended),
        _ => {}
    }
    Arc::new(KeyRecord::new(principal, status, record.generation().saturating_add(1)))
}

/// The feeds of all subscribers, which end with the store.
#[derive(Default)]
struct Feeds(Mutex<Vec<Weak<Mutex<Feed>>>>);

impl Drop for Feeds {
    fn drop(&mut self) {
        for feed in lock(&self.0).drain(..).filter_map(|feed| feed.upgrade()) {
            let reader = {
                let mut feed = lock(&feed);
                feed.is_over = true;
                feed.reader.take()
            };
            reader.into_iter().for_each(Waker::wake);
        }
    }
}

/// News that a subscriber has not read yet.
#[derive(Default)]
struct Feed {
    unread: VecDeque<Change>,
    reader: Option<Waker>,
    is_over: bool,
}

/// Past this many unread changes a subscriber is told to forget everything instead.
const MAX_UNREAD: usize = 1_024;

impl Feed {
    /// Keeps a change to be read, and gives back whom to wake.
    fn push(&mut self, change: Change) -> Option<Waker> {
        if self.unread.len() >= MAX_UNREAD {
            self.unread.clear();
            self.unread.push_back(Change::Lost);
        } else {
            self.unread.push_back(change);
        }
        self.reader.take()
    }
}

struct Subscription(Arc<Mutex<Feed>>);

impl futures_core::Stream for Subscription {
    type Item = Change;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Change>> {
        let mut feed = lock(&self.0);
        if let Some(change) = feed.unread.pop_front() {
            return Poll::Ready(Some(change));
        }
        if feed.is_over {
            return Poll::Ready(None);
        }
        feed.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Nothing behind these locks is ever left half changed, so a panic of another thread has left it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A digest is as good as a hash already. Only issued keys are ever inserted, so that no stranger can choose digests
/// which collide.
#[derive(Default)]
struct DigestIsHash(u64);

impl Hasher for DigestIsHash {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_ne_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl fmt::Debug for MemoryKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKeys").field("keys", &self.0.by_digest.len()).finish()
    }
}
