//! Stored keys: how they are found, and how their changes are published.

mod end;
mod end_signals;
mod legacy_keys;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::SystemTime,
};

use crate::{answer::Answer, denial::Unavailable, key::Digest, verify::Principal};

pub use end::{EndReason, EndSignal};
pub use end_signals::{ChangedDuringLookup, EndSignals, LookupInProgress};
pub use legacy_keys::{LegacyKey, LegacyKeys};

/// Finds keys by their digests: in memory, in a database, or in a table of the application's own.
///
/// A store ends the principals that it handed out (by their [signal](Principal::end_signal)) when their key is revoked or
/// deleted or their tenant is suspended, and tells its watchers of every change *before* it answers whoever made it: so a
/// key that was revoked is refused by the whole process once `revoke` has returned.
///
/// Four things are easily missed by a store of one's own, in a database:
///
/// - [`EndSignals`] remember what was handed out, and notice what changes while it is read.
/// - [`Listeners`] keep those to be told. They are told after the commit, since they may look at once.
/// - A caller who goes away takes the future of their request with them, perhaps between the commit and the news: so a change
///   runs to its end in a task of its own.
/// - Nothing is waited for without a limit.
///
/// The example `migration` of Tollgate's repository does all that on a table of an application's own, in SQLite.
pub trait KeyStore: Send + Sync + 'static {
    /// The record of the key with one of these digests; `None` if there is none.
    ///
    /// # Errors
    /// [`Unavailable`] if the store cannot be reached: the key is then refused, never let through.
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>>;

    /// Tells `listener` from now on what changes, for as long as it is there; and at once that news flow
    /// ([`StoreEvent::Connected`]), if they do.
    ///
    /// A store that never learns of changes says that they flow all the same, if what is known of a key may be trusted
    /// for as long as a cache is told to keep it.
    fn subscribe(&self, listener: Weak<dyn StoreListener>);
}

impl<S: KeyStore + ?Sized> KeyStore for Arc<S> {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        (**self).find(lookup)
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) {
        (**self).subscribe(listener);
    }
}

/// What a key is looked up by.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct KeyLookup<'r> {
    /// One key's digests under several peppers, current first.
    pub digests: &'r [Digest],
    /// The request's instant.
    pub now: SystemTime,
}

impl<'r> KeyLookup<'r> {
    /// A look-up of a key with one of these digests, by a request at `now`.
    pub fn new(digests: &'r [Digest], now: SystemTime) -> Self {
        Self { digests, now }
    }
}

/// What a store knows about one key. Small, so that it is handed out by value: only the principal is shared.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    principal: Arc<Principal>,
    status: KeyStatus,
    generation: u64,
}

impl KeyRecord {
    /// A record. `generation` rises with every change to the key or its tenant, so that an older record never replaces a
    /// newer one.
    pub fn new(principal: Arc<Principal>, status: KeyStatus, generation: u64) -> Self {
        Self { principal, status, generation }
    }

    /// Whom the key proves.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// [`principal`](Self::principal), taken out of a record that is not needed any more.
    pub fn into_principal(self) -> Arc<Principal> {
        self.principal
    }

    /// Whether the key may be used.
    pub fn status(&self) -> KeyStatus {
        self.status
    }

    /// Which state of the key this is: higher is newer.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// Whether a key may be used. Its expiry is the principal's, and is not repeated here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyStatus {
    /// It may.
    Active,
    /// It was revoked; the record is kept.
    Revoked,
    /// Its tenant is suspended.
    TenantSuspended,
}

/// What changed in a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreEvent {
    /// A key was issued, changed, or ended: forget what is known of it.
    Key {
        /// Its identifier, which its principal has.
        id: Box<str>,
        /// Records of this generation or a later one know of the change.
        generation: u64,
        /// Why principals of earlier generations have ended, if they have.
        end: Option<EndReason>,
    },
    /// All keys of a tenant.
    Tenant {
        /// The tenant.
        tenant: Box<str>,
        /// Records of this generation or a later one know of the change.
        generation: u64,
        /// Why principals of earlier generations have ended, if they have.
        end: Option<EndReason>,
    },
    /// News may have been missed, and more may be: forget everything, and keep nothing until they are resumed.
    Disconnected,
    /// From now on no news are missed.
    Connected,
}

/// Is told what changes in a store: implemented by caches, and by closures.
pub trait StoreListener: Send + Sync {
    /// Called by whoever makes or hears of a change, who waits for it: quick, and never blocking.
    fn on_event(&self, event: &StoreEvent);
}

impl<F: Fn(&StoreEvent) + Send + Sync> StoreListener for F {
    fn on_event(&self, event: &StoreEvent) {
        self(event);
    }
}

/// Whoever watches a store: what a [`KeyStore`] needs in order to tell its news.
#[derive(Default)]
pub struct Listeners(Mutex<Vec<Weak<dyn StoreListener>>>);

impl Listeners {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells one more from now on.
    pub fn add(&self, listener: Weak<dyn StoreListener>) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(listener);
    }

    /// Tells all that are still there, one after another. No lock is held meanwhile: a listener may use the store.
    pub fn notify(&self, event: &StoreEvent) {
        let listeners: Vec<_> = {
            let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.iter().filter_map(Weak::upgrade).collect()
        };
        for listener in listeners {
            listener.on_event(event);
        }
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listeners(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_those_that_are_still_there() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener = |name: &'static str| -> Arc<dyn StoreListener> {
            let heard = Arc::clone(&heard);
            Arc::new(move |change: &StoreEvent| heard.lock().unwrap().push((name, change.clone())))
        };
        let (listeners, one, two) = (Listeners::new(), listener("one"), listener("two"));
        listeners.add(Arc::downgrade(&one));
        listeners.add(Arc::downgrade(&two));
        listeners.notify(&StoreEvent::Connected);
        drop(one);
        listeners.notify(&StoreEvent::Disconnected);
        let expected = [
            ("one", StoreEvent::Connected),
            ("two", StoreEvent::Connected),
            ("two", StoreEvent::Disconnected),
        ];
        assert_eq!(*heard.lock().unwrap(), expected);
    }
}
