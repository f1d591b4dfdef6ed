//! Opens a store: from a URL, from connection options, or over a pool of the application's.
//!
//! The futures of opening are boxed: they are large, and would be part of the futures of callers.

use std::time::Duration;

use tokio::runtime::Handle as Runtime;

#[cfg(feature = "postgres")]
use crate::find;
use crate::{
    ConnectError, Migrated, SqlKeys,
    database::{Database, Pools},
    migrations,
    settings::Settings,
};

impl SqlKeys {
    /// Opens the store at this URL: `sqlite://keys.db`, `sqlite::memory:`, `postgres://user:password@host/database`. Creates the
    /// tables if they are missing, and SQLite's file, too.
    ///
    /// Must be called within a tokio runtime, which then runs the store's background task. [`builder`](Self::builder) has the
    /// settings, and other ways to connect.
    ///
    /// # Errors
    /// [`ConnectError`], which says what to do.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::builder().connect(url).await
    }

    /// Configures a store before it is opened.
    pub fn builder() -> SqlKeysBuilder {
        SqlKeysBuilder::default()
    }
}

/// Configures a store, and opens it.
///
/// ```
/// use std::time::Duration;
/// use tollgate_sql::SqlKeys;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tollgate_sql::ConnectError> {
/// let keys = SqlKeys::builder()
///     .with_deadline(Duration::from_millis(100))
///     .with_connections(4)
///     .with_heartbeat(Duration::from_millis(500))
///     .connect("sqlite::memory:")
///     .await?;
/// # keys.close().await;
/// # Ok(())
/// # }
/// ```
///
/// # Connections
///
/// | method | connections |
/// |---|---|
/// | [`connect`](Self::connect) | a pool of the store's own, by a URL |
/// | `connect_sqlite`, `connect_postgres` | a pool of the store's own, by sqlx's connection options |
/// | `connect_sqlite_pool`, `connect_postgres_pool` | a pool of the application's, shared with its other queries |
///
/// With a pool of its own, a store with PostgreSQL tests idle connections, drops them all when the network has failed, and
/// makes one round trip for a lookup. sqlx's pool makes a second one after each use, and after a network failure it holds
/// connections that do not answer until the operating system gives them up.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it connects"]
pub struct SqlKeysBuilder(Settings);

impl SqlKeysBuilder {
    /// How long a key lookup may take, including the wait for a connection. Then the lookup is
    /// [`Unavailable`](tollgate_core::denial::Unavailable), and the request is refused. Default: 250 ms. It must be longer than the
    /// round trip to the database.
    ///
    /// The deadline of a new connection is eight times as long, at least 2 s, but no longer than the
    /// [admin deadline](Self::with_admin_deadline). A lookup that gives up does not stop it. Idle connections are tested in the
    /// background.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.0.deadline = deadline;
        self
    }

    /// How long it may take to change an account of credits, or to read its balance, including the wait for other requests of the same
    /// account and for a connection. Then the call is [`Unavailable`](tollgate_core::denial::Unavailable). Default: 2 s, since
    /// requests of one account queue, and each writes to the disk.
    pub fn with_credit_deadline(mut self, deadline: Duration) -> Self {
        self.0.credit_deadline = deadline;
        self
    }

    /// How long every other operation may take: to open the store, to change and list keys, to add and read usage. Default:
    /// 5 s.
    pub fn with_admin_deadline(mut self, deadline: Duration) -> Self {
        self.0.admin_deadline = deadline;
        self
    }

    /// The maximum number of connections in the store's own pool. Default: 10.
    ///
    /// There is one more connection for notifications, and with SQLite one more for the writer. A database in memory is a
    /// single connection. A pool of the application's has its own maximum.
    pub fn with_connections(mut self, connections: u32) -> Self {
        self.0.connections = connections;
        self
    }

    /// PostgreSQL: how often to check that notifications would arrive. Default: 1 s.
    ///
    /// The server must answer a check within three quarters of a heartbeat. So a silent failure is noticed within two
    /// heartbeats.
    pub fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        self.0.heartbeat = heartbeat;
        self
    }

    /// SQLite: how often to check whether another process has changed the file. Default: 100 ms.
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.0.poll_interval = interval;
        self
    }

    /// Does not create or update the tables. If they are missing, older or newer, the store does not open, and the error says
    /// what to run. Default: opening a store migrates.
    ///
    /// Run the migrations with `tollgate migrate`, with [`migrate`](Self::migrate), or with a tool of your own that applies the
    /// files of [`migrations`](crate::migrations) (`tollgate schema` prints them).
    pub fn without_migration(mut self) -> Self {
        self.0.migrates = false;
        self
    }

    /// Opens the store at this URL: `sqlite://keys.db`, `sqlite::memory:`, `postgres://user:password@host/database`.
    ///
    /// SQLite's file is created if it is missing, unless the URL ends with `?mode=rw`. Must be called within a tokio runtime,
    /// which then runs the store's background task.
    ///
    /// # Errors
    /// [`ConnectError`], which says what to do.
    pub async fn connect(self, url: &str) -> Result<SqlKeys, ConnectError> {
        let settings = self.checked()?;
        let database = open_url(url, &settings).await?;
        Box::pin(SqlKeys::open(database, settings)).await
    }

    /// Opens the store in the SQLite database of these options.
    ///
    /// Journal mode, foreign keys and the busy timeout are the store's: WAL, on, and its deadlines. All else is as the options
    /// say: with `synchronous` below `FULL`, a power failure can undo a revocation.
    ///
    /// ```
    /// use tollgate_sql::{SqlKeys, sqlx::sqlite::SqliteConnectOptions};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tollgate_sql::ConnectError> {
    /// let options = SqliteConnectOptions::new().in_memory(true);
    /// let keys = SqlKeys::builder().connect_sqlite(options).await?;
    /// # keys.close().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As of [`connect`](Self::connect).
    #[cfg(feature = "sqlite")]
    pub async fn connect_sqlite(
        self,
        options: sqlx::sqlite::SqliteConnectOptions,
    ) -> Result<SqlKeys, ConnectError> {
        let settings = self.checked()?;
        let pools = Box::pin(crate::database::sqlite::Pools::open(options, &settings)).await?;
        Box::pin(SqlKeys::open(Pools::Sqlite(pools).into(), settings)).await
    }

    /// Opens the store over a SQLite pool of the application's. [`SqlKeys::close`] leaves the pool open.
    ///
    /// The pool must enforce foreign keys, which is sqlx's default; use WAL, so that lookups do not wait for writers; and leave
    /// `synchronous` at `FULL`, so that a revocation survives a power failure. For a file, the store opens one more connection
    /// to check for changes.
    ///
    /// ```
    /// use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
    /// use tollgate_sql::{SqlKeys, sqlx};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = std::env::temp_dir().join(format!("tollgate-doc-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// # let path = folder.join("app.db");
    /// let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    /// let pool = sqlx::SqlitePool::connect_with(options.journal_mode(SqliteJournalMode::Wal)).await?;
    /// let keys = SqlKeys::builder().connect_sqlite_pool(pool.clone()).await?;
    /// # keys.close().await;
    /// # pool.close().await;
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As of [`connect`](Self::connect).
    #[cfg(feature = "sqlite")]
    pub async fn connect_sqlite_pool(self, pool: sqlx::SqlitePool) -> Result<SqlKeys, ConnectError> {
        let settings = self.checked()?;
        let pools = crate::database::sqlite::Pools::adopt(pool, &settings).await?;
        Box::pin(SqlKeys::open(Pools::Sqlite(pools).into(), settings)).await
    }

    /// Opens the store in the PostgreSQL database of these options.
    ///
    /// ```no_run
    /// use tollgate_sql::{SqlKeys, sqlx::postgres::{PgConnectOptions, PgSslMode}};
    ///
    /// # async fn example() -> Result<(), tollgate_sql::ConnectError> {
    /// let options = PgConnectOptions::new().host("db.internal").database("app").ssl_mode(PgSslMode::Require);
    /// let keys = SqlKeys::builder().connect_postgres(options).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As of [`connect`](Self::connect).
    #[cfg(feature = "postgres")]
    pub async fn connect_postgres(
        self,
        options: sqlx::postgres::PgConnectOptions,
    ) -> Result<SqlKeys, ConnectError> {
        let settings = self.checked()?;
        let pool =
            Box::pin(crate::database::postgres::Pool::open(options, find::warm_up(), &settings)).await?;
        Box::pin(SqlKeys::open(Pools::Postgres(pool.into()).into(), settings)).await
    }

    /// Opens the store over a PostgreSQL pool of the application's. [`SqlKeys::close`] leaves the pool open.
    ///
    /// The store opens one more connection for notifications, with the connection options of the pool. Lookups and changes keep
    /// their deadlines. Set `test_before_acquire(false)` on the pool to save a round trip before each lookup.
    ///
    /// ```no_run
    /// use sqlx::postgres::PgPoolOptions;
    /// use tollgate_sql::{SqlKeys, sqlx};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = PgPoolOptions::new().test_before_acquire(false).connect("postgres://app@db.internal/app").await?;
    /// let keys = SqlKeys::builder().connect_postgres_pool(pool.clone()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As of [`connect`](Self::connect).
    #[cfg(feature = "postgres")]
    pub async fn connect_postgres_pool(self, pool: sqlx::PgPool) -> Result<SqlKeys, ConnectError> {
        let settings = self.checked()?;
        let pool = crate::database::postgres::Pool::adopt(pool, &settings).await?;
        Box::pin(SqlKeys::open(Pools::Postgres(pool.into()).into(), settings)).await
    }

    /// Creates the tables at this URL, or updates them, and opens no store. Needs the right to change tables; the store itself
    /// needs no more than to read and write rows.
    ///
    /// # Errors
    /// As of [`connect`](Self::connect).
    pub async fn migrate(self, url: &str) -> Result<Migrated, ConnectError> {
        let settings = self.checked()?;
        let database = open_url(url, &settings).await?;
        let migrated = migrations::migrate(&database, settings.admin_deadline).await;
        database.close().await;
        migrated
    }

    fn checked(self) -> Result<Settings, ConnectError> {
        if Runtime::try_current().is_err() {
            return Err(ConnectError::InvalidSetting(
                "a key store must be opened within a tokio runtime, which runs its background task".into(),
            ));
        }
        self.0.check()?;
        Ok(self.0)
    }
}

async fn open_url(url: &str, settings: &Settings) -> Result<Database, ConnectError> {
    let opening = Database::from_url(
        url,
        #[cfg(feature = "postgres")]
        find::warm_up(),
        settings,
    );
    Box::pin(opening).await
}
