//! SQLite: a file, or this process's memory.

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions as _, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::Purpose;
use crate::{builder::Settings, connect_error::ConnectError, fault::Fault};

/// How long to wait before a database that another process holds is asked again.
const PATIENCE: Duration = Duration::from_millis(20);

/// Readers never wait for the writer, and writers queue up for one connection, instead of polling for SQLite's lock.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    readers: SqlitePool,
    writer: SqlitePool,
    is_in_memory: bool,
}

impl Pools {
    pub(super) fn of(&self, purpose: Purpose) -> &SqlitePool {
        match purpose {
            Purpose::Read => &self.readers,
            Purpose::Write => &self.writer,
        }
    }

    pub(crate) fn is_in_memory(&self) -> bool {
        self.is_in_memory
    }

    /// A connection of one's own.
    pub(crate) async fn connect(&self) -> Result<SqliteConnection, Fault> {
        Ok(self.readers.connect_options().connect().await?)
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Where a database is.
pub(crate) struct Place {
    options: SqliteConnectOptions,
    is_in_memory: bool,
}

impl Place {
    pub(crate) fn of(url: &str) -> Result<Self, ConnectError> {
        let invalid = |_| {
            ConnectError::InvalidUrl(
                "write `sqlite://keys.db`, `sqlite:///var/lib/keys.db` or `sqlite::memory:`; `?mode=rw` makes no new file"
                    .into(),
            )
        };
        let options = SqliteConnectOptions::from_str(url).map_err(invalid)?;
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let is_in_memory = path.ends_with(":memory:") || query.split('&').any(|pair| pair == "mode=memory");
        let is_mode_given = query.split('&').any(|pair| pair.starts_with("mode="));
        let options = options
            .create_if_missing(!is_mode_given || query.split('&').any(|pair| pair == "mode=rwc"))
            .foreign_keys(true)
            // What was revoked stays revoked, also if the power fails at once.
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        Ok(Self { options, is_in_memory })
    }

    pub(crate) async fn open(self, settings: &Settings) -> Result<Pools, ConnectError> {
        if self.is_in_memory {
            // The database is its one connection, and goes with it.
            let only = SqlitePoolOptions::new()
                .max_connections(1)
                .min_connections(1)
                .max_lifetime(None)
                .idle_timeout(None)
                .connect_with(self.options.shared_cache(false))
                .await
                .map_err(|error| ConnectError::from_fault(&error.into()))?;
            return Ok(Pools { readers: only.clone(), writer: only, is_in_memory: true });
        }
        let until = Instant::now() + settings.admin_deadline;
        let (readers, writer) = (
            self.options.clone().busy_timeout(settings.deadline),
            self.options.journal_mode(SqliteJournalMode::Wal).busy_timeout(settings.admin_deadline),
        );
        let pool =
            || SqlitePoolOptions::new().acquire_timeout(settings.admin_deadline).test_before_acquire(false);
        // First the writer: it makes the file, and makes it one that readers and writer share without waiting.
        let writer = loop {
            let opening = timeout_at(until, pool().max_connections(1).connect_with(writer.clone())).await;
            match opening.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(Fault::from) {
                Ok(writer) => break writer,
                // To switch to a write-ahead log is refused without a wait while another process does the same.
                Err(fault) if is_busy(&fault) && Instant::now() < until => sleep(PATIENCE).await,
                Err(fault) => return Err(ConnectError::from_fault(&fault)),
            }
        };
        let readers = pool().max_connections(settings.connections).connect_lazy_with(readers);
        Ok(Pools { readers, writer, is_in_memory: false })
    }
}

/// Whether another process is at it.
fn is_busy(fault: &Fault) -> bool {
    // SQLITE_BUSY, whatever its extended code says on top.
    fault.code().and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xff == 5)
}
