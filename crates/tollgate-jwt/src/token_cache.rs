//! The principals of tokens that were verified already.

use std::{
    hash::RandomState,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use quick_cache::{UnitWeighter, sync::Cache};
use tollgate_core::{key::Environment, store::StoreEvent, verify::Principal};

use crate::{
    digest::{Digester, TokenDigest},
    key::Key,
    key_ring::KeyRing,
    token::Header,
};

/// What a principal is found by. An answer for one environment is never given in another.
pub(crate) type Slot = (TokenDigest, Option<Environment>);

/// A bounded table of verified tokens. Holds no token: see [`TokenDigest`].
pub(crate) struct TokenCache {
    digester: Digester,
    entries: Cache<Slot, Arc<Entry>, UnitWeighter, RandomState>,
    // Counts the events that make answers outdated. The lowest bit is set while entries may be kept.
    events: AtomicU64,
}

/// A token that was verified, and its principal.
pub(crate) struct Entry {
    pub(crate) principal: Arc<Principal>,
    /// The key that it was signed with.
    pub(crate) key: Arc<Key>,
    pub(crate) ring: Arc<KeyRing>,
    pub(crate) header: Header,
    pub(crate) cached_at: SystemTime,
    pub(crate) fresh_until: SystemTime,
}

/// A moment: equal to another if there was no event in between.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AsOf(u64);

const CONNECTED: u64 = 1;
const ONE_EVENT: u64 = 2;

impl TokenCache {
    pub(crate) fn new(capacity: usize, max_token_bytes: usize, is_connected: bool) -> Self {
        let weight = capacity.try_into().unwrap_or(u64::MAX);
        Self {
            digester: Digester::new(max_token_bytes),
            entries: Cache::with(
                capacity.min(1_024),
                weight,
                UnitWeighter,
                RandomState::new(),
                <_>::default(),
            ),
            events: AtomicU64::new(if is_connected { CONNECTED } else { 0 }),
        }
    }

    /// `None` if the token is too long.
    #[inline]
    pub(crate) fn digest(&self, token: &[u8]) -> Option<TokenDigest> {
        self.digester.digest(token)
    }

    /// The entry for a token, if the token is still valid. Its key may not be.
    #[inline]
    pub(crate) fn find(&self, slot: &Slot, now: SystemTime) -> Option<Arc<Entry>> {
        self.entries.get(slot).filter(|entry| entry.is_valid(now))
    }

    /// Inserts an entry, unless there was an event since `as_of`.
    pub(crate) fn insert(&self, slot: Slot, entry: Entry, as_of: AsOf) {
        if self.as_of_now() != as_of || !as_of.is_connected() {
            return;
        }
        self.entries.insert(slot, Arc::new(entry));
        // An event may have removed its entries before this one was inserted.
        if self.as_of_now() != as_of {
            self.entries.remove(&slot);
        }
    }

    pub(crate) fn as_of_now(&self) -> AsOf {
        AsOf(self.events.load(Ordering::Acquire))
    }

    /// Removes what an event makes outdated. Events of keys are not about tokens.
    pub(crate) fn on_event(&self, event: &StoreEvent) {
        match event {
            StoreEvent::Key { .. } => {}
            StoreEvent::Tenant { tenant, .. } => self.forget_tenant(tenant),
            StoreEvent::Disconnected => self.forget_all(|state| state & !CONNECTED),
            StoreEvent::Connected => self.forget_all(|state| state | CONNECTED),
            // An event that this version does not know may be about anything.
            _ => self.forget_all(|state| state),
        }
    }

    pub(crate) fn forget_tenant(&self, tenant: &str) {
        self.count(|state| state);
        self.entries.retain(|_, entry| entry.principal.tenant() != Some(tenant));
    }

    pub(crate) fn forget_all(&self, state: impl Fn(u64) -> u64) {
        self.count(state);
        self.entries.clear();
    }

    /// Counted before anything is removed: an entry that is inserted from here on is newer.
    fn count(&self, next: impl Fn(u64) -> u64) {
        let next = |state: u64| Some(next(state.wrapping_add(ONE_EVENT)));
        // Cannot fail, since the closure always returns a state.
        let _ = self.events.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Entry {
    /// Whether neither the token nor its session has ended. `false` before it was cached: a clock that is set back must not extend its time.
    #[inline]
    fn is_valid(&self, now: SystemTime) -> bool {
        self.cached_at <= now && now < self.fresh_until && self.principal.end_signal().reason().is_none()
    }

    /// Whether its key is known to be in use, without a look at the issuer's keys.
    #[inline]
    pub(crate) fn has_fresh_key(&self, now: SystemTime) -> bool {
        self.ring.is_fresh(now) && !self.key.is_retired()
    }
}

impl AsOf {
    pub(crate) fn is_connected(self) -> bool {
        self.0 & CONNECTED != 0
    }
}
