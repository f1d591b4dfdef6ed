//! SQLite: connection options, and the pools of readers and of the writer.

mod file;

use std::{
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _, Row as _, Sqlite, SqliteConnection, SqlitePool,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};

pub(crate) use self::file::FileIdentity;
use super::PAUSE;
use crate::{connect_error::ConnectError, fault::Fault, settings::Settings};

/// Readers never wait for the writer. Writers queue for one permit instead of polling for SQLite's lock.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    readers: SqlitePool,
    writer: SqlitePool,
    write_permit: Arc<Semaphore>,
    /// The file; `None` for a database in this process's memory.
    file: Option<PathBuf>,
    replacement: Arc<Replacement>,
    is_owned: bool,
}

/// When the file was last found to be replaced. Older connections use the former file.
#[derive(Debug, Default)]
struct Replacement(Mutex<Option<Instant>>);

/// A pooled connection.
pub(crate) struct Lease {
    connection: PoolConnection<Sqlite>,
    _write_permit: Option<OwnedSemaphorePermit>,
}

/// The connection options of a URL.
pub(crate) fn options_of(url: &str) -> Result<SqliteConnectOptions, ConnectError> {
    let options = SqliteConnectOptions::from_str(url).map_err(|_| {
        ConnectError::InvalidUrl(
            "write `sqlite://keys.db`, `sqlite:///var/lib/keys.db` or `sqlite::memory:`; with `?mode=rw` the file must exist"
                .into(),
        )
    })?;
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let mode = query.split('&').find_map(|pair| pair.strip_prefix("mode="));
    Ok(options
        .create_if_missing(mode.is_none_or(|mode| mode == "rwc"))
        // A committed revocation survives a power failure.
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging())
}

impl Pools {
    /// Opens pools of this store's own. Creates a missing file, and writes nothing to an existing one.
    pub(crate) async fn open(
        options: SqliteConnectOptions,
        settings: &Settings,
    ) -> Result<Self, ConnectError> {
        let options = file::create(options).map_err(|_| ConnectError::cannot_open_file())?.foreign_keys(true);
        let replacement = Arc::new(Replacement::default());
        let pool = || {
            let replacement = Arc::clone(&replacement);
            SqlitePoolOptions::new()
                .acquire_timeout(settings.admin_deadline)
                .test_before_acquire(false)
                .before_acquire(move |_, connection| {
                    let is_current = replacement.is_before(connection.age);
                    Box::pin(async move { Ok(is_current) })
                })
        };
        // A database in memory lives as long as its connection.
        let writer_pool = pool().max_connections(1).max_lifetime(None).idle_timeout(None);
        // SQLite itself pauses for up to 100 ms between two attempts to get the write lock: `Database::begin` waits instead.
        let writer_options = options.clone().busy_timeout(Duration::ZERO);
        let deadline = Instant::now() + settings.admin_deadline;
        let (writer, file) = loop {
            let open = async {
                let writer = writer_pool.clone().connect_with(writer_options.clone()).await?;
                let file = file_of(&writer).await?;
                Ok((writer, file))
            };
            match timeout_at(deadline, open).await.unwrap_or(Err(Fault::TimedOut)) {
                Ok(opened) => break opened,
                // Another process switches to a write-ahead log, or is the last one to close the file.
                Err(fault) if fault.is_busy() && Instant::now() < deadline => sleep(PAUSE).await,
                Err(fault) => return Err(ConnectError::from_fault(&fault)),
            }
        };
        let readers = if file.is_none() {
            writer.clone()
        } else {
            let options = options.busy_timeout(settings.deadline);
            pool().max_connections(settings.connections).connect_lazy_with(options)
        };
        Ok(Self { readers, writer, write_permit: write_permit(), file, replacement, is_owned: true })
    }

    /// Uses a pool of the application's.
    pub(crate) async fn adopt(pool: SqlitePool, settings: &Settings) -> Result<Self, ConnectError> {
        let inspect = async {
            let file = file_of(&pool).await?;
            let enforces: i64 = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(&pool).await?;
            Ok((file, enforces == 1))
        };
        let deadline = Instant::now() + settings.admin_deadline;
        let inspected = timeout_at(deadline, inspect).await.unwrap_or(Err(Fault::TimedOut));
        let (file, enforces_foreign_keys) = inspected.map_err(|fault| ConnectError::from_fault(&fault))?;
        if !enforces_foreign_keys {
            return Err(ConnectError::InvalidSetting(
                "the SQLite pool does not enforce foreign keys: remove `foreign_keys(false)` from its options".into(),
            ));
        }
        let (readers, writer, replacement) = (pool.clone(), pool, Arc::default());
        Ok(Self { readers, writer, write_permit: write_permit(), file, replacement, is_owned: false })
    }

    /// Switches the file to a write-ahead log, unless it has one. Call this only if the file is a key store, or is to become one: the
    /// switch is stored in the file.
    pub(super) async fn use_write_ahead_log(&self, limit: Duration) -> Result<(), Fault> {
        if self.file.is_none() || !self.is_owned {
            return Ok(());
        }
        let deadline = Instant::now() + limit;
        let _permit = self.write_permit.acquire().await.map_err(|_| Fault::Stopped)?;
        loop {
            match self.try_write_ahead_log().await {
                // Another process does the same.
                Err(fault) if fault.is_busy() && Instant::now() < deadline => sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    async fn try_write_ahead_log(&self) -> Result<(), Fault> {
        // The switch needs a lock, even if there is nothing to switch.
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&self.writer).await?;
        if mode != "wal" {
            sqlx::query("PRAGMA journal_mode = WAL").execute(&self.writer).await?;
        }
        Ok(())
    }

    /// Fails if the database is read-only, by this statement, which changes nothing. Does not wait for the write lock.
    pub(super) async fn check_writable(&self, sql: &'static str) -> Result<(), Fault> {
        if self.file.is_none() {
            return Ok(());
        }
        let options = (*self.readers.connect_options()).clone().busy_timeout(Duration::ZERO);
        let attempt = async {
            let mut connection = options.connect().await?;
            sqlx::raw_sql(sql).execute(&mut connection).await?;
            connection.close().await
        };
        match attempt.await.map_err(Fault::from) {
            // SQLite checks first whether the file is read-only. So the file is writable, and another process writes.
            Err(fault) if fault.is_busy() => Ok(()),
            outcome => outcome,
        }
    }

    pub(super) async fn reader(&self) -> Result<Lease, Fault> {
        self.check_not_replaced()?;
        Ok(Lease { connection: self.readers.acquire().await?, _write_permit: None })
    }

    pub(super) async fn writer(&self) -> Result<Lease, Fault> {
        let permit = Arc::clone(&self.write_permit).acquire_owned().await.map_err(|_| Fault::Stopped)?;
        self.check_not_replaced()?;
        Ok(Lease { connection: self.writer.acquire().await?, _write_permit: Some(permit) })
    }

    /// An application's pool keeps its connections to the former file, where a key may be valid that is revoked in the new one.
    fn check_not_replaced(&self) -> Result<(), Fault> {
        if self.is_owned || !self.replacement.has_happened() { Ok(()) } else { Err(Fault::FileReplaced) }
    }

    /// Whether the database is in this process's memory, so that no other process can change it.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.file.is_none()
    }

    /// Which file the database is in now. Fails if the file was removed.
    pub(crate) async fn file_identity(&self) -> Result<FileIdentity, Fault> {
        let file = self.file.clone().ok_or(Fault::Stopped)?;
        FileIdentity::read(file).await.map_err(|_| Fault::FileReplaced)
    }

    /// From now on, uses no existing connection, because the file was replaced.
    pub(crate) fn file_was_replaced(&self) {
        self.replacement.happens();
    }

    /// A new connection outside the pools.
    pub(crate) async fn connect(&self) -> Result<SqliteConnection, Fault> {
        self.check_not_replaced()?;
        Ok(self.readers.connect_options().connect().await?)
    }

    pub(super) async fn close(&self) {
        if self.is_owned {
            self.readers.close().await;
            self.writer.close().await;
        }
    }
}

impl Replacement {
    fn happens(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn has_happened(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether a connection of this age was opened after the file was replaced.
    fn is_before(&self, age: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|at| at.elapsed() > age)
    }
}

impl Lease {
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// Closes the connection.
    pub(super) fn discard(self) {
        drop(self.connection.detach());
    }
}

fn write_permit() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(1))
}

/// The file of the database; `None` if it is in memory.
async fn file_of(pool: &SqlitePool) -> Result<Option<PathBuf>, Fault> {
    let databases = sqlx::query("PRAGMA database_list").fetch_all(pool).await?;
    for database in databases {
        if database.try_get::<String, _>("name")? == "main" {
            let file = database.try_get::<Option<String>, _>("file")?.filter(|file| !file.is_empty());
            // SQLite has followed symbolic links, and one of them may be changed.
            let given = file::plain_path(&pool.connect_options()).map(PathBuf::from);
            return Ok(file.map(|file| given.unwrap_or_else(|| file.into())));
        }
    }
    Ok(None)
}
