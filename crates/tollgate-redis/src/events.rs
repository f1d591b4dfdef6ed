//! Events of key stores.

mod builder;
mod change;
mod follow;
mod held;
mod message;
mod outbox;
mod shared;

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::watch;
use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    manage::{
        Command, HistoryQuery, KeyAdmin, KeyAdminError, KeyChange, KeyDetails, KeyEvent, KeyQuery, Page,
        TenantChange, TenantDetails,
    },
    store::{KeyLookup, KeyRecord, KeyStore, StoreEvent, StoreListener, Subscription},
};

pub use self::builder::RedisEventsBuilder;
use self::{change::Expected, shared::Shared};
use crate::Redis;

/// A key store whose changes reach all processes, by Redis or Valkey: for a store of your own that all of them share, and that does not
/// send the changes of one process to the others.
///
/// The store may have [no events](Subscription::trust_for), or those of its own process. `SqlKeys` on PostgreSQL needs none of this.
///
/// ```no_run
/// use tollgate::{CachedKeys, KeyFormat, KeyVerifier, manage::{KeyAdmin, KeyManager}, store::KeyStore};
/// use tollgate_redis::{Redis, RedisEvents};
///
/// # async fn example(table: impl KeyStore + KeyAdmin) -> Result<(), Box<dyn std::error::Error>> {
/// let redis = Redis::connect("redis://127.0.0.1:6379").await?;
/// let keys = RedisEvents::new(redis, table);
/// let verifier = KeyVerifier::new(KeyFormat::new("sk")?, CachedKeys::new(keys.clone()));
/// let manager = KeyManager::new(KeyFormat::new("sk")?, keys);
/// # let _ = (verifier, manager);
/// # Ok(())
/// # }
/// ```
///
/// Every process that finds or changes keys has one of these, by the same server and with the same
/// [prefix](crate::RedisSettings::with_prefix). Changes are made through it, or through a store with events below it, or are
/// reported to it by [`key_changed`](Self::key_changed). Others, such as a statement in a database console, reach no process: caches hold the key until its
/// time is up, 30 seconds, and open streams go on.
///
/// # How soon a change takes effect
///
/// | where | when |
/// |---|---|
/// | in the process that makes the change | before `change` returns, also while Redis is down |
/// | in another process | as soon as its message arrives; it is published before `change` returns |
///
/// A message only names the key or the tenant. Caches forget it, and the keys of the principals in use are looked up again by this
/// process: those that have ended end, and with them their open streams.
///
/// If messages cannot arrive, listeners get [`Disconnected`](tollgate_core::store::StoreEvent::Disconnected): caches keep nothing, and
/// each lookup asks the store.
///
/// | failure | noticed |
/// |---|---|
/// | Redis closes the connection | at once |
/// | the network fails in silence, or this process is connected to another server than others publish on | within two [heartbeats](RedisEventsBuilder::with_heartbeat), 2 s |
///
/// After it has subscribed again, the process looks up the keys of all principals in use, and ends those that have ended, or whose former
/// secret is not valid any more after a rotation with an overlap. Then listeners get [`Connected`](tollgate_core::store::StoreEvent::Connected).
///
/// # When a change cannot be published
///
/// The change stands, and `change` returns it after the [deadline](crate::RedisSettings::with_deadline) of a command, 50 ms. Processes
/// that cannot reach Redis either go to the store, so they see it. If only this process cannot reach Redis, the others do not know of the
/// change until it is published: cached keys work for 30 seconds at most, the time of the cache, and open streams go on. This process
/// tries again, at least once a second, and logs that as `WARN`, once. It keeps up to 10,000 messages; beyond that, one that says that any
/// key may have changed. If it ends before it could publish them, other processes do not learn of these changes, except by the time of
/// their caches.
///
/// After an interruption, a process that had published changes also publishes that any key may have changed: the server that accepted
/// them may have been replaced before others received them. The same keys are then looked up again.
///
/// # Security
///
/// A client that may publish on the channel can cause lookups and make caches forget, but ends no principal: what has ended is read in the
/// store. Messages contain the identifiers of keys and tenants, and no secrets. What others publish is ignored.
///
/// # What is used
///
/// One more connection for each process, and the channels `tollgate:events`, for all, and `tollgate:events:PROCESS`, for its heartbeat.
/// A user of Redis needs the permissions `&tollgate:*`, `+publish` and `+subscribe`. In a cluster, messages reach all nodes. For each
/// key in use, this process keeps its digests, about 200 bytes. Messages that arrive while the store is asked wait in memory, for less than
/// two heartbeats.
///
/// A clone is a handle of the same store. The task ends when the last one is dropped.
pub struct RedisEvents<S> {
    store: Arc<S>,
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    // Dropped, it stops the task.
    _stop: watch::Sender<()>,
}

impl<S: KeyStore> RedisEvents<S> {
    /// Adds events to `store`. It is disconnected until Redis answers, and does not wait for that.
    pub fn new(redis: Redis, store: S) -> Self {
        Self::builder(redis, store).build()
    }

    /// The same with other settings.
    pub fn builder(redis: Redis, store: S) -> RedisEventsBuilder<S> {
        RedisEventsBuilder::new(redis, store)
    }

    fn start(redis: Redis, store: S, heartbeat: Duration) -> Self {
        let store = Arc::new(store);
        let process = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        let runtime = redis.runtime().clone();
        let shared = Shared::new(redis, Arc::clone(&store) as Arc<dyn KeyStore>, heartbeat, process);
        let (stop, stopped) = watch::channel(());
        runtime.spawn(follow::follow(Arc::clone(&shared), stopped));
        Self { store, handle: Arc::new(Handle { shared, _stop: stop }) }
    }
}

impl<S> RedisEvents<S> {
    /// Tells all processes, this one first, that the application has changed a key in the store itself, for example by a statement in its
    /// table. Call it after the change is committed.
    ///
    /// It returns when the message is published, or after the [deadline](crate::RedisSettings::with_deadline): see
    /// [above](Self#when-a-change-cannot-be-published). It goes on if the future is dropped.
    pub async fn key_changed(&self, id: &str) {
        let event = StoreEvent::Key { id: id.into(), generation: u64::MAX, end: None };
        self.changed(event).await;
    }

    /// The same for all keys of a tenant.
    pub async fn tenant_changed(&self, tenant: &str) {
        let event = StoreEvent::Tenant { tenant: tenant.into(), generation: u64::MAX, end: None };
        self.changed(event).await;
    }

    async fn changed(&self, event: StoreEvent) {
        let handle = Arc::clone(&self.handle);
        let telling = async move {
            let shared = &handle.shared;
            shared.announce(&event);
            shared.check_or_end(&event).await;
            shared.outbox.published(shared.redis.settings().deadline).await;
        };
        // An error says that the runtime has ended, and with it everything that uses the keys.
        let _ = self.handle.shared.redis.runtime().spawn(telling).await;
    }

    /// The store below.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Whether every change is received. While it is not, caches keep nothing.
    pub fn is_connected(&self) -> bool {
        self.handle.shared.is_connected()
    }

    /// The longest time that a principal which another process has ended stays valid in this process, after the connection to Redis has
    /// failed in silence: twice the heartbeat, 2 s by default. Then listeners get
    /// [`Disconnected`](tollgate_core::store::StoreEvent::Disconnected).
    pub fn staleness_bound(&self) -> Duration {
        self.handle.shared.heartbeat * 2
    }
}

impl<S: KeyStore> KeyStore for RedisEvents<S> {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        let (shared, digests, now) = (Arc::clone(&self.handle.shared), lookup.digests.to_vec(), lookup.now);
        Answer::later(async move { shared.find(&digests, now).await })
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        self.handle.shared.subscribe(listener)
    }
}

impl<S: KeyStore + KeyAdmin> RedisEvents<S> {
    /// Makes a change in a task: the caller may hang up between the commit and the event.
    fn make<T: Send + 'static>(
        &self,
        expected: Expected,
        change: impl FnOnce(&S) -> Answer<Result<T, KeyAdminError>> + Send + 'static,
    ) -> Answer<Result<T, KeyAdminError>> {
        let (store, handle) = (Arc::clone(&self.store), Arc::clone(&self.handle));
        let making = async move {
            let shared = &handle.shared;
            let outcome = change(&store).await;
            let event = if shared.store_has_events() { None } else { expected.after(&outcome) };
            if let Some((event, is_unclear)) = event {
                shared.announce(&event);
                if is_unclear {
                    shared.check_or_end(&event).await;
                }
            }
            shared.outbox.published(shared.redis.settings().deadline).await;
            outcome
        };
        let runtime = self.handle.shared.redis.runtime().clone();
        Answer::later(async move {
            let stopped = |_| Err(Unavailable::new("the runtime of the key store has ended").into());
            runtime.spawn(making).await.unwrap_or_else(stopped)
        })
    }
}

impl<S: KeyStore + KeyAdmin> KeyAdmin for RedisEvents<S> {
    fn change(&self, command: Command<KeyChange>) -> Answer<Result<KeyDetails, KeyAdminError>> {
        self.make(Expected::of_key(&command.change, command.at), |store| store.change(command))
    }

    fn change_tenant(&self, command: Command<TenantChange>) -> Answer<Result<TenantDetails, KeyAdminError>> {
        self.make(Expected::of_tenant(&command.change), |store| store.change_tenant(command))
    }

    fn tenant(&self, tenant: &str) -> Answer<Result<TenantDetails, KeyAdminError>> {
        self.store.tenant(tenant)
    }

    fn list(&self, query: &KeyQuery) -> Answer<Result<Page<KeyDetails>, KeyAdminError>> {
        self.store.list(query)
    }

    fn history(&self, query: &HistoryQuery) -> Answer<Result<Page<KeyEvent>, KeyAdminError>> {
        self.store.history(query)
    }
}

impl<S> Clone for RedisEvents<S> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), handle: Arc::clone(&self.handle) }
    }
}

impl<S> fmt::Debug for RedisEvents<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.handle.shared;
        f.debug_struct("RedisEvents")
            .field("redis", &shared.redis)
            .field("heartbeat", &shared.heartbeat)
            .field("is_connected", &shared.is_connected())
            .finish_non_exhaustive()
    }
}
