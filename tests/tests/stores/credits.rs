//! Every store of credits passes the conformance suite.

use tollgate::credits::MemoryCredits;
use tollgate_testing::suite;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credits_in_memory_conform() {
    suite::credits(100_000, async || MemoryCredits::new()).await;
}
