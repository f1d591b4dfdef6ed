//! How soon a revocation by one process takes effect in another, also over links that fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use tests::{cases, postgres::Postgres, redis::Redis, relay::Relay};
use tollgate::{
    KeyFormat,
    manage::{Actor, IssuedKey, KeyAdmin, KeyManager, NewKey},
};
use tollgate_redis::RedisEvents;

use super::process::{Caller, Service};

/// Documented at `SqlKeys` for PostgreSQL and at `RedisEvents`, with the default heartbeat: the longest time before a failed link is noticed.
const BOUND: Duration = Duration::from_secs(2);
/// Tolerance for a request that was allowed at the last moment, on a busy machine.
const ON_ITS_WAY: Duration = Duration::from_millis(250);

/// Manages the keys of the service, over its own connection to the database.
struct Admin {
    manager: KeyManager,
    root: Actor,
}

impl Admin {
    async fn open(database: &str) -> Self {
        Self::of(tests::patient_store().connect(database).await.unwrap())
    }

    fn of(store: impl KeyAdmin) -> Self {
        Self { manager: KeyManager::new(KeyFormat::new("sk").unwrap(), store), root: Actor::new("admin") }
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

/// Sends requests with valid keys until it is stopped.
struct Load {
    is_over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<u64>>,
}

impl Load {
    async fn start(service: &Service, admin: &Admin) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for number in 0..4 {
            let key = admin.issue(&format!("load {number}")).await;
            let (mut caller, is_over) = (service.caller().await, Arc::clone(&is_over));
            tasks.push(tokio::spawn(async move {
                let mut answers = 0;
                while !is_over.load(Ordering::Relaxed) {
                    // On a busy machine, a lookup can exceed its deadline. A valid key is never refused as invalid.
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

    /// Stops, and returns the number of allowed requests.
    async fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        let mut answers = 0;
        for task in self.tasks {
            answers += task.await.unwrap();
        }
        answers
    }
}

/// Revokes keys, and returns the time from each return of `revoke` until the service refused the key, sorted.
async fn revoke_many(admin: &Admin, caller: &mut Caller, how_many: u32) -> Vec<Duration> {
    let mut latencies = Vec::new();
    for number in 0..how_many {
        let key = admin.issue(&format!("key {number}")).await;
        caller.until(secret(&key), StatusCode::OK).await;
        admin.revoke(&key).await;
        latencies.push(caller.until_refused(secret(&key), BOUND).await);
        assert_ne!(caller.status(secret(&key)).await, StatusCode::OK, "the key stays refused");
    }
    latencies.sort_unstable();
    latencies
}

fn report(what: &str, latencies: &[Duration], answers: u64) {
    let at = |share: usize| latencies[(latencies.len() * share / 1_000).min(latencies.len() - 1)];
    let (median, p99, longest) = (at(500), at(990), at(1_000));
    println!(
        "{what}: {} revocations, p50 {median:?}, p99 {p99:?}, longest {longest:?}, {answers} requests meanwhile",
        latencies.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_a_revocation_reaches_another_process_at_once() {
    let postgres = Postgres::start().await;
    let database = postgres.fresh_database().await;
    let (admin, service) = (Admin::open(&database).await, Service::start(&database).await);
    let load = Load::start(&service, &admin).await;
    let latencies = revoke_many(&admin, &mut service.caller().await, cases(100, 1_000)).await;
    report("PostgreSQL", &latencies, load.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_sqlite_file_another_process_polls_for_revocations() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", folder.path().join("keys.db").display());
    let (admin, service) = (Admin::open(&database).await, Service::start(&database).await);
    let load = Load::start(&service, &admin).await;
    let latencies = revoke_many(&admin, &mut service.caller().await, cases(20, 200)).await;
    report("SQLite", &latencies, load.stop().await);
}

/// The other process does not look at the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_redis_a_revocation_reaches_another_process_at_once() {
    let (redis, folder) = (Redis::start().await, tempfile::tempdir().unwrap());
    let database = format!("sqlite://{}", folder.path().join("keys.db").display());
    let store = tests::silent_store().connect(&database).await.unwrap();
    let connection = tollgate_redis::Redis::connect(redis.url()).await.unwrap();
    let admin = Admin::of(RedisEvents::new(connection, store));
    let service = Service::start_by_redis(&database, &redis.url()).await;
    let load = Load::start(&service, &admin).await;
    let latencies = revoke_many(&admin, &mut service.caller().await, cases(100, 1_000)).await;
    report("Redis", &latencies, load.stop().await);
}

/// How a network link fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    /// Connections are closed, and new ones are refused.
    Cut,
    /// Connections stay open, and no bytes arrive.
    Silence,
}

/// Revokes keys over another link while the service's link to the database has failed.
async fn revoke_while_disconnected(failure: Failure, delay: Duration) {
    let postgres = Postgres::start().await;
    let database = postgres.fresh_database().await;
    let mut relay = Relay::to(postgres.address());
    let (admin, service) = (Admin::open(&database).await, Service::start(&relay.reroute(&database)).await);
    let keys = [admin.issue("a").await, admin.issue("b").await, admin.issue("c").await];
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
        admin.revoke(key).await;
    }
    // After the bound, no request is allowed: the service cannot ask the database, so it answers 503.
    let deadline = failed + BOUND + ON_ITS_WAY;
    while Instant::now() < deadline + Duration::from_secs(1) {
        for key in &keys {
            let asked = Instant::now();
            let status = caller.status(secret(key)).await;
            assert!(
                asked < deadline || status != StatusCode::OK,
                "{failure:?}: allowed {:?} after the link failed",
                failed.elapsed()
            );
        }
    }
    assert_eq!(caller.status(secret(&keys[0])).await, StatusCode::SERVICE_UNAVAILABLE);

    relay.mend();
    for key in &keys {
        caller.until_refused(secret(key), Duration::ZERO).await;
    }
    // Events arrive again.
    revoke_many(&admin, &mut caller, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_closed_link_no_request_is_allowed_after_the_bound() {
    for round in 0..cases(1, 10) {
        revoke_while_disconnected(Failure::Cut, Duration::from_millis(u64::from(round) * 37)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_silent_link_no_request_is_allowed_after_the_bound() {
    for round in 0..cases(1, 10) {
        revoke_while_disconnected(Failure::Silence, Duration::from_millis(u64::from(round) * 137)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_database_server_causes_503_until_it_restarts() {
    let mut postgres = Postgres::start_durable().await;
    let database = postgres.fresh_database().await;
    let (admin, service) = (Admin::open(&database).await, Service::start(&database).await);
    let (good, revoked) = (admin.issue("good").await, admin.issue("revoked").await);
    let mut caller = service.caller().await;
    caller.until(secret(&good), StatusCode::OK).await;
    caller.until(secret(&revoked), StatusCode::OK).await;
    admin.revoke(&revoked).await;
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
