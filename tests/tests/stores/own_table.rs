//! Key stores on a table of an application's own: the code of the guide `docs/guides/own-key-store.md`.

mod live;
mod read_only;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::{PgPool, SqlitePool, postgres::PgPoolOptions, query, sqlite::SqliteConnectOptions};
use tests::{postgres::Postgres, relay::Relay};
use tollgate::{
    key::Digest,
    store::{EndReason, KeyLookup, KeyStatus, KeyStore, StoreEvent, StoreListener},
};
use tollgate_testing::{
    midnight,
    suite::{self, KeyStoreFixture},
};

use self::{live::LiveTokens, read_only::Tokens};

struct InSqlite {
    pool: SqlitePool,
    store: Arc<Tokens>,
    _folder: tempfile::TempDir,
}

impl InSqlite {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteConnectOptions::new().filename(folder.path().join("app.db")).create_if_missing(true);
        let pool = SqlitePool::connect_with(file).await.unwrap();
        let table = "CREATE TABLE api_tokens (id TEXT PRIMARY KEY, customer TEXT NOT NULL, \
                     digest BLOB NOT NULL UNIQUE, revoked_at TEXT)";
        query(table).execute(&pool).await.unwrap();
        Self { store: Arc::new(Tokens(pool.clone())), pool, _folder: folder }
    }
}

impl KeyStoreFixture for InSqlite {
    type Store = Tokens;

    fn store(&self) -> &Arc<Tokens> {
        &self.store
    }

    async fn insert(&self, id: &str, digest: Digest) {
        let row = query("INSERT INTO api_tokens (id, customer, digest) VALUES (?, 'acme', ?)");
        row.bind(id.to_owned()).bind(digest.as_bytes().to_vec()).execute(&self.pool).await.unwrap();
    }

    async fn revoke(&self, id: &str) {
        let update = query("UPDATE api_tokens SET revoked_at = CURRENT_TIMESTAMP WHERE id = ?");
        update.bind(id.to_owned()).execute(&self.pool).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_for_reading_conforms() {
    suite::key_store(InSqlite::open).await;
}

struct InPostgres {
    // Another program's.
    pool: PgPool,
    store: Arc<LiveTokens>,
}

impl InPostgres {
    /// A store that connects by `store_url`, on tables that are made by `url`.
    async fn open(url: &str, store_url: &str) -> Self {
        let pool = PgPool::connect(url).await.unwrap();
        sqlx::raw_sql(include_str!("own_table/live.sql")).execute(&pool).await.unwrap();
        let patient = PgPoolOptions::new().acquire_timeout(Duration::from_secs(20));
        let store = LiveTokens::new(patient.connect(store_url).await.unwrap());
        Self { pool, store: Arc::new(store) }
    }
}

impl KeyStoreFixture for InPostgres {
    type Store = LiveTokens;

    fn store(&self) -> &Arc<LiveTokens> {
        &self.store
    }

    async fn insert(&self, id: &str, digest: Digest) {
        let row = query("INSERT INTO api_tokens (id, customer, digest) VALUES ($1, 'acme', $2)");
        row.bind(id.to_owned()).bind(digest.as_bytes().to_vec()).execute(&self.pool).await.unwrap();
    }

    async fn revoke(&self, id: &str) {
        let update = query("UPDATE api_tokens SET revoked_at = now() WHERE id = $1");
        update.bind(id.to_owned()).execute(&self.pool).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_events_conforms() {
    let postgres = Postgres::start().await;
    let open = async || {
        let url = postgres.fresh_database().await;
        InPostgres::open(&url, &url).await
    };
    suite::key_store(open).await;
}

/// Waits until the store's listeners have received this event.
async fn wait_for(received: &Mutex<Vec<StoreEvent>>, expected: &StoreEvent) {
    let waiting = async {
        while received.lock().unwrap().last() != Some(expected) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_during_an_interruption_ends_principals_after_it() {
    let postgres = Postgres::start().await;
    let url = postgres.fresh_database().await;
    let mut relay = Relay::to(postgres.address());
    let fixture = InPostgres::open(&url, &relay.reroute(&url)).await;
    let received = Arc::<Mutex<Vec<_>>>::default();
    let listener: Arc<dyn StoreListener> = {
        let received = Arc::clone(&received);
        Arc::new(move |event: &StoreEvent| received.lock().unwrap().push(event.clone()))
    };
    let _ = fixture.store.subscribe(Arc::downgrade(&listener));
    wait_for(&received, &StoreEvent::Connected).await;
    let find = async |secret: &str| {
        let digests = [Digest::of(secret)];
        fixture.store.find(&KeyLookup::new(&digests, midnight())).await.unwrap().unwrap()
    };
    fixture.insert("key_1", Digest::of("one")).await;
    fixture.insert("key_2", Digest::of("two")).await;
    let (held, other) = (find("one").await, find("two").await);
    wait_for(&received, &StoreEvent::Key { id: "key_2".into(), generation: 1, end: None }).await;

    relay.cut().await;
    wait_for(&received, &StoreEvent::Disconnected).await;
    fixture.revoke("key_1").await;
    assert_eq!(held.principal().end_signal().reason(), None, "the store cannot know it yet");
    relay.mend();
    wait_for(&received, &StoreEvent::Connected).await;
    assert_eq!(held.principal().end_signal().reason(), Some(EndReason::Revoked));
    assert_eq!(other.principal().end_signal().reason(), None);
    assert_eq!(find("one").await.status(), KeyStatus::Revoked);
}

/// The guide shows these files, so it must show their current text.
#[test]
fn the_guide_shows_this_code() {
    let guide = include_str!("../../../docs/guides/own-key-store.md");
    for (code, most_lines) in [
        (include_str!("own_table/read_only.rs"), 40),
        (include_str!("own_table/live.rs"), 80),
        (include_str!("own_table/live.sql"), 20),
    ] {
        let (_, shown) = code.split_once("// --- guide\n").unwrap_or(("", code));
        assert!(guide.contains(shown.trim()), "copy this into the guide:\n{shown}");
        // Imports do not count, nor do comments and empty lines.
        let code = shown.find("\npub(crate) struct").map_or(shown, |start| &shown[start..]);
        let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
        let lines = code.lines().filter(is_code).count();
        assert!(lines <= most_lines, "{lines} lines, at most {most_lines}");
    }
}
