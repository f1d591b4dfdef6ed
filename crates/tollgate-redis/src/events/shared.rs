//! What the handles of a store with events, and its task, share.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use tollgate_core::{
    denial::Unavailable,
    key::Digest,
    store::{
        EndSignals, KeyLookup, KeyRecord, KeyStatus, KeyStore, Listeners, StoreEvent, StoreListener,
        Subscription,
    },
};

use super::{
    held::{self, Changed, HeldPrincipals},
    message::{text_of, text_of_all},
    outbox::Outbox,
};
use crate::Redis;

/// How often a lookup begins because the key has changed meanwhile, at most.
const MOST_LOOKUPS: u32 = 20;

pub(super) struct Shared {
    pub(super) redis: Redis,
    pub(super) heartbeat: Duration,
    /// Tells the messages of this process from those of others.
    pub(super) process: String,
    pub(super) channel: String,
    pub(super) outbox: Outbox,
    store: Arc<dyn KeyStore>,
    // Whether the store notifies of its changes itself.
    has_events: OnceLock<bool>,
    listeners: Listeners,
    signals: EndSignals,
    held: HeldPrincipals,
    link: Mutex<Link>,
}

/// Whether all changes are received.
#[derive(Default)]
struct Link {
    is_redis_connected: bool,
    is_store_connected: bool,
    // How often that has changed: all are received while this is odd.
    turns: u64,
    // The turns of which listeners have been notified.
    notified: u64,
    is_notifying: bool,
}

impl Shared {
    pub(super) fn new(
        redis: Redis,
        store: Arc<dyn KeyStore>,
        heartbeat: Duration,
        process: String,
    ) -> Arc<Self> {
        let channel = format!("{}:events", redis.settings().prefix);
        let outbox = Outbox::new(channel.clone(), text_of_all(&process));
        let shared = Arc::new(Self {
            redis,
            heartbeat,
            process,
            channel,
            outbox,
            store,
            has_events: OnceLock::new(),
            listeners: Listeners::new(),
            signals: EndSignals::new(),
            held: HeldPrincipals::default(),
            link: Mutex::default(),
        });
        let listener: Weak<Self> = Arc::downgrade(&shared);
        let has_events = shared.store.subscribe(listener).trusted_for().is_none();
        shared.has_events.get_or_init(|| has_events);
        if !has_events {
            shared.change_link(|link| link.is_store_connected = true);
        }
        shared
    }

    /// Whether the store notifies of its changes itself.
    pub(super) fn store_has_events(&self) -> bool {
        self.has_events.get().is_some_and(|has_events| *has_events)
    }

    pub(super) fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        self.listeners.subscribe(listener)
    }

    pub(super) async fn find(
        &self,
        digests: &[Digest],
        now: SystemTime,
    ) -> Result<Option<KeyRecord>, Unavailable> {
        for _ in 0..MOST_LOOKUPS {
            // Begins before the store is asked, and so notices a change meanwhile.
            let lookup = self.signals.begin();
            let Some(record) = self.store.find(&KeyLookup::new(digests, now)).await? else { return Ok(None) };
            if record.status() == KeyStatus::Active {
                // Before the lookup is finished: a check that does not see it yet makes the lookup stale.
                self.held.add(&record, digests, now);
            }
            if let Ok(record) = lookup.finish(record) {
                return Ok(Some(record));
            }
        }
        Err(Unavailable::new("the key changes too often"))
    }

    /// Notifies of a change that this process has made, and has others notified.
    pub(super) fn announce(&self, event: &StoreEvent) {
        self.signals.end(event);
        self.listeners.notify(event);
        self.outbox.add(text_of(&self.process, event));
    }

    /// Ends those of this key or tenant that the store does not find as active any more; all of them, if it does not answer.
    pub(super) async fn check_or_end(&self, event: &StoreEvent) {
        let mut changed = Changed::default();
        changed.add(event);
        let of_change = || self.held.of(&changed);
        if held::check(&*self.store, of_change()).await.is_err() {
            held::end(of_change());
        }
    }

    /// Notifies of changes that other processes have made, and ends the principals that these have ended, as the store says.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(super) async fn learn(&self, events: &[StoreEvent]) -> Result<(), Unavailable> {
        let mut changed = Changed::default();
        for event in events {
            changed.add(event);
            // Lookups in progress begin again. Caches read the store again.
            self.signals.end(&without_end(event));
            self.listeners.notify(event);
        }
        held::check(&*self.store, self.held.of(&changed)).await
    }

    /// Ends the principals that have ended while changes were missed. Changes must be received again before this is called, so that
    /// none falls in between.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(super) async fn check_all(&self) -> Result<(), Unavailable> {
        // Lookups in progress may have read a state that is outdated by now, and are not held yet: they begin again.
        self.signals.end(&StoreEvent::Disconnected);
        held::check(&*self.store, self.held.all()).await
    }

    /// Whether the changes of other processes are received.
    pub(super) fn set_redis_connected(&self, is_connected: bool) {
        self.change_link(|link| link.is_redis_connected = is_connected);
    }

    /// As listeners have been notified: who reads that it is not connected finds caches empty.
    pub(super) fn is_connected(&self) -> bool {
        is_connected(self.link().notified)
    }

    fn change_link(&self, change: impl FnOnce(&mut Link)) {
        {
            let mut link = self.link();
            change(&mut link);
            if is_connected(link.turns) != (link.is_redis_connected && link.is_store_connected) {
                link.turns += 1;
            }
        }
        self.notify_turns();
    }

    /// Notifies the listeners of every turn. No lock is held meanwhile, since a listener may use the store; and one thread does it at a
    /// time, so that the last notification is right.
    fn notify_turns(&self) {
        loop {
            let turn = {
                let mut link = self.link();
                if link.is_notifying || link.notified == link.turns {
                    return;
                }
                link.is_notifying = true;
                link.notified + 1
            };
            let _notifying = Notifying(self);
            if is_connected(turn) {
                self.listeners.notify(&StoreEvent::Connected);
            } else {
                self.signals.end(&StoreEvent::Disconnected);
                self.listeners.notify(&StoreEvent::Disconnected);
            }
        }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        // No code panics between two related changes, so a panic on another thread leaves the value valid.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that notifies listeners of one turn. It has done so when this is dropped, also if a listener panics.
struct Notifying<'s>(&'s Shared);

impl Drop for Notifying<'_> {
    fn drop(&mut self) {
        let mut link = self.0.link();
        link.is_notifying = false;
        link.notified += 1;
    }
}

impl StoreListener for Shared {
    /// The store notifies before it answers the change.
    fn on_event(&self, event: &StoreEvent) {
        match event {
            StoreEvent::Connected => self.change_link(|link| link.is_store_connected = true),
            StoreEvent::Disconnected => self.change_link(|link| link.is_store_connected = false),
            event => self.announce(event),
        }
    }
}

fn is_connected(turns: u64) -> bool {
    turns % 2 == 1
}

/// The same change. Whether it has ended principals is read in the store.
fn without_end(event: &StoreEvent) -> StoreEvent {
    let mut event = event.clone();
    if let StoreEvent::Key { end, .. } | StoreEvent::Tenant { end, .. } = &mut event {
        *end = None;
    }
    event
}
