//! A SQLite file: what holds up its one writer, what is written to files of other programs, and a file that is replaced.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    str::FromStr as _,
    time::{Duration, Instant},
};

use sqlx::{
    Connection as _, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tollgate::{
    denial::Unavailable,
    manage::{HistoryQuery, KeyAdmin as _, KeyQuery},
    store::{EndReason, KeyLookup, KeyStatus, KeyStore as _, StoreEvent},
    usage::{UsageBatch, UsageCount, UsageQuery, UsageStore as _},
};
use tollgate_sql::{ConnectError, SqlKeys};

use super::{
    Folder, at, builder, change, digest, events::subscribe, eventually, execute, find, issue, key, reason,
    revoke,
};

/// Far more than one transaction of a flush adds.
const MANY: u64 = 20_000;

/// Inserts [`MANY`] keys, `many_1` and so on.
async fn insert_many_keys(url: &str) {
    let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
               INSERT INTO tollgate_keys (id, name, display_prefix, tenant, scopes, plan, plan_is_active, environment, role, \
               quotas, metadata, created_at, expires_at, revoked_at, former_until, generation, ended) SELECT 'many_' || i, 'many ' || i, '', NULL, '', NULL, NULL, 'live', NULL, '{}', '{}', \
               0, NULL, NULL, NULL, 0, 0 FROM n";
    execute(url, sql).await;
}

/// One request of each of these keys.
fn batch() -> UsageBatch {
    let counts = (1..=MANY).map(|number| UsageCount::new(format!("many_{number}"), at(0), 1, at(1)));
    UsageBatch::new(7, 1, counts.collect::<Vec<_>>())
}

/// A flush of usage was one transaction, which held SQLite's one write lock for seconds.
#[expect(clippy::disallowed_methods, reason = "prints elapsed time")]
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_does_not_wait_for_a_flush_of_usage() {
    let folder = Folder::new();
    let here = builder().connect(&folder.url()).await.unwrap();
    // Another connection waits for the write lock as another process does.
    let there = builder().connect(&folder.url()).await.unwrap();
    let ids: Vec<_> = (0..20).map(|number| format!("key_{number}")).collect();
    for id in &ids {
        issue(&here, key(id, None)).await.unwrap();
    }
    insert_many_keys(&folder.url()).await;

    let flush = tokio::spawn({
        let here = here.clone();
        async move { here.add(batch()).await }
    });
    let mut observer = SqliteConnection::connect(&folder.url()).await.unwrap();
    let added = "SELECT COUNT(*) FROM tollgate_usage";
    while sqlx::query_scalar::<_, i64>(added).fetch_one(&mut observer).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    let mut waits = Vec::new();
    for (number, id) in ids.iter().enumerate() {
        let began = Instant::now();
        revoke(if number % 2 == 0 { &here } else { &there }, id).await.unwrap();
        waits.push(began.elapsed());
    }
    assert!(!flush.is_finished(), "the revocations waited for the flush");
    println!("a revocation during a flush: {waits:?}");
    flush.await.unwrap().unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(added).fetch_one(&mut observer).await.unwrap(), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_halfway_counts_once_when_it_is_repeated() {
    let folder = Folder::new();
    let keys = builder().with_admin_deadline(Duration::from_secs(1)).connect(&folder.url()).await.unwrap();
    insert_many_keys(&folder.url()).await;
    let flush = tokio::spawn({
        let keys = keys.clone();
        async move { keys.add(batch()).await }
    });
    let mut other = SqliteConnection::connect(&folder.url()).await.unwrap();
    let added = "SELECT COUNT(*) FROM tollgate_usage";
    while sqlx::query_scalar::<_, i64>(added).fetch_one(&mut other).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    while sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.is_err() {}
    flush.await.unwrap().unwrap_err();
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();

    // What the writer still has to add is known for each key.
    let stored = async |number: u64| {
        let id = format!("many_{number}");
        let query = UsageQuery::new(&id, at(0), at(3_600)).with_writer(7);
        let stored = keys.usage(&query).await.unwrap();
        (stored.hours.iter().map(|hour| hour.requests).sum::<u64>(), stored.last_number)
    };
    let mut added_halfway = 0;
    for number in (1..=MANY).step_by(101) {
        let (requests, last_number) = stored(number).await;
        assert_eq!(requests, last_number, "many_{number}");
        added_halfway += requests;
    }
    assert!((1..198).contains(&added_halfway), "{added_halfway}");
    for _ in 0..2 {
        keys.add(batch()).await.unwrap();
    }
    let sums = "SELECT COUNT(*) * 1000000 + SUM(requests) FROM tollgate_usage";
    assert_eq!(sqlx::query_scalar::<_, i64>(sums).fetch_one(&mut other).await.unwrap(), 20_000_020_000);
    assert_eq!((stored(1).await, stored(MANY).await), ((1, 1), (1, 1)));
}

/// Opening a store took the write lock, to find out whether the database is read-only.
#[tokio::test]
async fn a_file_whose_write_lock_is_held_can_be_opened_and_read() {
    let folder = Folder::new();
    let writer = builder().connect(&folder.url()).await.unwrap();
    issue(&writer, key("key", None)).await.unwrap();
    let mut other = SqliteConnection::connect(&folder.url()).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();

    let pool = SqlitePool::connect(&folder.url()).await.unwrap();
    let short = || builder().with_admin_deadline(Duration::from_secs(2));
    for keys in [
        short().connect(&folder.url()).await.unwrap(),
        short().without_migration().connect(&folder.url()).await.unwrap(),
        short().connect_sqlite_pool(pool).await.unwrap(),
    ] {
        assert!(find(&keys, "key").await.is_some());
        assert_eq!(keys.list(&KeyQuery::all()).await.unwrap().items.len(), 1);
        assert_eq!(keys.history(&HistoryQuery::of_key("key")).await.unwrap().items.len(), 1);
        keys.usage(&UsageQuery::new("key", at(0), at(1))).await.unwrap();
    }
}

/// A file was switched to a write-ahead log before it was known to be a key store.
#[tokio::test]
async fn a_file_that_is_not_a_key_store_stays_as_it_is() {
    let folder = Folder::new();
    let path = folder.0.join("keys.db");
    execute(&folder.url(), "CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('mine')").await;
    let before = std::fs::read(&path).unwrap();
    let refused = builder().without_migration().connect(&folder.url()).await.unwrap_err();
    assert!(matches!(refused, ConnectError::MissingSchema { .. }), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "no file beside it");

    // Of a newer version, which may use another journal mode.
    execute(
        &folder.url(),
        "CREATE TABLE tollgate_schema (version BIGINT); INSERT INTO tollgate_schema VALUES (99)",
    )
    .await;
    let before = std::fs::read(&path).unwrap();
    let refused = builder().connect(&folder.url()).await.unwrap_err();
    assert!(matches!(refused, ConnectError::NewerSchema { .. }), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn new_files_are_readable_by_their_owner_only() {
    let options = |folder: &Folder| SqliteConnectOptions::from_str(&folder.url()).unwrap();
    let (by_url, by_options) = (Folder::new(), Folder::new());
    let stores = [
        builder().connect(&by_url.url()).await.unwrap(),
        builder().connect_sqlite(options(&by_options).create_if_missing(true)).await.unwrap(),
    ];
    for (keys, folder) in stores.iter().zip([&by_url, &by_options]) {
        issue(keys, key("key", None)).await.unwrap();
        for name in ["keys.db", "keys.db-wal", "keys.db-shm"] {
            let mode = std::fs::metadata(folder.0.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
    // The mode of a file that exists is its owner's decision.
    let folder = Folder::new();
    let path = folder.0.join("keys.db");
    std::fs::File::create(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    builder().connect(&folder.url()).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

/// A store whose keys are `kept` and `revoked`, and a backup from before the other store's later changes. In the backup, the key
/// `revoked` is revoked, by a change with a lower generation than the store has seen.
struct Restored {
    folder: Folder,
    keys: SqlKeys,
}

impl Restored {
    async fn prepare(open: impl AsyncFn(&str) -> SqlKeys) -> Self {
        let folder = Folder::new();
        let keys = open(&folder.url()).await;
        for id in ["kept", "revoked"] {
            issue(&keys, key(id, None)).await.unwrap();
        }
        let backup = folder.0.join("backup.db");
        let mut connection = SqliteConnection::connect(&folder.url()).await.unwrap();
        let copy = sqlx::query("VACUUM INTO $1").bind(backup.to_str().unwrap());
        copy.execute(&mut connection).await.unwrap();
        let other = builder().connect(&format!("sqlite://{}", backup.display())).await.unwrap();
        revoke(&other, "revoked").await.unwrap();
        other.close().await;
        for id in ["later_1", "later_2", "later_3"] {
            issue(&keys, key(id, None)).await.unwrap();
        }
        Self { folder, keys }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.0.join(name)
    }

    /// Restores the backup as an operator does: another file of the same name.
    fn replace_file(&self) {
        for name in ["keys.db-wal", "keys.db-shm"] {
            let _ = std::fs::remove_file(self.path(name));
        }
        std::fs::rename(self.path("backup.db"), self.path("keys.db")).unwrap();
    }

    /// Restores the backup into the same file, as SQLite's `.restore` does.
    async fn replace_content(&self) {
        let mut connection = SqliteConnection::connect(&self.folder.url()).await.unwrap();
        sqlx::query("ATTACH $1 AS backup")
            .bind(self.path("backup.db").to_str().unwrap())
            .execute(&mut connection)
            .await
            .unwrap();
        let tables = ["tollgate_keys", "tollgate_digests", "tollgate_history", "sqlite_sequence"];
        let mut sql = "PRAGMA foreign_keys = OFF; BEGIN IMMEDIATE;".to_owned();
        for table in tables {
            let copy =
                format!("DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM backup.{table};");
            sql.push_str(&copy);
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql + "COMMIT")).execute(&mut connection).await.unwrap();
    }

    async fn is_noticed(&self, restore: impl AsyncFn(&Self)) {
        let held = [find(&self.keys, "kept").await.unwrap(), find(&self.keys, "revoked").await.unwrap()];
        let (_listener, received) = subscribe(&self.keys);
        restore(self).await;
        // On a busy machine, a poll may fail and be repeated: then there are more than one of each.
        eventually("connected again", || {
            let events = received.lock().unwrap();
            events.contains(&StoreEvent::Disconnected) && events.last() == Some(&StoreEvent::Connected)
        })
        .await;
        // Generations of the former file say nothing about the new one, so every principal ends.
        assert!(held.iter().all(|record| reason(record) == Some(EndReason::Revoked)));
        assert_eq!(find(&self.keys, "revoked").await.unwrap().status(), KeyStatus::Revoked);
        assert_eq!(find(&self.keys, "kept").await.unwrap().status(), KeyStatus::Active);
        assert!(find(&self.keys, "later_1").await.is_none());

        // Changes go to the new file, and those of other processes arrive.
        let kept = find(&self.keys, "kept").await.unwrap();
        issue(&self.keys, key("new", None)).await.unwrap();
        let other = builder().connect(&self.folder.url()).await.unwrap();
        assert!(find(&other, "new").await.is_some());
        revoke(&other, "kept").await.unwrap();
        eventually("revoked", || reason(&kept) == Some(EndReason::Revoked)).await;
    }
}

/// A key that is revoked in the new file was served without end.
#[tokio::test]
async fn a_file_that_is_replaced_is_noticed() {
    let restored = Restored::prepare(async |url| builder().connect(url).await.unwrap()).await;
    restored.is_noticed(async |restored| restored.replace_file()).await;
}

#[tokio::test]
async fn a_file_whose_content_is_replaced_is_noticed() {
    let restored = Restored::prepare(async |url| builder().connect(url).await.unwrap()).await;
    restored.is_noticed(Restored::replace_content).await;
}

/// Waits until a lookup fails. The poll that has interrupted the connection may have failed before it compared the files: then the
/// next one does.
async fn find_fails(keys: &SqlKeys, secret: &str) -> Unavailable {
    for _ in 0..2_000 {
        if let Err(error) = keys.find(&KeyLookup::new(&[digest(secret)], at(3))).await {
            return error;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("did not fail: a lookup of {secret}");
}

#[tokio::test]
async fn a_store_over_an_applications_pool_refuses_to_read_a_replaced_file() {
    let restored = Restored::prepare(async |url| {
        let options = SqliteConnectOptions::from_str(url).unwrap().create_if_missing(true);
        let pool = SqlitePool::connect_with(options.journal_mode(SqliteJournalMode::Wal)).await.unwrap();
        builder().connect_sqlite_pool(pool).await.unwrap()
    })
    .await;
    let (_listener, received) = subscribe(&restored.keys);
    restored.replace_file();
    eventually("disconnected", || received.lock().unwrap().last() == Some(&StoreEvent::Disconnected)).await;
    assert!(find_fails(&restored.keys, "revoked").await.to_string().contains("replaced"));
    assert!(revoke(&restored.keys, "kept").await.unwrap_err().to_string().contains("replaced"));
}

#[tokio::test]
async fn a_file_that_is_removed_is_noticed_and_not_created_again() {
    let restored = Restored::prepare(async |url| builder().connect(url).await.unwrap()).await;
    let (_listener, received) = subscribe(&restored.keys);
    let held = find(&restored.keys, "kept").await.unwrap();
    let path = restored.path("keys.db");
    std::fs::rename(&path, restored.path("moved.db")).unwrap();
    eventually("disconnected", || received.lock().unwrap().last() == Some(&StoreEvent::Disconnected)).await;
    find_fails(&restored.keys, "kept").await;
    assert!(!Path::new(&path).exists());
    std::fs::rename(restored.path("moved.db"), &path).unwrap();
    eventually("connected", || received.lock().unwrap().last() == Some(&StoreEvent::Connected)).await;
    assert!(find(&restored.keys, "kept").await.is_some());
    assert_eq!(reason(&held), None, "it is the same database");
}

/// What an operator restores while the store is open must not be taken for a change of this process.
#[tokio::test]
async fn a_generation_that_is_used_again_after_a_restore_is_published() {
    let restored = Restored::prepare(async |url| {
        // Its own changes are not reported before the file is replaced.
        builder().with_poll_interval(Duration::from_millis(200)).connect(url).await.unwrap()
    })
    .await;
    issue(&restored.keys, key("own", None)).await.unwrap();
    let (_listener, received) = subscribe(&restored.keys);
    restored.replace_file();
    eventually("connected again", || received.lock().unwrap().len() == 3).await;
    let kept = find(&restored.keys, "kept").await.unwrap();
    let other = builder().connect(&restored.folder.url()).await.unwrap();
    // One of these has the generation of an own change in the former file.
    for number in 0..4 {
        let update = Box::new(tollgate::manage::KeyUpdate::new().with_name(format!("name {number}")));
        let renamed = tollgate::manage::KeyChange::Update { id: "kept".into(), update };
        change(&other, renamed).await.unwrap();
    }
    revoke(&other, "kept").await.unwrap();
    eventually("revoked", || reason(&kept) == Some(EndReason::Revoked)).await;
    let changes =
        received.lock().unwrap().iter().filter(|event| matches!(event, StoreEvent::Key { .. })).count();
    assert_eq!(changes, 5, "{:?}", received.lock().unwrap());
}
