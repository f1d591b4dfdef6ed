//! The store: its handles, and the backend traits that it implements.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{runtime::Handle as Runtime, sync::watch, task::JoinHandle, time::timeout};
use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    manage::{
        Command, HistoryQuery, KeyAdmin, KeyAdminError, KeyChange, KeyDetails, KeyEvent, KeyQuery, Page,
        TenantChange, TenantDetails,
    },
    store::{KeyLookup, KeyRecord, KeyStore, StoreListener, Subscription},
    usage::{StoredUsage, UsageBatch, UsageQuery, UsageStore},
};

use crate::{
    change,
    connect_error::ConnectError,
    database::{Connection, Database, Pools},
    fault::Fault,
    find, follow,
    kind::DatabaseKind,
    list, migrations,
    notifier::Notifier,
    prune::{self, Pruned, Retention},
    queues::Queues,
    settings::Settings,
    shared::Shared,
    tenant, usage,
};

/// Keys in SQLite or PostgreSQL: finds, changes and lists them, and keeps their history and their usage.
///
/// Clones share one store. Its background task ends when the last clone is dropped, or when the store is
/// [closed](Self::close).
#[derive(Clone)]
pub struct SqlKeys(pub(crate) Arc<Handle>);

/// What the clones of a store share. The background task holds `Shared` alone, so it does not keep this alive.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    /// Dropped, it stops the background task.
    stop: Mutex<Option<watch::Sender<()>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl SqlKeys {
    /// The longest time that a principal which another process has ended stays valid in this process, after the connection
    /// for notifications has failed in silence. Then listeners get
    /// [`Disconnected`](tollgate_core::store::StoreEvent::Disconnected).
    ///
    /// PostgreSQL: twice the heartbeat, 2 s by default. A SQLite file: the poll interval and the deadline. A SQLite database
    /// in memory: zero, as no other process can change it.
    pub fn staleness_bound(&self) -> Duration {
        let Shared { settings, database, .. } = &*self.0.shared;
        match &database.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(pools) if pools.is_in_memory() => Duration::ZERO,
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(_) => settings.poll_interval.saturating_add(settings.deadline),
            #[cfg(feature = "postgres")]
            Pools::Postgres(_) => settings.heartbeat.saturating_mul(2),
        }
    }

    /// Deletes entries of the history and usage that are older than `retention` says, and reservations of credits that are
    /// [forgotten](tollgate_core::credits::StoredReservation::forgotten_at). Returns how many.
    ///
    /// It deletes in short transactions of at most 500 rows, with pauses, so that it delays no change of a key for long. If the
    /// future is dropped or fails, what was deleted stays deleted: call it again. Changes that other processes have not read yet
    /// still take effect there.
    ///
    /// # Errors
    /// [`Unavailable`] if the database does not answer.
    pub async fn prune(&self, retention: Retention) -> Result<Pruned, Unavailable> {
        Ok(prune::prune(&self.0.shared, retention, true).await?)
    }

    /// Counts what [`prune`](Self::prune) would delete, and deletes nothing.
    ///
    /// # Errors
    /// [`Unavailable`] if the database does not answer.
    pub async fn count_prunable(&self, retention: Retention) -> Result<Pruned, Unavailable> {
        Ok(prune::prune(&self.0.shared, retention, false).await?)
    }

    /// Stops the background task and closes the connections, for all clones. Listeners get
    /// [`Disconnected`](tollgate_core::store::StoreEvent::Disconnected), and every later call returns [`Unavailable`].
    ///
    /// Waits for the connections in use, for at most the [admin deadline](crate::SqlKeysBuilder::with_admin_deadline). A pool
    /// of the application's stays open.
    pub async fn close(&self) {
        drop(lock(&self.0.stop).take());
        let task = lock(&self.0.task).take();
        if let Some(task) = task {
            // It does not panic, and is never aborted.
            let _ = task.await;
        }
        let Shared { notifier, settings, database, .. } = &*self.0.shared;
        notifier.disconnected();
        let _ = timeout(settings.admin_deadline, database.close()).await;
    }

    /// Checks or updates the tables, and begins to follow changes.
    pub(crate) async fn open(database: Database, settings: Settings) -> Result<Self, ConnectError> {
        let limit = settings.admin_deadline;
        if settings.migrates {
            migrations::migrate(&database, limit).await?;
        } else {
            migrations::check(&database, limit).await?;
        }
        let refused = |fault: Fault| ConnectError::from_fault(&fault);
        database.check_writable(limit).await.map_err(refused)?;
        let channel = database.read(limit, |connection| Box::pin(channel(connection)));
        let channel = channel.await.map_err(refused)?;
        let (notifier, runtime) = (Notifier::default(), Runtime::current());
        let queues = Queues::default();
        let shared = Arc::new(Shared { database, notifier, settings, channel, queues, runtime });
        let (stop, stopped) = watch::channel(());
        let task = follow::follow(&shared, stopped).await?;
        let handle = Handle { shared, stop: Mutex::new(Some(stop)), task: Mutex::new(task) };
        Ok(Self(Arc::new(handle)))
    }
}

impl Handle {
    /// Runs work that must not stop halfway when its caller gives up: otherwise a key could be revoked in the database, and
    /// stay valid in this process; and a SQLite connection that is dropped in a transaction is lost.
    pub(crate) fn spawn_to_completion<T: Send + 'static, E: From<Fault> + Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Answer<Result<T, E>> {
        let runtime = self.shared.runtime.clone();
        Answer::later(async move { runtime.spawn(work).await.unwrap_or_else(|_| Err(Fault::Stopped.into())) })
    }
}

/// The PostgreSQL channel that the users of these tables share; `None` for SQLite.
async fn channel(connection: &mut Connection) -> Result<Option<String>, Fault> {
    if connection.kind() == DatabaseKind::Sqlite {
        return Ok(None);
    }
    // Channels are per database, and another schema of it may hold another store.
    let sql = "SELECT relnamespace::int8 FROM pg_class WHERE oid = 'tollgate_keys'::regclass";
    let row = connection.row(sql, []).await?.ok_or(Fault::Unreadable("the schema of the tables"))?;
    Ok(Some(format!("tollgate_{}", row.number(0)?)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each use takes the value out, so a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeyStore for SqlKeys {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        let (shared, digests, now) = (Arc::clone(&self.0.shared), lookup.digests.to_vec(), lookup.now);
        Answer::later(async move { Ok(find::find(&shared, &digests, now).await?) })
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        self.0.shared.notifier.subscribe(listener)
    }
}

impl KeyAdmin for SqlKeys {
    fn change(&self, command: Command<KeyChange>) -> Answer<Result<KeyDetails, KeyAdminError>> {
        let shared = Arc::clone(&self.0.shared);
        self.0.spawn_to_completion(async move { change::change(&shared, command).await })
    }

    fn change_tenant(&self, command: Command<TenantChange>) -> Answer<Result<TenantDetails, KeyAdminError>> {
        let shared = Arc::clone(&self.0.shared);
        self.0.spawn_to_completion(async move { change::change_tenant(&shared, command).await })
    }

    fn tenant(&self, tenant: &str) -> Answer<Result<TenantDetails, KeyAdminError>> {
        let (shared, tenant) = (Arc::clone(&self.0.shared), Box::from(tenant));
        Answer::later(async move { tenant::tenant(&shared, tenant).await })
    }

    fn list(&self, query: &KeyQuery) -> Answer<Result<Page<KeyDetails>, KeyAdminError>> {
        let (shared, query) = (Arc::clone(&self.0.shared), query.clone());
        Answer::later(async move { list::keys(&shared, query).await })
    }

    fn history(&self, query: &HistoryQuery) -> Answer<Result<Page<KeyEvent>, KeyAdminError>> {
        let (shared, query) = (Arc::clone(&self.0.shared), query.clone());
        Answer::later(async move { list::history(&shared, query).await })
    }
}

impl UsageStore for SqlKeys {
    fn add(&self, batch: UsageBatch) -> Answer<Result<(), Unavailable>> {
        let shared = Arc::clone(&self.0.shared);
        self.0.spawn_to_completion(async move { usage::add(&shared, batch).await })
    }

    fn usage(&self, query: &UsageQuery<'_>) -> Answer<Result<StoredUsage, Unavailable>> {
        let (shared, key) = (Arc::clone(&self.0.shared), Box::from(query.key));
        let (hours, writer) = ((query.from, query.until), query.writer);
        Answer::later(async move { Ok(usage::usage(&shared, key, hours, writer).await?) })
    }
}

impl fmt::Debug for SqlKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { database, notifier, settings, .. } = &*self.0.shared;
        f.debug_struct("SqlKeys")
            .field("database", database)
            .field("settings", settings)
            .field("notifier", notifier)
            .finish()
    }
}
