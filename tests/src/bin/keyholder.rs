//! A process that holds keys: tests of several processes start it, and kill it.
//!
//! - `keyholder serve DATABASE`: a service behind cached verification; prints where it listens.
//! - `keyholder serve DATABASE REDIS`: the same, but it learns by Redis what other processes change.
//! - `keyholder hold REDIS SUBJECT NUMBER`: takes places of requests in flight, and holds them. They live for a second.
//! - `keyholder spend DATABASE ACCOUNT ESTIMATE ACTUAL`: makes requests that cost credits, four at a time, until there are not
//!   enough. It prints each charge after it is made, and `spent` at the end.
//! - `keyholder change DATABASE SEED`: issues, rotates and revokes keys and records usage without end. It prints each change
//!   before and after it is made, so that the test that kills it knows what must be stored.
#![expect(clippy::expect_used, reason = "whatever goes wrong fails the test that started it")]

use std::{
    io::{Write as _, stdout},
    time::Duration,
};

use axum::{Router, routing::get};
use tollgate::{
    CachedKeys, KeyFormat, KeyVerifier, Principal, Tollgate,
    clock::{Clock as _, SystemClock},
    credits::{Credits as _, Excess, ReserveRequest, Reserved, SettleAction, SettleRequest},
    in_flight::{PlaceRequest, Places as _},
    manage::{Actor, KeyManager, NewKey},
    store::KeyStore,
    usage::{Usage, UsageRecorder, UsageSink as _},
};
use tollgate_redis::{Redis, RedisEvents, RedisPlaces};
use tollgate_sql::SqlKeys;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["serve", database] => {
            // The settings that bound how soon a revocation takes effect keep their defaults.
            let builder = SqlKeys::builder().with_admin_deadline(Duration::from_secs(20));
            serve(builder.connect(database).await.expect("the store")).await;
        }
        ["serve", database, redis] => {
            let store = tests::silent_store().connect(database).await.expect("the store");
            serve(RedisEvents::new(Redis::connect(redis).await.expect("a server"), store)).await;
        }
        ["change", database, seed] => change(database, seed.parse().expect("a number")).await,
        ["hold", url, subject, number] => hold(url, subject, number.parse().expect("a number")).await,
        ["spend", database, account, estimate, actual] => {
            let number = |text: &str| text.parse().expect("a number");
            spend(database, account, number(estimate), number(actual)).await;
        }
        _ => eprintln!("keyholder serve DATABASE, or see the documentation of this program"),
    }
}

async fn serve(store: impl KeyStore) {
    let format = KeyFormat::new("sk").expect("a format");
    let verifier = KeyVerifier::new(format, CachedKeys::new(store));
    let tollgate = Tollgate::builder().verify(verifier).build().expect("a stack");
    let app = Router::new().route("/", get(async || "in")).layer(tollgate);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    say(&format!("listening {}", listener.local_addr().expect("its address")));
    axum::serve(listener, app).await.expect("served");
}

async fn hold(url: &str, subject: &str, number: u32) {
    let redis = Redis::connect(url).await.expect("a server");
    let places = RedisPlaces::builder(redis).with_ttl(Duration::from_secs(1)).build();
    let mut held = Vec::new();
    for _ in 0..number {
        let request = PlaceRequest::new("key", subject, "acme", number, SystemClock.now());
        held.push(places.take(&request).await.expect("an answer").expect("a place"));
    }
    say("holding");
    std::future::pending::<()>().await;
}

/// What must be stored: see `tests/servers/fleet/credits.rs`, which reads it.
async fn spend(database: &str, account: &str, estimate: u64, actual: u64) {
    let store = tests::patient_store().connect(database).await.expect("the store");
    let requests = async || {
        let credits = store.credits();
        loop {
            let now = SystemClock.now();
            let request = ReserveRequest::new(account, estimate, now + Duration::from_hours(1), now);
            let Reserved::Held(held) = credits.reserve(&request).await.expect("an answer") else { return };
            let commit = SettleAction::Commit { actual, excess: Excess::Cap };
            let settlement = credits.settle(&SettleRequest::new(account, held.id, commit, now)).await;
            say(&format!("charged {}", settlement.expect("an answer").charged));
        }
    };
    tokio::join!(requests(), requests(), requests(), requests());
    say("spent");
}

/// What a killer must find: see `tests/servers/fleet/crashes.rs`, which reads it.
async fn change(database: &str, seed: u64) {
    let store = tests::patient_store().connect(database).await.expect("the store");
    let manager = KeyManager::new(KeyFormat::new("sk").expect("a format"), store.clone());
    let actor = Actor::new(format!("run {seed}"));
    let usage = UsageRecorder::new(store);
    let _flushing = usage.spawn_every(Duration::from_millis(50)).expect("a runtime");
    let used = manager.issue(NewKey::named(format!("used in {seed}")), &actor).await.expect("a key");
    let principal = Principal::new(&*used.details.id);
    say(&format!("used {}", used.details.id));

    let mut ids: Vec<Box<str>> = Vec::new();
    let mut dice = seed;
    for number in 0_u64.. {
        // Knuth's MMIX generator: any would do.
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let choice = usize::try_from(dice >> 33).expect("a small number");
        let id = ids.get(choice % ids.len().max(1)).cloned();
        match (choice / 7 % 4, id) {
            (0, Some(id)) => {
                say(&format!("rotating {id}"));
                if let Ok(rotated) = manager.rotate(&id, None, &actor).await {
                    say(&format!("rotated {id} {}", rotated.secret.expose_secret()));
                }
            }
            (1, Some(id)) => {
                say(&format!("revoking {id}"));
                manager.revoke(&id, &actor).await.expect("revoked");
                say(&format!("revoked {id}"));
                ids.retain(|other| *other != id);
            }
            _ => {
                say("issuing");
                let name = format!("{seed}/{number}");
                let issued = manager.issue(NewKey::named(name), &actor).await.expect("a key");
                say(&format!("issued {} {}", issued.details.id, issued.secret.expose_secret()));
                ids.push(issued.details.id);
            }
        }
        usage.record(&Usage::new(&principal, SystemClock.now()));
        say(&format!("noted {}", number + 1));
    }
}

/// Prints one line, which is written when this returns: a test that kills the process afterwards has read it.
fn say(line: &str) {
    let mut out = stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the test reads the output");
}
