//! From the process that revokes to the others, over links that fail in every way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use tests::{cases, postgres::Postgres, relay::Relay};
use tollgate::{
    KeyFormat,
    manage::{Actor, IssuedKey, KeyManager, NewKey},
};

use crate::process::{Caller, Service};

/// As the docs of `SqlKeys` say, for PostgreSQL with the default heartbeat: so long may a cut link go without notice.
const BOUND: Duration = Duration::from_secs(2);
/// And so long may a request take that was let in at the last moment, on a busy machine.
const ON_ITS_WAY: Duration = Duration::from_millis(250);

/// Another process than the service, which manages its keys.
struct Desk {
    manager: KeyManager,
    root: Actor,
}

impl Desk {
    async fn open(database: &str) -> Self {
        let store = tests::patient_store().connect(database).await.unwrap();
        Self { manager: KeyManager::new(KeyFormat::new("sk").unwrap(), store), root: Actor::new("desk") }
    }

    async fn issue(&self, name: &str) -> IssuedKey {
        self.manager.issue(NewKey::named(name), &self.root).await.unwrap()
    }

    async fn revoke(&self, key: &IssuedKey) {
        self.manager.revoke(&key.details.id, &self.root).await.unwrap();
    }
}

fn secret(key: &IssuedKey) -> &str {
    key.secret.expose_secret()
}

/// Asks with good keys for as long as this is held.
struct Load {
    is_over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<u64>>,
}

impl Load {
    async fn start(service: &Service, desk: &Desk) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for number in 0..4 {
            let key = desk.issue(&format!("load {number}")).await;
            let (mut caller, is_over) = (service.caller().await, Arc::clone(&is_over));
            tasks.push(tokio::spawn(async move {
                let mut answers = 0;
                while !is_over.load(Ordering::Relaxed) {
                    // On a busy machine a look-up may take longer than its deadline. Nobody is taken for somebody else.
                    match caller.status(secret(&key)).await {
                        StatusCode::OK => answers += 1,
                        other => assert_eq!(other, StatusCode::SERVICE_UNAVAILABLE),
                    }
                }
                answers
            }));
        }
        Self { is_over, tasks }
    }

    /// How many requests were let in.
    async fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        let mut answers = 0;
        for task in self.tasks {
            answers += task.await.unwrap();
        }
        answers
    }
}

/// How long each of so many revocations took from the moment at which `revoke` had returned until the service refused.
async fn revoke_many(desk: &Desk, caller: &mut Caller, how_many: u32) -> Vec<Duration> {
    let mut latencies = Vec::new();
    for number in 0..how_many {
        let key = desk.issue(&format!("key {number}")).await;
        caller.until(secret(&key), StatusCode::OK).await;
        desk.revoke(&key).await;
        latencies.push(caller.until_refused(secret(&key), BOUND).await);
        assert_ne!(caller.status(secret(&key)).await, StatusCode::OK, "and it stays so");
    }
    latencies.sort_unstable();
    latencies
}

fn tell(what: &str, latencies: &[Duration], answers: u64) {
    let at = |share: usize| latencies[(latencies.len() * share / 1_000).min(latencies.len() - 1)];
    let (median, p99, longest) = (at(500), at(990), at(1_000));
    println!(
        "{what}: {} revocations, p50 {median:?}, p99 {p99:?}, longest {longest:?}, {answers} requests besides",
        latencies.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_the_other_process_is_told_at_once() {
    let postgres = Postgres::start().await;
    let database = postgres.fresh_database().await;
    let (desk, service) = (Desk::open(&database).await, Service::start(&database).await);
    let load = Load::start(&service, &desk).await;
    let latencies = revoke_many(&desk, &mut service.caller().await, cases(100, 1_000)).await;
    tell("PostgreSQL", &latencies, load.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_sqlite_file_the_other_process_looks_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", folder.path().join("keys.db").display());
    let (desk, service) = (Desk::open(&database).await, Service::start(&database).await);
    let load = Load::start(&service, &desk).await;
    let latencies = revoke_many(&desk, &mut service.caller().await, cases(20, 200)).await;
    tell("SQLite", &latencies, load.stop().await);
}

/// What a network does to a link.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    /// Connections are closed, and no new ones are taken.
    Cut,
    /// Connections stay open, and nothing comes through.
    Silence,
}

/// Revokes keys by another way while the service's link to the database has failed.
async fn revoke_behind_its_back(failure: Failure, delay: Duration) {
    let postgres = Postgres::start().await;
    let database = postgres.fresh_database().await;
    let mut relay = Relay::to(postgres.address());
    let (desk, service) = (Desk::open(&database).await, Service::start(&relay.reroute(&database)).await);
    let keys = [desk.issue("a").await, desk.issue("b").await, desk.issue("c").await];
    let mut caller = service.caller().await;
    for key in &keys {
        caller.until(secret(key), StatusCode::OK).await;
    }

    match failure {
        Failure::Cut => relay.cut().await,
        Failure::Silence => relay.silence(),
    }
    let failed = Instant::now();
    tokio::time::sleep(delay).await;
    for key in &keys {
        desk.revoke(key).await;
    }
    // From the bound on, not one is let in; by then at the latest all are refused, since nobody can be asked.
    let deadline = failed + BOUND + ON_ITS_WAY;
    while Instant::now() < deadline + Duration::from_secs(1) {
        for key in &keys {
            let asked = Instant::now();
            let status = caller.status(secret(key)).await;
            assert!(
                asked < deadline || status != StatusCode::OK,
                "{failure:?}: let in {:?} after the link had failed",
                failed.elapsed()
            );
        }
    }
    assert_eq!(caller.status(secret(&keys[0])).await, StatusCode::SERVICE_UNAVAILABLE);

    relay.mend();
    for key in &keys {
        caller.until_refused(secret(key), Duration::ZERO).await;
    }
    // And news flow again.
    revoke_many(&desk, &mut caller, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_link_that_was_closed_nobody_is_let_in_past_the_bound() {
    for round in 0..cases(1, 10) {
        revoke_behind_its_back(Failure::Cut, Duration::from_millis(u64::from(round) * 37)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_link_that_fell_silent_nobody_is_let_in_past_the_bound() {
    for round in 0..cases(1, 10) {
        revoke_behind_its_back(Failure::Silence, Duration::from_millis(u64::from(round) * 137)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_a_503_and_comes_back_as_it_was() {
    let mut postgres = Postgres::start_durable().await;
    let database = postgres.fresh_database().await;
    let (desk, service) = (Desk::open(&database).await, Service::start(&database).await);
    let (good, revoked) = (desk.issue("good").await, desk.issue("revoked").await);
    let mut caller = service.caller().await;
    caller.until(secret(&good), StatusCode::OK).await;
    caller.until(secret(&revoked), StatusCode::OK).await;
    desk.revoke(&revoked).await;
    caller.until_refused(secret(&revoked), BOUND).await;

    postgres.kill().await;
    let failed = Instant::now();
    let deadline = failed + BOUND + ON_ITS_WAY;
    while Instant::now() < deadline + Duration::from_millis(500) {
        let asked = Instant::now();
        let status = caller.status(secret(&good)).await;
        assert!(asked < deadline || status == StatusCode::SERVICE_UNAVAILABLE, "{status} without a database");
        assert_ne!(caller.status(secret(&revoked)).await, StatusCode::OK);
    }
    postgres.restart().await;
    caller.until(secret(&good), StatusCode::OK).await;
    caller.until_refused(secret(&revoked), Duration::ZERO).await;
}
