//! Processes that spend the same credits, and are killed: none is spent twice, and none is lost.

use std::time::Duration;

use tests::{cases, patient_store, postgres::Postgres};
use tollgate::{
    clock::{Clock as _, SystemClock},
    credits::{Balance, CreditAdmin as _, Credits as _, NewGrant},
    manage::{Actor, Command},
};
use tollgate_sql::SqlCredits;

use super::{crashes::until_its_sessions_have_ended, process::Keyholder};

async fn grant(credits: &SqlCredits, account: &str, amount: u64) {
    let grant = NewGrant::new(account, amount);
    credits.grant(Command::new(grant, Actor::new("test"), SystemClock.now())).await.unwrap();
}

/// What a line says was charged; `None` for the last line.
fn charged(line: &str) -> Option<u64> {
    line.strip_prefix("charged ").map(|amount| amount.parse().unwrap())
}

async fn race(database: &str) {
    const GRANTED: u64 = 300;
    let store = patient_store().connect(database).await.unwrap();
    let credits = store.credits();
    for round in 0..cases(2, 20) {
        let account = format!("race {round}");
        grant(&credits, &account, GRANTED).await;
        let mut processes = [0, 1].map(|_| Keyholder::start(&["spend", database, &account, "1", "1"]));
        let mut sums = [0, 0];
        for (process, sum) in processes.iter_mut().zip(&mut sums) {
            while let Some(amount) = charged(&process.line().await.unwrap()) {
                *sum += amount;
            }
        }
        assert_eq!(sums[0] + sums[1], GRANTED, "{sums:?}");
        assert_eq!(credits.balance(&account, SystemClock.now()).await.unwrap(), Balance::default());
        assert!(credits.check(&account).await.unwrap().agrees);
    }
    store.close().await;
}

async fn kill_and_check(database: &str, round: u32) {
    const GRANTED: u64 = 1_000_000;
    let store = patient_store().connect(database).await.unwrap();
    let credits = store.credits();
    let account = &format!("killed {round}");
    grant(&credits, account, GRANTED).await;
    store.close().await;

    // Each request reserves 5 credits, and costs 3. Four at a time are in flight.
    let mut process = Keyholder::start(&["spend", database, account, "5", "3"]);
    let mut confirmed = 0;
    for _ in 0..=round * 7 % 40 {
        confirmed += charged(&process.line().await.unwrap()).unwrap();
    }
    tokio::time::sleep(Duration::from_micros(u64::from(round) * 7_919 % 20_000)).await;
    process.kill().await;
    while let Some(line) = process.line().await {
        confirmed += charged(&line).unwrap();
    }
    until_its_sessions_have_ended(database).await;

    let store = patient_store().connect(database).await.unwrap();
    let credits = store.credits();
    let now = SystemClock.now();
    let balance = credits.balance(account, now).await.unwrap();
    let spent = GRANTED - balance.available - balance.reserved;
    assert!((confirmed..=confirmed + 4 * 3).contains(&spent), "{confirmed} confirmed, {spent} spent");
    assert!(balance.reserved <= 4 * 5 && balance.reserved % 5 == 0, "{balance:?}");
    assert!(credits.check(account).await.unwrap().agrees);

    let later = now + Duration::from_hours(2);
    assert_eq!(credits.sweep(later).await.unwrap(), balance.reserved / 5);
    assert_eq!(credits.balance(account, later).await.unwrap(), Balance::new(GRANTED - spent, 0));
    assert!(credits.check(account).await.unwrap().agrees);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_postgresql_never_oversell_a_credit() {
    let postgres = Postgres::start().await;
    race(&postgres.fresh_database().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_a_sqlite_file_never_oversell_a_credit() {
    let folder = tempfile::tempdir().unwrap();
    race(&format!("sqlite://{}", folder.path().join("keys.db").display())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_a_killed_process_makes_and_loses_no_credit() {
    let postgres = Postgres::start().await;
    let database = postgres.fresh_database().await;
    for round in 0..cases(8, 100) {
        kill_and_check(&database, round).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_killed_process_makes_and_loses_no_credit() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", folder.path().join("keys.db").display());
    for round in 0..cases(8, 100) {
        kill_and_check(&database, round).await;
    }
}
