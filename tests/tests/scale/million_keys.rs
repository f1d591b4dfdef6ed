//! How long it takes to find a key, and to list a page of keys, among a million.
//!
//! `./test` uses 20,000 keys, and checks that every key is listed once and that PostgreSQL does no sequential scan. The figures in
//! docs/performance.md come from
//! `TOLLGATE_LONG=1 NEXTEST_PROFILE=long cargo nextest run --release -p tests --test scale --no-capture million_keys::`.
#![expect(clippy::disallowed_methods, reason = "measures elapsed time")]

use std::time::{Duration, Instant};

use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
use tests::{cases, postgres::Postgres, suite::at};
use tollgate::{
    Answer, CachedKeys, KeyFormat,
    key::Digest,
    manage::{Actor, KeyAdmin as _, KeyManager, KeyQuery, NewKey},
    store::{KeyLookup, KeyStore},
};
use tollgate_sql::SqlKeys;

/// One key in 1,000 belongs to the tenant whose pages are listed.
const TENANTS: u32 = 1_000;

fn how_many() -> u32 {
    cases(20_000, 1_000_000)
}

fn secret(number: u32) -> String {
    format!("filler {number}")
}

/// The numbers of some keys, spread over the table.
fn some(how_many: u32, of: u32) -> impl Iterator<Item = u32> {
    (0..how_many).map(move |number| number.wrapping_mul(2_654_435_761) % of)
}

async fn find(store: &impl KeyStore, secret: &str) -> (bool, Duration) {
    let digests = [Digest::of(secret)];
    let asked = Instant::now();
    let found = store.find(&KeyLookup::new(&digests, at(0))).await.unwrap();
    (found.is_some(), asked.elapsed())
}

fn report(what: &str, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let at = |share: usize| latencies[(latencies.len() * share / 1_000).min(latencies.len() - 1)];
    println!(
        "  {what}: p50 {:?}, p99 {:?}, longest {:?} of {}",
        at(500),
        at(990),
        at(1_000),
        latencies.len()
    );
}

/// Finds and lists keys in a full store.
async fn find_and_list(store: &SqlKeys) {
    let keys = how_many();
    let mut latencies = Vec::new();
    for number in some(2_000, keys) {
        let (is_found, latency) = find(store, &secret(number)).await;
        assert!(is_found, "{number}");
        latencies.push(latency);
    }
    report("found, not cached", latencies);
    let mut latencies = Vec::new();
    for number in 0..1_000 {
        let (is_found, latency) = find(store, &format!("unknown {number}")).await;
        assert!(!is_found);
        latencies.push(latency);
    }
    report("unknown, not cached", latencies);

    let cached = CachedKeys::new(store.clone());
    let known: Vec<_> = some(1_000, keys).map(|number| [Digest::of(secret(number))]).collect();
    for digests in &known {
        cached.find(&KeyLookup::new(digests, at(0))).await.unwrap().unwrap();
    }
    let began = Instant::now();
    let rounds = cases(10, 1_000);
    for _ in 0..rounds {
        for digests in &known {
            let answer = cached.find(&KeyLookup::new(digests, at(0)));
            assert!(matches!(answer, Answer::Now(Ok(Some(_)))), "a cached key needs no wait");
        }
    }
    println!("  found, cached: {:?}", began.elapsed() / (rounds * 1_000));

    let page = KeyQuery::all().with_limit(100);
    lists(store, "a page of all keys", page.clone(), 100, u32::MAX).await;
    let of_tenant = page.clone().with_tenant("tenant 7").with_limit(10);
    let counted = lists(store, "a page of a tenant's keys", of_tenant, 200, u32::MAX).await;
    assert_eq!(counted, keys / TENANTS);
    lists(store, "one key", KeyQuery::one("key_00000077"), 1, 1).await;
    lists(
        store,
        "a search among a tenant's keys",
        page.clone().with_tenant("tenant 7").with_search("filler 7"),
        1,
        1,
    )
    .await;
    lists(store, "a search among all keys", page.with_search("filler 77"), 1, 1).await;
}

/// Lists pages in sequence, and counts the keys.
async fn lists(store: &SqlKeys, what: &str, mut query: KeyQuery, pages: usize, at_least: u32) -> u32 {
    let (mut latencies, mut counted, mut last) = (Vec::new(), 0, None);
    while latencies.len() < pages {
        let asked = Instant::now();
        let page = store.list(&query).await.unwrap();
        latencies.push(asked.elapsed());
        for key in page.items {
            let place = (key.created_at, key.id);
            assert!(last.as_ref().is_none_or(|last| place < *last), "each key once, the newest first");
            last = Some(place);
            counted += 1;
        }
        let Some(next) = page.next else { break };
        query = query.with_after(next);
    }
    assert!(counted >= at_least.min(1), "{what}");
    report(what, latencies);
    counted
}

/// Issues the key from which the others are copied, so that this test depends little on the schema. For each other tenant it issues a
/// key and deletes it, which creates the tenant.
async fn first_key(store: &SqlKeys) {
    let manager = KeyManager::new(KeyFormat::new("sk").unwrap(), store.clone());
    for tenant in 0..TENANTS {
        let key = NewKey::named("first").with_tenant(format!("tenant {tenant}"));
        let issued = manager.issue(key, &Actor::new("root")).await.unwrap();
        manager.revoke(&issued.details.id, &Actor::new("root")).await.unwrap();
        if tenant > 0 {
            manager.delete(&issued.details.id, &Actor::new("root")).await.unwrap();
        }
    }
}

/// All columns of a copy of the first key, as SQL for both databases.
fn copies(number: &str, id: &str) -> String {
    format!(
        "INSERT INTO tollgate_keys (id, name, display_prefix, tenant, scopes, plan, plan_is_active, environment, role, quotas, \
         metadata, created_at, expires_at, revoked_at, former_until, generation, ended) \
         SELECT {id}, 'filler ' || {number}, display_prefix, 'tenant ' || ({number} % {TENANTS}), scopes, plan, plan_is_active, \
         environment, role, quotas, metadata, created_at - {number}, expires_at, NULL, former_until, generation, ended \
         FROM tollgate_keys, numbers WHERE name = 'first'"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finds_and_lists_in_postgresql() {
    let postgres = Postgres::start().await;
    let database = postgres.fresh_database().await;
    let store = tests::patient_store().connect(&database).await.unwrap();
    first_key(&store).await;
    let mut connection = PgConnection::connect(&database).await.unwrap();
    let keys = how_many();
    let began = Instant::now();
    let numbers = format!("CREATE TEMPORARY TABLE numbers AS SELECT generate_series(0, {keys} - 1) AS n");
    connection.execute(sqlx::AssertSqlSafe(numbers)).await.unwrap();
    let sql = copies("n", "'key_' || lpad(n::text, 8, '0')");
    connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    let digests = "INSERT INTO tollgate_digests (digest, pepper, key_id) \
                   SELECT sha256(convert_to('filler ' || n, 'UTF8')), -1, 'key_' || lpad(n::text, 8, '0') FROM numbers";
    connection.execute(digests).await.unwrap();
    connection.execute("DELETE FROM tollgate_keys WHERE name = 'first'").await.unwrap();
    connection.execute("ANALYZE").await.unwrap();
    println!("PostgreSQL, {keys} keys, filled in {:?}", began.elapsed());

    store.close().await;
    connection.close().await.unwrap();
    let mut observer = PgConnection::connect(&database).await.unwrap();
    let scanned = scans(&mut observer).await;
    let store = tests::patient_store().connect(&database).await.unwrap();
    find_and_list(&store).await;
    store.close().await;
    assert_eq!(scans(&mut observer).await, scanned, "a sequential scan of a table");
}

/// The number of sequential scans. PostgreSQL publishes the count of a connection when it closes.
async fn scans(observer: &mut PgConnection) -> i64 {
    let others = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
                  AND backend_type = 'client backend'";
    while sqlx::query_scalar::<_, i64>(others).fetch_one(&mut *observer).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let scans = "SELECT COALESCE(SUM(seq_scan), 0)::bigint FROM pg_stat_user_tables \
                 WHERE relname IN ('tollgate_keys', 'tollgate_digests', 'tollgate_history')";
    sqlx::query_scalar(scans).fetch_one(observer).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finds_and_lists_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", folder.path().join("keys.db").display());
    let store = tests::patient_store().connect(&database).await.unwrap();
    first_key(&store).await;
    let keys = how_many();
    let began = Instant::now();
    let mut connection = SqliteConnection::connect(&database).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let numbers = format!(
        "CREATE TEMPORARY TABLE numbers AS WITH RECURSIVE some (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM some WHERE n < {keys} - 1) \
         SELECT n FROM some"
    );
    transaction.execute(sqlx::AssertSqlSafe(numbers)).await.unwrap();
    let sql = copies("n", "printf('key_%08d', n)");
    transaction.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    for number in 0..keys {
        let digest = Digest::of(secret(number));
        sqlx::query("INSERT INTO tollgate_digests (digest, pepper, key_id) VALUES ($1, -1, $2)")
            .bind(digest.as_bytes().to_vec())
            .bind(format!("key_{number:08}"))
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    transaction.execute("DELETE FROM tollgate_keys WHERE name = 'first'").await.unwrap();
    transaction.commit().await.unwrap();
    connection.close().await.unwrap();
    println!("SQLite, {keys} keys, filled in {:?}", began.elapsed());
    find_and_list(&store).await;
    store.close().await;
}
