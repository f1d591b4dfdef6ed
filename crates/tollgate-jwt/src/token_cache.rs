//! The principals of tokens that were verified already.

use std::{
    hash::RandomState,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use quick_cache::{UnitWeighter, sync::Cache};
use tollgate_core::{key::Environment, store::StoreEvent, verify::Principal};

use crate::{
    digest::{Digester, TokenDigest},
    key::Key,
    key_ring::KeyRing,
    recent_events::{AsOf, RecentEvents},
    token::Header,
};

/// What a principal is found by. An answer for one environment is never given in another.
pub(crate) type Slot = (TokenDigest, Option<Environment>);

/// A bounded table of verified tokens. Holds no token: see [`TokenDigest`].
pub(crate) struct TokenCache {
    digester: Digester,
    entries: Cache<Slot, Arc<Entry>, UnitWeighter, RandomState>,
    // Entries are kept while the store is connected.
    events: Mutex<RecentEvents>,
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
            events: Mutex::new(RecentEvents::new(is_connected)),
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

    /// Whether this is the entry for the token now.
    pub(crate) fn has(&self, slot: &Slot, entry: &Arc<Entry>, now: SystemTime) -> bool {
        self.find(slot, now).is_some_and(|found| Arc::ptr_eq(&found, entry))
    }

    /// Inserts an entry, unless there was an event about its tenant, or about all, since `as_of`. Returns whether there was none.
    pub(crate) fn insert(&self, slot: Slot, entry: Entry, as_of: AsOf) -> bool {
        // Held during the insertion: an event is recorded before its entries are removed, so this one is refused or removed.
        let events = self.lock();
        let is_current = !events.has_changed(entry.principal.tenant(), as_of);
        if is_current && events.is_connected() {
            self.entries.insert(slot, Arc::new(entry));
        }
        is_current
    }

    pub(crate) fn as_of_now(&self) -> AsOf {
        self.lock().now()
    }

    /// Removes what an event makes outdated. Events of keys are not about tokens.
    pub(crate) fn on_event(&self, event: &StoreEvent) {
        match event {
            StoreEvent::Key { .. } => {}
            StoreEvent::Tenant { tenant, .. } => self.forget_tenant(tenant),
            StoreEvent::Disconnected => {
                self.lock().record_connected(false);
                self.entries.clear();
            }
            StoreEvent::Connected => {
                self.lock().record_connected(true);
                self.entries.clear();
            }
            // An event that this version does not know may be about anything.
            _ => self.forget_all(),
        }
    }

    pub(crate) fn forget_tenant(&self, tenant: &str) {
        self.lock().record_tenant(tenant);
        self.entries.retain(|_, entry| entry.principal.tenant() != Some(tenant));
    }

    pub(crate) fn forget_all(&self) {
        self.lock().record_all();
        self.entries.clear();
    }

    fn lock(&self) -> MutexGuard<'_, RecentEvents> {
        // No code panics between two related changes, so a panic on another thread leaves the value valid.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
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
