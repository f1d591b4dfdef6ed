//! Killed in the middle of whatever it does: nothing is half done, and nothing that was said is lost.

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

use crate::process::Keyholder;

/// What must be there of one key.
#[derive(Debug, Default)]
struct Expected {
    secret: String,
    is_revoked: bool,
    /// What was begun and not said to be done: it may be there or not.
    rotating: bool,
    revoking: bool,
}

#[derive(Default)]
struct Said {
    keys: HashMap<String, Expected>,
    used: String,
    /// How many uses have been noted.
    noted: u64,
}

impl Said {
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

async fn kill_and_look(database: &str, seed: u32) {
    let mut keyholder = Keyholder::start(&["change", database, &seed.to_string()]);
    let mut said = Said::default();
    // From the first key on, for a time that is different every time.
    while said.noted == 0 {
        said.read(&keyholder.line().await.unwrap());
    }
    // One run in five is long enough for uses that must have been kept: nothing but the flushes in the background has done that.
    let mut sure = 0;
    if seed % 5 == 4 {
        sure = said.noted;
        let store = patient_store().connect(database).await.unwrap();
        within(async {
            while counted(&store, &said.used).await < sure {
                for _ in 0..20 {
                    said.read(&keyholder.line().await.unwrap());
                }
            }
        })
        .await;
        store.close().await;
    }
    let until = Instant::now() + Duration::from_micros(u64::from(seed) * 7_919 % 150_000);
    while Instant::now() < until {
        said.read(&keyholder.line().await.unwrap());
    }
    keyholder.kill().await;
    while let Some(line) = keyholder.line().await {
        said.read(&line);
    }
    until_its_sessions_have_ended(database).await;

    let store = patient_store().connect(database).await.unwrap();
    let now = SystemClock.now();
    let mut listed = HashMap::new();
    let mut query = KeyQuery::all().with_limit(1_000).with_search(format!("{seed}/"));
    loop {
        let page = store.list(&query).wait().await.unwrap();
        listed.extend(page.items.into_iter().map(|key| (key.id.to_string(), key)));
        let Some(next) = page.next else { break };
        query = query.with_after(next);
    }
    assert!(
        listed.len() == said.keys.len() || listed.len() == said.keys.len() + 1,
        "one may have been under way"
    );
    for (id, key) in &listed {
        let history =
            store.history(&HistoryQuery::of_key(&**id).with_limit(1_000)).wait().await.unwrap().items;
        let actions: Vec<_> = history.iter().map(|event| event.action).collect();
        assert_eq!(actions.last(), Some(&KeyAction::Issued), "{id}");
        assert_eq!(history[0].generation, key.generation, "{id}: a change and its event are one");
        let is_revoked = key.status == KeyStatus::Revoked;
        assert_eq!(actions[0] == KeyAction::Revoked, is_revoked, "{id}: {actions:?}");

        let Some(expected) = said.keys.get(id) else { continue };
        assert!(is_revoked == expected.is_revoked || expected.revoking, "{id}: {expected:?}, {key:?}");
        let digest = Digest::of(&expected.secret);
        let found = store.find(&KeyLookup::new(&[digest], now)).wait().await.unwrap();
        match found {
            Some(record) => {
                assert_eq!(record.principal().id(), id);
                assert_eq!(record.status(), key.status, "{id}: {expected:?}");
                if !expected.rotating {
                    assert!(expected.secret.starts_with(&*key.display_prefix), "{id}");
                }
            }
            None => assert!(expected.rotating, "{id}: its secret is lost"),
        }
    }
    for id in said.keys.keys() {
        assert!(listed.contains_key(id), "{id} was issued and is lost");
    }

    // Uses: no more than were noted, and none is lost that was kept. One may have been noted and not said.
    let (counted, all) = (counted(&store, &said.used).await, said.noted);
    assert!(counted <= all + 1 && counted >= sure, "{counted} of {all} were kept, {sure} must be");
    store.close().await;
}

/// How often a key was used, as the store says.
async fn counted(store: &SqlKeys, key: &str) -> u64 {
    let query = UsageQuery::new(key, SystemTime::UNIX_EPOCH, SystemClock.now() + Duration::from_hours(1));
    store.usage(&query).wait().await.unwrap().hours.iter().map(|hour| hour.requests).sum()
}

/// What a process has sent to a server before it was killed, is done there all the same.
async fn until_its_sessions_have_ended(database: &str) {
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
async fn on_postgresql_nothing_is_half_done_and_nothing_said_is_lost() {
    let postgres = Postgres::start().await;
    let database = postgres.fresh_database().await;
    for seed in 0..cases(10, 200) {
        kill_and_look(&database, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_nothing_is_half_done_and_nothing_said_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", folder.path().join("keys.db").display());
    for seed in 0..cases(10, 200) {
        kill_and_look(&database, seed).await;
    }
}

/// The server itself dies in the middle of it all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_keeps_what_it_has_said() {
    let mut postgres = Postgres::start_durable().await;
    let database = postgres.fresh_database().await;
    for seed in 0..cases(2, 20) {
        let mut keyholder = Keyholder::start(&["change", &database, &(1_000 + seed).to_string()]);
        let mut said = Said::default();
        let until = Instant::now() + Duration::from_millis(300 + u64::from(seed) * 37);
        while Instant::now() < until {
            said.read(&keyholder.line().await.unwrap());
        }
        postgres.kill().await;
        keyholder.kill().await;
        while let Some(line) = keyholder.line().await {
            said.read(&line);
        }
        postgres.restart().await;
        let store = patient_store().connect(&database).await.unwrap();
        for (id, expected) in &said.keys {
            let key = store.list(&KeyQuery::one(&**id)).wait().await.unwrap().items.remove(0);
            let is_revoked = key.status == KeyStatus::Revoked;
            assert!(is_revoked == expected.is_revoked || expected.revoking, "{id}: {expected:?}, {key:?}");
        }
        store.close().await;
    }
}
