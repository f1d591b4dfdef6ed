//! No route is open, a legacy token is hashed once, and an upgrade or a change that fails half way leaves nothing wrong.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{Router, body::Body};
use futures_util::FutureExt as _;
use http::{Request, StatusCode};
use sqlx::{SqlitePool, raw_sql};
use tokio::time::timeout;
use tollgate::{
    key::Digest,
    store::{EndReason, KeyLookup, KeyRecord, KeyStore as _, LegacyKeys as _, StoreEvent, StoreListener},
};
use tollgate_testing::coverage::Coverage;
use tower::ServiceExt as _;

use super::*;

const OK: StatusCode = StatusCode::OK;
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

#[tokio::test]
async fn every_route_needs_a_token() {
    let database = legacy_table::database().await.unwrap();
    let app = app(KeyFormat::new("acme").unwrap(), TokenTable::new(database)).unwrap();
    let (service, routes) = app.into_parts();
    Coverage::of(service, routes).await.assert_only_open([]);
}

#[tokio::test]
async fn checks_a_legacy_hash_only_once() {
    for name in ["sha256", "bcrypt", "argon2"] {
        let database = legacy_table::database().await.unwrap();
        assert_eq!(ask(&service(&database), name).await, OK, "{name}");
        run(&database, "UPDATE api_tokens SET hash = 'gone'").await;
        // A new service with an empty cache.
        assert_eq!(ask(&service(&database), name).await, OK, "{name} by its digest");
        let not_upgraded = if name == "bcrypt" { "sha256" } else { "bcrypt" };
        assert_eq!(ask(&service(&database), not_upgraded).await, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn answers_503_when_the_table_fails() {
    let database = legacy_table::database().await.unwrap();
    let service = service(&database);
    run(&database, "CREATE TRIGGER full BEFORE UPDATE ON api_tokens BEGIN SELECT RAISE(FAIL, 'full'); END")
        .await;
    assert_eq!(ask(&service, "bcrypt").await, UNAVAILABLE, "it cannot be upgraded");
    run(&database, "DROP TRIGGER full").await;
    assert_eq!(ask(&service, "bcrypt").await, OK);

    run(&database, "ALTER TABLE api_tokens RENAME COLUMN hash TO lost").await;
    assert_eq!(ask(&service, "argon2").await, UNAVAILABLE, "there are no candidates");
    database.close().await;
    assert_eq!(ask(&service, "sha256").await, UNAVAILABLE, "it cannot be looked for");
}

#[tokio::test]
async fn a_change_notifies_listeners_and_ends_principals() {
    let table = TokenTable::new(legacy_table::database().await.unwrap());
    let received = Arc::new(Mutex::new(Vec::new()));
    let listener: Arc<dyn StoreListener> = {
        let received = Arc::clone(&received);
        Arc::new(move |change: &StoreEvent| received.lock().unwrap().push(change.clone()))
    };
    let _ = table.subscribe(Arc::downgrade(&listener));
    let record = upgraded(&table).await;
    assert!(table.revoke("tok_0344").await.unwrap());
    assert!(!table.revoke("unknown").await.unwrap());

    let changed = |generation, end| StoreEvent::Key { id: "tok_0344".into(), generation, end };
    let expected = [StoreEvent::Connected, changed(1, None), changed(2, Some(EndReason::Revoked))];
    assert_eq!(*received.lock().unwrap(), expected);
    assert_eq!(
        (record.generation(), record.principal().end_signal().reason()),
        (1, Some(EndReason::Revoked))
    );
}

#[tokio::test]
async fn a_revocation_completes_when_its_caller_goes_away() {
    let table = TokenTable::new(legacy_table::database().await.unwrap());
    let record = upgraded(&table).await;
    assert!(table.revoke("tok_0344").now_or_never().is_none(), "the caller drops the pending revocation");
    let ended = timeout(Duration::from_secs(20), record.principal().wait_until_ended()).await;
    assert_eq!(ended.expect("the principal did not end"), EndReason::Revoked);
}

/// Upgrades the token `bcrypt`, and finds it.
async fn upgraded(table: &TokenTable) -> KeyRecord {
    let digest = Digest::of(secret("bcrypt"));
    table.upgrade("tok_0344", digest).await.unwrap();
    table.find(&KeyLookup::new(&[digest], SystemTime::UNIX_EPOCH)).await.unwrap().unwrap()
}

fn service(database: &SqlitePool) -> Router {
    app(KeyFormat::new("acme").unwrap(), TokenTable::new(database.clone())).unwrap().into_router()
}

async fn ask(service: &Router, name: &str) -> StatusCode {
    let request = Request::get("/invoices").header("x-api-key", secret(name)).body(Body::empty()).unwrap();
    service.clone().oneshot(request).await.unwrap().status()
}

async fn run(database: &SqlitePool, sql: &'static str) {
    raw_sql(sql).execute(database).await.unwrap();
}

fn secret(name: &str) -> &'static str {
    legacy_table::TOKENS.iter().find(|token| token.name == name).unwrap().secret
}
