//! The tables, and how a database of an earlier version is brought up to this one.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use crate::{
    connect_error::ConnectError,
    database::{Connection, Database, Done},
    fault::Fault,
};

/// What made each version of the tables out of the one before, the first one first. What was released is never changed.
const MIGRATIONS: [&str; 1] = [include_str!("schema/1.sql")];

/// The version that this program knows.
#[expect(clippy::cast_possible_wrap, reason = "a handful")]
const KNOWN: i64 = MIGRATIONS.len() as i64;

/// What PostgreSQL says instead of what SQLite says. Texts are compared byte by byte in both, so that both sort alike and
/// beginnings are found by an index.
const POSTGRES_SAYS: [(&str, &str); 4] = [
    ("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
    (" TEXT", " TEXT COLLATE \"C\""),
    (" BLOB", " BYTEA"),
    (" WITHOUT ROWID", ""),
];

/// Takes the same lock for all who bring the tables up to date. Any number will do that nobody else uses.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(7739914128)";

/// Brings the tables up to the version that this program knows. What is up to date is not touched: no right to change
/// tables is needed then.
pub(crate) async fn bring_up_to_date(
    database: &Database,
    limit: Duration,
    may_migrate: bool,
) -> Result<(), ConnectError> {
    let found = database.read(limit, |connection| Box::pin(version(connection))).await;
    match found.map_err(|fault: Fault| ConnectError::from_fault(&fault))? {
        KNOWN => return Ok(()),
        found if !(0..=KNOWN).contains(&found) => {
            return Err(ConnectError::NewerSchema { found, known: KNOWN });
        }
        found if !may_migrate => return Err(ConnectError::OlderSchema { found, known: KNOWN }),
        _ => {}
    }
    let migrated = database.transact(limit, |connection| Box::pin(migrate(connection))).await;
    match migrated.map_err(|fault: Fault| ConnectError::from_fault(&fault))? {
        KNOWN => Ok(()),
        found => Err(ConnectError::NewerSchema { found, known: KNOWN }),
    }
}

/// The version of the tables that there are; 0 if there are none.
async fn version(connection: &mut Connection) -> Result<i64, Fault> {
    let is_there = match connection {
        #[cfg(feature = "sqlite")]
        Connection::Sqlite(_) => "SELECT COUNT(*) FROM sqlite_master WHERE name = 'tollgate_schema'",
        #[cfg(feature = "postgres")]
        Connection::Postgres(_) => "SELECT COUNT(*) FROM pg_class WHERE oid = to_regclass('tollgate_schema')",
    };
    let row = connection.row(is_there, []).await?;
    if row.map_or(Ok(0), |row| row.number(0))? == 0 {
        return Ok(0);
    }
    let row = connection.row("SELECT version FROM tollgate_schema ORDER BY version DESC LIMIT 1", []).await?;
    row.map_or(Ok(0), |row| row.number(0))
}

/// Gives the version that there is then.
async fn migrate(connection: &mut Connection) -> Result<Done<i64>, Fault> {
    let is_postgres = connection.is_postgres();
    if is_postgres {
        connection.execute(MIGRATION_LOCK, []).await?;
    }
    connection
        .script("CREATE TABLE IF NOT EXISTS tollgate_schema (version BIGINT NOT NULL PRIMARY KEY)")
        .await?;
    let found = version(connection).await?;
    if !(0..KNOWN).contains(&found) {
        // Another process was faster.
        return Ok(Done::RollBack(found));
    }
    for (number, script) in (1..).zip(MIGRATIONS).filter(|(number, _)| *number > found) {
        let mut script = script.to_owned();
        if is_postgres {
            for (sqlite, postgres) in POSTGRES_SAYS {
                script = script.replace(sqlite, postgres);
            }
        }
        connection.script(AssertSqlSafe(script)).await?;
        connection.execute("INSERT INTO tollgate_schema (version) VALUES ($1)", [number.into()]).await?;
    }
    Ok(Done::Commit(KNOWN))
}
