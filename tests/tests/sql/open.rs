//! What can be opened, and what cannot.

use std::time::Duration;

use sqlx::Connection as _;
use tests::postgres::Postgres;
use tollgate::store::StoreEvent;
use tollgate_sql::{ConnectError, SqlKeys};

use super::{Folder, builder, events::subscribe, find, issue, key, on_each_shared};

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let error = async |url: &str| SqlKeys::connect(url).await.unwrap_err();
    assert!(matches!(error("mysql://root:hunter2@localhost").await, ConnectError::InvalidUrl(_)));
    assert!(matches!(error("keys.db").await, ConnectError::InvalidUrl(_)));
    assert!(matches!(error("sqlite://keys.db?mode=everything").await, ConnectError::InvalidUrl(_)));
    assert!(matches!(error("sqlite:///no/such/folder/keys.db").await, ConnectError::Unreachable(_)));
    let folder = Folder::new();
    assert!(matches!(error(&format!("{}?mode=rw", folder.url())).await, ConnectError::Unreachable(_)));
    std::fs::write(folder.0.join("keys.db"), "these are no tables. ".repeat(1_000)).unwrap();
    assert_eq!(error(&folder.url()).await, ConnectError::NotADatabase);
    let folder = Folder::new();
    let refused = builder().without_migration().connect(&folder.url()).await.unwrap_err();
    assert_eq!(refused, ConnectError::OlderSchema { found: 0, known: 1 });
    builder().connect(&folder.url()).await.unwrap().close().await;
    builder().without_migration().connect(&folder.url()).await.unwrap().close().await;
    assert_eq!(error(&format!("{}?mode=ro", folder.url())).await, ConnectError::ReadOnly);
    for settings in [
        builder().with_deadline(Duration::ZERO),
        builder().with_heartbeat(Duration::MAX),
        builder().with_connections(0),
        builder().with_connections(u32::MAX),
    ] {
        let refused = settings.connect("sqlite::memory:").await;
        assert!(matches!(refused, Err(ConnectError::InvalidSetting(_))));
    }
}

#[tokio::test]
async fn a_newer_database_is_left_alone() {
    on_each_shared(async |url| {
        builder().connect(&url).await.unwrap().close().await;
        raw(&url, "INSERT INTO tollgate_schema (version) VALUES (2)").await;
        let error = builder().connect(&url).await.unwrap_err();
        assert_eq!(error, ConnectError::NewerSchema { found: 2, known: 1 });
        assert!(error.to_string().contains("upgrade this program"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_may_begin_at_once() {
    on_each_shared(async |url| {
        let openings: Vec<_> = (0..8)
            .map(|_| {
                let url = url.clone();
                tokio::spawn(async move { builder().connect(&url).await })
            })
            .collect();
        for opening in openings {
            opening.await.unwrap().unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn errors_and_debug_tell_no_password() {
    let keys = builder().connect("sqlite::memory:").await.unwrap();
    assert!(format!("{keys:?}").contains("SqlKeys"));
    for url in [
        "postgres://ada:hunter2@127.0.0.1:1/keys",
        "postgres://ada:hunter2@127.0.0.1:x/keys",
        "postgres://ada:hunter2@[/keys",
        "postgres://127.0.0.1/keys?pasword=hunter2",
    ] {
        let error = SqlKeys::connect(url).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let postgres = Postgres::start().await;
    let url = format!("{}?password=hunter2", postgres.url());
    let keys = builder().connect(&url).await.unwrap();
    assert!(!format!("{keys:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_schema_of_its_own_is_a_store_of_its_own() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    raw(&url, "CREATE SCHEMA one").await;
    raw(&url, "CREATE SCHEMA two").await;
    let open = async |schema: &str| {
        builder().connect(&format!("{url}?options[search_path]={schema}")).await.unwrap()
    };
    let (one, two) = (open("one").await, open("two").await);
    let (_listener, told) = subscribe(&two);
    issue(&one, key("key", None)).await.unwrap();
    assert!(find(&one, "key").await.is_some());
    assert!(find(&two, "key").await.is_none());
    issue(&two, key("other", None)).await.unwrap();
    let told = told.lock().unwrap();
    assert!(
        !told.iter().any(|change| matches!(change, StoreEvent::Key { id, .. } if **id == *"key")),
        "{told:?}"
    );
}

#[tokio::test]
async fn what_may_only_be_read_is_refused() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    builder().connect(&url).await.unwrap().close().await;
    let read_only = format!("{url}?options[default_transaction_read_only]=on");
    assert_eq!(builder().connect(&read_only).await.unwrap_err(), ConnectError::ReadOnly);
}

/// As another program does.
async fn raw(url: &str, sql: &'static str) {
    if url.starts_with("postgres") {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    } else {
        let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }
}
