//! What there is to choose about a store.

use std::time::Duration;

use crate::{ConnectError, SqlKeys};

/// What there is to choose about a store, before it is opened.
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
#[derive(Clone, Debug)]
#[must_use = "a builder opens nothing until it connects"]
pub struct SqlKeysBuilder(Settings);

/// Longer, and it is no bound.
const LONGEST: Duration = Duration::from_hours(1);

/// More than any server has.
const MOST_CONNECTIONS: u32 = 10_000;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) deadline: Duration,
    pub(crate) admin_deadline: Duration,
    pub(crate) connections: u32,
    pub(crate) heartbeat: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) may_migrate: bool,
}

impl Default for SqlKeysBuilder {
    fn default() -> Self {
        Self(Settings {
            deadline: Duration::from_millis(250),
            admin_deadline: Duration::from_secs(5),
            connections: 10,
            heartbeat: Duration::from_secs(1),
            poll_interval: Duration::from_millis(100),
            may_migrate: true,
        })
    }
}

impl SqlKeysBuilder {
    /// How long a look-up of a key may take, the wait for a connection included: 250 ms if nobody says. Then the store is
    /// [`Unavailable`](tollgate_core::denial::Unavailable), and the key is refused.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.0.deadline = deadline;
        self
    }

    /// How long everything else may take: to open the store, to change, list and count. 5 s if nobody says.
    pub fn with_admin_deadline(mut self, deadline: Duration) -> Self {
        self.0.admin_deadline = deadline;
        self
    }

    /// How many connections to the database are open at most, besides one for news: 10 if nobody says. SQLite has one more,
    /// for whoever writes; a database in memory is a single connection.
    pub fn with_connections(mut self, connections: u32) -> Self {
        self.0.connections = connections;
        self
    }

    /// PostgreSQL: how often to try out whether news would get through: 1 s if nobody says. For three quarters of that the answer
    /// is waited for. Two heartbeats is how long a link may be cut without anybody's notice.
    pub fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        self.0.heartbeat = heartbeat;
        self
    }

    /// SQLite: how often to look whether another process has changed the file: every 100 ms if nobody says.
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.0.poll_interval = interval;
        self
    }

    /// Makes no tables and changes none: where another program, which may, has opened the store before.
    pub fn without_migration(mut self) -> Self {
        self.0.may_migrate = false;
        self
    }

    /// Opens the store: makes its tables if they are missing, brings them up to date if they are of an earlier version.
    ///
    /// Must be called within a tokio runtime, which then keeps the store going.
    ///
    /// # Errors
    /// [`ConnectError`], which says what to do.
    pub async fn connect(self, url: &str) -> Result<SqlKeys, ConnectError> {
        let settings = self.0;
        let times = [settings.deadline, settings.admin_deadline, settings.heartbeat, settings.poll_interval];
        if times.iter().any(|time| time.is_zero() || *time > LONGEST) {
            return Err(ConnectError::InvalidSetting(
                "each deadline, heartbeat and interval of a key store is more than nothing and at most an hour".into(),
            ));
        }
        if !(1..=MOST_CONNECTIONS).contains(&settings.connections) {
            return Err(ConnectError::InvalidSetting("a key store has 1 to 10,000 connections".into()));
        }
        SqlKeys::open(url, settings).await
    }
}
