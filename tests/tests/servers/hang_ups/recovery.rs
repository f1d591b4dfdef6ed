//! A key store that is slow, down, silent, and back, while callers hang up.

use std::{
    future::pending,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use http::StatusCode;
use tests::{hosts::within, postgres::Postgres, relay::Relay};
use tokio::time::{Instant, sleep};
use tollgate::{
    Answer, CachedKeys, Environment, KeyVerifier, MemoryKeys, Principal,
    denial::Unavailable,
    manage::{Actor, KeyManager, NewKey},
    store::{KeyLookup, KeyRecord, KeyStore, StoreListener, Subscription},
};
use tollgate_sql::SqlKeys;

use super::{How, flood::Flood, format, serve, status, until_accepted};

/// The longest time from a store's recovery until good keys are accepted again.
const BOUND: Duration = Duration::from_secs(2);

/// A key in the right format that no store knows.
fn invented(_: u64) -> String {
    format().generate(Environment::Live).unwrap().expose_secret().to_owned()
}

/// Opens the circuit breaker: so many different keys fail in a row.
async fn open_the_breaker(server: std::net::SocketAddr) {
    let keys: Vec<_> = (0..6).map(invented).collect();
    for status in join_all(keys.iter().map(|key| status(server, key))).await {
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outage {
    /// The server is killed, and starts again.
    Down,
    /// Connections stay open, and no bytes arrive.
    Silent,
}

/// Regression: while the breaker was open, one lookup a second was admitted. Its caller hung up, which cancelled it, so the cache
/// never learned that the store was back.
async fn recovers_under_hang_ups(how: How, outage: Outage) {
    let mut postgres = Postgres::start().await;
    let database = postgres.fresh_database().await;
    let mut relay = Relay::to(postgres.address());
    let store = SqlKeys::builder()
        .with_deadline(Duration::from_secs(1))
        .with_admin_deadline(Duration::from_secs(20))
        .connect(&relay.reroute(&database))
        .await
        .unwrap();
    let manager = KeyManager::new(format(), store.clone());
    let good = manager.issue(NewKey::named("good"), &Actor::new("admin")).await.unwrap();
    let good = good.secret.expose_secret();
    let server = serve(KeyVerifier::new(format(), CachedKeys::new(store)), None).await;

    match outage {
        Outage::Down => postgres.kill().await,
        Outage::Silent => relay.silence(),
    }
    open_the_breaker(server).await;
    let flood = Flood::start(how, server, invented);
    flood.reaches(300).await;
    assert_eq!(status(server, good).await, StatusCode::SERVICE_UNAVAILABLE);
    match outage {
        Outage::Down => postgres.restart().await,
        Outage::Silent => relay.mend(),
    }
    let took = until_accepted(server, good, BOUND).await;
    let requests = flood.stop().await;
    println!("{how:?}, {outage:?}: accepted after {took:?}, {requests} requests were abandoned");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_database_that_is_back_is_noticed_under_closed_connections() {
    recovers_under_hang_ups(How::Closes, Outage::Down).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_database_that_is_back_is_noticed_under_reset_streams() {
    recovers_under_hang_ups(How::Resets, Outage::Down).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_database_that_is_back_is_noticed_under_closed_connections() {
    recovers_under_hang_ups(How::Closes, Outage::Silent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_database_that_is_back_is_noticed_under_reset_streams() {
    recovers_under_hang_ups(How::Resets, Outage::Silent).await;
}

/// A store without a time limit of its own.
#[derive(Clone)]
struct OwnStore {
    keys: MemoryKeys,
    delay: Duration,
    is_stuck: Arc<AtomicBool>,
}

impl OwnStore {
    fn new(delay: Duration) -> Self {
        Self { keys: MemoryKeys::new(), delay, is_stuck: Arc::default() }
    }

    fn issue(&self, id: &str) -> String {
        let key = self.keys.issue(&format(), Environment::Live, Principal::new(id)).unwrap();
        key.expose_secret().to_owned()
    }
}

impl KeyStore for OwnStore {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        let (found, delay) = (self.keys.find(lookup), self.delay);
        if self.is_stuck.load(Ordering::Relaxed) {
            return Answer::later(pending());
        }
        Answer::later(async move {
            sleep(delay).await;
            found.await
        })
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        self.keys.subscribe(listener)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_keys_are_accepted_while_a_slow_store_is_asked_by_callers_that_hang_up() {
    for how in How::BOTH {
        let store = OwnStore::new(Duration::from_millis(50));
        let server = serve(KeyVerifier::new(format(), CachedKeys::new(store.clone())), None).await;
        let flood = Flood::start(how, server, invented);
        flood.reaches(100).await;
        for number in 0..10 {
            let good = store.issue(&format!("key_{number}"));
            assert_eq!(within(status(server, &good)).await, StatusCode::OK, "{how:?}");
        }
        flood.stop().await;
    }
}

/// Regression: such a lookup was waited for without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_never_answers_is_waited_for_until_the_deadline() {
    for how in How::BOTH {
        let store = OwnStore::new(Duration::ZERO);
        let good = store.issue("good");
        let keys = CachedKeys::new(store.clone()).with_deadline(Duration::from_millis(500));
        let server = serve(KeyVerifier::new(format(), keys), None).await;
        store.is_stuck.store(true, Ordering::Relaxed);
        let asked = Instant::now();
        within(open_the_breaker(server)).await;
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());

        let flood = Flood::start(how, server, invented);
        flood.reaches(300).await;
        store.is_stuck.store(false, Ordering::Relaxed);
        until_accepted(server, &good, BOUND).await;
        flood.stop().await;
    }
}
