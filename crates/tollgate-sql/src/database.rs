//! The two databases as one: connections, statements and rows. Where they differ is said here and below, and nowhere else.

#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::{pin::Pin, time::Duration};

#[cfg(feature = "postgres")]
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _, SqlSafeStr};
#[cfg(feature = "sqlite")]
use sqlx::{Sqlite, pool::PoolConnection, sqlite::SqliteRow};
use tokio::time::{Instant, timeout_at};

use crate::fault::Fault;

/// A database, with its pools of connections.
#[derive(Clone, Debug)]
pub(crate) enum Database {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::Pools),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Pool),
}

/// What a connection is wanted for. SQLite has one writer at a time: whoever wants to write queues up for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Read,
    Write,
}

/// A connection, given back to its pool when it is dropped.
pub(crate) enum Connection {
    #[cfg(feature = "sqlite")]
    Sqlite(PoolConnection<Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Lease),
}

/// What is put in the place of `$1`, `$2`, … in a statement, which both databases write so.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Number(Option<i64>),
    Text(Option<Box<str>>),
    Bytes(Vec<u8>),
}

/// A row of an answer.
pub(crate) enum Row {
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteRow),
    #[cfg(feature = "postgres")]
    Postgres(PgRow),
}

/// Steps that a connection is lent to.
pub(crate) type Steps<'c, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>;

/// Whether what a transaction did is to last.
pub(crate) enum Done<T> {
    Commit(T),
    /// Nothing has changed, or nothing shall have.
    RollBack(T),
}

/// Does the same for whichever database it is.
macro_rules! for_either {
    ($either:expr, $name:ident => $do:expr) => {
        match $either {
            #[cfg(feature = "sqlite")]
            Self::Sqlite($name) => $do,
            #[cfg(feature = "postgres")]
            Self::Postgres($name) => $do,
        }
    };
}

/// Binds values to a query.
macro_rules! bound {
    ($query:expr, $values:expr) => {{
        let mut query = $query;
        for value in $values {
            query = match value {
                Value::Number(number) => query.bind(number),
                Value::Text(text) => query.bind(text.map(String::from)),
                Value::Bytes(bytes) => query.bind(bytes),
            };
        }
        query
    }};
}

impl Database {
    /// Lends a connection to these steps, which only read, and gives them so much time: the wait for the connection counts.
    pub(crate) async fn read<T, E: From<Fault>>(
        &self,
        limit: Duration,
        steps: impl for<'c> FnOnce(&'c mut Connection) -> Steps<'c, T, E>,
    ) -> Result<T, E> {
        let until = Instant::now() + limit;
        let mut connection = self.lend(Purpose::Read, until).await?;
        timeout_at(until, steps(&mut connection)).await.unwrap_or_else(|_| Err(Fault::TooSlow.into()))
    }

    /// Lends a connection to these steps, which are one transaction, and gives them so much time.
    ///
    /// Whoever calls this lives until it returns: a commit that nobody waits for is one whose news nobody tells.
    pub(crate) async fn transact<T, E: From<Fault>>(
        &self,
        limit: Duration,
        steps: impl for<'c> FnOnce(&'c mut Connection) -> Steps<'c, Done<T>, E>,
    ) -> Result<T, E> {
        let until = Instant::now() + limit;
        let work = async { self.begin(until).await?.run(steps).await };
        if self.is_local() {
            // What may wait has a time limit of its own: the other process that writes. All else is this machine's disk, and
            // whoever gave up on a commit would not know what came of it.
            return work.await;
        }
        timeout_at(until, work).await.unwrap_or_else(|_| Err(Fault::TooSlow.into()))
    }

    async fn begin(&self, until: Instant) -> Result<Transaction, Fault> {
        let mut had_dead_connection = false;
        loop {
            let mut transaction = Transaction(Some(self.lend(Purpose::Write, until).await?));
            match transaction.begin().await {
                Ok(()) => return Ok(transaction),
                // The database was started anew since. Nothing was done yet.
                Err(fault) if fault.is_of_the_connection() && !had_dead_connection => {
                    had_dead_connection = true;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    #[cfg_attr(not(feature = "sqlite"), expect(unused_variables, reason = "only SQLite asks what for"))]
    async fn lend(&self, purpose: Purpose, until: Instant) -> Result<Connection, Fault> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pools) => match timeout_at(until, pools.of(purpose).acquire()).await {
                Ok(connection) => Ok(Connection::Sqlite(connection?)),
                Err(_) => Err(Fault::Database(sqlx::Error::PoolTimedOut)),
            },
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => Ok(Connection::Postgres(pool.lend(until).await?)),
        }
    }

    /// Closes all connections, when whoever has one has given it back.
    pub(crate) async fn close(&self) {
        for_either!(self, pool => pool.close().await);
    }

    fn is_local(&self) -> bool {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => true,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => false,
        }
    }
}

/// The connection of a transaction. Dropped before that came to an end, the connection ends, and the database rolls back.
struct Transaction(Option<Connection>);

impl Transaction {
    async fn begin(&mut self) -> Result<(), Fault> {
        let Some(connection) = &mut self.0 else { return Err(Fault::Stopped) };
        let sql = match connection {
            // At once, since a reader that wants to become a writer may be refused without a wait.
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(_) => "BEGIN IMMEDIATE",
            #[cfg(feature = "postgres")]
            Connection::Postgres(lease) => {
                lease.set_in_transaction(true);
                "BEGIN"
            }
        };
        connection.script(sql).await
    }

    async fn run<T, E: From<Fault>>(
        mut self,
        steps: impl for<'c> FnOnce(&'c mut Connection) -> Steps<'c, Done<T>, E>,
    ) -> Result<T, E> {
        let Some(connection) = &mut self.0 else { return Err(Fault::Stopped.into()) };
        let done = steps(connection).await;
        let end = if matches!(done, Ok(Done::Commit(_))) { "COMMIT" } else { "ROLLBACK" };
        let ended = connection.script(end).await;
        if ended.is_ok() {
            #[cfg(feature = "postgres")]
            #[cfg_attr(not(feature = "sqlite"), expect(irrefutable_let_patterns, reason = "there are two"))]
            if let Connection::Postgres(lease) = connection {
                lease.set_in_transaction(false);
            }
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
        match self.0.take() {
            #[cfg(feature = "sqlite")]
            Some(Connection::Sqlite(connection)) => drop(connection.detach()),
            // It knows that it is within a transaction.
            #[cfg(feature = "postgres")]
            Some(Connection::Postgres(lease)) => drop(lease),
            None => {}
        }
    }
}

impl Connection {
    /// The rows that a statement gives. It is prepared, and stays so.
    pub(crate) async fn rows(
        &mut self,
        sql: impl SqlSafeStr,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, Fault> {
        self.all_rows(sql, values, true).await
    }

    /// The rows that a statement of many shapes gives: it is planned anew, by the values that it has this time.
    pub(crate) async fn rows_of_once(
        &mut self,
        sql: impl SqlSafeStr,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, Fault> {
        self.all_rows(sql, values, false).await
    }

    async fn all_rows(
        &mut self,
        sql: impl SqlSafeStr,
        values: impl IntoIterator<Item = Value>,
        stays: bool,
    ) -> Result<Vec<Row>, Fault> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(connection) => {
                let rows =
                    bound!(sqlx::query(sql).persistent(stays), values).fetch_all(&mut **connection).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(lease) => {
                let rows = bound!(sqlx::query(sql).persistent(stays), values).fetch_all(lease.ask()?).await;
                Ok(lease.answered(rows)?.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The first row that a statement gives.
    pub(crate) async fn row(
        &mut self,
        sql: impl SqlSafeStr,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Option<Row>, Fault> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// Runs a statement, and says how many rows it has changed.
    pub(crate) async fn execute(
        &mut self,
        sql: impl SqlSafeStr,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<u64, Fault> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(connection) => {
                Ok(bound!(sqlx::query(sql), values).execute(&mut **connection).await?.rows_affected())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(lease) => {
                let done = bound!(sqlx::query(sql), values).execute(lease.ask()?).await;
                Ok(lease.answered(done)?.rows_affected())
            }
        }
    }

    /// Runs several statements, without values.
    pub(crate) async fn script(&mut self, sql: impl SqlSafeStr) -> Result<(), Fault> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(connection) => {
                sqlx::raw_sql(sql).execute(&mut **connection).await?;
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(lease) => {
                let done = sqlx::raw_sql(sql).execute(lease.ask()?).await;
                lease.answered(done)?;
            }
        }
        Ok(())
    }

    pub(crate) fn is_postgres(&self) -> bool {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => false,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => true,
        }
    }

    /// A statement that locks the rows it reads where that is needed: SQLite has one writer at a time, and knows no such words.
    pub(crate) fn locking(&self, sql: &'static str, lock: &'static str) -> AssertSqlSafe<String> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => {
                let _ = lock;
                AssertSqlSafe(sql.to_owned())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => AssertSqlSafe(format!("{sql} {lock}")),
        }
    }
}

impl Row {
    pub(crate) fn number(&self, at: usize) -> Result<i64, Fault> {
        Ok(for_either!(self, row => row.try_get(at)?))
    }

    pub(crate) fn some_number(&self, at: usize) -> Result<Option<i64>, Fault> {
        Ok(for_either!(self, row => row.try_get(at)?))
    }

    pub(crate) fn text(&self, at: usize) -> Result<Box<str>, Fault> {
        Ok(for_either!(self, row => row.try_get::<String, _>(at)?).into())
    }

    pub(crate) fn some_text(&self, at: usize) -> Result<Option<Box<str>>, Fault> {
        Ok(for_either!(self, row => row.try_get::<Option<String>, _>(at)?).map(Into::into))
    }

    pub(crate) fn bytes(&self, at: usize) -> Result<Vec<u8>, Fault> {
        Ok(for_either!(self, row => row.try_get(at)?))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.into()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text.into()))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(Into::into))
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.into())
    }
}
