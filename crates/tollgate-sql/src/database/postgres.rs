//! PostgreSQL: what a URL says, and pooled connections.

mod pool;

use std::str::FromStr;

use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};

pub(crate) use self::pool::{Lease, Pool};
use crate::connect_error::ConnectError;

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

/// How connections are made, as a URL says it.
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
