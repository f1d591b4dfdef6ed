//! What another process hears, and what happens when it does not.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt as _;
use sqlx::Connection as _;
use tests::{postgres::Postgres, relay::Relay};
use tokio::time::timeout;
use tollgate::{
    manage::{KeyAdminError, KeyChange, KeyUpdate, TenantChange},
    store::{EndReason, KeyLookup, KeyStatus, KeyStore as _, StoreEvent, StoreListener},
};
use tollgate_sql::{SqlKeys, SqlKeysBuilder};

use super::{
    Folder, at, builder, change, digest, eventually, find, issue, key, on_each_shared, reason, revoke, tenant,
};

/// What a listener was told.
pub(super) fn subscribe(keys: &SqlKeys) -> (Arc<dyn StoreListener>, Arc<Mutex<Vec<StoreEvent>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener: Arc<dyn StoreListener> = {
        let told = Arc::clone(&told);
        Arc::new(move |change: &StoreEvent| told.lock().unwrap().push(change.clone()))
    };
    keys.subscribe(Arc::downgrade(&listener));
    (listener, told)
}

#[tokio::test]
async fn another_process_hears_of_it() {
    on_each_shared(async |url| {
        let (here, there) = (builder().connect(&url).await.unwrap(), builder().connect(&url).await.unwrap());
        let (_listener, told) = subscribe(&there);
        assert_eq!(*told.lock().unwrap(), [StoreEvent::Connected]);
        let long = "x".repeat(9_000);
        for (id, of) in [("key", Some("acme")), ("kéy of '\"\n", Some("acme")), (&long[..2_000], None)] {
            issue(&here, key(id, of)).await.unwrap();
        }
        let held = [find(&there, "key").await.unwrap(), find(&there, "kéy of '\"\n").await.unwrap()];
        revoke(&here, "kéy of '\"\n").await.unwrap();
        eventually("revoked", || reason(&held[1]) == Some(EndReason::Revoked)).await;
        tenant(&here, TenantChange::Suspend { tenant: "acme".into() }).await;
        eventually("suspended", || reason(&held[0]) == Some(EndReason::TenantSuspended)).await;
        // Too long for a notification.
        tenant(&here, TenantChange::Suspend { tenant: long.clone().into() }).await;
        let is_told =
            |change: &StoreEvent| matches!(change, StoreEvent::Tenant { tenant, .. } if **tenant == *long);
        eventually("told", || told.lock().unwrap().iter().any(is_told)).await;
        assert!(!told.lock().unwrap().contains(&StoreEvent::Disconnected));
        there.close().await;
        assert_eq!(told.lock().unwrap().last(), Some(&StoreEvent::Disconnected));
        assert!(there.find(&KeyLookup::new(&[digest("key")], at(3))).wait().await.is_err());
    })
    .await;
}

/// Two processes that share a database, and the second one's way to it.
struct Two {
    here: SqlKeys,
    there: SqlKeys,
    relay: Relay,
    postgres: Postgres,
    told: Arc<Mutex<Vec<StoreEvent>>>,
    _listener: Arc<dyn StoreListener>,
}

impl Two {
    async fn open() -> Self {
        Self::open_as(builder()).await
    }

    async fn open_as(there: SqlKeysBuilder) -> Self {
        let postgres = Postgres::start().await;
        let relay = Relay::to(postgres.address());
        let url = postgres.fresh_database().await;
        let here = builder().connect(&url).await.unwrap();
        let there = there
            .with_heartbeat(Duration::from_millis(200))
            .with_connections(4)
            .connect(&relay.reroute(&url))
            .await
            .unwrap();
        let (listener, told) = subscribe(&there);
        Self { here, there, relay, postgres, told, _listener: listener }
    }

    /// What the second one was told of its link at last. Before, a busy machine may have lost it and found it again.
    fn of_link(&self) -> Option<StoreEvent> {
        let told = self.told.lock().unwrap();
        told.iter()
            .rev()
            .find(|change| matches!(change, StoreEvent::Disconnected | StoreEvent::Connected))
            .cloned()
    }

    async fn is_found_there(&self, secret: &str) -> bool {
        self.there.find(&KeyLookup::new(&[digest(secret)], at(3))).wait().await.is_ok()
    }

    /// The same with patience: on a busy machine a look-up may take longer than its deadline.
    async fn is_found_there_at_last(&self, secret: &str) -> bool {
        for _ in 0..100 {
            if self.is_found_there(secret).await {
                return true;
            }
        }
        false
    }
}

/// Cuts the link of the second process in some way, changes keys behind its back, and mends it.
async fn what_is_missed_is_looked_up(cut: impl AsyncFnOnce(&mut Two), mend: impl AsyncFnOnce(&mut Two)) {
    let mut two = Two::open().await;
    let ids = ["revoked", "deleted", "suspended", "resumed", "rotated", "reissued", "renamed"];
    for id in ids {
        let of = matches!(id, "suspended" | "resumed").then_some(id);
        issue(&two.here, key(id, of)).await.unwrap();
    }
    let mut held = Vec::new();
    for id in ids {
        held.push(find(&two.there, id).await.unwrap());
    }
    eventually("flows", || two.of_link() == Some(StoreEvent::Connected)).await;
    cut(&mut two).await;
    eventually("lost", || two.of_link() == Some(StoreEvent::Disconnected)).await;

    let here = &two.here;
    revoke(here, "revoked").await.unwrap();
    change(here, KeyChange::Delete { id: "deleted".into() }).await.unwrap();
    tenant(here, TenantChange::Suspend { tenant: "suspended".into() }).await;
    tenant(here, TenantChange::Suspend { tenant: "resumed".into() }).await;
    tenant(here, TenantChange::Resume { tenant: "resumed".into() }).await;
    let rotated = KeyChange::Rotate {
        id: "rotated".into(),
        digest: digest("new"),
        display_prefix: "".into(),
        former_until: None,
    };
    change(here, rotated).await.unwrap();
    change(here, KeyChange::Delete { id: "reissued".into() }).await.unwrap();
    issue(here, key("reissued", None)).await.unwrap();
    let renamed = Box::new(KeyUpdate::new().with_name("another"));
    change(here, KeyChange::Update { id: "renamed".into(), update: renamed }).await.unwrap();
    assert!(held.iter().all(|record| reason(record).is_none()));

    mend(&mut two).await;
    eventually("resumed", || two.of_link() == Some(StoreEvent::Connected)).await;
    let (revoked, suspended) = (Some(EndReason::Revoked), Some(EndReason::TenantSuspended));
    let reasons: Vec<_> = held.iter().map(reason).collect();
    assert_eq!(reasons, [revoked, revoked, suspended, suspended, revoked, revoked, None]);
    // And news flow.
    revoke(&two.here, "renamed").await.unwrap();
    eventually("revoked", || reason(&held[6]) == revoked).await;
}

#[tokio::test]
async fn what_is_missed_while_the_link_is_cut_is_looked_up() {
    what_is_missed_is_looked_up(async |two| two.relay.cut().await, async |two| two.relay.mend()).await;
}

#[tokio::test]
async fn what_is_missed_while_the_link_is_silent_is_looked_up() {
    what_is_missed_is_looked_up(async |two| two.relay.silence(), async |two| two.relay.mend()).await;
}

#[tokio::test]
async fn a_silent_link_is_noticed() {
    let mut two = Two::open().await;
    assert_eq!(two.there.staleness_bound(), Duration::from_millis(400));
    two.relay.silence();
    // No system gives a connection up before many times the patience of this.
    eventually("lost", || two.of_link() == Some(StoreEvent::Disconnected)).await;
}

#[tokio::test]
async fn a_silent_way_uses_no_connection_up() {
    let mut two = Two::open_as(builder().with_deadline(Duration::from_millis(300))).await;
    issue(&two.here, key("key", None)).await.unwrap();
    assert!(two.is_found_there_at_last("key").await);
    two.relay.silence();
    // Some wait for their deadline, some give up before.
    for _ in 0..3 {
        let waits = (0..20).map(|_| two.is_found_there("key"));
        assert!(futures_util::future::join_all(waits).await.iter().all(|is_found| !is_found));
        let gives_up = (0..20).map(|_| timeout(Duration::from_millis(20), two.is_found_there("key")));
        futures_util::future::join_all(gives_up).await;
    }
    // The way stays silent, for connections that were made before: a firewall has forgotten them.
    two.relay.cut().await;
    two.relay.mend();
    assert!(two.is_found_there_at_last("key").await, "no connection ever came free again");
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_is_found_again() {
    let mut two = Two::open().await;
    issue(&two.here, key("key", None)).await.unwrap();
    let held = find(&two.there, "key").await.unwrap();
    revoke(&two.here, "key").await.unwrap();
    two.postgres.kill().await;
    eventually("lost", || two.of_link() == Some(StoreEvent::Disconnected)).await;
    let error = two.there.find(&KeyLookup::new(&[digest("key")], at(3))).wait().await.unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    two.postgres.restart().await;
    eventually("resumed", || two.of_link() == Some(StoreEvent::Connected)).await;
    assert_eq!(reason(&held), Some(EndReason::Revoked));
    assert_eq!(
        find(&two.there, "key").await.unwrap().status(),
        KeyStatus::Revoked,
        "what was answered is kept"
    );
    issue(&two.here, key("other", None)).await.unwrap();
}

#[tokio::test]
async fn nothing_goes_on_when_the_last_handle_is_gone() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    let keys = builder().connect(&url).await.unwrap();
    issue(&keys, key("key", None)).await.unwrap();
    let mut observer = sqlx::PgConnection::connect(&url).await.unwrap();
    let mut count = async || -> i64 {
        let sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'tollgate'";
        sqlx::query_scalar(sql).fetch_one(&mut observer).await.unwrap()
    };
    assert!(count().await >= 2);
    drop(keys.clone());
    assert!(count().await >= 2);
    drop(keys);
    for _ in 0..1_000 {
        if count().await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("connections are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_principal_outlives_the_suspension_of_its_tenant() {
    on_each_shared(async |url| {
        let (here, there) = (builder().connect(&url).await.unwrap(), builder().connect(&url).await.unwrap());
        for round in 0..40 {
            let (id, of) = (format!("key_{round}"), format!("tenant_{round}"));
            let issues = async {
                issue(&here, key(&id, Some(&of))).await.unwrap();
                let held = find(&here, &id).await.unwrap();
                let update = Box::new(KeyUpdate::new().with_name(format!("new {round}")));
                change(&here, KeyChange::Update { id: id.as_str().into(), update }).await.unwrap();
                [held, find(&here, &id).await.unwrap(), find(&there, &id).await.unwrap()]
            };
            let suspends = tenant(&there, TenantChange::Suspend { tenant: of.as_str().into() });
            let (held, ()) = tokio::join!(issues, suspends);
            eventually("suspended", || held.iter().all(|record| reason(record).is_some())).await;
            assert_eq!(find(&here, &id).await.unwrap().status(), KeyStatus::TenantSuspended);
        }
    })
    .await;
}

/// Without that, a suspension could commit after a change that took a later generation, and not end what was found between.
#[tokio::test]
async fn keys_are_not_changed_while_their_tenant_is() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    let keys = builder().connect(&url).await.unwrap();
    issue(&keys, key("old", Some("acme"))).await.unwrap();
    let mut suspends = sqlx::PgConnection::connect(&url).await.unwrap();
    let steps = "BEGIN; UPDATE tollgate_tenants SET is_suspended = 1 WHERE tenant = 'acme'";
    sqlx::raw_sql(steps).execute(&mut suspends).await.unwrap();

    let update = Box::new(KeyUpdate::new().with_name("renamed"));
    let mut issues = std::pin::pin!(issue(&keys, key("new", Some("acme"))));
    let mut updates = std::pin::pin!(change(&keys, KeyChange::Update { id: "old".into(), update }));
    assert!(timeout(Duration::from_millis(200), &mut issues).await.is_err(), "it waits");
    assert!(timeout(Duration::from_millis(200), &mut updates).await.is_err(), "it waits");
    sqlx::raw_sql("COMMIT").execute(&mut suspends).await.unwrap();
    assert_eq!(issues.await.unwrap().status, KeyStatus::TenantSuspended);
    assert_eq!(updates.await.unwrap().status, KeyStatus::TenantSuspended);
}

#[tokio::test]
async fn whoever_gives_up_waiting_has_made_the_change_all_the_same() {
    on_each_shared(async |url| {
        let keys = builder().connect(&url).await.unwrap();
        issue(&keys, key("key", None)).await.unwrap();
        let held = find(&keys, "key").await.unwrap();
        assert!(revoke(&keys, "key").now_or_never().is_none(), "it waits");
        eventually("revoked", || reason(&held) == Some(EndReason::Revoked)).await;
    })
    .await;
}

#[tokio::test]
async fn a_file_that_another_process_writes_is_read_and_not_written() {
    let folder = Folder::new();
    let keys = builder().with_admin_deadline(Duration::from_secs(2)).connect(&folder.url()).await.unwrap();
    issue(&keys, key("key", None)).await.unwrap();
    let mut other = sqlx::SqliteConnection::connect(&folder.url()).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let error = revoke(&keys, "key").await.unwrap_err();
    assert!(
        matches!(&error, KeyAdminError::Unavailable(_)) && error.to_string().contains("locked"),
        "{error}"
    );
    assert_eq!(find(&keys, "key").await.unwrap().status(), KeyStatus::Active);
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    revoke(&keys, "key").await.unwrap();
    assert_eq!(find(&keys, "key").await.unwrap().status(), KeyStatus::Revoked);
}
