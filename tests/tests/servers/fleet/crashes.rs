//! A process or a database server is killed at any moment: no change is partial, and no acknowledged change is lost.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use sqlx::{Connection as _, PgConnection};
use tests::{cases, hosts::within, patient_store, postgres::Postgres};
use tollgate::{
    clock::{Clock as _, SystemClock},
    key::Digest,
    manage::{HistoryQuery, KeyAction, KeyAdmin as _, KeyQuery},
    store::{KeyLookup, KeyStatus, KeyStore as _},
    usage::{UsageQuery, UsageStore as _},
};
use tollgate_sql::SqlKeys;

use super::process::Keyholder;

/// The expected state of one key.
#[derive(Debug, Default)]
struct Expected {
    secret: String,
    is_revoked: bool,
    /// Begun but not acknowledged: the change may be stored or not.
    rotating: bool,
    revoking: bool,
}

/// What the process has reported on its output.
#[derive(Default)]
struct Reported {
    keys: HashMap<String, Expected>,
    used: String,
    /// The number of recorded uses.
    noted: u64,
}

impl Reported {
    fn read(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match *words {
            ["issued", id, secret] => {
                self.keys
                    .insert(id.to_owned(), Expected { secret: secret.to_owned(), ..Expected::default() });
            }
            ["rotating", id] => self.keys.get_mut(id).unwrap().rotating = true,
            ["rotated", id, secret] => {
                let key = self.keys.get_mut(id).unwrap();
                (key.secret, key.rotating) = (secret.to_owned(), false);
            }
            ["revoking", id] => self.keys.get_mut(id).unwrap().revoking = true,
            ["revoked", id] => {
                let key = self.keys.get_mut(id).unwrap();
                (key.is_revoked, key.revoking) = (true, false);
            }
            ["used", id] => id.clone_into(&mut self.used),
            ["noted", count] => self.noted = count.parse().unwrap(),
            ["issuing"] => {}
            _ => panic!("{line}"),
        }
    }
}

async fn kill_and_check(database: &str, seed: u32) {
    let mut keyholder = Keyholder::start(&["change", database, &seed.to_string()]);
    let mut reported = Reported::default();
    // Runs from the first use on, for a different time in each round.
    while reported.noted == 0 {
        reported.read(&keyholder.line().await.unwrap());
    }
    // One round in five lasts until the background flush has stored some uses. These must not be lost.
    let mut stored = 0;
    if seed % 5 == 4 {
        stored = reported.noted;
        let store = patient_store().connect(database).await.unwrap();
        within(async {
            while counted(&store, &reported.used).await < stored {
                for _ in 0..20 {
                    reported.read(&keyholder.line().await.unwrap());
                }
            }
        })
        .await;
        store.close().await;
    }
    let until = Instant::now() + Duration::from_micros(u64::from(seed) * 7_919 % 150_000);
    while Instant::now() < until {
        reported.read(&keyholder.line().await.unwrap());
    }
    keyholder.kill().await;
    while let Some(line) = keyholder.line().await {
        reported.read(&line);
    }
    until_its_sessions_have_ended(database).await;

    let store = patient_store().connect(database).await.unwrap();
    let now = SystemClock.now();
    let mut listed = HashMap::new();
    let mut query = KeyQuery::all().with_limit(1_000).with_search(format!("{seed}/"));
    loop {
        let page = store.list(&query).await.unwrap();
        listed.extend(page.items.into_iter().map(|key| (key.id.to_string(), key)));
        let Some(next) = page.next else { break };
        query = query.with_after(next);
    }
    assert!(
        listed.len() == reported.keys.len() || listed.len() == reported.keys.len() + 1,
        "at most one more key was being issued"
    );
    for (id, key) in &listed {
        let history = store.history(&HistoryQuery::of_key(&**id).with_limit(1_000)).await.unwrap().items;
        let actions: Vec<_> = history.iter().map(|event| event.action).collect();
        assert_eq!(actions.last(), Some(&KeyAction::Issued), "{id}");
        assert_eq!(history[0].generation, key.generation, "{id}: a change and its event are atomic");
        let is_revoked = key.status == KeyStatus::Revoked;
        assert_eq!(actions[0] == KeyAction::Revoked, is_revoked, "{id}: {actions:?}");

        let Some(expected) = reported.keys.get(id) else { continue };
        assert!(is_revoked == expected.is_revoked || expected.revoking, "{id}: {expected:?}, {key:?}");
        let digest = Digest::of(&expected.secret);
        let found = store.find(&KeyLookup::new(&[digest], now)).await.unwrap();
        match found {
            Some(record) => {
                assert_eq!(record.principal().id(), id);
                assert_eq!(record.status(), key.status, "{id}: {expected:?}");
                if !expected.rotating {
                    assert!(expected.secret.starts_with(&*key.display_prefix), "{id}");
                }
            }
            None => assert!(expected.rotating, "{id}: its secret is missing"),
        }
    }
    for id in reported.keys.keys() {
        assert!(listed.contains_key(id), "{id} was issued and is missing");
    }

    // Between the stored and the recorded uses. One more may have been recorded and not reported.
    let (counted, all) = (counted(&store, &reported.used).await, reported.noted);
    assert!(
        counted <= all + 1 && counted >= stored,
        "{counted} of {all} are stored, at least {stored} must be"
    );
    store.close().await;
}

/// The number of uses in the store.
async fn counted(store: &SqlKeys, key: &str) -> u64 {
    let query = UsageQuery::new(key, SystemTime::UNIX_EPOCH, SystemClock.now() + Duration::from_hours(1));
    store.usage(&query).await.unwrap().hours.iter().map(|hour| hour.requests).sum()
}

/// Waits until the server has executed what the killed process has sent.
pub(super) async fn until_its_sessions_have_ended(database: &str) {
    if !database.starts_with("postgres") {
        return;
    }
    let mut observer = PgConnection::connect(database).await.unwrap();
    let sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'tollgate'";
    within(async {
        while sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut observer).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_a_killed_process_leaves_no_partial_change_and_loses_nothing() {
    let postgres = Postgres::start().await;
    let database = postgres.fresh_database().await;
    for seed in 0..cases(10, 200) {
        kill_and_check(&database, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_killed_process_leaves_no_partial_change_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", folder.path().join("keys.db").display());
    for seed in 0..cases(10, 200) {
        kill_and_check(&database, seed).await;
    }
}

/// The database server is killed while a process changes keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_database_server_keeps_every_acknowledged_change() {
    let mut postgres = Postgres::start_durable().await;
    let database = postgres.fresh_database().await;
    for seed in 0..cases(2, 20) {
        let mut keyholder = Keyholder::start(&["change", &database, &(1_000 + seed).to_string()]);
        let mut reported = Reported::default();
        let until = Instant::now() + Duration::from_millis(300 + u64::from(seed) * 37);
        while Instant::now() < until {
            reported.read(&keyholder.line().await.unwrap());
        }
        postgres.kill().await;
        keyholder.kill().await;
        while let Some(line) = keyholder.line().await {
            reported.read(&line);
        }
        postgres.restart().await;
        let store = patient_store().connect(&database).await.unwrap();
        for (id, expected) in &reported.keys {
            let key = store.list(&KeyQuery::one(&**id)).await.unwrap().items.remove(0);
            let is_revoked = key.status == KeyStatus::Revoked;
            assert!(is_revoked == expected.is_revoked || expected.revoking, "{id}: {expected:?}, {key:?}");
        }
        store.close().await;
    }
}
