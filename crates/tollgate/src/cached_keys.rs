//! A cache in front of a key store.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, SystemTime},
};

use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    key::Digest,
    store::{KeyLookup, KeyRecord, KeyStatus, KeyStore, Listeners, StoreEvent, StoreListener, Subscription},
};

use crate::lookups::{AsOf, Digests, Entry, EventCount, Hashes, SharedLookups, Table, Waiter};

/// The result of a lookup.
type Found = Result<Option<KeyRecord>, Unavailable>;

/// A cache in front of a [`KeyStore`]: it answers at once what it knows, and forgets what the store says has changed.
///
/// ```
/// use std::time::Duration;
/// use tollgate::{CachedKeys, KeyFormat, KeyVerifier};
/// # fn doc(store: tollgate::MemoryKeys) -> Result<(), tollgate::key::InvalidKeyFormat> {
///
/// let verifier = KeyVerifier::new(KeyFormat::new("sk")?, CachedKeys::new(store));
/// # Ok(()) }
/// # fn doc_customised(store: tollgate::MemoryKeys) {
///
/// // On a small machine, in front of a store that other programs change without events.
/// let keys = CachedKeys::new(store).with_capacity(5_000).with_ttl(Duration::from_secs(10));
/// # let _ = keys; }
/// ```
///
/// It is for stores that answer later, such as databases. [`MemoryKeys`](crate::MemoryKeys) needs none. Clones share their state.
/// Each `with_*` method returns an empty cache, so call them first. With several peppers, a lookup is cached under all its digests.
///
/// # How soon a change takes effect
///
/// | change | takes effect |
/// |---|---|
/// | made through the store of this process | at once: when `revoke` returns, the cache answers nothing older |
/// | made by another process, if the store has events | as soon as the store receives the event |
/// | made while the store is [disconnected](StoreEvent::Disconnected) | at once: every request asks the store |
/// | made without an event | after 30 seconds at most, 5 for refusals |
/// | in a store [without events](Subscription::trust_for) | after the time that the store states, and the times above, at most |
///
/// The cache keeps nothing until a store with events is [connected](StoreEvent::Connected). A lookup that was in progress during any
/// event answers the requests that already wait for it, and is not cached; later requests ask again. A principal whose
/// [signal](crate::store::EndSignal) was sent, or which has expired, is never answered from the cache as active.
///
/// # What is cached
///
/// | | at most | for |
/// |---|---|---|
/// | active keys | 100,000; beyond that, keys that were not used lately are evicted | 30 seconds, and not past their expiry |
/// | refusals: unknown, revoked, suspended and expired keys | 10,000 | 5 seconds, or until any event |
///
/// The two are separate: neither a flood of invented keys nor many revoked keys evict active ones. A client that repeats one
/// revoked key causes one query in 5 seconds. An entry takes 200 to 370 bytes and its principal. Its time is measured by the
/// requests' instants, is not extended by use, and ends if the clock is set back.
///
/// # When the store is slow or down
///
/// Concurrent requests for one key share one lookup, and its failure, too. They do not join a lookup that has been in progress for a
/// second, but begin a new one. If the request that began it is dropped, the others still get the answer. A lookup fails after [5
/// seconds](Self::with_deadline) at most. After the lookups of five different keys in a row have failed, a circuit breaker lets one
/// request a second ask the store. The others are answered `Unavailable` at once, until a lookup succeeds. A lookup is cancelled when
/// no request waits for it any more. The lookup that the circuit breaker lets through is never cancelled, so callers that hang up do
/// not delay the recovery.
///
/// Lookups are tasks on tokio: a request that has to ask the store outside a tokio runtime is answered `Unavailable`. The runtime's
/// timers must be enabled, as with `#[tokio::main]`.
///
/// Cached keys work until their time is up. All others are refused with 503.
/// [`dangerous_serve_stale_for`](Self::dangerous_serve_stale_for) serves active keys for longer.
#[derive(Clone)]
pub struct CachedKeys(Arc<Inner>);

#[derive(Clone, Copy)]
struct Settings {
    capacity: usize,
    ttl: Duration,
    refused_capacity: usize,
    refused_ttl: Duration,
    deadline: Duration,
    stale_for: Duration,
}

struct Inner {
    store: Arc<dyn KeyStore>,
    settings: Settings,
    // How long the store's records may be trusted, if it has no events. Set once, before the first lookup.
    trusted_for: OnceLock<Duration>,
    hashes: Hashes,
    active: Table<Option<KeyRecord>>,
    refused: Table<Option<KeyRecord>>,
    events: EventCount,
    lookups: SharedLookups<Option<KeyRecord>, Unavailable>,
    listeners: Listeners,
}

impl CachedKeys {
    /// A cache in front of `store`.
    pub fn new(store: impl KeyStore) -> Self {
        let settings = Settings {
            capacity: 100_000,
            ttl: Duration::from_secs(30),
            refused_capacity: 10_000,
            refused_ttl: Duration::from_secs(5),
            deadline: Duration::from_secs(5),
            stale_for: Duration::ZERO,
        };
        Self::with_settings(Arc::new(store), settings)
    }

    /// Caches at most this many active keys. Default: 100,000. With 0, concurrent requests for one key still share a lookup.
    pub fn with_capacity(self, keys: usize) -> Self {
        self.set(|settings| settings.capacity = keys)
    }

    /// How long a key is cached: a change without an event takes effect after this time at most. Default: 30 seconds.
    pub fn with_ttl(self, ttl: Duration) -> Self {
        self.set(|settings| settings.ttl = ttl)
    }

    /// Caches at most this many refusals. Default: 10,000.
    pub fn with_refusal_capacity(self, refusals: usize) -> Self {
        self.set(|settings| settings.refused_capacity = refusals)
    }

    /// How long a refusal is cached: a key that was issued without an event works after this time at most. Default: 5 seconds.
    pub fn with_refusal_ttl(self, ttl: Duration) -> Self {
        self.set(|settings| settings.refused_ttl = ttl)
    }

    /// A lookup fails if the store has not answered after this time. Default: 5 seconds. A store with a shorter limit of its own,
    /// such as `SqlKeys`, fails earlier.
    pub fn with_deadline(self, deadline: Duration) -> Self {
        self.set(|settings| settings.deadline = deadline)
    }

    /// While the store is [unavailable](Unavailable), goes on serving a key for this time after the store last confirmed it.
    /// Default: none; a key is refused when its usual time is up.
    ///
    /// # Security
    ///
    /// This trades late revocations for availability. A key that another process revokes while the store can be neither queried
    /// nor heard from works for up to this time. Three limits remain. The store is asked first, and a stale key is served only if the
    /// store does not answer, or if the [circuit breaker](Self#when-the-store-is-slow-or-down) is open. A key is not served after an
    /// event about it, after any other answer about it, or after its signal was sent. No key is served past its expiry.
    ///
    /// A time that is shorter than the usual one (30 seconds) only matters after a disconnection.
    pub fn dangerous_serve_stale_for(self, time: Duration) -> Self {
        self.set(|settings| settings.stale_for = time)
    }

    fn set(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.0.settings;
        change(&mut settings);
        Self::with_settings(Arc::clone(&self.0.store), settings)
    }

    fn with_settings(store: Arc<dyn KeyStore>, settings: Settings) -> Self {
        let hashes = Hashes::default();
        let inner = Arc::new(Inner {
            store,
            settings,
            trusted_for: OnceLock::new(),
            active: Table::new(settings.capacity, hashes.clone()),
            refused: Table::new(settings.refused_capacity, hashes.clone()),
            hashes,
            events: EventCount::default(),
            lookups: SharedLookups::new("key store", settings.deadline, Result::is_ok),
            listeners: Listeners::new(),
        });
        let listener: Weak<Inner> = Arc::downgrade(&inner);
        if let Some(time) = inner.store.subscribe(listener).trusted_for() {
            inner.trusted_for.get_or_init(|| time);
            inner.events.record(&StoreEvent::Connected);
        }
        Self(inner)
    }
}

impl KeyStore for CachedKeys {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Found> {
        let hash = self.0.hashes.of(lookup.digests);
        match self.0.cached(hash, lookup) {
            Some(found) => Answer::Now(found),
            None => self.0.ask(hash, lookup),
        }
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        let live = self.0.listeners.subscribe(listener);
        self.0.trusted_for.get().map_or(live, |time| Subscription::trust_for(*time))
    }
}

impl Inner {
    /// The cached answer, if there is a fresh one.
    #[inline]
    fn cached(&self, hash: u64, lookup: &KeyLookup<'_>) -> Option<Found> {
        let KeyLookup { digests, now, .. } = *lookup;
        let found = match self.active.find(hash, digests, |entry| entry.is_fresh(now)) {
            Some(found) => is_found_active(found.as_ref(), now).then_some(found),
            None => self.refused.find(hash, digests, |entry| entry.is_fresh(now)),
        };
        found.map(Ok)
    }

    #[cold]
    fn ask(self: &Arc<Self>, hash: u64, lookup: &KeyLookup<'_>) -> Answer<Found> {
        let KeyLookup { digests, now, .. } = *lookup;
        let waiter = match self.join(hash, lookup) {
            Ok(waiter) => waiter,
            Err(error) => return Answer::Now(self.stale(hash, digests, now).unwrap_or(Err(error))),
        };
        if !self.may_serve_stale() {
            return Answer::later(waiter.answer());
        }
        let (cache, digests) = (Arc::clone(self), Digests::from(digests));
        Answer::later(async move {
            match waiter.answer().await {
                Err(error) => cache.stale(hash, &digests, now).unwrap_or(Err(error)),
                found => found,
            }
        })
    }

    /// Joins the lookup of a key, or begins it, if the store may be asked.
    fn join(
        self: &Arc<Self>,
        hash: u64,
        lookup: &KeyLookup<'_>,
    ) -> Result<Waiter<Option<KeyRecord>, Unavailable>, Unavailable> {
        let KeyLookup { digests, now, .. } = *lookup;
        let (cache, owned) = (Arc::clone(self), Digests::from(digests));
        let lookup = async move { cache.store.find(&KeyLookup::new(&owned, now)).await };
        let (cache, owned) = (Arc::clone(self), Digests::from(digests));
        let insert = move |found: &Found, as_of| {
            if let Ok(record) = found {
                cache.insert(hash, &owned, record.as_ref(), as_of, now);
            }
        };
        self.lookups.join((hash, digests), now, &self.events, Box::pin(lookup), insert)
    }

    /// Caches the answer to a lookup of `now`, unless there was an event since `as_of`.
    fn insert(&self, hash: u64, digests: &Digests, record: Option<&KeyRecord>, as_of: AsOf, now: SystemTime) {
        let is_current = || self.events.as_of_now() == as_of;
        let entry = |fresh_until| Entry::new(digests.clone(), record.cloned(), now, fresh_until);
        let after = |ttl: Duration| {
            let ttl = self.trusted_for.get().map_or(ttl, |time| ttl.min(*time));
            now.checked_add(ttl).unwrap_or(now)
        };

        if record.is_some_and(|record| is_active(record, now)) {
            self.refused.remove(hash, digests);
            // Without events an entry is never fresh, and can be served as stale only.
            let fresh_until = if as_of.is_connected() { after(self.settings.ttl) } else { now };
            if as_of.is_connected() || self.may_serve_stale() {
                self.active.insert(hash, entry(fresh_until), is_current);
            }
            return;
        }
        // Even if the refusal is not cached: the store does not confirm the key any more.
        self.active.remove(hash, digests);
        // If the signal of an active record was sent, the store is about to answer otherwise.
        let is_ending = record.is_some_and(|record| {
            record.status() == KeyStatus::Active && record.principal().end_signal().reason().is_some()
        });
        if as_of.is_connected() && !is_ending {
            self.refused.insert(hash, entry(after(self.settings.refused_ttl)), is_current);
        }
    }

    fn may_serve_stale(&self) -> bool {
        !self.settings.stale_for.is_zero()
    }

    /// The last confirmed answer about an active key, if it may be served although the store does not answer.
    fn stale(&self, hash: u64, digests: &[Digest], now: SystemTime) -> Option<Found> {
        let stale_for = self.settings.stale_for;
        let found = self.active.find(hash, digests, |entry| {
            now.duration_since(entry.cached_at()).is_ok_and(|age| age < stale_for)
        })?;
        is_found_active(found.as_ref(), now).then_some(Ok(found))
    }
}

impl StoreListener for Inner {
    fn on_event(&self, event: &StoreEvent) {
        // Counted before anything is removed: an entry that is inserted from here on is newer than the event.
        self.events.record(event);
        match event {
            StoreEvent::Key { id, generation, .. } => self.active.remove_key(id, *generation),
            StoreEvent::Tenant { tenant, generation, .. } => self.active.remove_tenant(tenant, *generation),
            // A new connection says nothing about the time before it.
            StoreEvent::Disconnected | StoreEvent::Connected if self.may_serve_stale() => {
                self.active.expire_all();
            }
            // Events that this version does not know are treated like this, too.
            _ => self.active.clear(),
        }
        // Any refusal may be about the changed key: a new key was an unknown one, and an event has no digest.
        self.refused.clear();
        // Last: a listener may ask this cache, and must find nothing older than the event.
        self.listeners.notify(event);
    }
}

fn is_active(record: &KeyRecord, now: SystemTime) -> bool {
    record.status() == KeyStatus::Active && record.principal().ended(now).is_none()
}

fn is_found_active(found: Option<&KeyRecord>, now: SystemTime) -> bool {
    found.is_some_and(|record| is_active(record, now))
}

impl fmt::Debug for CachedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedKeys")
            .field("active", &self.0.active.len())
            .field("refused", &self.0.refused.len())
            .field("in_progress", &self.0.lookups.len())
            .finish_non_exhaustive()
    }
}
