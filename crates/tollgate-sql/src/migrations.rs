//! The SQL files that create and update the tables, and how they are run.
//!
//! Each file is one version of the schema for one database. It runs in one transaction, and its last statement records its
//! version in `tollgate_schema`. A released file is never changed: a new version is a new file.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    connect_error::ConnectError,
    database::{Connection, Database, Done, PAUSE, Urgency},
    fault::Fault,
    kind::DatabaseKind,
};

/// A SQL file that brings the tables from one version to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migration {
    /// The version of the schema after the migration. The first one is 1.
    pub version: i64,
    /// The name of the file: `0001_keys.sql`.
    pub file_name: &'static str,
    /// The statements, for one transaction. The last one records the version.
    pub sql: &'static str,
}

/// What [`SqlKeysBuilder::migrate`](crate::SqlKeysBuilder::migrate) has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migrated {
    /// The version of the schema before; 0 if there were no tables.
    pub from: i64,
    /// The version of the schema now. Equal to `from` if there was nothing to do.
    pub to: i64,
}

macro_rules! migration {
    ($kind:literal, $version:literal, $file_name:literal) => {
        Migration {
            version: $version,
            file_name: $file_name,
            sql: include_str!(concat!("../migrations/", $kind, "/", $file_name)),
        }
    };
}

const SQLITE: &[Migration] = &[
    migration!("sqlite", 1, "0001_keys.sql"),
    migration!("sqlite", 2, "0002_tenant_plans_and_networks.sql"),
    migration!("sqlite", 3, "0003_credits.sql"),
];
const POSTGRES: &[Migration] = &[
    migration!("postgres", 1, "0001_keys.sql"),
    migration!("postgres", 2, "0002_tenant_plans_and_networks.sql"),
    migration!("postgres", 3, "0003_credits.sql"),
];

/// The schema version that this program needs. Both databases have the same versions.
const EXPECTED: i64 = 3;

/// Serializes migrations by several processes. The number is arbitrary, and must not be used for anything else.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(7739914128)";

/// The migrations for a kind of database, the oldest first: for those who run them with a tool of their own, and then open
/// the store [without migration](crate::SqlKeysBuilder::without_migration).
///
/// ```
/// use tollgate_sql::{DatabaseKind, migrations};
///
/// let first = &migrations(DatabaseKind::Postgres)[0];
/// assert_eq!((first.version, first.file_name), (1, "0001_keys.sql"));
/// assert!(first.sql.contains("CREATE TABLE tollgate_keys"));
/// ```
pub fn migrations(kind: DatabaseKind) -> &'static [Migration] {
    match kind {
        DatabaseKind::Sqlite => SQLITE,
        DatabaseKind::Postgres => POSTGRES,
    }
}

/// Returns an error unless the tables have the version that this program needs.
pub(crate) async fn check(database: &Database, limit: Duration) -> Result<(), ConnectError> {
    match current_version(database, limit).await? {
        EXPECTED => take_over(database, limit).await,
        0 => {
            let is_empty = database.read(limit, |connection| Box::pin(is_empty(connection))).await;
            let is_empty = is_empty.map_err(|fault: Fault| ConnectError::from_fault(&fault))?;
            Err(ConnectError::MissingSchema { expected: EXPECTED, is_empty })
        }
        found if found < EXPECTED => Err(ConnectError::OlderSchema { found, expected: EXPECTED }),
        found => Err(ConnectError::NewerSchema { found, expected: EXPECTED }),
    }
}

/// Brings the tables to the version that this program needs. If they have it already, only reads: the program then needs no
/// right to change tables.
pub(crate) async fn migrate(database: &Database, limit: Duration) -> Result<Migrated, ConnectError> {
    let mut found = current_version(database, limit).await?;
    if found <= EXPECTED {
        take_over(database, limit).await?;
    }
    if found < EXPECTED {
        found = database
            .transact(limit, Urgency::Now, |connection| Box::pin(apply_missing(connection)))
            .await
            .map_err(|fault: Fault| ConnectError::from_fault(&fault))?;
        database.tables_have_changed();
    }
    if found > EXPECTED {
        return Err(ConnectError::NewerSchema { found, expected: EXPECTED });
    }
    Ok(Migrated { from: found, to: EXPECTED })
}

async fn take_over(database: &Database, limit: Duration) -> Result<(), ConnectError> {
    database.take_over(limit).await.map_err(|fault| ConnectError::from_fault(&fault))
}

async fn current_version(database: &Database, limit: Duration) -> Result<i64, ConnectError> {
    let deadline = Instant::now() + limit;
    loop {
        match database.read(limit, |connection| Box::pin(version(connection))).await {
            // While another process switches a new file to a write-ahead log, the file cannot be read.
            Err(fault) if Fault::is_busy(&fault) && Instant::now() < deadline => sleep(PAUSE).await,
            version => return version.map_err(|fault| ConnectError::from_fault(&fault)),
        }
    }
}

/// The version of the tables; 0 if there are none.
async fn version(connection: &mut Connection) -> Result<i64, Fault> {
    let exists = match connection.kind() {
        DatabaseKind::Sqlite => "SELECT COUNT(*) FROM sqlite_master WHERE name = 'tollgate_schema'",
        DatabaseKind::Postgres => "SELECT COUNT(*) FROM pg_class WHERE oid = to_regclass('tollgate_schema')",
    };
    let row = connection.row(exists, []).await?;
    if row.map_or(Ok(0), |row| row.number(0))? == 0 {
        return Ok(0);
    }
    let row = connection.row("SELECT COALESCE(MAX(version), 0) FROM tollgate_schema", []).await?;
    row.map_or(Ok(0), |row| row.number(0))
}

/// Whether there are no tables, of whatever program. In PostgreSQL: none in the schemas of the search path.
async fn is_empty(connection: &mut Connection) -> Result<bool, Fault> {
    let tables = match connection.kind() {
        DatabaseKind::Sqlite => "SELECT COUNT(*) FROM sqlite_master",
        DatabaseKind::Postgres => {
            "SELECT COUNT(*) FROM pg_tables WHERE schemaname = ANY (current_schemas(false))"
        }
    };
    Ok(connection.row(tables, []).await?.map_or(Ok(0), |row| row.number(0))? == 0)
}

/// Runs the migrations that the tables lack, and returns the version that they had.
async fn apply_missing(connection: &mut Connection) -> Result<Done<i64>, Fault> {
    let kind = connection.kind();
    if kind == DatabaseKind::Postgres {
        connection.execute(MIGRATION_LOCK, []).await?;
    }
    // Read again under the lock: another process may have migrated in the meantime.
    let found = version(connection).await?;
    for migration in migrations(kind).iter().filter(|migration| migration.version > found) {
        connection.script(migration.sql).await?;
    }
    Ok(Done::Commit(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_database_has_every_version_once_and_in_order() {
        for kind in DatabaseKind::ALL {
            let versions: Vec<_> = migrations(kind).iter().map(|migration| migration.version).collect();
            assert_eq!(versions, (1..=EXPECTED).collect::<Vec<_>>(), "{kind}");
        }
    }

    #[test]
    fn every_migration_is_named_for_its_version_and_records_it() {
        for migration in DatabaseKind::ALL.into_iter().flat_map(migrations) {
            let Migration { version, file_name, sql } = migration;
            assert!(file_name.starts_with(&format!("{version:04}_")), "{file_name}");
            let last = format!("INSERT INTO tollgate_schema (version) VALUES ({version});");
            assert_eq!(sql.trim_end().lines().last(), Some(&*last), "{file_name}");
        }
    }
}
