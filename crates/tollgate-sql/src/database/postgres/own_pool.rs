//! A pool of connections to PostgreSQL of this store's own, made with `deadpool`.
//!
//! `docs/design/sql.md` says what the pool must do, and why sqlx's pool and `bb8` cannot.

use std::{fmt, time::Duration};

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use crate::{connect_error::ConnectError, fault::Fault};

/// A connection that was idle for longer is tested before use.
const TEST_AFTER: Duration = Duration::from_secs(1);

/// An older connection is replaced, so that connections spread again after a failover behind a load balancer.
const MAX_AGE: Duration = Duration::from_mins(30);

/// How long a graceful close may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

pub(super) struct OwnPool(Pool<Connector>);

/// A connection in use. Dropped, it counts as broken unless it was [given back](Self::give_back).
pub(super) struct OwnConnection(Object<Connector>);

struct Connector {
    options: PgConnectOptions,
    /// The statements that each new connection runs first.
    setup: String,
    /// Each open connection has a receiver of it.
    open: watch::Sender<()>,
}

struct Session {
    connection: PgConnection,
    opened_at: Instant,
    used_at: Instant,
    /// Whether it may be used again. `false` while it is in use.
    is_ready: bool,
    _open: watch::Receiver<()>,
}

impl OwnPool {
    pub(super) fn new(options: PgConnectOptions, setup: String, size: u32) -> Result<Self, ConnectError> {
        let connector = Connector { options, setup, open: watch::Sender::new(()) };
        let pool = Pool::builder(connector)
            .max_size(usize::try_from(size).unwrap_or(usize::MAX))
            // The connection that was used last is used next.
            .queue_mode(QueueMode::Lifo)
            .build();
        pool.map(Self).map_err(|error| ConnectError::InvalidSetting(error.to_string().into()))
    }

    pub(super) fn connect_options(&self) -> &PgConnectOptions {
        &self.0.manager().options
    }

    /// A connection that was usable a moment ago, or is new.
    pub(super) async fn acquire(&self, deadline: Instant) -> Result<OwnConnection, Fault> {
        loop {
            let mut object = match timeout_at(deadline, self.0.get()).await {
                Ok(Ok(object)) => object,
                Ok(Err(PoolError::Backend(fault))) => return Err(fault),
                Ok(Err(_)) => return Err(Fault::Database(sqlx::Error::PoolClosed)),
                Err(_) => return Err(self.timed_out()),
            };
            object.is_ready = false;
            let now = Instant::now();
            if now.duration_since(object.used_at) < TEST_AFTER {
                return Ok(OwnConnection(object));
            }
            // Half of the time left, so that there is time for a new connection.
            let limit = deadline.saturating_duration_since(now) / 2;
            if let Ok(Ok(())) = timeout(limit, object.connection.ping()).await {
                return Ok(OwnConnection(object));
            }
            drop(Object::take(object));
            // The other idle connections were used even longer ago.
            self.drop_idle();
        }
    }

    /// Either all connections are in use, or a new one takes too long.
    fn timed_out(&self) -> Fault {
        let status = self.0.status();
        if status.size >= status.max_size {
            Fault::Database(sqlx::Error::PoolTimedOut)
        } else {
            Fault::TimedOut
        }
    }

    pub(super) fn drop_idle(&self) {
        self.0.retain(|_, _| false);
    }

    /// Refuses further use, closes idle connections, and waits until those in use are closed.
    pub(super) async fn close(&self) {
        let idle = self.0.retain(|_, _| false).removed;
        self.0.close();
        for session in idle {
            session.close().await;
        }
        self.0.manager().open.closed().await;
    }
}

impl OwnConnection {
    pub(super) fn get(&mut self) -> &mut PgConnection {
        &mut self.0.connection
    }

    /// Returns the connection to the pool, or closes it if the pool is closed. Needs a tokio runtime.
    pub(super) fn give_back(mut self) {
        if Object::pool(&self.0).is_none_or(|pool| pool.is_closed()) {
            tokio::spawn(Object::take(self.0).close());
        } else {
            self.0.used_at = Instant::now();
            self.0.is_ready = true;
        }
    }

    /// Drops a broken connection.
    pub(super) fn discard(self) {
        drop(Object::take(self.0));
    }
}

impl Manager for Connector {
    type Type = Session;
    type Error = Fault;

    async fn create(&self) -> Result<Session, Fault> {
        let mut connection = self.options.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(self.setup.clone())).execute(&mut connection).await?;
        let now = Instant::now();
        Ok(Session { connection, opened_at: now, used_at: now, is_ready: true, _open: self.open.subscribe() })
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<Fault> {
        if session.is_ready && session.opened_at.elapsed() < MAX_AGE {
            Ok(())
        } else {
            Err(RecycleError::message("too old, or dropped during use"))
        }
    }
}

impl Session {
    async fn close(self) {
        let _ = timeout(CLOSE_LIMIT, self.connection.close()).await;
    }
}

impl fmt::Debug for OwnPool {
    // The options hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnPool").field(&self.0.status()).finish()
    }
}
