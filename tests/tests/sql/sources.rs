//! Connection options, and pools of the application's.

use std::{str::FromStr as _, time::Duration};

use futures_util::FutureExt as _;
use sqlx::{
    PgPool, SqlitePool,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use tests::{postgres::Postgres, relay::Relay};
use tollgate::{
    manage::{KeyAdmin as _, KeyChange, KeyQuery, KeyUpdate, TenantChange},
    store::{EndReason, KeyLookup, KeyStore as _, StoreEvent},
};
use tollgate_sql::{ConnectError, SqlKeys, sqlx};

use super::{
    Folder, at, builder, change, digest, events::subscribe, eventually, find, issue, key, reason, revoke,
    tenant,
};

#[tokio::test]
async fn a_store_opens_with_sqlite_options() {
    let folder = Folder::new();
    let options = || SqliteConnectOptions::new().filename(folder.0.join("keys.db"));
    let missing = builder().connect_sqlite(options()).await.unwrap_err();
    assert!(matches!(missing, ConnectError::Unreachable(_)), "the options do not create the file: {missing}");
    let keys = builder().connect_sqlite(options().create_if_missing(true)).await.unwrap();
    shares_a_database(&keys, &builder().connect(&folder.url()).await.unwrap()).await;

    let in_memory = builder().connect_sqlite(SqliteConnectOptions::new().in_memory(true)).await.unwrap();
    assert_eq!(in_memory.staleness_bound(), Duration::ZERO);
    works(&in_memory).await;
}

#[tokio::test]
async fn a_store_opens_with_postgres_options() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    let options = PgConnectOptions::from_str(&url).unwrap().application_name("an application");
    let keys = builder().connect_postgres(options).await.unwrap();
    shares_a_database(&keys, &builder().connect(&url).await.unwrap()).await;
    let names = "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database() ORDER BY 1";
    let pool = PgPool::connect(&format!("{url}?application_name=observer")).await.unwrap();
    let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&pool).await.unwrap();
    assert!(names.contains(&"an application".to_owned()), "{names:?}");
}

#[tokio::test]
async fn a_store_works_over_a_sqlite_pool() {
    let folder = Folder::new();
    let options = SqliteConnectOptions::from_str(&folder.url()).unwrap().create_if_missing(true);
    let pool = SqlitePool::connect_with(options.journal_mode(SqliteJournalMode::Wal)).await.unwrap();
    sqlx::raw_sql("CREATE TABLE notes (text TEXT)").execute(&pool).await.unwrap();
    let keys = builder().connect_sqlite_pool(pool.clone()).await.unwrap();
    shares_a_database(&keys, &builder().connect(&folder.url()).await.unwrap()).await;
    closes_without_the_pool(&keys).await;
    sqlx::query("INSERT INTO notes VALUES ('the pool is open')").execute(&pool).await.unwrap();

    let in_memory = SqlitePool::connect("sqlite::memory:").await.unwrap();
    let keys = builder().connect_sqlite_pool(in_memory).await.unwrap();
    assert_eq!(keys.staleness_bound(), Duration::ZERO);
    works(&keys).await;
}

#[tokio::test]
async fn a_store_works_over_a_postgres_pool() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    // A single connection suffices: notifications use one of the store's own.
    let pool = PgPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
    let keys = builder().connect_postgres_pool(pool.clone()).await.unwrap();
    shares_a_database(&keys, &builder().connect(&url).await.unwrap()).await;

    let timeouts = "SELECT current_setting('statement_timeout') || current_setting('idle_in_transaction_session_timeout')";
    let timeouts: String = sqlx::query_scalar(timeouts).fetch_one(&pool).await.unwrap();
    assert_eq!(timeouts, "00", "sessions of the application keep their settings");
    closes_without_the_pool(&keys).await;
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&pool).await.unwrap();
    assert_eq!(one, 1, "the pool is open");
}

#[tokio::test]
async fn a_sqlite_pool_without_foreign_keys_is_refused() {
    let options = SqliteConnectOptions::new().in_memory(true).foreign_keys(false);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    let refused = builder().connect_sqlite_pool(pool).await.unwrap_err();
    assert!(matches!(refused, ConnectError::InvalidSetting(_)), "{refused}");
    assert!(refused.to_string().contains("foreign keys"), "{refused}");
}

/// An application's pool keeps working when callers drop lookups and changes at any moment.
#[tokio::test]
async fn dropped_calls_leave_an_applications_pool_usable() {
    let (folder, postgres) = (Folder::new(), Postgres::start().await);
    let url = postgres.fresh_database().await;
    let options = SqliteConnectOptions::from_str(&folder.url()).unwrap().create_if_missing(true);
    let sqlite = SqlitePoolOptions::new().max_connections(2);
    let sqlite = sqlite.connect_with(options.journal_mode(SqliteJournalMode::Wal)).await.unwrap();
    let pg = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
    for keys in [
        builder().connect_sqlite_pool(sqlite).await.unwrap(),
        builder().connect_postgres_pool(pg).await.unwrap(),
    ] {
        issue(&keys, key("key", None)).await.unwrap();
        for round in 0..50 {
            let digests = [digest("key")];
            let lookup = KeyLookup::new(&digests, at(3));
            let mut find = Box::pin(keys.find(&lookup).into_future());
            for _ in 0..round % 5 {
                if (&mut find).now_or_never().is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(find);
            let update = Box::new(KeyUpdate::new().with_name(format!("name {round}")));
            let renamed = change(&keys, KeyChange::Update { id: "key".into(), update });
            assert!(renamed.now_or_never().is_none(), "runs on after it is dropped");
        }
        let last = Box::new(KeyUpdate::new().with_name("last"));
        change(&keys, KeyChange::Update { id: "key".into(), update: last }).await.unwrap();
        assert!(find(&keys, "key").await.is_some());
    }
}

#[tokio::test]
async fn lookups_over_a_postgres_pool_keep_their_deadline_in_a_silent_network() {
    let postgres = Postgres::start().await;
    let mut relay = Relay::to(postgres.address());
    let url = relay.reroute(&postgres.fresh_database().await);
    let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
    let builder =
        builder().with_deadline(Duration::from_millis(300)).with_heartbeat(Duration::from_millis(200));
    let keys = builder.connect_postgres_pool(pool).await.unwrap();
    let (_listener, received) = subscribe(&keys);
    issue(&keys, key("key", None)).await.unwrap();
    relay.silence();
    let digests = [digest("key")];
    for _ in 0..4 {
        let error = keys.find(&KeyLookup::new(&digests, at(3))).await.unwrap_err();
        assert!(error.to_string().contains("in time") || error.to_string().contains("in use"), "{error}");
    }
    let is_disconnected = || received.lock().unwrap().contains(&StoreEvent::Disconnected);
    eventually("disconnected", is_disconnected).await;
    // Ends the connections that were silent. sqlx's pool then makes new ones.
    relay.cut().await;
    relay.mend();
    let is_connected = || received.lock().unwrap().last() == Some(&StoreEvent::Connected);
    eventually("connected again", is_connected).await;
    let mut is_found = false;
    for _ in 0..100 {
        is_found = is_found || keys.find(&KeyLookup::new(&digests, at(3))).await.is_ok();
    }
    assert!(is_found);
}

/// Keys can be issued, found, listed, revoked and deleted.
async fn works(keys: &SqlKeys) {
    issue(keys, key("key", Some("acme"))).await.unwrap();
    let record = find(keys, "key").await.unwrap();
    assert_eq!(keys.list(&KeyQuery::all()).await.unwrap().items.len(), 1);
    revoke(keys, "key").await.unwrap();
    assert_eq!(reason(&record), Some(EndReason::Revoked));
    change(keys, KeyChange::Delete { id: "key".into() }).await.unwrap();
    assert!(find(keys, "key").await.is_none());
}

/// What one store changes, the other one finds, and is notified of.
async fn shares_a_database(one: &SqlKeys, other: &SqlKeys) {
    works(one).await;
    works(other).await;
    for (here, there, id) in [(one, other, "first"), (other, one, "second")] {
        issue(here, key(id, Some(id))).await.unwrap();
        let record = find(there, id).await.unwrap();
        tenant(here, TenantChange::Suspend { tenant: id.into() }).await;
        eventually("suspended", || reason(&record) == Some(EndReason::TenantSuspended)).await;
    }
}

async fn closes_without_the_pool(keys: &SqlKeys) {
    let (_listener, received) = subscribe(keys);
    keys.close().await;
    assert_eq!(received.lock().unwrap().last(), Some(&StoreEvent::Disconnected));
    let digests = [digest("first")];
    let error = keys.find(&KeyLookup::new(&digests, at(3))).await.unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
}
