//! The database: accounts and their sessions.

use std::time::Duration;

use sqlx::{
    ConnectOptions as _, SqlitePool, raw_sql,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

const TABLES: &str = "
    CREATE TABLE accounts (
        id             TEXT PRIMARY KEY,
        name           TEXT NOT NULL,
        email          TEXT NOT NULL UNIQUE, -- in lower case
        password       TEXT,                 -- its Argon2 hash; NULL: no sign-in with a password
        plan           TEXT NOT NULL,
        is_paid        INTEGER NOT NULL,
        totp_secret    BLOB,                 -- a real service encrypts it
        is_mfa_enabled INTEGER NOT NULL DEFAULT 0,
        totp_step      INTEGER NOT NULL DEFAULT 0 -- the time step of the last code that was accepted
    ) STRICT;
    CREATE TABLE sessions (
        id         TEXT PRIMARY KEY,
        account    TEXT NOT NULL REFERENCES accounts,
        secret     BLOB NOT NULL,            -- the digest of its current refresh token
        expires_at INTEGER NOT NULL          -- seconds since the Unix epoch
    ) STRICT;
    CREATE INDEX sessions_by_account ON sessions (account)";

/// Keeps everything in memory while the service runs; `sqlite://skannr.db` would keep it on disk.
pub(crate) async fn open() -> Result<SqlitePool, sqlx::Error> {
    let options = "sqlite::memory:".parse::<SqliteConnectOptions>()?.disable_statement_logging();
    let database = SqlitePoolOptions::new()
        // An in-memory database exists only as long as its connection.
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        // A request that waits longer is answered with 503.
        .acquire_timeout(Duration::from_secs(5))
        .connect_with(options)
        .await?;
    raw_sql(TABLES).execute(&database).await?;
    Ok(database)
}
