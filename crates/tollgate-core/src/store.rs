//! Stored keys: how they are found, and how their changes are published.

mod end;
mod end_signals;
mod events;
mod legacy_keys;

use std::{
    sync::{Arc, Weak},
    time::SystemTime,
};

use crate::{answer::Answer, denial::Unavailable, key::Digest, verify::Principal};

pub use end::{EndReason, EndSignal, WeakEndSignal};
pub use end_signals::{ChangedDuringLookup, EndSignals, LookupInProgress};
pub use events::{Listeners, StoreEvent, StoreListener, Subscription};
pub use legacy_keys::{LegacyKey, LegacyKeys};

/// Finds keys by their digests: in memory, in a database, or in a table of your own.
///
/// A store is read through a cache, which must learn of changes. So [`subscribe`](Self::subscribe) has to answer how:
///
/// - **A store without events** returns [`Subscription::trust_for`]: a cache asks again after that time, and a revocation takes
///   effect by then. Such a store is one query.
///
///   ```
///   use std::{sync::{Arc, Weak}, time::Duration};
///   use tollgate_core::{
///       answer::Answer, denial::Unavailable, key::Digest, verify::Principal,
///       store::{KeyLookup, KeyRecord, KeyStatus, KeyStore, StoreListener, Subscription},
///   };
///
///   # #[derive(Clone)] struct Database;
///   # struct Row { id: String, is_revoked: bool }
///   # impl Database { async fn row(&self, digests: &[Digest]) -> Result<Option<Row>, std::io::Error> { Ok(None) } }
///   struct Keys(Database);
///
///   impl KeyStore for Keys {
///       fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
///           let (database, digests) = (self.0.clone(), lookup.digests.to_vec());
///           Answer::later(async move {
///               let row = database.row(&digests).await;
///               let row = row.map_err(|error| Unavailable::new("key table").with_source(error))?;
///               Ok(row.map(|row| {
///                   let status = if row.is_revoked { KeyStatus::Revoked } else { KeyStatus::Active };
///                   KeyRecord::new(Arc::new(Principal::new(row.id)), status, 0)
///               }))
///           })
///       }
///
///       fn subscribe(&self, _: Weak<dyn StoreListener>) -> Subscription {
///           Subscription::trust_for(Duration::from_secs(10))
///       }
///   }
///   ```
///
/// - **A store with events** returns what [`Listeners::subscribe`] returns, and [notifies](Listeners::notify) its listeners of every
///   change after it is committed, and before the change is answered: so the whole process refuses a key once `revoke` has
///   returned. It also ends the principals that it returned earlier, by [`EndSignals`], so that open streams are closed. If it can
///   miss changes of other processes, it notifies [`StoreEvent::Disconnected`] while it does.
///
/// Two rules hold for both. A lookup has a time limit of the store's own, and may be dropped at any time. A change runs to completion
/// in a task of its own, since the future of the request is dropped when its caller disconnects, perhaps between the commit and the
/// event.
///
/// The crate `tollgate-testing` has a suite of tests for stores. The guide `docs/guides/own-key-store.md` in Tollgate's repository
/// shows one store of each kind.
pub trait KeyStore: Send + Sync + 'static {
    /// The record of the key with one of these digests; `None` if there is none.
    ///
    /// # Errors
    /// [`Unavailable`] if the store cannot be reached: the request is refused with 503.
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>>;

    /// Registers a listener for changes, or says how long a record may be trusted without events.
    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription;
}

impl<S: KeyStore + ?Sized> KeyStore for Arc<S> {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        (**self).find(lookup)
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        (**self).subscribe(listener)
    }
}

/// What a key is looked up by.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct KeyLookup<'r> {
    /// The digests of one secret under each configured pepper, the current one first. Usually there is one.
    pub digests: &'r [Digest],
    /// The request's instant.
    pub now: SystemTime,
}

impl<'r> KeyLookup<'r> {
    /// A lookup of the key with one of these digests, by a request at `now`.
    pub fn new(digests: &'r [Digest], now: SystemTime) -> Self {
        Self { digests, now }
    }
}

/// What a store knows about one key. Returned by value, since only the principal is large, and it is shared.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    principal: Arc<Principal>,
    status: KeyStatus,
    generation: u64,
}

impl KeyRecord {
    /// A record of one state of a key.
    ///
    /// # Generation
    ///
    /// `generation` rises with every change to the key or its tenant. By it, an older record never replaces a newer one in a
    /// cache, and an event ends only the principals of older records.
    ///
    /// A constant is enough in two cases:
    ///
    /// - The store has no events ([`Subscription::trust_for`]): use 0.
    /// - The store has events, and a lookup that begins after an event always reads the changed row (it reads no replica that
    ///   lags behind): use 0 in records and 1 in events. Then an event that arrives twice or late also ends principals that
    ///   were read after the change. Their clients only have to connect again, since the next lookup finds the key.
    pub fn new(principal: Arc<Principal>, status: KeyStatus, generation: u64) -> Self {
        Self { principal, status, generation }
    }

    /// The principal that the key belongs to.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// Takes the [`principal`](Self::principal) out of the record.
    pub fn into_principal(self) -> Arc<Principal> {
        self.principal
    }

    /// Whether the key may be used.
    pub fn status(&self) -> KeyStatus {
        self.status
    }

    /// The state of the key that this record describes: higher is newer.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// Whether a key may be used. Its expiry is part of the principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyStatus {
    /// The key may be used.
    Active,
    /// The key was revoked. Its record is kept.
    Revoked,
    /// The key's tenant is suspended.
    TenantSuspended,
}
