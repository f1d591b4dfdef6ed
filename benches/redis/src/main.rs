//! Measures limits on Redis: `cargo run --release -p redis-benches`. It takes about a minute, and needs `redis-server`.
//!
//! All figures of one run are for one server on this machine, which shares its cores with the program. Compare ratios.

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
}
