//! What the store promises, on SQLite in memory, on a SQLite file, and on PostgreSQL where `TOLLGATE_POSTGRES` has the URL of a
//! database that may be filled with tables.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tollgate_core::{
    Change, Command, Digest, EndReason, HistoryQuery, HourlyUsage, KeyAction, KeyAdmin, KeyAdminError,
    KeyChange, KeyDetails, KeyLookUp, KeyQuery, KeyRecord, KeyStatus, KeyStore, KeyUpdate, Metadata,
    Operator, Pepper, PepperId, PerWindow, Plan, Scopes, TenantChange, UsageBatch, UsageCount, UsageStore,
    WatchKeys,
};
use tollgate_sql::{ConnectError, SqlKeys, SqlKeysBuilder};

static NUMBER: AtomicU64 = AtomicU64::new(0);

fn unique(what: &str) -> String {
    format!("{what}_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(unique("tollgate_sql"));
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

fn builder() -> SqlKeysBuilder {
    SqlKeys::builder().with_deadline(Duration::from_secs(5)).with_poll_interval(Duration::from_millis(10))
}

/// The URL of a schema of one's own on the PostgreSQL server, if there is a server.
fn postgres() -> Option<String> {
    let url = std::env::var("TOLLGATE_POSTGRES").ok()?;
    let schema = unique("tollgate_test");
    let made =
        std::process::Command::new("psql").args([&url, "-qc", &format!("CREATE SCHEMA {schema}")]).status();
    assert!(made.unwrap().success());
    let sign = if url.contains('?') { '&' } else { '?' };
    Some(format!("{url}{sign}options[search_path]={schema}"))
}

/// Runs a test on each kind of database.
async fn on_each(test: impl AsyncFn(SqlKeys)) {
    test(builder().connect("sqlite::memory:").await.unwrap()).await;
    let folder = Folder::new();
    test(builder().connect(&folder.url()).await.unwrap()).await;
    if let Some(url) = postgres() {
        test(builder().connect(&url).await.unwrap()).await;
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn ada() -> Operator {
    Operator::new("cli:ada")
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
    keys.find(&KeyLookUp::new(&[digest(secret)], now)).wait().await.unwrap()
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

#[tokio::test]
async fn a_key_is_found_as_it_was_issued() {
    on_each(async |keys| {
        let mut issued = key("key_1", Some("acme"));
        issued.scopes = Scopes::new(["jobs:read", "results:*"]).unwrap();
        issued.plan = Some(Plan::lapsed("pro"));
        issued.role = Some("admin".into());
        issued.quotas = vec![("z".into(), 60.per_minute()), ("a".into(), 5.per_second().with_burst(9))];
        issued.metadata = Metadata::of(&std::collections::BTreeMap::from([("region", "eu")])).unwrap();
        issued.expires_at = Some(at(100) + Duration::from_nanos(1_999));
        let shown = issue(&keys, issued.clone()).await.unwrap();
        issued.expires_at = Some(at(100) + Duration::from_micros(1));
        issued.generation = shown.generation;
        assert_eq!(shown, issued);
        assert_eq!(keys.list(&KeyQuery::all()).wait().await.unwrap().items, [shown]);

        let record = find(&keys, "key_1").await.unwrap();
        assert_eq!((record.status(), record.generation()), (KeyStatus::Active, issued.generation));
        let principal = record.principal();
        assert_eq!(
            (principal.id(), principal.tenant(), principal.role()),
            ("key_1", Some("acme"), Some("admin"))
        );
        assert_eq!(principal.quota("a"), Some(&5.per_second().with_burst(9)));
        assert_eq!(principal.extension::<Metadata>(), Some(&issued.metadata));
        assert_eq!(principal.expires_at(), issued.expires_at);
        assert!(find(&keys, "key_2").await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_key_is_found_under_any_of_its_peppers() {
    on_each(async |keys| {
        let peppered =
            |id| Pepper::new(PepperId::new(id), "a pepper of many bytes, to try").unwrap().digest("secret");
        let details = Box::new(key("key", None));
        change(&keys, KeyChange::Issue { details, digest: peppered(7) }).await.unwrap();
        let look =
            async |digests: &[Digest]| keys.find(&KeyLookUp::new(digests, at(3))).wait().await.unwrap();
        assert!(look(&[peppered(7)]).await.is_some());
        assert!(look(&[digest("x"), digest("y"), peppered(7)]).await.is_some());
        assert!(look(&[peppered(8), digest("secret")]).await.is_none(), "the pepper's number counts");
        assert!(look(&[Digest::from_parts(*peppered(7).as_bytes(), None)]).await.is_none());
        assert!(look(&[]).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn what_is_revoked_or_suspended_has_ended_before_anybody_is_answered() {
    on_each(async |keys| {
        for (id, of) in
            [("one", Some("acme")), ("two", Some("acme")), ("three", Some("umbrella")), ("four", None)]
        {
            issue(&keys, key(id, of)).await.unwrap();
        }
        let [one, two, three, four] = [
            find(&keys, "one").await,
            find(&keys, "two").await,
            find(&keys, "three").await,
            find(&keys, "four").await,
        ]
        .map(Option::unwrap);
        assert_eq!(revoke(&keys, "one").await.unwrap().status, KeyStatus::Revoked);
        assert_eq!([&one, &two, &three, &four].map(reason), [Some(EndReason::Revoked), None, None, None]);
        tenant(&keys, TenantChange::Suspend { tenant: "acme".into() }).await;
        assert_eq!([&two, &three, &four].map(reason), [Some(EndReason::TenantSuspended), None, None]);
        issue(&keys, key("later", Some("acme"))).await.unwrap();

        let status = async |id: &str| find(&keys, id).await.unwrap().status();
        assert_eq!(status("one").await, KeyStatus::Revoked);
        assert_eq!(status("two").await, KeyStatus::TenantSuspended);
        assert_eq!(status("later").await, KeyStatus::TenantSuspended);
        tenant(&keys, TenantChange::Resume { tenant: "acme".into() }).await;
        assert_eq!(status("one").await, KeyStatus::Revoked);
        let again = find(&keys, "two").await.unwrap();
        assert_eq!((again.status(), reason(&again)), (KeyStatus::Active, None));
        assert!(again.generation() > two.generation());
        assert_eq!(status("later").await, KeyStatus::Active);

        change(&keys, KeyChange::Delete { id: "four".into() }).await.unwrap();
        assert_eq!(reason(&four), Some(EndReason::Revoked));
        assert!(find(&keys, "four").await.is_none());
        assert!(matches!(revoke(&keys, "four").await, Err(KeyAdminError::NotFound)));
        let anew = issue(&keys, key("four", None)).await.unwrap();
        assert!(anew.generation > four.generation());
    })
    .await;
}

#[tokio::test]
async fn what_is_taken_is_refused_and_nothing_changes() {
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
        assert!(taken(change(&keys, rename("build")).await), "until it is deleted");
        change(&keys, KeyChange::Delete { id: "a".into() }).await.unwrap();
        assert_eq!(&*change(&keys, rename("build")).await.unwrap().name, "build");
        assert_eq!(keys.history(&HistoryQuery::of_key("d")).wait().await.unwrap().items.len(), 2);
        assert!(matches!(issue(&keys, named("nul\0", None, "x")).await, Err(KeyAdminError::Invalid(_))));
    })
    .await;
}

#[tokio::test]
async fn a_rotation_keeps_the_former_secret_for_as_long_as_it_says() {
    on_each(async |keys| {
        issue(&keys, key("key", None)).await.unwrap();
        let held = find(&keys, "key").await.unwrap();
        let rotate = |secret: &str, former_until| KeyChange::Rotate {
            id: "key".into(),
            digest: digest(secret),
            display_prefix: secret.into(),
            former_until,
        };
        let rotated = change(&keys, rotate("second", Some(at(50)))).await.unwrap();
        assert_eq!((&*rotated.display_prefix, rotated.former_until), ("second", Some(at(50))));
        assert_eq!(reason(&held), None, "it goes on");
        assert_eq!(find(&keys, "key").await.unwrap().principal().expires_at(), Some(at(50)));
        assert_eq!(find(&keys, "second").await.unwrap().principal().expires_at(), None);
        assert!(find_at(&keys, "key", at(50)).await.is_none());

        let held = find(&keys, "second").await.unwrap();
        change(&keys, rotate("third", Some(at(60)))).await.unwrap();
        assert!(find(&keys, "key").await.is_none(), "a third secret is never good");
        assert_eq!(reason(&held), Some(EndReason::Revoked), "nobody knows by which secret it was proved");
        assert!(find(&keys, "second").await.is_some());
        change(&keys, rotate("fourth", None)).await.unwrap();
        assert!(find(&keys, "second").await.is_none() && find(&keys, "third").await.is_none());
        assert!(find(&keys, "fourth").await.is_some());
        revoke(&keys, "key").await.unwrap();
        assert!(matches!(change(&keys, rotate("fifth", None)).await, Err(KeyAdminError::Revoked)));
    })
    .await;
}

#[tokio::test]
async fn the_history_tells_what_happened_and_not_what_did_not() {
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
        let events = keys.history(&HistoryQuery::all().of_tenant("acme")).wait().await.unwrap().items;
        let told: Vec<_> = events.iter().map(|event| (event.action, &*event.detail)).collect();
        let updated = "name: name of key -> new, expiry: never -> 2023-11-14T22:13:29Z";
        assert_eq!(
            told,
            [
                (KeyAction::Deleted, "name: new"),
                (KeyAction::TenantSuspended, ""),
                (KeyAction::Revoked, ""),
                (KeyAction::Updated, updated),
                (KeyAction::Issued, "name: name of key"),
            ]
        );
        assert!(events.iter().all(|event| &*event.operator == "cli:ada"));
        assert!(events.windows(2).all(|pair| pair[0].generation > pair[1].generation));
    })
    .await;
}

#[tokio::test]
async fn whoever_manages_one_tenant_sees_no_other() {
    on_each(async |keys| {
        issue(&keys, key("theirs", Some("umbrella"))).await.unwrap();
        let by_eve = |change| keys.change(Command::new(change, Operator::of_tenant("eve", "acme"), at(1)));
        let result = by_eve(KeyChange::Revoke { id: "theirs".into() }).wait().await;
        assert!(matches!(result, Err(KeyAdminError::NotFound)));
        let details = Box::new(key("new", Some("umbrella")));
        let result = by_eve(KeyChange::Issue { details, digest: digest("new") }).wait().await;
        assert!(matches!(result, Err(KeyAdminError::NotPermitted)));
        let change = TenantChange::Suspend { tenant: "acme".into() };
        let result =
            keys.change_tenant(Command::new(change, Operator::of_tenant("eve", "acme"), at(1))).wait().await;
        assert!(matches!(result, Err(KeyAdminError::NotPermitted)));
        let details = Box::new(key("ours", Some("acme")));
        assert!(by_eve(KeyChange::Issue { details, digest: digest("ours") }).wait().await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn pages_hold_every_key_once_the_newest_first() {
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
                let page = keys.list(&query).wait().await.unwrap();
                assert!(page.items.len() <= 2);
                ids.extend(page.items.iter().map(|key| key.id[3..].parse::<u64>().unwrap()));
                let Some(next) = page.next else { return ids };
                query = query.after(next);
            }
        };
        let query = || KeyQuery::all().limit(2);
        assert_eq!(all(query()).await, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(all(query().of_tenant("even")).await, [8, 6, 4, 2, 0]);
        assert_eq!(all(query().with_status(KeyStatus::Revoked)).await, [4]);
        assert_eq!(all(query().with_status(KeyStatus::Active).of_tenant("even")).await, [8, 6, 2, 0]);
        assert_eq!(all(query().search("name of k%_7")).await, [7]);
        assert_eq!(all(query().search("sk_live_k%_3")).await, [3]);
        assert_eq!(all(query().search("sk_live_k__3")).await, [] as [u64; 0]);
        assert_eq!(all(query().search("Name")).await, [] as [u64; 0]);
        assert_eq!(all(query().search("")).await.len(), 10);
        assert_eq!(all(KeyQuery::one("k%_5").limit(2)).await, [5]);
        assert_eq!(all(query().of_tenant("nul\0")).await, [] as [u64; 0]);
        let error = keys.list(&KeyQuery::all().after("nonsense")).wait().await;
        assert!(matches!(error, Err(KeyAdminError::InvalidCursor)));
        let error = keys.history(&HistoryQuery::all().after("nonsense")).wait().await;
        assert!(matches!(error, Err(KeyAdminError::InvalidCursor)));
    })
    .await;
}

#[tokio::test]
async fn usage_is_added_once_and_goes_with_its_key() {
    on_each(async |keys| {
        issue(&keys, key("key", None)).await.unwrap();
        let hour = |number: u64| UNIX_EPOCH + Duration::from_secs(3_600 * number);
        let batch = |number, requests, last| {
            let counts = vec![
                UsageCount::new("unknown", hour(7), 9, at(9)),
                UsageCount::new("key", hour(8), requests, at(last)),
                UsageCount::new("key", hour(7), 1, at(1)),
            ];
            UsageBatch::new(u128::MAX, number, counts)
        };
        for (number, requests, last) in [(1, 5, 5), (1, 5, 5), (2, 6, 3), (1, 5, 5)] {
            keys.add(batch(number, requests, last)).wait().await.unwrap();
        }
        let used = async |from, until| keys.usage("key", hour(from), hour(until)).wait().await.unwrap();
        assert_eq!(used(0, 100).await, [HourlyUsage::new(hour(7), 2), HourlyUsage::new(hour(8), 11)]);
        assert_eq!(used(7, 8).await, [HourlyUsage::new(hour(7), 2)]);
        let listed = keys.list(&KeyQuery::one("key")).wait().await.unwrap().items.remove(0);
        assert_eq!(listed.last_used_at, Some(at(5)));
        let many = (0..1_234).map(|number| UsageCount::new("key", hour(100 + number), 1, at(6))).collect();
        keys.add(UsageBatch::new(1, 0, many)).wait().await.unwrap();
        assert_eq!(used(100, 5_000).await.len(), 1_234);
        change(&keys, KeyChange::Delete { id: "key".into() }).await.unwrap();
        issue(&keys, key("key", None)).await.unwrap();
        assert_eq!(used(0, 5_000).await, []);
    })
    .await;
}

/// What a watcher was told.
fn watch(keys: &SqlKeys) -> (Arc<dyn WatchKeys>, Arc<Mutex<Vec<Change>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let watcher: Arc<dyn WatchKeys> = {
        let told = Arc::clone(&told);
        Arc::new(move |change: &Change| told.lock().unwrap().push(change.clone()))
    };
    keys.watch(Arc::downgrade(&watcher));
    (watcher, told)
}

#[tokio::test]
async fn another_process_hears_of_it() {
    let folder = Folder::new();
    for url in [Some(folder.url()), postgres()].into_iter().flatten() {
        let (here, there) = (builder().connect(&url).await.unwrap(), builder().connect(&url).await.unwrap());
        let (_watcher, told) = watch(&there);
        assert_eq!(*told.lock().unwrap(), [Change::Resumed]);
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
        let is_told = |change: &Change| matches!(change, Change::Tenant { tenant, .. } if **tenant == *long);
        eventually("told", || told.lock().unwrap().iter().any(is_told)).await;
        assert!(!told.lock().unwrap().contains(&Change::Lost));
        there.close().await;
        assert_eq!(told.lock().unwrap().last(), Some(&Change::Lost));
        assert!(there.find(&KeyLookUp::new(&[digest("key")], at(3))).wait().await.is_err());
    }
}

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
    let zero = builder().with_deadline(Duration::ZERO).connect("sqlite::memory:").await;
    assert!(matches!(zero, Err(ConnectError::InvalidSetting(_))));
}

#[tokio::test]
async fn a_newer_database_is_left_alone() {
    let folder = Folder::new();
    for url in [Some(folder.url()), postgres()].into_iter().flatten() {
        builder().connect(&url).await.unwrap().close().await;
        raw(&url, "INSERT INTO tollgate_schema (version) VALUES (2)").await;
        let error = builder().connect(&url).await.unwrap_err();
        assert_eq!(error, ConnectError::NewerSchema { found: 2, known: 1 });
        assert!(error.to_string().contains("upgrade this program"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_may_begin_at_once() {
    let folder = Folder::new();
    for url in [Some(folder.url()), postgres()].into_iter().flatten() {
        let openings: Vec<_> = (0..8)
            .map(|_| {
                let url = url.clone();
                tokio::spawn(async move { builder().connect(&url).await })
            })
            .collect();
        for opening in openings {
            opening.await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn errors_and_debug_tell_no_password() {
    let keys = builder().connect("sqlite::memory:").await.unwrap();
    assert!(format!("{keys:?}").contains("SqlKeys"));
    #[cfg(feature = "postgres")]
    {
        for url in [
            "postgres://ada:hunter2@127.0.0.1:1/keys",
            "postgres://ada:hunter2@127.0.0.1:x/keys",
            "postgres://ada:hunter2@[/keys",
            "postgres://127.0.0.1/keys?pasword=hunter2",
        ] {
            let error = SqlKeys::connect(url).await.unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        if let Some(url) = postgres() {
            let keys = builder().connect(&format!("{url}&password=hunter2")).await.unwrap();
            assert!(!format!("{keys:?}").contains("hunter2"));
        }
    }
}

async fn raw(url: &str, sql: &'static str) {
    #[cfg(feature = "postgres")]
    if url.starts_with("postgres") {
        let pool = sqlx::PgPool::connect(url).await.unwrap();
        sqlx::query(sql).execute(&pool).await.unwrap();
        return;
    }
    let pool = sqlx::SqlitePool::connect(url).await.unwrap();
    sqlx::query(sql).execute(&pool).await.unwrap();
}
