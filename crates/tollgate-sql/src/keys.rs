//! The store: its handles, and the ports.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{runtime::Handle as Runtime, sync::watch, task::JoinHandle, time::timeout};
use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    manage::{
        Command, HistoryQuery, KeyAdmin, KeyAdminError, KeyChange, KeyDetails, KeyEvent, KeyQuery, Page,
        TenantChange,
    },
    store::{KeyLookup, KeyRecord, KeyStore, StoreListener},
    usage::{StoredUsage, UsageBatch, UsageQuery, UsageStore},
};

use crate::{
    ConnectError, SqlKeysBuilder,
    builder::Settings,
    change,
    database::Database,
    events::{self, Events},
    fault::Fault,
    find, list, schema, usage,
};

/// Keys in SQLite or PostgreSQL: finds them, changes them, lists them, keeps their history and what was used.
///
/// Clones are the same store. Whatever it has running in the background ends with the last of them, or when it is
/// [closed](Self::close).
#[derive(Clone)]
pub struct SqlKeys(Arc<Handle>);

/// What all handles of a store share. What runs in the background does not, so that the last handle is the last.
struct Handle {
    shared: Arc<Shared>,
    // Dropped, it tells the background task to end.
    stop: Mutex<Option<watch::Sender<()>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What a store works with.
pub(crate) struct Shared {
    pub(crate) database: Database,
    pub(crate) events: Events,
    pub(crate) settings: Settings,
    /// What news are sent under, if somebody has to be sent them.
    pub(crate) channel: Option<String>,
    runtime: Runtime,
}

impl SqlKeys {
    /// Opens the store at this URL: `sqlite://keys.db`, `sqlite::memory:`, `postgres://user:password@host/database`. Tables are
    /// made if they are missing, and so is SQLite's file.
    ///
    /// Must be called within a tokio runtime, which then keeps the store going. [`builder`](Self::builder) has the settings.
    ///
    /// # Errors
    /// [`ConnectError`], which says what to do.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::builder().connect(url).await
    }

    /// A store with settings of your own.
    pub fn builder() -> SqlKeysBuilder {
        SqlKeysBuilder::default()
    }

    /// How long, at most, a principal that another process has ended may go on being taken for good in this one while the link for
    /// news is cut without anybody's notice; then watchers are told that news are lost.
    ///
    /// For PostgreSQL it is twice the heartbeat: 2 s if nobody says. For a SQLite file it is the poll interval and the deadline;
    /// nobody else can change a database in memory.
    pub fn staleness_bound(&self) -> Duration {
        let Shared { settings, database, .. } = &*self.0.shared;
        match database {
            #[cfg(feature = "sqlite")]
            Database::Sqlite(pools) if pools.is_in_memory() => Duration::ZERO,
            #[cfg(feature = "sqlite")]
            Database::Sqlite(_) => settings.poll_interval.saturating_add(settings.deadline),
            #[cfg(feature = "postgres")]
            Database::Postgres(_) => settings.heartbeat.saturating_mul(2),
        }
    }

    /// Ends what runs in the background and closes all connections, for all handles: watchers are told that news are lost, and
    /// every question is answered with [`Unavailable`] from now on.
    pub async fn close(&self) {
        drop(lock(&self.0.stop).take());
        let task = lock(&self.0.task).take();
        if let Some(task) = task {
            // It has no way to panic, and nobody to tell.
            let _ = task.await;
        }
        self.0.shared.events.lost();
        // Whoever holds a connection gives it back by its deadline.
        let _ = timeout(self.0.shared.settings.admin_deadline, self.0.shared.database.close()).await;
    }

    pub(crate) async fn open(url: &str, settings: Settings) -> Result<Self, ConnectError> {
        let runtime = Runtime::try_current().map_err(|_| {
            ConnectError::InvalidSetting(
                "a key store is opened within a tokio runtime, which keeps it going".into(),
            )
        })?;
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        let database = match scheme {
            #[cfg(feature = "sqlite")]
            "sqlite" => {
                let place = crate::database::sqlite::Place::of(url)?;
                Database::Sqlite(place.open(&settings).await?)
            }
            #[cfg(not(feature = "sqlite"))]
            "sqlite" => return Err(ConnectError::NotBuiltIn { feature: "sqlite" }),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                let options = crate::database::postgres::options_of(url)?;
                let pool = crate::database::postgres::Pool::open(options, &settings).await;
                Database::Postgres(pool.map_err(|fault| ConnectError::from_fault(&fault))?)
            }
            #[cfg(not(feature = "postgres"))]
            "postgres" | "postgresql" => return Err(ConnectError::NotBuiltIn { feature: "postgres" }),
            _ => {
                return Err(ConnectError::InvalidUrl("it begins with `sqlite:` or `postgres://`".into()));
            }
        };
        let limit = settings.admin_deadline;
        schema::bring_up_to_date(&database, limit, settings.may_migrate).await?;
        let channel = database
            .transact(limit, |connection| Box::pin(events::channel(connection)))
            .await
            .map_err(|fault: Fault| ConnectError::from_fault(&fault))?;
        let shared = Arc::new(Shared { database, events: Events::default(), settings, channel, runtime });
        let (stop, stopped) = watch::channel(());
        let task = events::follow(&shared, stopped).await?;
        let handle = Handle { shared, stop: Mutex::new(Some(stop)), task: Mutex::new(task) };
        Ok(Self(Arc::new(handle)))
    }

    /// Runs what must not be left half-way when whoever asked for it gives up waiting: a request that was dropped must not leave
    /// a key revoked in the database and good in this process.
    fn spawn_to_completion<T: Send + 'static, E: From<Fault> + Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Answer<Result<T, E>> {
        let runtime = self.0.shared.runtime.clone();
        Answer::later(async move { runtime.spawn(work).await.unwrap_or_else(|_| Err(Fault::Stopped.into())) })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing is ever left half changed, so a panic of another thread has left it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeyStore for SqlKeys {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        let (shared, digests, now) = (Arc::clone(&self.0.shared), lookup.digests.to_vec(), lookup.now);
        Answer::later(async move { Ok(find::find(&shared, &digests, now).await?) })
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) {
        self.0.shared.events.subscribe(listener);
    }
}

impl KeyAdmin for SqlKeys {
    fn change(&self, command: Command<KeyChange>) -> Answer<Result<KeyDetails, KeyAdminError>> {
        let shared = Arc::clone(&self.0.shared);
        self.spawn_to_completion(async move { change::change(&shared, command).await })
    }

    fn change_tenant(&self, command: Command<TenantChange>) -> Answer<Result<(), KeyAdminError>> {
        let shared = Arc::clone(&self.0.shared);
        self.spawn_to_completion(async move { change::change_tenant(&shared, command).await })
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
        self.spawn_to_completion(async move { usage::add(&shared, batch).await })
    }

    fn usage(&self, query: &UsageQuery<'_>) -> Answer<Result<StoredUsage, Unavailable>> {
        let (shared, key) = (Arc::clone(&self.0.shared), Box::from(query.key));
        let (hours, writer) = ((query.from, query.until), query.writer);
        Answer::later(async move { Ok(usage::usage(&shared, key, hours, writer).await?) })
    }
}

impl fmt::Debug for SqlKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlKeys")
            .field("database", &self.0.shared.database)
            .field("settings", &self.0.shared.settings)
            .field("events", &self.0.shared.events)
            .finish()
    }
}
