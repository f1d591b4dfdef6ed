//! Credits of one busy account: in the database for each request, and lent by Redis.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tests::postgres::Postgres;
use tollgate::{
    credits::{
        CreditAdmin, Credits, Excess, MemoryCredits, NewGrant, ReserveRequest, Reserved, SettleAction,
        SettleRequest,
    },
    manage::{Actor, Command},
};
use tollgate_redis::{Loans, RedisCredits};
use tollgate_sql::SqlKeys;

use crate::server::Server;

const LENGTH: Duration = Duration::from_secs(4);
const AT_A_TIME: [usize; 2] = [1, 16];
const GRANTED: u64 = 1 << 40;

pub(crate) async fn measure(server: &Server) {
    let database = Postgres::start_durable().await;
    let store = SqlKeys::connect(&database.fresh_database().await).await.unwrap();
    println!("Credits of one account: requests that reserve and settle, per second\n");
    println!("| | one at a time | 16 at a time | trips to Redis per request |\n|---|---|---|---|");
    row("`MemoryCredits`", server, MemoryCredits::new()).await;
    row("`SqlCredits` on PostgreSQL", server, store.credits()).await;
    let lent = RedisCredits::builder(server.connect().await, store.credits()).with_loans(Loans::Auto).build();
    row("`RedisCredits` in front of it", server, lent.clone()).await;
    lent.close().await.unwrap();
    println!();
}

async fn row(name: &str, server: &Server, credits: impl CreditAdmin + Clone) {
    let account: Arc<str> = name.into();
    let grant = NewGrant::new(&*account, GRANTED);
    credits.grant(Command::new(grant, Actor::new("benches"), SystemTime::now())).await.unwrap();
    let (before, mut requests, mut rates) = (server.trips().await, 0, Vec::new());
    for at_a_time in AT_A_TIME {
        let count = serve(&credits, &account, at_a_time).await;
        requests += count;
        rates.push(count as f64 / LENGTH.as_secs_f64());
    }
    let trips = (server.trips().await - before) as f64 / requests as f64;
    let [one, many] = rates[..] else { unreachable!("one rate for each of AT_A_TIME") };
    println!("| {name} | {one:.0} | {many:.0} | {trips:.2} |");
}

/// How many requests were served.
async fn serve(credits: &(impl Credits + Clone), account: &Arc<str>, at_a_time: usize) -> u64 {
    let started = Instant::now();
    let tasks: Vec<_> = (0..at_a_time)
        .map(|_| {
            let (credits, account) = (credits.clone(), Arc::clone(account));
            tokio::spawn(async move {
                let mut served = 0;
                while started.elapsed() < LENGTH {
                    request(&credits, &account).await;
                    served += 1;
                }
                served
            })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await.unwrap();
    }
    sum
}

async fn request(credits: &impl Credits, account: &str) {
    let now = SystemTime::now();
    let request = ReserveRequest::new(account, 2, now + Duration::from_mins(1), now);
    let Reserved::Held(held) = credits.reserve(&request).await.unwrap() else {
        panic!("the account has credits")
    };
    let commit = SettleAction::Commit { actual: 1, excess: Excess::Cap };
    let settlement = credits.settle(&SettleRequest::new(account, held.id, commit, now)).await.unwrap();
    assert_eq!(settlement.charged, 1);
}
