//! A connection to either database: statements, values and rows.

#[cfg(feature = "postgres")]
use sqlx::postgres::PgRow;
#[cfg(feature = "sqlite")]
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _, SqlSafeStr};

#[cfg(feature = "postgres")]
use super::postgres;
#[cfg(feature = "sqlite")]
use super::sqlite;
use crate::{fault::Fault, kind::DatabaseKind};

/// A pooled connection. Dropped, it returns to its pool.
pub(crate) enum Connection {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlite::Lease),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Lease),
}

/// A value for one of the parameters `$1`, `$2`, … of a statement. Both databases write parameters this way.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Number(Option<i64>),
    Text(Option<Box<str>>),
    Bytes(Option<Vec<u8>>),
}

/// A row of a result.
pub(crate) enum Row {
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteRow),
    #[cfg(feature = "postgres")]
    Postgres(PgRow),
}

/// A query with its values.
#[cfg(feature = "postgres")]
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

/// Evaluates the same expression for either database.
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
#[cfg(feature = "postgres")]
pub(super) use bound;

impl Connection {
    /// The rows that a statement returns. The statement is prepared once for each connection.
    pub(crate) async fn rows(
        &mut self,
        sql: impl SqlSafeStr,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, Fault> {
        self.fetch_all(sql, values, true).await
    }

    /// The rows that a statement returns whose text varies. It is not kept prepared, and is planned for its actual values.
    pub(crate) async fn rows_unprepared(
        &mut self,
        sql: impl SqlSafeStr,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, Fault> {
        self.fetch_all(sql, values, false).await
    }

    async fn fetch_all(
        &mut self,
        sql: impl SqlSafeStr,
        values: impl IntoIterator<Item = Value>,
        is_persistent: bool,
    ) -> Result<Vec<Row>, Fault> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(lease) => {
                let query = bound!(sqlx::query(sql).persistent(is_persistent), values);
                let rows = query.fetch_all(lease.connection()).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(lease) => {
                let query = bound!(sqlx::query(sql).persistent(is_persistent), values);
                let rows = query.fetch_all(lease.begin_query()?).await;
                Ok(lease.end_query(rows)?.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The first row that a statement returns.
    pub(crate) async fn row(
        &mut self,
        sql: impl SqlSafeStr,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Option<Row>, Fault> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// Runs a statement, and returns the number of rows it has changed.
    pub(crate) async fn execute(
        &mut self,
        sql: impl SqlSafeStr,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<u64, Fault> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(lease) => {
                let query = bound!(sqlx::query(sql), values);
                Ok(query.execute(lease.connection()).await?.rows_affected())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(lease) => {
                let done = bound!(sqlx::query(sql), values).execute(lease.begin_query()?).await;
                Ok(lease.end_query(done)?.rows_affected())
            }
        }
    }

    /// Runs several statements without parameters, in one round trip.
    pub(crate) async fn script(&mut self, sql: impl SqlSafeStr) -> Result<(), Fault> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(lease) => {
                sqlx::raw_sql(sql).execute(lease.connection()).await?;
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(lease) => {
                let done = sqlx::raw_sql(sql).execute(lease.begin_query()?).await;
                lease.end_query(done)?;
            }
        }
        Ok(())
    }

    /// Begins a transaction that may write.
    pub(super) async fn begin(&mut self) -> Result<(), Fault> {
        match self {
            // A deferred transaction that reads first can fail with SQLITE_BUSY when it begins to write, without waiting.
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => self.script("BEGIN IMMEDIATE").await,
            #[cfg(feature = "postgres")]
            Self::Postgres(lease) => {
                let sql = AssertSqlSafe(lease.begin_transaction());
                self.script(sql).await
            }
        }
    }

    /// Begins a transaction that only reads, and that sees the database as it is at its first statement.
    pub(super) async fn begin_snapshot(&mut self) -> Result<(), Fault> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => self.script("BEGIN").await,
            #[cfg(feature = "postgres")]
            Self::Postgres(lease) => {
                let begin = lease.begin_transaction();
                let sql = format!("{begin}; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY");
                self.script(AssertSqlSafe(sql)).await
            }
        }
    }

    /// Ends the transaction by `COMMIT` or `ROLLBACK`.
    pub(super) async fn end(&mut self, sql: &'static str) -> Result<(), Fault> {
        self.script(sql).await?;
        #[cfg(feature = "postgres")]
        #[cfg_attr(not(feature = "sqlite"), expect(irrefutable_let_patterns, reason = "the only variant"))]
        if let Self::Postgres(lease) = self {
            lease.end_transaction();
        }
        Ok(())
    }

    /// Drops the connection in the middle of a transaction, so that the database rolls back.
    pub(super) fn abandon(self) {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(lease) => lease.discard(),
            // The lease rolls back, and keeps the connection.
            #[cfg(feature = "postgres")]
            Self::Postgres(lease) => drop(lease),
        }
    }

    pub(crate) fn kind(&self) -> DatabaseKind {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => DatabaseKind::Sqlite,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => DatabaseKind::Postgres,
        }
    }

    /// A `SELECT` with a row lock such as `FOR UPDATE`. SQLite has one writer at a time, and no row locks.
    pub(crate) fn locking(&self, sql: &'static str, lock: &'static str) -> AssertSqlSafe<String> {
        match self.kind() {
            DatabaseKind::Sqlite => AssertSqlSafe(sql.to_owned()),
            DatabaseKind::Postgres => AssertSqlSafe(format!("{sql} {lock}")),
        }
    }
}

impl Row {
    pub(crate) fn number(&self, column: usize) -> Result<i64, Fault> {
        Ok(for_either!(self, row => row.try_get(column)?))
    }

    pub(crate) fn optional_number(&self, column: usize) -> Result<Option<i64>, Fault> {
        Ok(for_either!(self, row => row.try_get(column)?))
    }

    pub(crate) fn text(&self, column: usize) -> Result<Box<str>, Fault> {
        Ok(for_either!(self, row => row.try_get::<String, _>(column)?).into())
    }

    pub(crate) fn optional_text(&self, column: usize) -> Result<Option<Box<str>>, Fault> {
        Ok(for_either!(self, row => row.try_get::<Option<String>, _>(column)?).map(Into::into))
    }

    pub(crate) fn bytes(&self, column: usize) -> Result<Vec<u8>, Fault> {
        Ok(for_either!(self, row => row.try_get(column)?))
    }

    pub(crate) fn optional_bytes(&self, column: usize) -> Result<Option<Vec<u8>>, Fault> {
        Ok(for_either!(self, row => row.try_get(column)?))
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
        Self::Bytes(Some(bytes.into()))
    }
}

impl From<Option<Vec<u8>>> for Value {
    fn from(bytes: Option<Vec<u8>>) -> Self {
        Self::Bytes(bytes)
    }
}
