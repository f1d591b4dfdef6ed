//! Every store of credits passes the conformance suite.

use tollgate::credits::MemoryCredits;
use tollgate_testing::suite;

use super::backends::{PostgresKeys, SqliteFileKeys, sqlite_in_memory};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_in_memory_conform() {
    suite::credit_loans(100_000, async || MemoryCredits::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_in_sqlite_in_memory_conform() {
    suite::credit_loans(2_000, async || sqlite_in_memory().await.credits()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_in_a_sqlite_file_conform() {
    let files = SqliteFileKeys::new();
    suite::credit_loans(500, async || files.open().await.credits()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_in_postgresql_conform() {
    let postgres = PostgresKeys::start().await;
    suite::credit_loans(500, async || postgres.open().await.credits()).await;
}
