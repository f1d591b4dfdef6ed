//! A cache in front of a store of keys.

mod breaker;
mod events;
mod shared_lookup;
mod single_flight;
mod table;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    key::Digest,
    store::{KeyLookup, KeyRecord, KeyStatus, KeyStore, Listeners, StoreEvent, StoreListener},
};

use self::{
    breaker::Breaker,
    events::{AsOf, Events},
    shared_lookup::Waiter,
    single_flight::SingleFlight,
    table::{Digests, Entry, Hashes, Table},
};

/// What a store answers.
type Found = Result<Option<KeyRecord>, Unavailable>;

/// A cache in front of a [`KeyStore`]: what it knows of a key it answers at once, and it forgets what the store says has changed.
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
/// // A small machine, and a store that tells no news.
/// let keys = CachedKeys::new(store).with_capacity(5_000).with_ttl(Duration::from_secs(10));
/// # let _ = keys; }
/// ```
///
/// It is for stores that answer later. [`MemoryKeys`](crate::MemoryKeys) is as fast itself. Clones are the same cache; each
/// `with_*` begins an empty one, so they come first. With several peppers, a key is known by all its digests.
///
/// # How soon a change is obeyed
///
/// | what was changed | is obeyed |
/// |---|---|
/// | through the store of this process | at once: when `revoke` returns, nothing older is answered any more |
/// | by another process | as soon as the store has heard of it |
/// | while the store hears no news ([`StoreEvent::Disconnected`]) | at once: every request asks the store |
/// | in a store that never tells news | when the entry's time is up: after 30 seconds at most, 5 for what was refused |
///
/// Until the store says for the first time that news flow, nothing is kept. An answer that was under way while anything
/// changed is given to whoever waited for it already, and kept for nobody; who comes after the change asks anew. A principal whose
/// [signal](crate::store::EndSignal) was sent is never answered from the cache, nor is one that has expired, as anything but that.
///
/// # What is kept
///
/// | | at most | for |
/// |---|---|---|
/// | keys that may be used | 100,000; then those go that were not used lately | 30 seconds, and not past their expiry |
/// | refusals: unknown, revoked, suspended and expired keys | 10,000 | 5 seconds, or until anything changes |
///
/// The two are apart, so that neither a flood of invented keys nor many that are revoked at once drive good ones out; and
/// a client that goes on sending one revoked key asks the store no more than every 5 seconds. An entry takes 200
/// to 370 bytes and its principal. An entry's time runs by the requests' instants, is not lengthened by use, and a clock that is set
/// back ends it.
///
/// # When the store is slow or down
///
/// Requests for one key ask the store once and share the answer, failures included; if the one that began has gone, the others
/// still get it. The cache sets no deadline: the store does. After five different keys in a row could not be looked up, only
/// one request a second asks, and the others are answered `Unavailable` at once, until the store has answered one.
///
/// Keys that are kept go on working until their time is up; all others are refused with 503. Whoever prefers to serve
/// them for longer has [`dangerous_serve_stale_for`](Self::dangerous_serve_stale_for).
#[derive(Clone)]
pub struct CachedKeys(Arc<Inner>);

#[derive(Clone, Copy)]
struct Settings {
    capacity: usize,
    ttl: Duration,
    refused_capacity: usize,
    refused_ttl: Duration,
    stale_for: Duration,
}

struct Inner {
    store: Arc<dyn KeyStore>,
    settings: Settings,
    hashes: Hashes,
    // Active keys only. The rest has less room of its own.
    live: Table,
    refused: Table,
    events: Events,
    single_flight: Arc<SingleFlight>,
    breaker: Breaker,
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
            stale_for: Duration::ZERO,
        };
        Self::with_settings(Arc::new(store), settings)
    }

    /// Keeps at most so many keys that may be used, instead of 100,000. With none, requests for one key at the same time still
    /// ask the store once.
    pub fn with_capacity(self, keys: usize) -> Self {
        self.set(|settings| settings.capacity = keys)
    }

    /// Keeps a key for so long, instead of 30 seconds: by then at the latest a change is obeyed of which the store has not told.
    pub fn with_ttl(self, ttl: Duration) -> Self {
        self.set(|settings| settings.ttl = ttl)
    }

    /// Keeps at most so many refusals, instead of 10,000.
    pub fn with_refused_capacity(self, refusals: usize) -> Self {
        self.set(|settings| settings.refused_capacity = refusals)
    }

    /// Keeps a refusal for so long, instead of 5 seconds: by then at the latest a new key works of which the store has not told.
    pub fn with_refused_ttl(self, ttl: Duration) -> Self {
        self.set(|settings| settings.refused_ttl = ttl)
    }

    /// Lets keys that the store has vouched for go on working for so long since it last did, while it is
    /// [unavailable](Unavailable). By default they do not, past their usual time.
    ///
    /// # Security
    ///
    /// Availability is bought with revocations that come late: a key that was revoked elsewhere while the store could be neither
    /// reached nor heard works for up to this long. Three things stay as they are. The store is asked first, and served is only
    /// if it does not answer (or has not answered others [just now](Self#when-the-store-is-slow-or-down)). A key that the store
    /// has told has changed, or has answered otherwise about since, is not served, nor is one whose signal was sent. And none is
    /// served past its expiry.
    ///
    /// A time that is shorter than a key's usual one (30 seconds) makes a difference only once news were lost.
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
            live: Table::new(settings.capacity, hashes.clone()),
            refused: Table::new(settings.refused_capacity, hashes.clone()),
            hashes,
            events: Events::default(),
            single_flight: Arc::default(),
            breaker: Breaker::default(),
            listeners: Listeners::new(),
        });
        let listener: Weak<Inner> = Arc::downgrade(&inner);
        inner.store.subscribe(listener);
        Self(inner)
    }
}

impl KeyStore for CachedKeys {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Found> {
        let hash = self.0.hashes.of(lookup.digests);
        match self.0.kept(hash, lookup) {
            Some(found) => Answer::Now(found),
            None => self.0.ask(hash, lookup),
        }
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) {
        let told_first = listener.upgrade();
        self.0.listeners.add(listener);
        let Some(listener) = told_first else { return };
        // What is told here and what is told by the store at the same time may come in either order: the last word is the
        // newest.
        let mut told = AsOf::default();
        loop {
            let as_of = self.0.events.as_of_now();
            if as_of.flows() != told.flows() {
                listener.on_event(if as_of.flows() {
                    &StoreEvent::Connected
                } else {
                    &StoreEvent::Disconnected
                });
            }
            told = as_of;
            if self.0.events.as_of_now() == as_of {
                break;
            }
        }
    }
}

impl Inner {
    /// What is known and may be answered at once.
    #[inline]
    fn kept(&self, hash: u64, lookup: &KeyLookup<'_>) -> Option<Found> {
        let KeyLookup { digests, now, .. } = *lookup;
        match self.live.find(hash, digests, |entry| entry.is_fresh(now)) {
            Some(found) => holds(&found, now).then_some(found),
            None => self.refused.find(hash, digests, |entry| entry.is_fresh(now)),
        }
    }

    #[cold]
    fn ask(self: &Arc<Self>, hash: u64, lookup: &KeyLookup<'_>) -> Answer<Found> {
        let KeyLookup { digests, now, .. } = *lookup;
        if !self.breaker.admits(now) {
            let problem = Unavailable::new("the store of keys has not answered just now, and is not asked");
            return Answer::Now(self.stale(hash, digests, now).unwrap_or(Err(problem)));
        }
        let waiter = self.join(hash, lookup);
        if !self.may_serve_stale() {
            return Answer::later(waiter);
        }
        let (cache, digests) = (Arc::clone(self), Digests::from(digests));
        Answer::later(async move {
            let found = waiter.await;
            match found {
                Err(problem) => cache.stale(hash, &digests, now).unwrap_or(Err(problem)),
                found => found,
            }
        })
    }

    fn join(self: &Arc<Self>, hash: u64, lookup: &KeyLookup<'_>) -> Waiter {
        let now = lookup.now;
        self.single_flight.join(lookup.digests, &self.events, |as_of, ticket| {
            let cache = Arc::clone(self);
            // The store is asked when this is first polled: no lock is held by then.
            Box::pin(async move {
                let answer = cache.store.find(&KeyLookup::new(ticket.digests(), now));
                let found = answer.wait().await;
                cache.breaker.note(hash, found.is_ok(), now);
                if let Ok(record) = &found {
                    cache.keep(hash, ticket.digests(), record.as_ref(), as_of, now);
                }
                found
            })
        })
    }

    /// Keeps what was asked for at `now`, unless anything was told since the news were `as_of`.
    fn keep(&self, hash: u64, digests: &Digests, record: Option<&KeyRecord>, as_of: AsOf, now: SystemTime) {
        let is_current = || self.events.as_of_now() == as_of;
        let entry = |fresh_until| Entry::new(digests.clone(), record.cloned(), now, fresh_until);
        let after = |ttl| now.checked_add(ttl).unwrap_or(now);

        if record.is_some_and(|record| is_live(record, now)) {
            self.refused.remove(hash, digests);
            // What is kept without news is never fresh.
            let fresh_until = if as_of.flows() { after(self.settings.ttl) } else { now };
            if as_of.flows() || self.may_serve_stale() {
                self.live.insert(hash, entry(fresh_until), is_current);
            }
            return;
        }
        // Whether or not that is kept: the store vouches for the key no more.
        self.live.remove(hash, digests);
        // If the signal of an active one was sent, the store will say better in a moment.
        let is_ending = record.is_some_and(|record| {
            record.status() == KeyStatus::Active && record.principal().end_signal().reason().is_some()
        });
        if as_of.flows() && !is_ending {
            self.refused.insert(hash, entry(after(self.settings.refused_ttl)), is_current);
        }
    }

    fn may_serve_stale(&self) -> bool {
        !self.settings.stale_for.is_zero()
    }

    /// What an unavailable store once vouched for, if that may still be served.
    fn stale(&self, hash: u64, digests: &[Digest], now: SystemTime) -> Option<Found> {
        let stale_for = self.settings.stale_for;
        let found = self.live.find(hash, digests, |entry| {
            now.duration_since(entry.kept_at()).is_ok_and(|age| age < stale_for)
        })?;
        holds(&found, now).then_some(found)
    }
}

impl StoreListener for Inner {
    fn on_event(&self, change: &StoreEvent) {
        // Before anything is removed: what is kept from here on knows of the change.
        self.events.note(change);
        match change {
            StoreEvent::Key { id, generation, .. } => self.live.remove_key(id, *generation),
            StoreEvent::Tenant { tenant, generation, .. } => self.live.remove_tenant(tenant, *generation),
            // That none are missed from now on says nothing of before, either.
            StoreEvent::Disconnected | StoreEvent::Connected if self.may_serve_stale() => self.live.spoil(),
            // Also at a change that this version does not know.
            _ => self.live.clear(),
        }
        // Any of them may be what has changed: a new key was an unknown one, and a digest is not told.
        self.refused.clear();
        // Whoever is told looks here, and must find nothing older.
        self.listeners.notify(change);
    }
}

fn is_live(record: &KeyRecord, now: SystemTime) -> bool {
    record.status() == KeyStatus::Active && record.principal().ended(now).is_none()
}

fn holds(found: &Found, now: SystemTime) -> bool {
    matches!(found, Ok(Some(record)) if is_live(record, now))
}

impl fmt::Debug for CachedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedKeys")
            .field("live", &self.0.live.len())
            .field("refused", &self.0.refused.len())
            .field("under_way", &self.0.single_flight.len())
            .finish_non_exhaustive()
    }
}
