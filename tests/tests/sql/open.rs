//! URLs and settings, accepted and refused.

use std::time::Duration;

use sqlx::Connection as _;
use tests::postgres::Postgres;
use tollgate::store::{KeyStatus, StoreEvent};
use tollgate_sql::{ConnectError, SqlKeys};

use super::{Folder, builder, events::subscribe, execute, find, issue, key, on_each_shared, revoke};

#[tokio::test]
async fn a_store_that_cannot_be_opened_says_why() {
    let error = async |url: &str| SqlKeys::connect(url).await.unwrap_err();
    assert!(matches!(error("mysql://root:hunter2@localhost").await, ConnectError::InvalidUrl(_)));
    assert!(matches!(error("keys.db").await, ConnectError::InvalidUrl(_)));
    assert!(matches!(error("sqlite://keys.db?mode=everything").await, ConnectError::InvalidUrl(_)));
    assert!(matches!(error("sqlite:///no/such/folder/keys.db").await, ConnectError::Unreachable(_)));
    let folder = Folder::new();
    assert!(matches!(error(&format!("{}?mode=rw", folder.url())).await, ConnectError::Unreachable(_)));
    std::fs::write(folder.0.join("keys.db"), "this is not a database. ".repeat(1_000)).unwrap();
    assert_eq!(error(&folder.url()).await, ConnectError::NotADatabase);
    let folder = Folder::new();
    builder().connect(&folder.url()).await.unwrap().close().await;
    assert_eq!(error(&format!("{}?mode=ro", folder.url())).await, ConnectError::ReadOnly);
    for (settings, name) in [
        (builder().with_deadline(Duration::ZERO), "deadline"),
        (builder().with_heartbeat(Duration::MAX), "heartbeat"),
        (builder().with_connections(0), "connections"),
        (builder().with_connections(u32::MAX), "connections"),
    ] {
        let refused = settings.connect("sqlite::memory:").await.unwrap_err();
        assert!(matches!(refused, ConnectError::InvalidSetting(_)));
        assert!(refused.to_string().contains(name), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_can_start_at_once() {
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
async fn errors_and_debug_output_contain_no_password() {
    let keys = builder().connect("sqlite::memory:").await.unwrap();
    assert!(format!("{keys:?}").contains("SqlKeys"));
    for url in [
        "postgres://ada:hunter2@127.0.0.1:1/keys",
        "postgres://ada:hunter2@127.0.0.1:x/keys",
        "postgres://ada:hunter2@[/keys",
        "postgres://127.0.0.1/keys?pasword=hunter2",
        "postgres://ada:a?hunter2@127.0.0.1/keys",
        "postgres://ada:a?hunter2=1@127.0.0.1/keys",
        "postgres://ada:a?b&hunter2@127.0.0.1/keys",
        "postgres://ada:1/hunter2@127.0.0.1/keys",
        "postgres://ada:a#hunter2@127.0.0.1/keys",
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
async fn schemas_of_one_database_are_separate_stores() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    execute(&url, "CREATE SCHEMA one; CREATE SCHEMA two").await;
    let open = async |schema: &str| {
        builder().connect(&format!("{url}?options[search_path]={schema}")).await.unwrap()
    };
    let (one, two) = (open("one").await, open("two").await);
    let (_listener, received) = subscribe(&two);
    issue(&one, key("key", None)).await.unwrap();
    assert!(find(&one, "key").await.is_some());
    assert!(find(&two, "key").await.is_none());
    issue(&two, key("other", None)).await.unwrap();
    let received = received.lock().unwrap();
    assert!(
        !received.iter().any(|event| matches!(event, StoreEvent::Key { id, .. } if **id == *"key")),
        "{received:?}"
    );
}

#[tokio::test]
async fn a_read_only_database_is_refused() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    builder().connect(&url).await.unwrap().close().await;
    let read_only = format!("{url}?options[default_transaction_read_only]=on");
    assert_eq!(builder().connect(&read_only).await.unwrap_err(), ConnectError::ReadOnly);
}

#[tokio::test]
async fn close_waits_for_a_change_in_progress_and_closes_every_connection() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    let keys = builder().connect(&url).await.unwrap();
    issue(&keys, key("key", None)).await.unwrap();
    let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT * FROM tollgate_keys FOR UPDATE").execute(&mut other).await.unwrap();

    let revocation = tokio::spawn({
        let keys = keys.clone();
        async move { revoke(&keys, "key").await }
    });
    let waiting =
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'tollgate' AND wait_event_type = 'Lock'";
    while sqlx::query(waiting).fetch_all(&mut other).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut close = Box::pin(keys.close());
    assert!(
        tokio::time::timeout(Duration::from_millis(200), &mut close).await.is_err(),
        "waits for the change"
    );
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    close.await;
    assert_eq!(revocation.await.unwrap().unwrap().status, KeyStatus::Revoked);
    let open = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'tollgate'";
    // The server ends a session a moment after the client has closed it.
    for _ in 0..1_000 {
        let open: i64 = sqlx::query_scalar(open).fetch_one(&mut other).await.unwrap();
        if open == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("connections are still open");
}
