//! That an old token is hashed once, and what happens if something goes wrong in the middle.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::body::Body;
use futures_util::FutureExt as _;
use http::{Request, StatusCode};
use sqlx::{SqlitePool, raw_sql};
use tokio::time::timeout;
use tollgate::{
    key::Digest,
    store::{EndReason, KeyLookup, KeyRecord, KeyStore as _, LegacyKeys as _, StoreEvent, StoreListener},
};
use tower::ServiceExt as _;

use super::*;

const OK: StatusCode = StatusCode::OK;
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

#[tokio::test]
async fn an_old_hash_is_not_looked_at_again() {
    for name in ["sha256", "bcrypt", "argon2"] {
        let database = before::database().await.unwrap();
        assert_eq!(ask(&service(&database), name).await, OK, "{name}");
        run(&database, "UPDATE api_tokens SET hash = 'gone'").await;
        // Started anew, with nothing in its cache.
        assert_eq!(ask(&service(&database), name).await, OK, "{name} by its digest");
        let not_upgraded = if name == "bcrypt" { "sha256" } else { "bcrypt" };
        assert_eq!(ask(&service(&database), not_upgraded).await, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_table_that_fails_lets_nobody_in() {
    let database = before::database().await.unwrap();
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
async fn changes_are_told_and_end_what_was_handed_out() {
    let table = TokenTable::new(before::database().await.unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener: Arc<dyn StoreListener> = {
        let heard = Arc::clone(&heard);
        Arc::new(move |change: &StoreEvent| heard.lock().unwrap().push(change.clone()))
    };
    table.subscribe(Arc::downgrade(&listener));
    let record = upgraded(&table).await;
    assert!(table.revoke("tok_0344").await.unwrap());
    assert!(!table.revoke("nobody's").await.unwrap());

    let changed = |generation, end| StoreEvent::Key { id: "tok_0344".into(), generation, end };
    let expected = [StoreEvent::Connected, changed(1, None), changed(2, Some(EndReason::Revoked))];
    assert_eq!(*heard.lock().unwrap(), expected);
    assert_eq!(
        (record.generation(), record.principal().end_signal().reason()),
        (1, Some(EndReason::Revoked))
    );
}

#[tokio::test]
async fn a_revocation_outlives_the_operator_who_does_not_wait_for_it() {
    let table = TokenTable::new(before::database().await.unwrap());
    let record = upgraded(&table).await;
    assert!(table.revoke("tok_0344").now_or_never().is_none(), "the operator has gone");
    let ended = timeout(Duration::from_secs(20), record.principal().wait_until_ended()).await;
    assert_eq!(ended.expect("nobody was told"), EndReason::Revoked);
}

/// Upgrades the token `bcrypt`, and finds it.
async fn upgraded(table: &TokenTable) -> KeyRecord {
    let digest = Digest::of(secret("bcrypt"));
    table.upgrade("tok_0344", digest).wait().await.unwrap();
    table.find(&KeyLookup::new(&[digest], SystemTime::UNIX_EPOCH)).wait().await.unwrap().unwrap()
}

fn service(database: &SqlitePool) -> Router {
    app(KeyFormat::new("acme").unwrap(), TokenTable::new(database.clone())).unwrap()
}

async fn ask(service: &Router, name: &str) -> StatusCode {
    let request = Request::get("/invoices").header("x-api-key", secret(name)).body(Body::empty()).unwrap();
    service.clone().oneshot(request).await.unwrap().status()
}

async fn run(database: &SqlitePool, sql: &'static str) {
    raw_sql(sql).execute(database).await.unwrap();
}

fn secret(name: &str) -> &'static str {
    before::TOKENS.iter().find(|token| token.name == name).unwrap().secret
}
