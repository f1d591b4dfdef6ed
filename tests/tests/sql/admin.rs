//! Changes, lists and the history.

use std::time::Duration;

use sqlx::Connection as _;
use tests::postgres::Postgres;
use tollgate::{
    manage::{
        Actor, Command, HistoryQuery, KeyAction, KeyAdmin as _, KeyAdminError, KeyChange, KeyQuery,
        KeyUpdate, TenantChange,
    },
    store::KeyStatus,
};

use super::{at, builder, change, digest, find, issue, key, on_each, revoke, tenant};

#[tokio::test]
async fn a_taken_name_digest_or_identifier_is_refused_and_changes_nothing() {
    on_each(async |keys| {
        let named = |id: &str, of, name: &str| {
            let mut key = key(id, of);
            key.name = name.into();
            key
        };
        issue(&keys, named("a", Some("acme"), "build")).await.unwrap();
        issue(&keys, named("b", None, "build")).await.unwrap();
        issue(&keys, named("c", Some("umbrella"), "build")).await.unwrap();
        let taken = |result| matches!(result, Err(KeyAdminError::NameTaken));
        assert!(taken(issue(&keys, named("d", Some("acme"), "build")).await));
        assert!(taken(issue(&keys, named("d", None, "build")).await));
        assert!(matches!(issue(&keys, named("a", None, "other")).await, Err(KeyAdminError::KeyTaken)));
        let stolen = KeyChange::Issue { details: Box::new(named("d", None, "other")), digest: digest("a") };
        assert!(matches!(change(&keys, stolen).await, Err(KeyAdminError::KeyTaken)));
        assert!(find(&keys, "d").await.is_none());

        issue(&keys, named("d", Some("acme"), "deploy")).await.unwrap();
        let rename = |name: &str| KeyChange::Update {
            id: "d".into(),
            update: Box::new(KeyUpdate::new().with_name(name)),
        };
        assert!(taken(change(&keys, rename("build")).await));
        revoke(&keys, "a").await.unwrap();
        assert!(
            taken(change(&keys, rename("build")).await),
            "a revoked key keeps its name until it is deleted"
        );
        change(&keys, KeyChange::Delete { id: "a".into() }).await.unwrap();
        assert_eq!(&*change(&keys, rename("build")).await.unwrap().name, "build");
        assert_eq!(keys.history(&HistoryQuery::of_key("d")).await.unwrap().items.len(), 2);
        assert!(matches!(issue(&keys, named("nul\0", None, "x")).await, Err(KeyAdminError::Invalid(_))));
    })
    .await;
}

#[tokio::test]
async fn the_history_records_changes_and_no_repetitions() {
    on_each(async |keys| {
        issue(&keys, key("key", Some("acme"))).await.unwrap();
        let update = KeyUpdate::new().with_name("new").with_expiry(Some(at(9)));
        for _ in 0..2 {
            let update = Box::new(update.clone());
            change(&keys, KeyChange::Update { id: "key".into(), update }).await.unwrap();
        }
        for _ in 0..2 {
            assert_eq!(revoke(&keys, "key").await.unwrap().revoked_at, Some(at(1)));
        }
        tenant(&keys, TenantChange::Resume { tenant: "acme".into() }).await;
        tenant(&keys, TenantChange::Suspend { tenant: "acme".into() }).await;
        tenant(&keys, TenantChange::Suspend { tenant: "acme".into() }).await;
        change(&keys, KeyChange::Delete { id: "key".into() }).await.unwrap();
        let events = keys.history(&HistoryQuery::all().with_tenant("acme")).await.unwrap().items;
        let recorded: Vec<_> = events.iter().map(|event| (event.action, &*event.detail)).collect();
        let updated = r#"name: "name of key" -> "new", expiry: never -> 2023-11-14T22:13:29Z"#;
        assert_eq!(
            recorded,
            [
                (KeyAction::Deleted, r#"name: "new""#),
                (KeyAction::TenantSuspended, ""),
                (KeyAction::Revoked, ""),
                (KeyAction::Updated, updated),
                (KeyAction::Issued, r#"name: "name of key""#),
            ]
        );
        assert!(events.iter().all(|event| &*event.actor == "cli:ada"));
        assert!(events.windows(2).all(|pair| pair[0].generation > pair[1].generation));
    })
    .await;
}

#[tokio::test]
async fn an_actor_of_one_tenant_cannot_see_or_change_another() {
    on_each(async |keys| {
        issue(&keys, key("theirs", Some("umbrella"))).await.unwrap();
        let by_eve = |change| keys.change(Command::new(change, Actor::of_tenant("eve", "acme"), at(1)));
        let result = by_eve(KeyChange::Revoke { id: "theirs".into() }).await;
        assert!(matches!(result, Err(KeyAdminError::NotFound)));
        let details = Box::new(key("new", Some("umbrella")));
        let result = by_eve(KeyChange::Issue { details, digest: digest("new") }).await;
        assert!(matches!(result, Err(KeyAdminError::NotPermitted)));
        let change = TenantChange::Suspend { tenant: "acme".into() };
        let result = keys.change_tenant(Command::new(change, Actor::of_tenant("eve", "acme"), at(1))).await;
        assert!(matches!(result, Err(KeyAdminError::NotPermitted)));
        let details = Box::new(key("ours", Some("acme")));
        assert!(by_eve(KeyChange::Issue { details, digest: digest("ours") }).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn pages_list_every_key_once_newest_first() {
    on_each(async |keys| {
        for number in 0..10_u64 {
            let mut key = key(&format!("k%_{number}"), Some(if number % 2 == 0 { "even" } else { "odd" }));
            key.created_at = at(number / 3);
            issue(&keys, key).await.unwrap();
        }
        revoke(&keys, "k%_4").await.unwrap();
        let all = async |mut query: KeyQuery| {
            let mut ids = Vec::new();
            loop {
                let page = keys.list(&query).await.unwrap();
                assert!(page.items.len() <= 2);
                ids.extend(page.items.iter().map(|key| key.id[3..].parse::<u64>().unwrap()));
                let Some(next) = page.next else { return ids };
                query = query.with_after(next);
            }
        };
        let query = || KeyQuery::all().with_limit(2);
        assert_eq!(all(query()).await, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(all(query().with_tenant("even")).await, [8, 6, 4, 2, 0]);
        assert_eq!(all(query().with_status(KeyStatus::Revoked)).await, [4]);
        assert_eq!(all(query().with_status(KeyStatus::Active).with_tenant("even")).await, [8, 6, 2, 0]);
        assert_eq!(all(query().with_search("name of k%_7")).await, [7]);
        assert_eq!(all(query().with_search("sk_live_k%_3")).await, [3]);
        assert_eq!(all(query().with_search("sk_live_k__3")).await, [] as [u64; 0]);
        assert_eq!(all(query().with_search("Name")).await, [] as [u64; 0]);
        assert_eq!(all(query().with_search("")).await.len(), 10);
        assert_eq!(all(KeyQuery::one("k%_5").with_limit(2)).await, [5]);
        assert_eq!(all(query().with_tenant("nul\0")).await, [] as [u64; 0]);
        let error = keys.list(&KeyQuery::all().with_after("nonsense")).await;
        assert!(matches!(error, Err(KeyAdminError::InvalidCursor)));
        let error = keys.history(&HistoryQuery::all().with_after("nonsense")).await;
        assert!(matches!(error, Err(KeyAdminError::InvalidCursor)));
    })
    .await;
}

/// The `statement_timeout` of the server can pass just before the deadline of the store.
#[tokio::test]
async fn a_statement_timeout_of_the_server_is_reported_as_a_timeout() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    // Far longer than the test takes: only the server ends a statement.
    let patient =
        builder().with_deadline(Duration::from_mins(10)).with_admin_deadline(Duration::from_mins(10));
    let keys = patient.connect(&url).await.unwrap();
    issue(&keys, key("key", None)).await.unwrap();
    let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
    let lock = "BEGIN; LOCK TABLE tollgate_keys IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();

    let (revoked, ()) = tokio::join!(revoke(&keys, "key"), cancel_waiting_statement(&url));
    assert_eq!(
        revoked.unwrap_err().to_string(),
        "the key store does not answer: the database did not answer in time"
    );
    let list = KeyQuery::all();
    let (listed, ()) = tokio::join!(keys.list(&list).into_future(), cancel_waiting_statement(&url));
    assert_eq!(
        listed.unwrap_err().to_string(),
        "the key store does not answer: the database did not answer in time"
    );

    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(
        find(&keys, "key").await.unwrap().status(),
        KeyStatus::Active,
        "the transaction was rolled back"
    );
    revoke(&keys, "key").await.unwrap();
}

/// Cancels a statement as the server does after its `statement_timeout`.
async fn cancel_waiting_statement(url: &str) {
    let mut server = sqlx::PgConnection::connect(url).await.unwrap();
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
                  WHERE application_name = 'tollgate' AND wait_event_type = 'Lock'";
    while sqlx::query(cancel).fetch_all(&mut server).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
