//! The limiter in memory passes the conformance suite.

use tollgate::limit::MemoryLimiter;
use tollgate_testing::suite;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limiter_in_memory_conforms() {
    suite::limiter(async || MemoryLimiter::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_limiter_in_memory_conforms() {
    suite::limiter(async || MemoryLimiter::with_capacity(100)).await;
}
