//! How each store is opened, empty each time.

use std::sync::atomic::{AtomicUsize, Ordering};

use tests::postgres::Postgres;
use tollgate_sql::SqlKeys;

pub(crate) async fn sqlite_in_memory() -> SqlKeys {
    tests::patient_store().connect("sqlite::memory:").await.unwrap()
}

/// A folder of SQLite files.
pub(crate) struct SqliteFileKeys {
    folder: tempfile::TempDir,
    files: AtomicUsize,
}

impl SqliteFileKeys {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), files: AtomicUsize::new(0) }
    }

    /// The URL of a new file.
    pub(crate) fn fresh_url(&self) -> String {
        let name = format!("{}.db", self.files.fetch_add(1, Ordering::Relaxed));
        format!("sqlite://{}", self.folder.path().join(name).display())
    }

    pub(crate) async fn open(&self) -> SqlKeys {
        tests::patient_store().connect(&self.fresh_url()).await.unwrap()
    }
}

/// A PostgreSQL server.
pub(crate) struct PostgresKeys(Postgres);

impl PostgresKeys {
    pub(crate) async fn start() -> Self {
        Self(Postgres::start().await)
    }

    pub(crate) async fn open(&self) -> SqlKeys {
        tests::patient_store().connect(&self.0.fresh_database().await).await.unwrap()
    }
}
