//! Keys in SQLite and PostgreSQL, beyond what every store is tried on: their tables, their URLs, other processes, and what goes
//! wrong on the way to a database.
//!
//! | module | idea |
//! |---|---|
//! | `admin` | what is changed, listed and remembered |
//! | `find` | what is found, and when it has ended |
//! | `events` | what another process hears, and what happens when it does not |
//! | `open` | what can be opened, and what cannot |
//! | `usage` | how often a key was used |
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "whatever goes wrong in a test fails it"
)]

mod admin;
mod events;
mod find;
mod open;
mod usage;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tests::postgres::Postgres;
use tollgate::{
    key::Digest,
    manage::{Actor, Command, KeyAdmin, KeyAdminError, KeyChange, KeyDetails, TenantChange},
    store::{EndReason, KeyLookup, KeyRecord, KeyStore},
};
use tollgate_sql::{SqlKeys, SqlKeysBuilder};

/// A folder that goes with the test.
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

/// A store that takes its time, and notices soon what happens.
fn builder() -> SqlKeysBuilder {
    tests::patient_store().with_poll_interval(Duration::from_millis(10))
}

/// Runs a test on each kind of database.
async fn on_each(test: impl AsyncFn(SqlKeys)) {
    test(builder().connect("sqlite::memory:").await.unwrap()).await;
    on_each_shared(async |url| test(builder().connect(&url).await.unwrap()).await).await;
}

/// Runs a test on each kind of database that several processes may share.
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
    keys.change(Command::new(change, ada(), at(1))).wait().await
}

async fn issue(keys: &SqlKeys, key: KeyDetails) -> Result<KeyDetails, KeyAdminError> {
    let digest = digest(&key.id);
    change(keys, KeyChange::Issue { details: Box::new(key), digest }).await
}

async fn revoke(keys: &SqlKeys, id: &str) -> Result<KeyDetails, KeyAdminError> {
    change(keys, KeyChange::Revoke { id: id.into() }).await
}

async fn tenant(keys: &SqlKeys, change: TenantChange) {
    keys.change_tenant(Command::new(change, ada(), at(2))).wait().await.unwrap();
}

async fn find(keys: &SqlKeys, secret: &str) -> Option<KeyRecord> {
    find_at(keys, secret, at(3)).await
}

async fn find_at(keys: &SqlKeys, secret: &str, now: SystemTime) -> Option<KeyRecord> {
    keys.find(&KeyLookup::new(&[digest(secret)], now)).wait().await.unwrap()
}

fn reason(record: &KeyRecord) -> Option<EndReason> {
    record.principal().end_signal().reason()
}

/// Waits for what another process does, with patience.
async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}
