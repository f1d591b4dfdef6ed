//! PostgreSQL: pooled connections, and the options that all connections share.

use std::{str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{builder::Settings, connect_error::ConnectError};

/// From how long without use on a connection is tried out before it is used again.
const IDLE: Duration = Duration::from_secs(1);

/// What a URL may say. A misspelt `password` must not get into sqlx's log.
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

/// Pooled connections, and what it takes to make one of one's own.
#[derive(Clone)]
pub(crate) struct Pool {
    pub(crate) connections: PgPool,
    pub(crate) options: Arc<PgConnectOptions>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The options hold a password.
        f.debug_struct("Pool").field("connections", &self.connections.size()).finish_non_exhaustive()
    }
}

pub(crate) fn options_of(url: &str) -> Result<PgConnectOptions, ConnectError> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let names =
        query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split('=').next().unwrap_or(pair));
    for name in names {
        if !PARAMETERS.contains(&name) && !name.starts_with("options[") && !name.starts_with("options%5B") {
            return Err(ConnectError::InvalidUrl(
                format!("there is no parameter `{}`", name.escape_debug()).into(),
            ));
        }
    }
    let options = PgConnectOptions::from_str(url).map_err(|_| {
        ConnectError::InvalidUrl(
            "write `postgres://user:password@host:5432/database`, with what is not a letter, a digit or `-._~` \
             percent-encoded"
                .into(),
        )
    })?;
    let is_named = options.get_application_name().is_some();
    let options = if is_named { options } else { options.application_name("tollgate") };
    Ok(options.disable_statement_logging())
}

pub(crate) async fn open(options: PgConnectOptions, settings: &Settings) -> Result<Pool, ConnectError> {
    // Also the server gives up then: on what nobody waits for any more, and on whoever holds a lock and is gone.
    let limits = settings.admin_deadline.as_millis().clamp(1, 3_600_000);
    let limits =
        format!("SET statement_timeout = {limits}; SET idle_in_transaction_session_timeout = {limits}");
    let connections = PgPoolOptions::new()
        .max_connections(settings.connections)
        .acquire_timeout(settings.admin_deadline)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let limits = limits.clone();
            Box::pin(
                async move { connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(limits))).await.map(drop) },
            )
        })
        .before_acquire(|connection, state| {
            Box::pin(async move {
                if state.idle_for >= IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_with(options.clone())
        .await
        .map_err(|error| ConnectError::from_fault(&error.into()))?;
    Ok(Pool { connections, options: Arc::new(options) })
}
