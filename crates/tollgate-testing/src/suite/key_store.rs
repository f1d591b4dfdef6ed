//! The suite for key stores.

use std::{
    slice,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tollgate::{
    CachedKeys, Principal,
    key::Digest,
    store::{EndReason, KeyLookup, KeyRecord, KeyStatus, KeyStore, StoreEvent, StoreListener},
};

use super::{run_cases, soon};
use crate::at;

/// A key store under test, and how the application changes its keys.
pub trait KeyStoreFixture {
    /// The store's type.
    type Store: KeyStore;

    /// The store. It is the same one at every call.
    fn store(&self) -> &Arc<Self::Store>;

    /// Adds an active key that does not expire, with this identifier and this digest of its secret.
    fn insert(&self, id: &str, digest: Digest) -> impl Future<Output = ()>;

    /// Revokes the key with this identifier, as the application or another program does it.
    fn revoke(&self, id: &str) -> impl Future<Output = ()>;
}

/// Runs the suite for key stores: lookups, and what becomes of a key that is revoked.
///
/// A store with events is checked for events, end signals and races. A store without events is checked for the time that it
/// states.
///
/// ```
/// use std::sync::Arc;
/// use tollgate::{MemoryKeys, key::Digest, manage::{Actor, Command, KeyAdmin as _, KeyChange, KeyDetails}};
/// use tollgate_testing::{midnight, suite::{self, KeyStoreFixture}};
///
/// struct Fixture(Arc<MemoryKeys>); // your store, and perhaps a connection of another program
///
/// impl KeyStoreFixture for Fixture {
///     type Store = MemoryKeys;
///
///     fn store(&self) -> &Arc<MemoryKeys> {
///         &self.0
///     }
///
///     async fn insert(&self, id: &str, digest: Digest) {
///         // INSERT INTO ...
/// #       let change = KeyChange::Issue { details: Box::new(KeyDetails::new(id, id, midnight())), digest };
/// #       self.0.change(Command::new(change, Actor::new("test"), midnight())).await.unwrap();
///     }
///
///     async fn revoke(&self, id: &str) {
///         // UPDATE ...
/// #       self.0.revoke(id);
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// suite::key_store(async || Fixture(Arc::new(MemoryKeys::new()))).await;
/// # }
/// ```
///
/// # Panics
/// If the store does not conform.
pub async fn key_store<F: KeyStoreFixture>(open: impl AsyncFn() -> F) {
    run_cases!(
        "key_store",
        open(),
        [
            a_key_is_found_by_its_digest_and_by_no_other,
            a_key_is_found_by_any_of_several_digests,
            a_revoked_key_is_not_found_as_active,
            a_cache_stops_serving_a_revoked_key,
            a_store_with_events_notifies_its_listeners,
            a_store_with_events_ends_the_principals_of_a_revoked_key,
            a_store_with_events_ends_principals_that_are_looked_up_during_the_revocation,
            a_store_with_events_lets_a_cache_refuse_a_key_once_listeners_are_notified,
            a_dropped_listener_is_ignored,
        ]
    );
}

fn digest(of: &str) -> Digest {
    Digest::of(of)
}

async fn find(store: &Arc<impl KeyStore>, digests: &[Digest], now: SystemTime) -> Option<KeyRecord> {
    match store.find(&KeyLookup::new(digests, now)).await {
        Ok(found) => found,
        Err(error) => panic!("a lookup failed: {error:#}"),
    }
}

/// The principal of the key with this secret, if the key is active.
async fn find_active(store: &Arc<impl KeyStore>, secret: &str, now: SystemTime) -> Option<Arc<Principal>> {
    let record = find(store, slice::from_ref(&digest(secret)), now).await?;
    let is_active = record.status() == KeyStatus::Active && record.principal().ended(now).is_none();
    is_active.then(|| record.into_principal())
}

/// A listener, and the events that it has received.
struct Recorder {
    listener: Arc<dyn StoreListener>,
    events: Arc<Mutex<Vec<StoreEvent>>>,
}

impl Recorder {
    /// Listens to a store, until it is connected. `None` if the store has no events.
    async fn of(store: &Arc<impl KeyStore>) -> Option<Self> {
        let events = Arc::<Mutex<Vec<_>>>::default();
        let listener: Arc<dyn StoreListener> = {
            let events = Arc::clone(&events);
            Arc::new(move |event: &StoreEvent| {
                events.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
            })
        };
        let subscription = store.subscribe(Arc::downgrade(&listener));
        if subscription.trusted_for().is_some() {
            return None;
        }
        let this = Self { listener, events };
        this.wait_for("a store with events notifies `Connected`", |event| *event == StoreEvent::Connected)
            .await;
        Some(this)
    }

    async fn wait_for(&self, what: &str, is_meant: impl Fn(&StoreEvent) -> bool) -> StoreEvent {
        let received = async {
            loop {
                let found = {
                    let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
                    events.iter().find(|event| is_meant(event)).cloned()
                };
                if let Some(event) = found {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon(what, received).await
    }

    async fn wait_for_end_of(&self, id: &str) -> StoreEvent {
        let is_end = |event: &StoreEvent| matches!(event, StoreEvent::Key { id: of, end: Some(EndReason::Revoked), .. } if **of == *id);
        self.wait_for("listeners are notified that the key was revoked, with `EndReason::Revoked`", is_end)
            .await
    }
}

async fn a_key_is_found_by_its_digest_and_by_no_other(fixture: &impl KeyStoreFixture) {
    let store = fixture.store();
    fixture.insert("key_1", digest("one")).await;
    fixture.insert("key_2", digest("two")).await;
    for (secret, id) in [("one", "key_1"), ("two", "key_2")] {
        let principal = find_active(store, secret, at(0)).await;
        let Some(principal) = principal else { panic!("the key `{id}` is not found as active") };
        assert_eq!(principal.id(), id, "the principal's identifier is the key's");
    }
    let unknown = find(store, &[digest("three")], at(0)).await;
    assert!(unknown.is_none(), "an unknown digest finds no key, but found {unknown:?}");
    let none = find(store, &[], at(0)).await;
    assert!(none.is_none(), "a lookup without digests finds no key, but found {none:?}");
}

async fn a_key_is_found_by_any_of_several_digests(fixture: &impl KeyStoreFixture) {
    fixture.insert("key_1", digest("one")).await;
    for digests in [[digest("one"), digest("x")], [digest("x"), digest("one")]] {
        let found = find(fixture.store(), &digests, at(0)).await;
        let id = found.as_ref().map(|record| record.principal().id());
        assert_eq!(id, Some("key_1"), "during a change of peppers, a key has several digests");
    }
}

async fn a_revoked_key_is_not_found_as_active(fixture: &impl KeyStoreFixture) {
    fixture.insert("key_1", digest("one")).await;
    fixture.insert("key_2", digest("two")).await;
    fixture.revoke("key_1").await;
    // Unknown or revoked.
    if let Some(record) = find(fixture.store(), &[digest("one")], at(0)).await {
        assert_eq!(record.status(), KeyStatus::Revoked, "the status of a revoked key");
    }
    assert!(find_active(fixture.store(), "two", at(0)).await.is_some(), "another key stays active");
}

async fn a_cache_stops_serving_a_revoked_key(fixture: &impl KeyStoreFixture) {
    let cache = Arc::new(CachedKeys::new(Arc::clone(fixture.store())));
    fixture.insert("key_1", digest("one")).await;
    assert!(find_active(&cache, "one", at(0)).await.is_some(), "the key works");
    fixture.revoke("key_1").await;
    let listener: Arc<dyn StoreListener> = Arc::new(|_: &StoreEvent| {});
    let subscription = fixture.store().subscribe(Arc::downgrade(&listener));
    if let Some(time) = subscription.trusted_for() {
        let later = at(0) + time;
        assert!(find_active(&cache, "one", later).await.is_none(), "refused after the stated time");
        return;
    }
    let refused = async {
        while find_active(&cache, "one", at(0)).await.is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon("an event removes a revoked key from a cache", refused).await;
}

async fn a_store_with_events_notifies_its_listeners(fixture: &impl KeyStoreFixture) {
    let Some(recorder) = Recorder::of(fixture.store()).await else { return };
    fixture.insert("key_1", digest("one")).await;
    let Some(record) = find(fixture.store(), &[digest("one")], at(0)).await else {
        panic!("the key is found")
    };
    fixture.revoke("key_1").await;
    let StoreEvent::Key { generation, .. } = recorder.wait_for_end_of("key_1").await else {
        panic!("an event of a key")
    };
    assert!(
        generation > record.generation(),
        "the event's generation ({generation}) is higher than that of earlier records ({})",
        record.generation()
    );
    if let Some(after) = find(fixture.store(), &[digest("one")], at(0)).await {
        assert!(after.generation() >= record.generation(), "a record's generation never falls");
    }
    drop(recorder.listener);
}

async fn a_store_with_events_ends_the_principals_of_a_revoked_key(fixture: &impl KeyStoreFixture) {
    let Some(_recorder) = Recorder::of(fixture.store()).await else { return };
    fixture.insert("key_1", digest("one")).await;
    fixture.insert("key_2", digest("two")).await;
    let (Some(held), Some(other)) =
        (find_active(fixture.store(), "one", at(0)).await, find_active(fixture.store(), "two", at(0)).await)
    else {
        panic!("the keys are found as active")
    };
    fixture.revoke("key_1").await;
    let reason = soon("the end signal of a revoked key's principal is sent", held.wait_until_ended()).await;
    assert_eq!(reason, EndReason::Revoked);
    assert_eq!(other.end_signal().reason(), None, "the principal of another key does not end");
}

/// Lookups on several tasks while the key is revoked: a principal that one of them gets must not escape the revocation.
async fn a_store_with_events_ends_principals_that_are_looked_up_during_the_revocation(
    fixture: &impl KeyStoreFixture,
) {
    let Some(_recorder) = Recorder::of(fixture.store()).await else { return };
    for round in 0..10 {
        let (id, secret) = (format!("key_{round}"), format!("secret {round}"));
        fixture.insert(&id, digest(&secret)).await;
        let look_ups = (0..4).map(|_| {
            let (store, secret) = (Arc::clone(fixture.store()), secret.clone());
            tokio::spawn(async move {
                let mut held = Vec::new();
                while let Some(principal) = find_active(&store, &secret, at(0)).await {
                    held.push(principal);
                    tokio::task::yield_now().await;
                }
                held
            })
        });
        let look_ups: Vec<_> = look_ups.collect();
        tokio::time::sleep(Duration::from_millis(round)).await;
        fixture.revoke(&id).await;
        for look_up in look_ups {
            let held = soon("lookups stop finding a revoked key as active", look_up).await.unwrap();
            for principal in held {
                let ended = principal.wait_until_ended();
                soon("every principal that was found before the revocation ends", ended).await;
            }
        }
    }
}

async fn a_store_with_events_lets_a_cache_refuse_a_key_once_listeners_are_notified(
    fixture: &impl KeyStoreFixture,
) {
    let cache = Arc::new(CachedKeys::new(Arc::clone(fixture.store())));
    // Subscribed to the cache, which notifies it after it has applied an event itself.
    let Some(recorder) = Recorder::of(&cache).await else { return };
    for round in 0..10 {
        let (id, secret) = (format!("key_{round}"), format!("secret {round}"));
        fixture.insert(&id, digest(&secret)).await;
        let asking = {
            let (cache, secret) = (Arc::clone(&cache), secret.clone());
            tokio::spawn(async move {
                while find_active(&cache, &secret, at(0)).await.is_some() {
                    tokio::task::yield_now().await;
                }
            })
        };
        tokio::time::sleep(Duration::from_millis(round)).await;
        fixture.revoke(&id).await;
        recorder.wait_for_end_of(&id).await;
        let found = find_active(&cache, &secret, at(0)).await;
        assert!(found.is_none(), "a cache must not find a key as active after its end was notified");
        soon("the cache refuses the key", asking).await.unwrap();
    }
}

async fn a_dropped_listener_is_ignored(fixture: &impl KeyStoreFixture) {
    let listener: Arc<dyn StoreListener> = Arc::new(|_: &StoreEvent| panic!("it was dropped"));
    let weak = Arc::downgrade(&listener);
    drop(listener);
    let _ = fixture.store().subscribe(weak);
    fixture.insert("key_1", digest("one")).await;
    fixture.revoke("key_1").await;
}
