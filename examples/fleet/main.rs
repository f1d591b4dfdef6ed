//! Three instances of one service, which share their limits in Redis: `cargo run --example fleet`.
//!
//! A small load sends more requests than the quota admits, and each second a line on stderr shows which instance admits them. The other
//! two instances are processes of their own: this program, started again.
//!
//! | file | idea |
//! |---|---|
//! | `main.rs` | the fleet |
//! | `instance.rs` | the service, with its gate |
//! | `counts.rs` | who admits how much, and whether it asked Redis |
//! | `follower.rs` | another instance as a process |
//! | `redis_server.rs` | a Redis server for this fleet alone |
//! | `load.rs` | the load |
//! | `board.rs` | the lines on stderr |

mod board;
mod counts;
mod follower;
mod instance;
mod load;
mod redis_server;

use std::{collections::BTreeMap, error::Error, path::PathBuf};

use clap::Args;
use serde_json::json;
use support::Host;
use tollgate::{Environment, KeyFormat};

use crate::{
    board::Board,
    follower::Follower,
    instance::{BUSY, Instance, KEY_PREFIX, Orders, QUIET},
    redis_server::RedisServer,
};

const INSTANCES: usize = 3;

#[derive(Args)]
struct Arguments {
    /// The program of Redis or Valkey, which is started, and ended with this one.
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    redis_server: PathBuf,
    /// The URL of a server that runs already, in place of a new one.
    #[arg(long, value_name = "URL", conflicts_with = "redis_server")]
    redis: Option<String>,
    /// How many requests per second the load sends to all instances together; 0 for none.
    #[arg(long, value_name = "NUMBER", default_value_t = 300)]
    load: u32,
    /// This process is another instance, with this number.
    #[arg(long, hide = true)]
    instance: Option<usize>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (host, arguments) = Host::start_quietly_with::<Arguments>(
        "Three instances of one axum service that share their limits in Redis",
    )
    .await?;
    match arguments.instance {
        Some(number) => follower::run(host, number).await,
        None => lead(host, arguments).await,
    }
}

/// Starts everything, serves as the first instance, and ends everything.
async fn lead(mut host: Host, arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let server = match arguments.redis {
        Some(_) => None,
        None => Some(RedisServer::start(&arguments.redis_server).await?),
    };
    let url = server.as_ref().map(RedisServer::url).or(arguments.redis).unwrap_or_default();
    if server.is_some() {
        eprintln!("Where the limits stand: tollgate limits show --tenant {BUSY} --redis {url}");
    }
    let format = KeyFormat::new(KEY_PREFIX)?;
    let mut keys = BTreeMap::new();
    for name in [BUSY, QUIET] {
        keys.insert(name.to_owned(), format.generate(Environment::Test)?.expose_secret().to_owned());
    }
    let orders = Orders { redis: url, keys };

    let first = Instance::new(1, &orders).await?;
    let mut followers = Vec::new();
    for number in 2..=INSTANCES {
        followers.push(Follower::start(number, &orders).await?);
    }
    let urls: Vec<_> =
        [host.url()].into_iter().chain(followers.iter().map(|other| other.url.clone())).collect();
    host.announce("instances", json!(urls));

    let secret = orders.keys.get(BUSY).map(String::as_str).unwrap_or_default();
    load::start(&urls, secret, arguments.load, &host.shutdown());
    let counts = [first.counts.clone()].into_iter().chain(followers.iter().map(|other| other.counts.clone()));
    if arguments.load > 0 {
        tokio::spawn(Board::new(counts.collect()).run(host.shutdown()));
    }
    let credentials: Vec<_> = orders.keys.iter().map(|(name, secret)| (name, secret.clone())).collect();
    host.serve(first.app, &credentials).await?;

    for follower in followers {
        follower.end().await?;
    }
    first.limiter.close().await;
    if let Some(server) = server {
        server.end().await?;
    }
    Ok(())
}
