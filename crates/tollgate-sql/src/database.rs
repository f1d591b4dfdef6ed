//! Either database behind one interface: it lends connections for reads and for transactions, each within a deadline.
//!
//! What differs between SQLite and PostgreSQL is in this folder, in `migrations`, and in `follow`.

mod connection;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};

#[cfg(feature = "postgres")]
pub(crate) use self::connection::Query;
pub(crate) use self::connection::{Connection, Row, Value};
use crate::{connect_error::ConnectError, fault::Fault, settings::Settings};

/// A database with its connection pools.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) pools: Pools,
    is_closed: AtomicBool,
}

#[derive(Debug)]
pub(crate) enum Pools {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::Pools),
    #[cfg(feature = "postgres")]
    Postgres(std::sync::Arc<postgres::Pool>),
}

/// The steps that run on a connection.
pub(crate) type Steps<'c, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>;

/// How urgent a transaction is. SQLite has one writer at a time, and processes that wait for the lock try again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// A change. It gets the write lock before transactions that can wait.
    Now,
    /// A part of a larger work. Leave a [`PAUSE`] before the next one.
    CanWait,
}

/// The pause between two transactions that can wait. In SQLite, a change can get the write lock during this pause.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

impl Urgency {
    /// The pause before another attempt to get SQLite's write lock.
    fn retry_pause(self) -> Duration {
        match self {
            Self::Now => PAUSE / 5,
            Self::CanWait => PAUSE * 2,
        }
    }
}

/// How a transaction ends.
pub(crate) enum Done<T> {
    Commit(T),
    RollBack(T),
}

impl Database {
    /// Opens the database of this URL. Each connection to PostgreSQL first runs the queries of `warm_up`.
    pub(crate) async fn from_url(
        url: &str,
        #[cfg(feature = "postgres")] warm_up: Vec<Query>,
        settings: &Settings,
    ) -> Result<Self, ConnectError> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        let pools = match scheme {
            #[cfg(feature = "sqlite")]
            "sqlite" => Pools::Sqlite(sqlite::Pools::open(sqlite::options_of(url)?, settings).await?),
            #[cfg(not(feature = "sqlite"))]
            "sqlite" => return Err(ConnectError::NotBuiltIn { feature: "sqlite" }),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => Pools::Postgres(
                postgres::Pool::open(postgres::options_of(url)?, warm_up, settings).await?.into(),
            ),
            #[cfg(not(feature = "postgres"))]
            "postgres" | "postgresql" => return Err(ConnectError::NotBuiltIn { feature: "postgres" }),
            _ => {
                return Err(ConnectError::InvalidUrl("it must begin with `sqlite:` or `postgres://`".into()));
            }
        };
        Ok(pools.into())
    }

    /// Runs read-only steps on a connection. The limit includes the wait for the connection.
    pub(crate) async fn read<T, E: From<Fault>>(
        &self,
        limit: Duration,
        steps: impl for<'c> FnOnce(&'c mut Connection) -> Steps<'c, T, E>,
    ) -> Result<T, E> {
        let deadline = Instant::now() + limit;
        let mut connection = self.acquire(Purpose::Read, deadline).await?;
        timeout_at(deadline, steps(&mut connection)).await.unwrap_or_else(|_| Err(Fault::TimedOut.into()))
    }

    /// Runs steps in a transaction. The limit includes the wait for the connection.
    ///
    /// Not cancel-safe: if the future is dropped during the commit, the caller cannot know whether the change was made, and
    /// no listener is notified of it.
    pub(crate) async fn transact<T, E: From<Fault>>(
        &self,
        limit: Duration,
        urgency: Urgency,
        steps: impl for<'c> FnOnce(&'c mut Connection) -> Steps<'c, Done<T>, E>,
    ) -> Result<T, E> {
        let deadline = Instant::now() + limit;
        let work = async { self.begin(deadline, urgency).await?.run(steps).await };
        if self.is_local() {
            // SQLite's only unbounded wait is for another writer, and `begin` limits it. After a deadline for the commit to a local
            // file, its outcome would be unknown.
            return work.await;
        }
        timeout_at(deadline, work).await.unwrap_or_else(|_| Err(Fault::TimedOut.into()))
    }

    /// Runs read-only steps that all see the same state of the database. The limit includes the wait for the connection.
    ///
    /// Not cancel-safe: if the future is dropped, a SQLite connection is closed, and a database in memory with it.
    pub(crate) async fn snapshot<T: 'static, E: From<Fault> + 'static>(
        &self,
        limit: Duration,
        steps: impl for<'c> FnOnce(&'c mut Connection) -> Steps<'c, T, E>,
    ) -> Result<T, E> {
        let deadline = Instant::now() + limit;
        let work = async {
            self.begin_snapshot(deadline)
                .await?
                .run(|connection| {
                    let steps = steps(connection);
                    Box::pin(async move { steps.await.map(Done::RollBack) })
                })
                .await
        };
        if self.is_local() {
            // Readers do not wait for the writer.
            return work.await;
        }
        timeout_at(deadline, work).await.unwrap_or_else(|_| Err(Fault::TimedOut.into()))
    }

    async fn begin_snapshot(&self, deadline: Instant) -> Result<Transaction, Fault> {
        let mut has_retried = false;
        loop {
            let mut transaction = Transaction(Some(self.acquire(Purpose::Read, deadline).await?));
            match transaction.begin_snapshot().await {
                Ok(()) => return Ok(transaction),
                // The server has restarted since the connection was used last.
                Err(fault) if fault.is_connection_lost() && !has_retried => has_retried = true,
                Err(fault) => return Err(fault),
            }
        }
    }

    async fn begin(&self, deadline: Instant, urgency: Urgency) -> Result<Transaction, Fault> {
        let (mut has_retried, mut locked) = (false, None);
        loop {
            let connection = match self.acquire(Purpose::Write, deadline).await {
                Ok(connection) => connection,
                // The deadline has passed because of the lock.
                Err(fault) => return Err(locked.unwrap_or(fault)),
            };
            let mut transaction = Transaction(Some(connection));
            match transaction.begin().await {
                Ok(()) => return Ok(transaction),
                // The server has restarted since the connection was used last. Nothing was changed yet.
                Err(fault) if fault.is_connection_lost() && !has_retried => has_retried = true,
                // Other writers of this process may try in the meantime.
                Err(fault) if fault.is_busy() && Instant::now() < deadline => {
                    transaction.was_not_begun();
                    locked = Some(fault);
                    sleep(urgency.retry_pause()).await;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    #[cfg_attr(not(feature = "sqlite"), expect(unused_variables, reason = "only SQLite distinguishes them"))]
    async fn acquire(&self, purpose: Purpose, deadline: Instant) -> Result<Connection, Fault> {
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(Fault::Database(sqlx::Error::PoolClosed));
        }
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(pools) => {
                let lease = match purpose {
                    Purpose::Read => timeout_at(deadline, pools.reader()).await,
                    Purpose::Write => timeout_at(deadline, pools.writer()).await,
                };
                Ok(Connection::Sqlite(lease.unwrap_or(Err(Fault::Database(sqlx::Error::PoolTimedOut)))?))
            }
            #[cfg(feature = "postgres")]
            Pools::Postgres(pool) => Ok(Connection::Postgres(pool.acquire(deadline).await?)),
        }
    }

    /// Prepares the database for use as a key store. Call this only if the database is one, or is to become one.
    #[cfg_attr(
        not(feature = "sqlite"),
        expect(unused_variables, clippy::unused_async, reason = "PostgreSQL needs no preparation")
    )]
    pub(crate) async fn take_over(&self, limit: Duration) -> Result<(), Fault> {
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(pools) => pools.use_write_ahead_log(limit).await,
            #[cfg(feature = "postgres")]
            Pools::Postgres(_) => Ok(()),
        }
    }

    /// Uses new connections, which warm up on the tables as they are now.
    pub(crate) fn tables_have_changed(&self) {
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(_) => {}
            #[cfg(feature = "postgres")]
            Pools::Postgres(pool) => pool.drop_idle(),
        }
    }

    /// Fails if the database is read-only.
    #[cfg_attr(not(feature = "postgres"), expect(unused_variables, reason = "SQLite does not wait"))]
    pub(crate) async fn check_writable(&self, limit: Duration) -> Result<(), Fault> {
        const CHANGES_NOTHING: &str = "UPDATE tollgate_keys SET generation = generation WHERE 1 = 0";
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(pools) => pools.check_writable(CHANGES_NOTHING).await,
            #[cfg(feature = "postgres")]
            Pools::Postgres(_) => self
                .read(limit, |connection| Box::pin(connection.execute(CHANGES_NOTHING, [])))
                .await
                .map(drop),
        }
    }

    /// Refuses further use. Then waits for the connections in use and closes all of them, unless the application owns them.
    pub(crate) async fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(pools) => pools.close().await,
            #[cfg(feature = "postgres")]
            Pools::Postgres(pool) => pool.close().await,
        }
    }

    fn is_local(&self) -> bool {
        match &self.pools {
            #[cfg(feature = "sqlite")]
            Pools::Sqlite(_) => true,
            #[cfg(feature = "postgres")]
            Pools::Postgres(_) => false,
        }
    }
}

impl From<Pools> for Database {
    fn from(pools: Pools) -> Self {
        Self { pools, is_closed: AtomicBool::new(false) }
    }
}

#[derive(Clone, Copy)]
enum Purpose {
    Read,
    Write,
}

/// A connection in a transaction. If it is dropped before the end, the database rolls back.
struct Transaction(Option<Connection>);

impl Transaction {
    async fn begin(&mut self) -> Result<(), Fault> {
        self.0.as_mut().ok_or(Fault::Stopped)?.begin().await
    }

    async fn begin_snapshot(&mut self) -> Result<(), Fault> {
        self.0.as_mut().ok_or(Fault::Stopped)?.begin_snapshot().await
    }

    /// Returns the connection to its pool.
    fn was_not_begun(mut self) {
        self.0 = None;
    }

    async fn run<T, E: From<Fault>>(
        mut self,
        steps: impl for<'c> FnOnce(&'c mut Connection) -> Steps<'c, Done<T>, E>,
    ) -> Result<T, E> {
        let Some(connection) = &mut self.0 else { return Err(Fault::Stopped.into()) };
        let done = steps(connection).await;
        let is_commit = matches!(done, Ok(Done::Commit(_)));
        let ended = connection.end(if is_commit { "COMMIT" } else { "ROLLBACK" }).await;
        if ended.is_ok() {
            self.0 = None;
        }
        match done {
            Ok(Done::Commit(answer)) => ended.map(|()| answer).map_err(E::from),
            Ok(Done::RollBack(answer)) => Ok(answer),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.abandon();
        }
    }
}
