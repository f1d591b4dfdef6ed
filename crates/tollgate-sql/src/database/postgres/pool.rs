//! A pool of connections to PostgreSQL.
//!
//! sqlx's own asks the server after each use whether the connection is still good, and waits for the answer without a limit: that
//! is a second trip for each look-up, and where a firewall forgets a link, each connection that was in use is out of
//! use for as long as the operating system hopes for an answer, a quarter of an hour.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    runtime::Handle as Runtime,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use crate::{builder::Settings, fault::Fault};

/// From how long without use on a connection is tried out before it is used again.
const IDLE: Duration = Duration::from_secs(1);

/// How old a connection grows: servers behind a balancer come and go.
const LIFETIME: Duration = Duration::from_mins(30);

/// How long it may take to tidy up a connection after somebody did not wait for its answer, or to take leave.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connections that are lent, one by one.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    options: PgConnectOptions,
    // What each connection is told first.
    greeting: String,
    // The one used last is used next.
    idle: Mutex<Vec<Idle>>,
    room: Arc<Semaphore>,
    size: u32,
    is_closed: AtomicBool,
    runtime: Runtime,
}

struct Idle {
    connection: PgConnection,
    opened_at: Instant,
    used_at: Instant,
}

/// A connection that is lent. Dropped, it goes back.
pub(crate) struct Lease {
    connection: Option<PgConnection>,
    opened_at: Instant,
    is_waiting: bool,
    is_in_transaction: bool,
    pool: Arc<Inner>,
    room: Option<OwnedSemaphorePermit>,
}

impl Pool {
    /// A pool, and a first connection, by which one knows that the server lets this program in.
    pub(crate) async fn open(options: PgConnectOptions, settings: &Settings) -> Result<Self, Fault> {
        // Also the server gives up: on what nobody waits for any more, and on whoever holds a lock and is gone.
        let limit = settings.admin_deadline.as_millis().clamp(1, 3_600_000);
        let greeting =
            format!("SET statement_timeout = {limit}; SET idle_in_transaction_session_timeout = {limit}");
        let pool = Self(Arc::new(Inner {
            options,
            greeting,
            idle: Mutex::default(),
            room: Arc::new(Semaphore::new(usize::try_from(settings.connections).unwrap_or(usize::MAX))),
            size: settings.connections,
            is_closed: AtomicBool::new(false),
            runtime: Runtime::current(),
        }));
        drop(pool.lend(Instant::now() + settings.admin_deadline).await?);
        Ok(pool)
    }

    /// How a connection of one's own is made.
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.0.options
    }

    /// A connection that was good a moment ago, or is new.
    pub(crate) async fn lend(&self, until: Instant) -> Result<Lease, Fault> {
        let inner = &self.0;
        let in_time = timeout_at(until, Arc::clone(&inner.room).acquire_owned()).await;
        let room = in_time.map_err(|_| Fault::Database(sqlx::Error::PoolTimedOut))?;
        let room = room.map_err(|_| Fault::Database(sqlx::Error::PoolClosed))?;
        if inner.is_closed.load(Ordering::SeqCst) {
            return Err(Fault::Database(sqlx::Error::PoolClosed));
        }
        let (connection, opened_at) = match inner.take_idle(until).await {
            Some(idle) => (idle.connection, idle.opened_at),
            None => match timeout_at(until, inner.connect()).await {
                Ok(connected) => (connected?, Instant::now()),
                Err(_) => return Err(Fault::TooSlow),
            },
        };
        Ok(Lease {
            connection: Some(connection),
            opened_at,
            is_waiting: false,
            is_in_transaction: false,
            pool: Arc::clone(inner),
            room: Some(room),
        })
    }

    /// Uses no connection again that nobody uses now: the way to the server is broken, or was.
    pub(crate) fn forget_idle(&self) {
        self.0.idle().clear();
    }

    /// Waits for all connections that are lent, and closes them.
    pub(crate) async fn close(&self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
        let _all = self.0.room.acquire_many(self.0.size).await;
        let idle = std::mem::take(&mut *self.0.idle());
        for idle in idle {
            let _ = timeout(PATIENCE, idle.connection.close()).await;
        }
        self.0.room.close();
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // Nothing is ever left half changed, so a panic of another thread has left it whole.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take_idle(&self, until: Instant) -> Option<Idle> {
        loop {
            let mut idle = self.idle().pop()?;
            let now = Instant::now();
            if now.duration_since(idle.opened_at) > LIFETIME {
                self.take_leave(idle.connection);
                continue;
            }
            if now.duration_since(idle.used_at) < IDLE {
                return Some(idle);
            }
            // Half of the time that is left, so that there is some for a new one.
            let limit = until.saturating_duration_since(now) / 2;
            if let Ok(Ok(())) = timeout(limit, idle.connection.ping()).await {
                return Some(idle);
            }
            // The others were used even longer ago.
            self.idle().clear();
        }
    }

    async fn connect(&self) -> Result<PgConnection, Fault> {
        let mut connection = self.options.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(self.greeting.clone())).execute(&mut connection).await?;
        Ok(connection)
    }

    fn give_back(&self, connection: PgConnection, opened_at: Instant) {
        if self.is_closed.load(Ordering::SeqCst) {
            self.take_leave(connection);
        } else {
            self.idle().push(Idle { connection, opened_at, used_at: Instant::now() });
        }
    }

    /// Closes a connection so that the server does not wonder.
    fn take_leave(&self, connection: PgConnection) {
        self.runtime.spawn(timeout(PATIENCE, connection.close()));
    }
}

impl Lease {
    /// The connection, to ask it something. Until that is [answered](Self::answered) it waits.
    pub(crate) fn ask(&mut self) -> Result<&mut PgConnection, Fault> {
        self.is_waiting = true;
        self.connection.as_mut().ok_or(Fault::Stopped)
    }

    /// What came of it.
    pub(crate) fn answered<T>(&mut self, answer: Result<T, sqlx::Error>) -> Result<T, Fault> {
        self.is_waiting = false;
        answer.map_err(|error| {
            let fault = Fault::from(error);
            if fault.is_of_the_connection() {
                self.connection = None;
                self.pool.idle().clear();
            }
            fault
        })
    }

    pub(crate) fn set_in_transaction(&mut self, is_in_transaction: bool) {
        self.is_in_transaction = is_in_transaction;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let (pool, opened_at) = (Arc::clone(&self.pool), self.opened_at);
        if !self.is_waiting && !self.is_in_transaction {
            pool.give_back(connection, opened_at);
            return;
        }
        // Somebody did not wait for the answer. Callers come and go faster than connections are made: it is kept, if the answer
        // comes soon. Until then it takes its room.
        let room = self.room.take();
        self.pool.runtime.spawn(async move {
            let tidied = timeout(PATIENCE, sqlx::raw_sql("ROLLBACK").execute(&mut connection)).await;
            if let Ok(Ok(_)) = tidied {
                pool.give_back(connection, opened_at);
            }
            drop(room);
        });
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options hold a password.
        let lent = self.0.size as usize - self.0.room.available_permits().min(self.0.size as usize);
        f.debug_struct("Pool").field("size", &self.0.size).field("lent", &lent).finish_non_exhaustive()
    }
}
