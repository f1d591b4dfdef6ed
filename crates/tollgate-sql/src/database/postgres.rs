//! PostgreSQL: connection options, and leases of pooled connections.

mod own_pool;

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions as _, PgConnection, PgPool, Postgres, pool::PoolConnection, postgres::PgConnectOptions,
};
use tokio::{
    runtime::Handle as Runtime,
    time::{Instant, timeout, timeout_at},
};

use self::own_pool::{OwnConnection, OwnPool};
use super::Query;
use crate::{connect_error::ConnectError, fault::Fault, settings::Settings};

/// How long to wait for a rollback after a caller has given up.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(1);

/// The parameters that a URL may have. sqlx logs the value of an unknown one, which may be a misspelt `password`.
const PARAMETERS: [&str; 20] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "target_session_attrs",
    "connect_timeout",
];

/// The connection options of a URL.
pub(crate) fn options_of(url: &str) -> Result<PgConnectOptions, ConnectError> {
    // No message repeats a part of the URL: if the password contains `?`, `/` or `#`, each part may belong to the password.
    let malformed = || {
        ConnectError::InvalidUrl(
            "write `postgres://user:password@host:5432/database`; percent-encode characters other than letters, digits and \
             `-._~`, as `%3F` for `?`"
                .into(),
        )
    };
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let path =
        address.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    if path.contains('@') || url.contains('#') {
        return Err(malformed());
    }
    for (number, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        let name = pair.split('=').next().unwrap_or(pair);
        if !PARAMETERS.contains(&name) && !name.starts_with("options[") && !name.starts_with("options%5B") {
            let message = format!(
                "parameter {} after the `?` is unknown: known are {} and options[name]; write a `?` in a password as `%3F`",
                number + 1,
                PARAMETERS.join(", ")
            );
            return Err(ConnectError::InvalidUrl(message.into()));
        }
    }
    let options = PgConnectOptions::from_str(url).map_err(|_| malformed())?;
    Ok(options.disable_statement_logging())
}

/// A connection pool: of this store's own, or the application's.
#[derive(Debug)]
pub(crate) struct Pool {
    kind: PoolKind,
    /// The longest time that the server spends on a statement or waits in an open transaction, in milliseconds.
    server_limit: u128,
    runtime: Runtime,
}

#[derive(Debug)]
enum PoolKind {
    Own(OwnPool),
    Application(PgPool),
}

impl Pool {
    /// Opens a pool of this store's own, and its first connection. Each connection first runs these queries.
    pub(crate) async fn open(
        options: PgConnectOptions,
        warm_up: Vec<Query>,
        settings: &Settings,
    ) -> Result<Self, ConnectError> {
        let is_named = options.get_application_name().is_some();
        let options = if is_named { options } else { options.application_name("tollgate") };
        let limit = server_limit(settings);
        // Stops statements whose caller has given up, and transactions whose client is gone.
        let setup =
            format!("SET statement_timeout = {limit}; SET idle_in_transaction_session_timeout = {limit}");
        let pool = OwnPool::new(options, setup, warm_up, settings)?;
        Self::checked(PoolKind::Own(pool), settings).await
    }

    /// Uses a pool of the application's.
    pub(crate) async fn adopt(pool: PgPool, settings: &Settings) -> Result<Self, ConnectError> {
        Self::checked(PoolKind::Application(pool), settings).await
    }

    /// The pool, after one connection has been opened.
    async fn checked(kind: PoolKind, settings: &Settings) -> Result<Self, ConnectError> {
        let pool = Self { kind, server_limit: server_limit(settings), runtime: Runtime::current() };
        let first = pool.acquire(Instant::now() + settings.admin_deadline).await;
        drop(first.map_err(|fault| ConnectError::from_fault(&fault))?);
        Ok(pool)
    }

    /// The options for a connection outside the pool.
    pub(crate) fn connect_options(&self) -> PgConnectOptions {
        match &self.kind {
            PoolKind::Own(pool) => pool.connect_options().clone(),
            PoolKind::Application(pool) => (*pool.connect_options()).clone(),
        }
    }

    pub(super) async fn acquire(&self, deadline: Instant) -> Result<Lease, Fault> {
        let connection = match &self.kind {
            PoolKind::Own(pool) => LeasedConnection::Own(pool.acquire(deadline).await?),
            PoolKind::Application(pool) => {
                let acquired = timeout_at(deadline, pool.acquire()).await;
                LeasedConnection::Application(acquired.unwrap_or(Err(sqlx::Error::PoolTimedOut))?)
            }
        };
        Ok(Lease {
            connection: Some(connection),
            is_in_query: false,
            is_in_transaction: false,
            server_limit: self.server_limit,
            runtime: self.runtime.clone(),
        })
    }

    /// Closes all idle connections: the network or the server has failed since they were used. An application's pool offers
    /// no such call, and finds out by itself.
    pub(crate) fn drop_idle(&self) {
        if let PoolKind::Own(pool) = &self.kind {
            pool.drop_idle();
        }
    }

    /// Tests the connections that have not answered for this time. An application's pool tests them before use.
    pub(crate) async fn test_idle(&self, after: Duration) {
        if let PoolKind::Own(pool) = &self.kind {
            pool.test_idle(after).await;
        }
    }

    pub(super) async fn close(&self) {
        if let PoolKind::Own(pool) = &self.kind {
            pool.close().await;
        }
    }
}

fn server_limit(settings: &Settings) -> u128 {
    settings.admin_deadline.as_millis().clamp(1, 3_600_000)
}

/// A leased connection. Dropped, it returns to its pool; in the middle of a query or a transaction it is rolled back first.
pub(crate) struct Lease {
    connection: Option<LeasedConnection>,
    is_in_query: bool,
    is_in_transaction: bool,
    server_limit: u128,
    runtime: Runtime,
}

enum LeasedConnection {
    Own(OwnConnection),
    Application(PoolConnection<Postgres>),
}

impl Lease {
    /// The connection for a query, until its [result](Self::end_query).
    pub(super) fn begin_query(&mut self) -> Result<&mut PgConnection, Fault> {
        self.is_in_query = true;
        self.connection.as_mut().map(LeasedConnection::get).ok_or(Fault::Stopped)
    }

    pub(super) fn end_query<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, Fault> {
        self.is_in_query = false;
        result.map_err(|error| {
            let fault = Fault::from(error);
            if fault.is_connection_lost()
                && let Some(connection) = self.connection.take()
            {
                connection.discard();
            }
            fault
        })
    }

    /// The statements that begin a transaction. Sessions of an application's pool get their limits for this transaction only.
    pub(super) fn begin_transaction(&mut self) -> String {
        self.is_in_transaction = true;
        match &self.connection {
            Some(LeasedConnection::Application(_)) => {
                let limit = self.server_limit;
                format!(
                    "BEGIN; SET LOCAL statement_timeout = {limit}; \
                     SET LOCAL idle_in_transaction_session_timeout = {limit}"
                )
            }
            _ => "BEGIN".to_owned(),
        }
    }

    pub(super) fn end_transaction(&mut self) {
        self.is_in_transaction = false;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        // Pools spawn tasks when they get a connection back.
        let _runtime = self.runtime.enter();
        if !self.is_in_query && !self.is_in_transaction {
            connection.give_back();
            return;
        }
        // The caller did not wait for the answer. If the answer comes soon, the connection is kept: callers give up faster
        // than connections are made. Until then it counts against the size of the pool.
        self.runtime.spawn(async move {
            let rollback = sqlx::raw_sql("ROLLBACK").execute(connection.get());
            match timeout(ROLLBACK_LIMIT, rollback).await {
                Ok(Ok(_)) => connection.give_back(),
                _ => connection.discard(),
            }
        });
    }
}

impl LeasedConnection {
    fn get(&mut self) -> &mut PgConnection {
        match self {
            Self::Own(connection) => connection.get(),
            Self::Application(connection) => connection,
        }
    }

    fn give_back(self) {
        match self {
            Self::Own(connection) => connection.give_back(),
            Self::Application(connection) => drop(connection),
        }
    }

    fn discard(self) {
        match self {
            Self::Own(connection) => connection.discard(),
            Self::Application(connection) => drop(connection.detach()),
        }
    }
}
