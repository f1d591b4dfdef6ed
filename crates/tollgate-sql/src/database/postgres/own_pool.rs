//! A pool of connections to PostgreSQL of this store's own, made with `deadpool`.
//!
//! `docs/design/sql.md` says what the pool must do, and why sqlx's pool and `bb8` cannot.

mod connector;

use std::{fmt, time::Duration};

use deadpool::managed::{Object, Pool, PoolError, QueueMode, Timeouts};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    runtime::Handle as Runtime,
    time::{Instant, timeout, timeout_at},
};

use self::connector::{Connector, Setup};
use crate::{connect_error::ConnectError, database::Query, fault::Fault, settings::Settings};

/// The least deadline of a new connection. Eight times the deadline of a lookup, if that is more: connecting takes more round trips.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

pub(super) struct OwnPool {
    pool: Pool<Connector>,
    /// A connection that has not answered for longer is tested before use. [`test_idle`](Self::test_idle) prevents that.
    test_after: Duration,
}

/// A connection in use. Dropped, it counts as broken unless it was [given back](Self::give_back).
pub(super) struct OwnConnection(Object<Connector>);

impl OwnPool {
    /// A pool of connections that first run the script and the queries.
    pub(super) fn new(
        options: PgConnectOptions,
        script: String,
        warm_up: Vec<Query>,
        settings: &Settings,
    ) -> Result<Self, ConnectError> {
        let limit = settings.deadline.saturating_mul(8).max(CONNECT_LIMIT).min(settings.admin_deadline);
        let connector =
            Connector::new(Setup { options, script, warm_up, limit, runtime: Runtime::current() });
        let pool = Pool::builder(connector)
            .max_size(usize::try_from(settings.connections).unwrap_or(usize::MAX))
            // The connection that was idle for the longest time is used next, so few need a test.
            .queue_mode(QueueMode::Fifo)
            .build();
        let test_after = settings.heartbeat.saturating_mul(2);
        pool.map(|pool| Self { pool, test_after })
            .map_err(|error| ConnectError::InvalidSetting(error.to_string().into()))
    }

    pub(super) fn connect_options(&self) -> &PgConnectOptions {
        &self.pool.manager().setup().options
    }

    /// A connection that was usable a moment ago, or is new.
    pub(super) async fn acquire(&self, deadline: Instant) -> Result<OwnConnection, Fault> {
        loop {
            let mut object = match timeout_at(deadline, self.pool.get()).await {
                Ok(Ok(object)) => object,
                Ok(Err(PoolError::Backend(fault))) => return Err(fault),
                Ok(Err(_)) => return Err(Fault::Database(sqlx::Error::PoolClosed)),
                Err(_) => return Err(self.timed_out()),
            };
            object.is_ready = false;
            let now = Instant::now();
            if now.duration_since(object.answered_at) < self.test_after {
                return Ok(OwnConnection(object));
            }
            // Half of the time left, so that there is time for a new connection.
            let limit = deadline.saturating_duration_since(now) / 2;
            if let Ok(Ok(())) = timeout(limit, object.connection.ping()).await {
                return Ok(OwnConnection(object));
            }
            drop(Object::take(object));
            // The other idle connections were used even longer ago, or at about the same time.
            self.drop_idle();
        }
    }

    /// Either all connections are in use, or a new one takes too long.
    fn timed_out(&self) -> Fault {
        let status = self.pool.status();
        if status.size >= status.max_size {
            Fault::Database(sqlx::Error::PoolTimedOut)
        } else {
            Fault::TimedOut
        }
    }

    /// Tests the connections that have not answered for some time, one after the other, so that lookups need not test them.
    pub(super) async fn test_idle(&self, after: Duration) {
        let at_once = Timeouts { wait: Some(Duration::ZERO), ..Timeouts::default() };
        for _ in 0..self.pool.status().available {
            let Ok(mut object) = self.pool.timeout_get(&at_once).await else { return };
            if object.answered_at.elapsed() < after {
                continue;
            }
            object.is_ready = false;
            let limit = self.pool.manager().setup().limit;
            let Ok(Ok(())) = timeout(limit, object.connection.ping()).await else {
                drop(Object::take(object));
                self.drop_idle();
                return;
            };
            OwnConnection(object).give_back();
        }
    }

    pub(super) fn drop_idle(&self) {
        self.pool.retain(|_, _| false);
        self.pool.manager().drop_ready();
    }

    /// Refuses further use, closes idle connections, and waits until those in use are closed.
    pub(super) async fn close(&self) {
        let idle = self.pool.retain(|_, _| false).removed;
        self.pool.close();
        for session in idle {
            session.close().await;
        }
        self.pool.manager().close().await;
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
            self.0.answered_at = Instant::now();
            self.0.is_ready = true;
        }
    }

    /// Drops a broken connection.
    pub(super) fn discard(self) {
        drop(Object::take(self.0));
    }
}

impl fmt::Debug for OwnPool {
    // The options hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnPool").field(&self.pool.status()).finish()
    }
}
