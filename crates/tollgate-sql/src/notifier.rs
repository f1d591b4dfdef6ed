//! Notifies listeners of changes, and ends the principals that a change has ended.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use tollgate_core::store::{
    EndSignals, Listeners, LookupInProgress, StoreEvent, StoreListener, Subscription,
};

/// The principals that were handed out, the listeners, and whether notifications arrive.
#[derive(Default)]
pub(crate) struct Notifier {
    pub(crate) signals: EndSignals,
    listeners: Listeners,
    /// Counts the times the store was connected or disconnected. Odd while it is connected.
    transitions: AtomicU64,
    /// The generations that this process has published itself, and that the database will report as well.
    published: Mutex<HashSet<u64>>,
}

/// The most generations to remember. A listener that is notified twice only forgets twice.
const MAX_PUBLISHED: usize = 1_024;

impl Notifier {
    /// Begins a lookup. Called before the database is read.
    pub(crate) fn begin_lookup(&self) -> LookupInProgress {
        self.signals.begin()
    }

    /// Publishes a change of this process.
    pub(crate) fn publish_own(&self, event: &StoreEvent) {
        if let Some(generation) = generation_of(event) {
            let mut published = self.published();
            if published.len() >= MAX_PUBLISHED {
                published.clear();
            }
            published.insert(generation);
        }
        self.notify(event);
    }

    /// Publishes a change that the database reports, unless this process has made and published it.
    pub(crate) fn publish_reported(&self, event: &StoreEvent) {
        let was_published =
            generation_of(event).is_some_and(|generation| self.published().remove(&generation));
        if !was_published {
            self.notify(event);
        }
    }

    /// The latest change of this process that the database has not reported yet.
    #[cfg(feature = "sqlite")]
    pub(crate) fn latest_own(&self) -> Option<u64> {
        self.published().iter().max().copied()
    }

    fn published(&self) -> MutexGuard<'_, HashSet<u64>> {
        // Each use is one operation, so a panic elsewhere leaves the set whole.
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what the event ends before listeners can look.
    fn notify(&self, event: &StoreEvent) {
        self.signals.end(event);
        self.listeners.notify(event);
    }

    /// From now on, notifications may be missed.
    pub(crate) fn disconnected(&self) {
        if self.transition(Self::is_connected_at) {
            self.notify(&StoreEvent::Disconnected);
        }
    }

    /// From now on, every notification arrives.
    pub(crate) fn connected(&self) {
        if self.transition(|transitions| !Self::is_connected_at(transitions)) {
            self.listeners.notify(&StoreEvent::Connected);
        }
    }

    /// Changes the state, if that is due, and returns whether it was.
    fn transition(&self, is_due: impl Fn(u64) -> bool) -> bool {
        let next = |transitions: u64| is_due(transitions).then(|| transitions.wrapping_add(1));
        let has_changed = self.transitions.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok();
        if has_changed {
            // Notifications may be lost in between, and a database that was replaced uses generations again.
            self.published().clear();
        }
        has_changed
    }

    fn is_connected_at(transitions: u64) -> bool {
        transitions % 2 == 1
    }

    pub(crate) fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        self.listeners.subscribe(listener)
    }
}

fn generation_of(event: &StoreEvent) -> Option<u64> {
    match event {
        StoreEvent::Key { generation, .. } | StoreEvent::Tenant { generation, .. } => Some(*generation),
        _ => None,
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_connected = Self::is_connected_at(self.transitions.load(Ordering::SeqCst));
        f.debug_struct("Notifier").field("is_connected", &is_connected).finish_non_exhaustive()
    }
}
