//! Notifications between processes, and failures of the network.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt as _;
use sqlx::Connection as _;
use tests::{
    postgres::Postgres,
    relay::{Direction, Relay},
};
use tokio::time::timeout;
use tollgate::{
    CachedKeys, Plan,
    manage::{KeyAdminError, KeyChange, KeyUpdate, TenantChange},
    store::{EndReason, KeyLookup, KeyStatus, KeyStore as _, StoreEvent, StoreListener},
};
use tollgate_sql::{SqlKeys, SqlKeysBuilder};

use super::{
    Folder, at, builder, change, digest, eventually, find, issue, key, on_each_shared, reason, revoke, tenant,
};

/// Subscribes a listener, and returns it with the events that it receives.
pub(super) fn subscribe(keys: &SqlKeys) -> (Arc<dyn StoreListener>, Arc<Mutex<Vec<StoreEvent>>>) {
    let received = Arc::new(Mutex::new(Vec::new()));
    let listener: Arc<dyn StoreListener> = {
        let received = Arc::clone(&received);
        Arc::new(move |change: &StoreEvent| received.lock().unwrap().push(change.clone()))
    };
    let _ = keys.subscribe(Arc::downgrade(&listener));
    (listener, received)
}

#[tokio::test]
async fn another_process_is_notified_of_changes() {
    on_each_shared(async |url| {
        let (here, there) = (builder().connect(&url).await.unwrap(), builder().connect(&url).await.unwrap());
        let (_listener, received) = subscribe(&there);
        assert_eq!(*received.lock().unwrap(), [StoreEvent::Connected]);
        let long = "x".repeat(9_000);
        for (id, of) in [("key", Some("acme")), ("kéy of '\"\n", Some("acme")), (&long[..2_000], None)] {
            issue(&here, key(id, of)).await.unwrap();
        }
        let held = [find(&there, "key").await.unwrap(), find(&there, "kéy of '\"\n").await.unwrap()];
        revoke(&here, "kéy of '\"\n").await.unwrap();
        eventually("revoked", || reason(&held[1]) == Some(EndReason::Revoked)).await;
        tenant(&here, TenantChange::Suspend { tenant: "acme".into() }).await;
        eventually("suspended", || reason(&held[0]) == Some(EndReason::TenantSuspended)).await;
        // Too long for the payload of a notification.
        tenant(&here, TenantChange::Suspend { tenant: long.clone().into() }).await;
        let is_suspension =
            |change: &StoreEvent| matches!(change, StoreEvent::Tenant { tenant, .. } if **tenant == *long);
        eventually("notified", || received.lock().unwrap().iter().any(is_suspension)).await;
        assert!(!received.lock().unwrap().contains(&StoreEvent::Disconnected));
        there.close().await;
        assert_eq!(received.lock().unwrap().last(), Some(&StoreEvent::Disconnected));
        assert!(there.find(&KeyLookup::new(&[digest("key")], at(3))).await.is_err());
    })
    .await;
}

/// Every login of a database can send notifications. One that could not be read interrupted the connection, which emptied every
/// cache; and one that named a key ended its principals.
#[tokio::test]
async fn invented_notifications_end_nothing_and_interrupt_nothing() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    let (here, there) = (builder().connect(&url).await.unwrap(), builder().connect(&url).await.unwrap());
    issue(&here, key("key", Some("acme"))).await.unwrap();
    let held = find(&there, "key").await.unwrap();
    let (_listener, received) = subscribe(&there);

    super::execute(
        &url,
        "CREATE ROLE stranger LOGIN; REVOKE ALL ON ALL TABLES IN SCHEMA public FROM stranger",
    )
    .await;
    let mut stranger = sqlx::PgConnection::connect(&url.replace("postgres@", "stranger@")).await.unwrap();
    let channel = "SELECT 'tollgate_' || relnamespace FROM pg_class WHERE oid = 'tollgate_keys'::regclass";
    let channel: String = sqlx::query_scalar(channel).fetch_one(&mut stranger).await.unwrap();
    let reads = reads_of_the_history(&url).await;
    for payload in [
        "",
        "garbage",
        "key 999999 revoked key",
        "tenant 999999 suspended acme",
        "look 999999",
        "change",
        "change -1",
        "change 999999",
        "change 9223372036854775807",
        "trial",
    ] {
        let many = "SELECT pg_notify($1, $2 || repeat(' ', number)) FROM generate_series(0, 999) AS number";
        sqlx::query(many).bind(&channel).bind(payload).execute(&mut stranger).await.unwrap();
    }
    // Real changes arrive among them, and are the only ones.
    issue(&here, key("other", None)).await.unwrap();
    let is_issued = |event: &StoreEvent| matches!(event, StoreEvent::Key { id, .. } if **id == *"other");
    eventually("issued", || received.lock().unwrap().iter().any(is_issued)).await;
    assert_eq!(reason(&held), None);
    revoke(&here, "key").await.unwrap();
    eventually("revoked", || reason(&held) == Some(EndReason::Revoked)).await;
    let interrupted = received.lock().unwrap().contains(&StoreEvent::Disconnected);
    assert!(!interrupted, "{:?}", received.lock().unwrap());
    // 10,000 notifications, most of which named a change, cause fewer than 1,000 reads.
    // PostgreSQL publishes its counts at most once a second, with a later statement of each connection, such as a heartbeat.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let reads = reads_of_the_history(&url).await - reads;
    assert!(reads < 1_000, "{reads} reads");
}

/// How often a statement has read the history, by PostgreSQL's own count.
async fn reads_of_the_history(url: &str) -> i64 {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    let count =
        "SELECT seq_scan + COALESCE(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 'tollgate_history'";
    sqlx::query_scalar(count).fetch_one(&mut connection).await.unwrap()
}

/// A change may commit after another one with a higher generation, which was read before.
#[tokio::test]
async fn a_change_that_commits_late_is_found() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    let (here, there) = (builder().connect(&url).await.unwrap(), builder().connect(&url).await.unwrap());
    issue(&here, key("late", Some("acme"))).await.unwrap();
    let held = find(&there, "late").await.unwrap();
    // The suspension has its generation, and waits for the row of the tenant.
    let mut late = sqlx::PgConnection::connect(&url).await.unwrap();
    let steps = "BEGIN; INSERT INTO tollgate_history (at, operator, action, tenant, ended, detail) \
                 VALUES (0, '', 'tenant_suspended', 'acme', 'suspended', '')";
    sqlx::raw_sql(steps).execute(&mut late).await.unwrap();
    let (_listener, received) = subscribe(&there);
    issue(&here, key("other", None)).await.unwrap();
    let is_issued = |event: &StoreEvent| matches!(event, StoreEvent::Key { id, .. } if **id == *"other");
    eventually("issued", || received.lock().unwrap().iter().any(is_issued)).await;
    let notify = "SELECT pg_notify('tollgate_' || relnamespace, 'change ' || (SELECT last_value - 1 FROM tollgate_history_generation_seq)) \
                  FROM pg_class WHERE oid = 'tollgate_keys'::regclass; COMMIT";
    sqlx::raw_sql(notify).execute(&mut late).await.unwrap();
    eventually("suspended", || reason(&held) == Some(EndReason::TenantSuspended)).await;
}

#[tokio::test]
async fn a_plan_of_a_tenant_reaches_the_caches_of_other_processes() {
    on_each_shared(async |url| {
        let (here, there) = (builder().connect(&url).await.unwrap(), builder().connect(&url).await.unwrap());
        let cache = CachedKeys::new(there.clone());
        issue(&here, key("key", Some("acme"))).await.unwrap();
        // Never later than this instant, so no entry of the cache ends by itself.
        let tier = async || {
            let record = cache.find(&KeyLookup::new(&[digest("key")], at(3))).await.unwrap()?;
            record.principal().plan().map(|plan| plan.tier().to_owned())
        };
        assert_eq!(tier().await, None);
        for plan in [Some("pro"), Some("max"), None] {
            let change = TenantChange::SetPlan { tenant: "acme".into(), plan: plan.map(Plan::active) };
            tenant(&here, change).await;
            let seen = async {
                while tier().await.as_deref() != plan {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap();
        }
    })
    .await;
}

/// Two stores that share a database. The second one connects through a relay.
struct Two {
    here: SqlKeys,
    there: SqlKeys,
    relay: Relay,
    postgres: Postgres,
    received: Arc<Mutex<Vec<StoreEvent>>>,
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
        let (listener, received) = subscribe(&there);
        Self { here, there, relay, postgres, received, _listener: listener }
    }

    /// The last event about the connection of the second store. On a busy machine there can be several.
    fn connection_event(&self) -> Option<StoreEvent> {
        let received = self.received.lock().unwrap();
        received
            .iter()
            .rev()
            .find(|change| matches!(change, StoreEvent::Disconnected | StoreEvent::Connected))
            .cloned()
    }

    async fn is_found_there(&self, secret: &str) -> bool {
        self.there.find(&KeyLookup::new(&[digest(secret)], at(3))).await.is_ok()
    }

    /// The same with retries: on a busy machine a lookup can exceed its deadline.
    async fn is_found_there_eventually(&self, secret: &str) -> bool {
        for _ in 0..100 {
            if self.is_found_there(secret).await {
                return true;
            }
        }
        false
    }
}

/// Interrupts the connection of the second store, changes keys by the first one, and restores the connection.
async fn missed_changes_are_found(cut: impl AsyncFnOnce(&mut Two), mend: impl AsyncFnOnce(&mut Two)) {
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
    eventually("connected", || two.connection_event() == Some(StoreEvent::Connected)).await;
    cut(&mut two).await;
    eventually("disconnected", || two.connection_event() == Some(StoreEvent::Disconnected)).await;

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
    eventually("connected again", || two.connection_event() == Some(StoreEvent::Connected)).await;
    let (revoked, suspended) = (Some(EndReason::Revoked), Some(EndReason::TenantSuspended));
    let reasons: Vec<_> = held.iter().map(reason).collect();
    assert_eq!(reasons, [revoked, revoked, suspended, suspended, revoked, revoked, None]);
    // Notifications arrive again.
    revoke(&two.here, "renamed").await.unwrap();
    eventually("revoked", || reason(&held[6]) == revoked).await;
}

#[tokio::test]
async fn changes_during_a_broken_connection_are_found_after_it() {
    missed_changes_are_found(async |two| two.relay.cut().await, async |two| two.relay.mend()).await;
}

#[tokio::test]
async fn changes_during_a_silent_connection_are_found_after_it() {
    missed_changes_are_found(async |two| two.relay.silence(), async |two| two.relay.mend()).await;
}

#[tokio::test]
async fn a_silent_connection_is_noticed() {
    let mut two = Two::open().await;
    assert_eq!(two.there.staleness_bound(), Duration::from_millis(400));
    two.relay.silence();
    // The operating system needs far longer.
    eventually("disconnected", || two.connection_event() == Some(StoreEvent::Disconnected)).await;
}

#[tokio::test]
async fn a_silent_network_does_not_exhaust_the_pool() {
    let mut two = Two::open_as(builder().with_deadline(Duration::from_millis(300))).await;
    issue(&two.here, key("key", None)).await.unwrap();
    assert!(two.is_found_there_eventually("key").await);
    two.relay.silence();
    // Some callers wait for the deadline, some drop the lookup before.
    for _ in 0..3 {
        let waits = (0..20).map(|_| two.is_found_there("key"));
        assert!(futures_util::future::join_all(waits).await.iter().all(|is_found| !is_found));
        let dropped = (0..20).map(|_| timeout(Duration::from_millis(20), two.is_found_there("key")));
        futures_util::future::join_all(dropped).await;
    }
    // Existing connections stay silent, as after a firewall has forgotten them.
    two.relay.cut().await;
    two.relay.mend();
    assert!(two.is_found_there_eventually("key").await, "the pool is exhausted");
}

/// To connect, to prepare a lookup, and to test an idle connection counted against the deadline of a lookup: none of them ever
/// succeeded if the deadline was shorter than several round trips.
#[tokio::test(flavor = "multi_thread")]
async fn a_distant_database_can_be_used() {
    let postgres = Postgres::start().await;
    let mut relay = Relay::to(postgres.address());
    let url = postgres.fresh_database().await;
    issue(&builder().connect(&url).await.unwrap(), key("key", None)).await.unwrap();
    for direction in [Direction::ToUpstream, Direction::FromUpstream] {
        relay.delay(direction, Duration::from_millis(150));
    }
    let distant = builder().with_deadline(Duration::from_millis(500)).with_heartbeat(Duration::from_secs(1));
    let distant = distant.connect(&relay.reroute(&url)).await.unwrap();
    let (one, two) = ([digest("key")], [digest("another"), digest("key")]);
    for digests in [&one[..], &two[..]] {
        // Several attempts, because the machine may be busy.
        let mut attempts = 0;
        while !matches!(distant.find(&KeyLookup::new(digests, at(3))).await, Ok(Some(_))) {
            attempts += 1;
            assert!(attempts < 5, "a lookup never succeeds");
        }
        // The connection is tested meanwhile.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
    }
    // New connections are made, though the lookups that ask for them give up.
    let mut attempts = 0;
    loop {
        let lookups = (0..8).map(|_| async { distant.find(&KeyLookup::new(&one, at(3))).await.is_ok() });
        if futures_util::future::join_all(lookups).await.into_iter().all(|is_ok| is_ok) {
            break;
        }
        attempts += 1;
        assert!(attempts < 20, "no further connection is made");
    }
}

#[tokio::test]
async fn the_store_reconnects_after_the_server_was_killed() {
    let mut two = Two::open().await;
    issue(&two.here, key("key", None)).await.unwrap();
    let held = find(&two.there, "key").await.unwrap();
    revoke(&two.here, "key").await.unwrap();
    two.postgres.kill().await;
    eventually("disconnected", || two.connection_event() == Some(StoreEvent::Disconnected)).await;
    let error = two.there.find(&KeyLookup::new(&[digest("key")], at(3))).await.unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    two.postgres.restart().await;
    eventually("connected again", || two.connection_event() == Some(StoreEvent::Connected)).await;
    assert_eq!(reason(&held), Some(EndReason::Revoked));
    assert_eq!(
        find(&two.there, "key").await.unwrap().status(),
        KeyStatus::Revoked,
        "a confirmed revocation survives"
    );
    issue(&two.here, key("other", None)).await.unwrap();
}

#[tokio::test]
async fn all_connections_close_when_the_last_handle_is_dropped() {
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
    panic!("connections are still open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_ends_principals_of_concurrently_issued_keys() {
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

/// Otherwise a suspension could commit after a change with a later generation, and not end principals found in between.
#[tokio::test]
async fn changes_of_keys_wait_for_a_change_of_their_tenant() {
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
    assert!(timeout(Duration::from_millis(200), &mut issues).await.is_err(), "waits for the lock");
    assert!(timeout(Duration::from_millis(200), &mut updates).await.is_err(), "waits for the lock");
    sqlx::raw_sql("COMMIT").execute(&mut suspends).await.unwrap();
    assert_eq!(issues.await.unwrap().status, KeyStatus::TenantSuspended);
    assert_eq!(updates.await.unwrap().status, KeyStatus::TenantSuspended);
}

#[tokio::test]
async fn a_change_whose_future_is_dropped_is_still_made() {
    on_each_shared(async |url| {
        let keys = builder().connect(&url).await.unwrap();
        issue(&keys, key("key", None)).await.unwrap();
        let held = find(&keys, "key").await.unwrap();
        assert!(revoke(&keys, "key").now_or_never().is_none(), "not finished yet");
        eventually("revoked", || reason(&held) == Some(EndReason::Revoked)).await;
    })
    .await;
}

#[tokio::test]
async fn a_file_that_another_process_has_locked_can_be_read_but_not_changed() {
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
