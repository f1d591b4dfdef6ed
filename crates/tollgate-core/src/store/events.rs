//! How a store publishes changes.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use crate::store::EndReason;

/// What changed in a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreEvent {
    /// A key was issued, changed or ended. Older records of it are stale.
    Key {
        /// The key's identifier, which is its principal's.
        id: Box<str>,
        /// The generation of the change: records of lower generations are stale.
        generation: u64,
        /// Why the principals of lower generations have ended, if they have.
        end: Option<EndReason>,
    },
    /// All keys of a tenant were changed.
    Tenant {
        /// The tenant.
        tenant: Box<str>,
        /// The generation of the change: records of lower generations are stale.
        generation: u64,
        /// Why the principals of lower generations have ended, if they have.
        end: Option<EndReason>,
    },
    /// The store may miss changes from now on, and may have missed some. All records are stale, and none may be cached until
    /// the store is connected again.
    Disconnected,
    /// The store misses no changes from now on.
    Connected,
}

/// Receives the events of a store: implemented by caches, and by closures.
pub trait StoreListener: Send + Sync {
    /// Called by the code that makes or receives a change, and which waits for it. It must be quick and must not block.
    fn on_event(&self, event: &StoreEvent);
}

impl<F: Fn(&StoreEvent) + Send + Sync> StoreListener for F {
    fn on_event(&self, event: &StoreEvent) {
        self(event);
    }
}

/// How a cache learns of changes in a store: returned by [`KeyStore::subscribe`](crate::store::KeyStore::subscribe).
///
/// It is either live, and then only [`Listeners::subscribe`] can have made it, or it [trusts](Self::trust_for) records for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a store returns it from `subscribe`"]
pub struct Subscription {
    trusted_for: Option<Duration>,
}

impl Subscription {
    /// The store has no events: a record may be trusted for this long after the lookup began. A revocation takes effect after
    /// this time at most, and open streams are not closed by it. `Duration::ZERO` turns caching off.
    pub fn trust_for(time: Duration) -> Self {
        Self { trusted_for: Some(time) }
    }

    /// How long a record may be trusted without events; `None` if the listener receives them.
    pub fn trusted_for(self) -> Option<Duration> {
        self.trusted_for
    }
}

/// The listeners of a store, and whether the store is connected to the source of its events.
///
/// A [`KeyStore`](crate::store::KeyStore) with events keeps one of these, and is subscribed to through it. A clone is a handle of the
/// same listeners.
///
/// ```
/// use std::sync::{Arc, Weak};
/// use tollgate_core::store::{EndReason, Listeners, StoreEvent, StoreListener, Subscription};
///
/// struct Keys {
///     listeners: Listeners,
/// }
///
/// impl Keys {
///     fn new() -> Self {
///         // All changes are made through this value, so none can be missed.
///         Self { listeners: Listeners::connected() }
///     }
///
///     // As `KeyStore::subscribe`.
///     fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
///         self.listeners.subscribe(listener)
///     }
///
///     fn revoke(&self, id: &str) {
///         // ... commits the change, and then:
///         let end = Some(EndReason::Revoked);
///         self.listeners.notify(&StoreEvent::Key { id: id.into(), generation: 1, end });
///     }
/// }
///
/// let keys = Keys::new();
/// let listener: Arc<dyn StoreListener> = Arc::new(|event: &StoreEvent| println!("{event:?}"));
/// let subscription = keys.subscribe(Arc::downgrade(&listener)); // prints `Connected`
/// assert_eq!(subscription.trusted_for(), None, "it is live");
/// keys.revoke("key_1");
/// ```
#[derive(Clone, Default)]
pub struct Listeners(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    listeners: Vec<Weak<dyn StoreListener>>,
    // How often the store was connected or disconnected: it is connected while this is odd.
    turns: u64,
}

impl Listeners {
    /// No listeners yet. The store is not connected until it [notifies](Self::notify) [`StoreEvent::Connected`]: for changes
    /// that other processes make, too.
    pub fn new() -> Self {
        Self::default()
    }

    /// No listeners yet. The store is connected: for stores that make all changes themselves.
    pub fn connected() -> Self {
        Self(Arc::new(Mutex::new(Inner { listeners: Vec::new(), turns: 1 })))
    }

    /// Adds a listener. If the store is connected, the listener is notified of [`StoreEvent::Connected`] at once.
    pub fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        let live = Subscription { trusted_for: None };
        let Some(added) = listener.upgrade() else { return live };
        let mut turns = {
            let mut inner = self.lock();
            inner.listeners.retain(|listener| listener.strong_count() > 0);
            inner.listeners.push(listener);
            inner.turns
        };
        // No lock is held during a notification, since a listener may use the store. So a notification on another thread may
        // overtake this one. Notifications are repeated until nothing has changed meanwhile: then the last one is right.
        loop {
            if is_connected(turns) {
                added.on_event(&StoreEvent::Connected);
            }
            let newest = self.lock().turns;
            if newest == turns {
                return live;
            }
            added.on_event(&StoreEvent::Disconnected);
            turns = newest;
        }
    }

    /// Notifies all listeners, one after another. No lock is held meanwhile, so a listener may use the store.
    pub fn notify(&self, event: &StoreEvent) {
        let listeners: Vec<_> = {
            let mut inner = self.lock();
            let changes_turn = match event {
                StoreEvent::Connected => !is_connected(inner.turns),
                StoreEvent::Disconnected => is_connected(inner.turns),
                _ => false,
            };
            inner.turns = inner.turns.wrapping_add(u64::from(changes_turn));
            inner.listeners.iter().filter_map(Weak::upgrade).collect()
        };
        for listener in listeners {
            listener.on_event(event);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one assignment, so a panic on another thread leaves the value valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_connected(turns: u64) -> bool {
    turns % 2 == 1
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("Listeners")
            .field("is_connected", &is_connected(inner.turns))
            .field("listeners", &inner.listeners.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Received = Arc<Mutex<Vec<(&'static str, StoreEvent)>>>;

    fn listener(name: &'static str, received: &Received) -> Arc<dyn StoreListener> {
        let received = Arc::clone(received);
        Arc::new(move |event: &StoreEvent| received.lock().unwrap().push((name, event.clone())))
    }

    fn take(received: &Received) -> Vec<(&'static str, StoreEvent)> {
        std::mem::take(&mut received.lock().unwrap())
    }

    #[test]
    fn notifies_the_listeners_that_still_exist() {
        let (listeners, received) = (Listeners::new(), Received::default());
        let (one, two) = (listener("one", &received), listener("two", &received));
        for listener in [&one, &two] {
            assert_eq!(listeners.subscribe(Arc::downgrade(listener)).trusted_for(), None);
        }
        listeners.notify(&StoreEvent::Connected);
        drop(one);
        listeners.notify(&StoreEvent::Disconnected);
        let expected = [
            ("one", StoreEvent::Connected),
            ("two", StoreEvent::Connected),
            ("two", StoreEvent::Disconnected),
        ];
        assert_eq!(take(&received), expected);
    }

    #[test]
    fn a_clone_has_the_same_listeners() {
        let (listeners, received) = (Listeners::new(), Received::default());
        let one = listener("one", &received);
        let _ = listeners.clone().subscribe(Arc::downgrade(&one));
        listeners.notify(&StoreEvent::Connected);
        assert_eq!(take(&received), [("one", StoreEvent::Connected)]);
    }

    #[test]
    fn a_new_listener_is_notified_at_once_if_the_store_is_connected() {
        let received = Received::default();
        let one = listener("one", &received);
        let subscribe = |listeners: &Listeners| {
            let _ = listeners.subscribe(Arc::downgrade(&one));
            take(&received).len()
        };
        assert_eq!(subscribe(&Listeners::new()), 0);
        assert_eq!(subscribe(&Listeners::connected()), 1);
        let listeners = Listeners::new();
        for (event, expected) in [
            (StoreEvent::Connected, 1),
            (StoreEvent::Connected, 1),
            (StoreEvent::Disconnected, 0),
            (StoreEvent::Disconnected, 0),
            (StoreEvent::Connected, 1),
        ] {
            listeners.notify(&event);
            take(&received);
            assert_eq!(subscribe(&listeners), expected, "after {event:?}");
        }
    }

    #[test]
    fn a_listener_that_is_added_while_the_store_disconnects_ends_up_disconnected() {
        let (listeners, received) = (Arc::new(Listeners::connected()), Received::default());
        // The first notification disconnects the store, as another thread would at that moment.
        let disconnecting: Arc<dyn StoreListener> = {
            let (listeners, received) = (Arc::clone(&listeners), Arc::clone(&received));
            Arc::new(move |event: &StoreEvent| {
                received.lock().unwrap().push(("one", event.clone()));
                if *event == StoreEvent::Connected {
                    listeners.notify(&StoreEvent::Disconnected);
                }
            })
        };
        let _ = listeners.subscribe(Arc::downgrade(&disconnecting));
        assert_eq!(take(&received).last(), Some(&("one", StoreEvent::Disconnected)));
    }
}
