//! SQLite: connection options, and the pools of readers and of the writer.

use std::{str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions as _, Row as _, Sqlite, SqliteConnection, SqlitePool,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};

use crate::{connect_error::ConnectError, fault::Fault, settings::Settings};

/// The pause before another attempt to open a database that another process holds.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Readers never wait for the writer. Writers queue for one permit instead of polling for SQLite's lock.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    readers: SqlitePool,
    writer: SqlitePool,
    write_permit: Arc<Semaphore>,
    is_in_memory: bool,
    is_owned: bool,
}

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
    /// Opens pools of this store's own.
    pub(crate) async fn open(
        options: SqliteConnectOptions,
        settings: &Settings,
    ) -> Result<Self, ConnectError> {
        let options = options.foreign_keys(true);
        let pool =
            || SqlitePoolOptions::new().acquire_timeout(settings.admin_deadline).test_before_acquire(false);
        // A database in memory lives as long as its connection.
        let writer_pool = || pool().max_connections(1).max_lifetime(None).idle_timeout(None);
        let writer_options =
            options.clone().journal_mode(SqliteJournalMode::Wal).busy_timeout(settings.admin_deadline);
        let deadline = Instant::now() + settings.admin_deadline;
        // The writer connects first: it creates the file and switches it to WAL.
        let writer = loop {
            let connect = writer_pool().connect_with(writer_options.clone());
            let connected = timeout_at(deadline, connect).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
            match connected.map_err(Fault::from) {
                Ok(writer) => break writer,
                // The switch to WAL fails without waiting while another process does the same.
                Err(fault) if is_busy(&fault) && Instant::now() < deadline => sleep(RETRY_PAUSE).await,
                Err(fault) => return Err(ConnectError::from_fault(&fault)),
            }
        };
        let is_in_memory = is_in_memory(&writer).await.map_err(|fault| ConnectError::from_fault(&fault))?;
        let readers = if is_in_memory {
            writer.clone()
        } else {
            let options = options.busy_timeout(settings.deadline);
            pool().max_connections(settings.connections).connect_lazy_with(options)
        };
        Ok(Self { readers, writer, write_permit: write_permit(), is_in_memory, is_owned: true })
    }

    /// Uses a pool of the application's.
    pub(crate) async fn adopt(pool: SqlitePool, settings: &Settings) -> Result<Self, ConnectError> {
        let inspect = async {
            let is_in_memory = is_in_memory(&pool).await?;
            let enforces: i64 = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(&pool).await?;
            Ok((is_in_memory, enforces == 1))
        };
        let deadline = Instant::now() + settings.admin_deadline;
        let inspected = timeout_at(deadline, inspect).await.unwrap_or(Err(Fault::TimedOut));
        let (is_in_memory, enforces_foreign_keys) =
            inspected.map_err(|fault| ConnectError::from_fault(&fault))?;
        if !enforces_foreign_keys {
            return Err(ConnectError::InvalidSetting(
                "the SQLite pool does not enforce foreign keys: remove `foreign_keys(false)` from its options".into(),
            ));
        }
        let (readers, writer) = (pool.clone(), pool);
        Ok(Self { readers, writer, write_permit: write_permit(), is_in_memory, is_owned: false })
    }

    pub(super) async fn reader(&self) -> Result<Lease, Fault> {
        Ok(Lease { connection: self.readers.acquire().await?, _write_permit: None })
    }

    pub(super) async fn writer(&self) -> Result<Lease, Fault> {
        let permit = Arc::clone(&self.write_permit).acquire_owned().await.map_err(|_| Fault::Stopped)?;
        Ok(Lease { connection: self.writer.acquire().await?, _write_permit: Some(permit) })
    }

    /// Whether the database is in this process's memory, so that no other process can change it.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.is_in_memory
    }

    /// A new connection outside the pools.
    pub(crate) async fn connect(&self) -> Result<SqliteConnection, Fault> {
        Ok(self.readers.connect_options().connect().await?)
    }

    pub(super) async fn close(&self) {
        if self.is_owned {
            self.readers.close().await;
            self.writer.close().await;
        }
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

/// SQLite names no file for a database in memory.
async fn is_in_memory(pool: &SqlitePool) -> Result<bool, Fault> {
    let databases = sqlx::query("PRAGMA database_list").fetch_all(pool).await?;
    for database in databases {
        if database.try_get::<String, _>("name")? == "main" {
            return Ok(database.try_get::<Option<String>, _>("file")?.unwrap_or_default().is_empty());
        }
    }
    Ok(false)
}

/// Whether another process has locked the database: `SQLITE_BUSY`, with any extended code.
fn is_busy(fault: &Fault) -> bool {
    fault.code().and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xff == 5)
}
