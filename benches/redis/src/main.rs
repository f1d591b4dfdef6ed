//! Measures limits and credits on Redis: `cargo run --release -p redis-benches`. It takes about two minutes, and needs `redis-server` and
//! PostgreSQL.
//!
//! All figures of one run are for one server on this machine, which shares its cores with the program. Compare ratios.

mod credits;
mod hot;
mod latency;
mod peer;
mod server;
mod zipf;

use server::Server;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let server = Server::start().await;
    latency::measure(&server).await;
    hot::measure(&server).await;
    zipf::measure(&server).await;
    peer::measure(&server).await;
    credits::measure(&server).await;
}
