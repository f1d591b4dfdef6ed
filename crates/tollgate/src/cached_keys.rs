//! A cache in front of a store of keys.

mod breaker;
mod flight;
mod flights;
mod news;
mod table;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use tollgate_core::{
    Answer, Change, Digest, KeyLookUp, KeyRecord, KeyStatus, KeyStore, Unavailable, WatchKeys, Watchers,
};

use self::{
    breaker::Breaker,
    flight::Passenger,
    flights::Flights,
    news::{AsOf, News},
    table::{Digests, Entry, Hashes, Table},
};

/// What a store answers.
type Found = Result<Option<KeyRecord>, Unavailable>;

/// A cache in front of a [`KeyStore`]: what it knows of a key it answers at once, and it forgets what the store says has changed.
///
/// ```
/// use std::time::Duration;
/// use tollgate::{CachedKeys, KeyFormat, KeyVerifier};
/// # fn doc(store: tollgate::MemoryKeys) -> Result<(), tollgate::InvalidKeyFormat> {
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
/// | while the store hears no news ([`Change::Lost`]) | at once: every request asks the store |
/// | in a store that never tells news | when the entry's time is up: after 30 seconds at most, 5 for what was refused |
///
/// Until the store says for the first time that news flow, nothing is kept. An answer that was under way while anything
/// changed is given to whoever waited for it already, and kept for nobody; who comes after the change asks anew. A principal whose
/// [signal](crate::EndSignal) was sent is never answered from the cache, nor is one that has expired, as anything but that.
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
    news: News,
    flights: Arc<Flights>,
    breaker: Breaker,
    watchers: Watchers,
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
            news: News::default(),
            flights: Arc::default(),
            breaker: Breaker::default(),
            watchers: Watchers::new(),
        });
        let watcher: Weak<Inner> = Arc::downgrade(&inner);
        inner.store.watch(watcher);
        Self(inner)
    }
}

impl KeyStore for CachedKeys {
    fn find(&self, look_up: &KeyLookUp<'_>) -> Answer<Found> {
        let hash = self.0.hashes.of(look_up.digests);
        match self.0.kept(hash, look_up) {
            Some(found) => Answer::Now(found),
            None => self.0.ask(hash, look_up),
        }
    }

    fn watch(&self, watcher: Weak<dyn WatchKeys>) {
        let told_first = watcher.upgrade();
        self.0.watchers.add(watcher);
        let Some(watcher) = told_first else { return };
        // What is told here and what is told by the store at the same time may come in either order: the last word is the
        // newest.
        let mut told = AsOf::default();
        loop {
            let as_of = self.0.news.as_of_now();
            if as_of.flows() != told.flows() {
                watcher.changed(if as_of.flows() { &Change::Resumed } else { &Change::Lost });
            }
            told = as_of;
            if self.0.news.as_of_now() == as_of {
                break;
            }
        }
    }
}

impl Inner {
    /// What is known and may be answered at once.
    #[inline]
    fn kept(&self, hash: u64, look_up: &KeyLookUp<'_>) -> Option<Found> {
        let KeyLookUp { digests, now, .. } = *look_up;
        match self.live.find(hash, digests, |entry| entry.is_fresh(now)) {
            Some(found) => holds(&found, now).then_some(found),
            None => self.refused.find(hash, digests, |entry| entry.is_fresh(now)),
        }
    }

    #[cold]
    fn ask(self: &Arc<Self>, hash: u64, look_up: &KeyLookUp<'_>) -> Answer<Found> {
        let KeyLookUp { digests, now, .. } = *look_up;
        if !self.breaker.admits(now) {
            let problem = Unavailable::new("the store of keys has not answered just now, and is not asked");
            return Answer::Now(self.stale(hash, digests, now).unwrap_or(Err(problem)));
        }
        let passenger = self.board(hash, look_up);
        if !self.may_serve_stale() {
            return Answer::later(passenger);
        }
        let (cache, digests) = (Arc::clone(self), Digests::from(digests));
        Answer::later(async move {
            let found = passenger.await;
            match found {
                Err(problem) => cache.stale(hash, &digests, now).unwrap_or(Err(problem)),
                found => found,
            }
        })
    }

    fn board(self: &Arc<Self>, hash: u64, look_up: &KeyLookUp<'_>) -> Passenger {
        let now = look_up.now;
        self.flights.board(look_up.digests, &self.news, |as_of, ticket| {
            let cache = Arc::clone(self);
            // The store is asked when this is first polled: no lock is held by then.
            Box::pin(async move {
                let answer = cache.store.find(&KeyLookUp::new(ticket.digests(), now));
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
        let is_current = || self.news.as_of_now() == as_of;
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

impl WatchKeys for Inner {
    fn changed(&self, change: &Change) {
        // Before anything is removed: what is kept from here on knows of the change.
        self.news.note(change);
        match change {
            Change::Key { id, generation, .. } => self.live.remove_key(id, *generation),
            Change::Tenant { tenant, generation, .. } => self.live.remove_tenant(tenant, *generation),
            // That none are missed from now on says nothing of before, either.
            Change::Lost | Change::Resumed if self.may_serve_stale() => self.live.spoil(),
            // Also at a change that this version does not know.
            _ => self.live.clear(),
        }
        // Any of them may be what has changed: a new key was an unknown one, and a digest is not told.
        self.refused.clear();
        // Whoever is told looks here, and must find nothing older.
        self.watchers.tell(change);
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
            .field("under_way", &self.0.flights.len())
            .finish_non_exhaustive()
    }
}
