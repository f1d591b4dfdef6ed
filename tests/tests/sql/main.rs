//! Keys and credits in SQLite and PostgreSQL, beyond what the suite of all stores tests: tables, URLs, pools, other processes, and network
//! failures.
//!
//! | module | tests |
//! |---|---|
//! | `admin` | changes, lists and the history |
//! | `credits` | credits: several stores, deadlines, lost connections, and what is stored |
//! | `find` | lookups, and the ends of principals |
//! | `events` | notifications between processes, and failures of the network |
//! | `file` | a SQLite file: its one writer, files of other programs, and a file that is replaced |
//! | `open` | URLs and settings, accepted and refused |
//! | `migrations` | schema versions, and separate migrations |
//! | `prune` | deletion of old history and usage |
//! | `sources` | connection options, and pools of the application's |
//! | `usage` | usage counts |
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod admin;
mod credits;
mod events;
mod file;
mod find;
mod migrations;
mod open;
mod prune;
mod sources;
mod usage;

use std::{
    path::PathBuf,
    str::FromStr as _,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};
use tests::postgres::Postgres;
use tollgate::{
    key::Digest,
    manage::{Actor, Command, KeyAdmin, KeyAdminError, KeyChange, KeyDetails, TenantChange},
    store::{EndReason, KeyLookup, KeyRecord, KeyStore},
};
use tollgate_sql::{SqlKeys, SqlKeysBuilder};

/// A temporary folder, deleted at the end of a test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("tollgate_sql_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn url(&self) -> String {
        format!("sqlite://{}/keys.db", self.0.display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A store with long deadlines, which polls often.
fn builder() -> SqlKeysBuilder {
    tests::patient_store().with_poll_interval(Duration::from_millis(10))
}

/// Runs a test on each kind of database.
async fn on_each(test: impl AsyncFn(SqlKeys)) {
    test(builder().connect("sqlite::memory:").await.unwrap()).await;
    on_each_shared(async |url| test(builder().connect(&url).await.unwrap()).await).await;
}

/// Runs a test on each kind of database that several processes can share.
async fn on_each_shared(test: impl AsyncFn(String)) {
    let (folder, postgres) = (Folder::new(), Postgres::start().await);
    test(folder.url()).await;
    test(postgres.fresh_database().await).await;
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn ada() -> Actor {
    Actor::new("cli:ada")
}

fn key(id: &str, tenant: Option<&str>) -> KeyDetails {
    let mut key = KeyDetails::new(id, format!("name of {id}"), at(0));
    key.tenant = tenant.map(Into::into);
    key.display_prefix = format!("sk_live_{id}").into();
    key
}

fn digest(secret: &str) -> Digest {
    Digest::of(secret)
}

async fn change(keys: &SqlKeys, change: KeyChange) -> Result<KeyDetails, KeyAdminError> {
    keys.change(Command::new(change, ada(), at(1))).await
}

async fn issue(keys: &SqlKeys, key: KeyDetails) -> Result<KeyDetails, KeyAdminError> {
    let digest = digest(&key.id);
    change(keys, KeyChange::Issue { details: Box::new(key), digest }).await
}

async fn revoke(keys: &SqlKeys, id: &str) -> Result<KeyDetails, KeyAdminError> {
    change(keys, KeyChange::Revoke { id: id.into() }).await
}

async fn tenant(keys: &SqlKeys, change: TenantChange) {
    keys.change_tenant(Command::new(change, ada(), at(2))).await.unwrap();
}

async fn find(keys: &SqlKeys, secret: &str) -> Option<KeyRecord> {
    find_at(keys, secret, at(3)).await
}

async fn find_at(keys: &SqlKeys, secret: &str, now: SystemTime) -> Option<KeyRecord> {
    keys.find(&KeyLookup::new(&[digest(secret)], now)).await.unwrap()
}

fn reason(record: &KeyRecord) -> Option<EndReason> {
    record.principal().end_signal().reason()
}

/// Waits until a condition holds; panics after 10 s.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("did not happen: {what}");
}

/// Runs statements as another program could.
async fn execute(url: &str, sql: &'static str) {
    if url.starts_with("postgres") {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    } else {
        let options = SqliteConnectOptions::from_str(url).unwrap().create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
}
