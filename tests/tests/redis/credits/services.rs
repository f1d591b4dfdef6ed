//! Services behind `CreditsLayer`, whose credits Redis lends and PostgreSQL keeps.

use std::{net::SocketAddr, time::SystemTime};

use axum::{Router, routing::get};
use http::StatusCode;
use tests::{
    hosts::{Connection, serve},
    postgres::Postgres,
    redis::Redis as Server,
    suite::{Directory, World},
};
use tokio::task::JoinSet;
use tollgate::{
    CreditsLayer, Principal, Tollgate,
    credits::{CreditAdmin as _, Credits as _, NewGrant},
    manage::{Actor, Command},
};
use tollgate_redis::{Redis, RedisCredits};
use tollgate_sql::{SqlCredits, SqlKeys};

const COST: u64 = 10;

/// A service with its own connections to Redis and to the database.
async fn service(server: &Server, ledger: SqlCredits) -> (RedisCredits<SqlCredits>, SocketAddr) {
    let credits = RedisCredits::new(Redis::connect(server.url()).await.unwrap(), ledger);
    let directory =
        Directory::new(&World::new().backend).with("ada", Principal::new("ada").with_tenant("acme"));
    let layer = CreditsLayer::new(credits.clone(), COST);
    let tollgate = Tollgate::builder().verify(directory).credits(layer).build().unwrap();
    let router = Router::new().route("/", get(async || "hello")).layer(tollgate);
    (credits, serve(router).await)
}

/// Sends requests until three in a row are refused: Redis may have no loan for some milliseconds. Returns how many were not.
async fn buy_all(address: SocketAddr) -> u64 {
    let mut caller = Connection::http2(address).await;
    let (mut sold, mut refused) = (0, 0);
    while refused < 3 {
        match caller.get("/", Some("ada")).await.status() {
            StatusCode::OK => (sold, refused) = (sold + 1, 0),
            StatusCode::PAYMENT_REQUIRED => refused += 1,
            status => panic!("{status}"),
        }
    }
    sold
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_sell_each_credit_once() {
    const GRANTED: u64 = 4_000;
    let (server, postgres) = (Server::start().await, Postgres::start().await);
    let mut services = Vec::new();
    for _ in 0..2 {
        services.push(service(&server, SqlKeys::connect(&postgres.url()).await.unwrap().credits()).await);
    }
    let now = SystemTime::now();
    let grant = Command::new(NewGrant::new("acme", GRANTED), Actor::new("root"), now);
    services[0].0.grant(grant).await.unwrap();

    let mut callers = JoinSet::new();
    for (_, address) in &services {
        for _ in 0..4 {
            callers.spawn(buy_all(*address));
        }
    }
    let sold: u64 = callers.join_all().await.into_iter().sum();
    assert_eq!(sold * COST, GRANTED);

    for (credits, _) in &services {
        // The task of the other service may be closing the same loans.
        crate::until("it is closed", async || credits.close().await.ok()).await;
    }
    let ledger = &services[0].0;
    let balance = crate::until("all is settled", async || {
        let balance = ledger.balance("acme", SystemTime::now()).await.unwrap();
        (balance.reserved == 0).then_some(balance)
    })
    .await;
    assert_eq!((balance.available, balance.owed), (0, 0));
    assert!(ledger.check("acme").await.unwrap().agrees);
}
