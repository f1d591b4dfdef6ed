//! Redis servers for one test: a single one, a [cluster](RedisCluster), and a primary with [sentinels](RedisSentinels).
//!
//! They listen on the loopback interface, write nothing to the disk, and end when they are dropped, and also when the test process
//! is killed. A single one takes about 20 ms to start, a cluster 2 s, and sentinels 3 s.
//!
//! ```no_run
//! # async fn example() {
//! use tests::{
//!     redis::{Program, Redis, Setup},
//!     relay::Relay,
//! };
//!
//! let mut redis = Redis::start().await; // "redis://127.0.0.1:17000"
//!
//! // Through a network that can fail.
//! let relay = Relay::to(redis.address());
//! let url = relay.reroute(&redis.url());
//!
//! // What it holds, without the library under test.
//! assert_eq!(redis.cli(&["SET", "greeting", "hello"]).await, "OK");
//!
//! redis.pause().await;
//! redis.resume().await;
//! redis.kill().await;
//! redis.restart().await;
//! assert_eq!(redis.cli(&["DBSIZE"]).await, "0");
//!
//! // The same on Valkey, where it is installed.
//! for program in Program::installed() {
//!     let redis = Redis::start_with(Setup::of(program)).await;
//! }
//!
//! let setup = Setup::default().with_user("limiter", "secret", "~tollgate:* +@all").with_tls();
//! let redis = Redis::start_with(setup).await; // "rediss://limiter:secret@127.0.0.1:17000"
//! # }
//! ```
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod certificate;
mod cluster;
mod home;
mod sentinels;
mod setup;

use std::{net::SocketAddr, sync::Arc};

pub use cluster::RedisCluster;
use home::{Home, Role};
pub use sentinels::RedisSentinels;
pub use setup::{Program, Setup};

use crate::server::{
    elsewhere,
    process::{Process, is_suspended, resume, suspend},
};

/// A server. Dropped, it ends and deletes its files.
///
/// Its methods wait on other threads, so they do not block the runtime of a test, and do not advance a paused tokio clock.
#[derive(Debug)]
pub struct Redis {
    // Ends before its files are deleted.
    process: Option<Process>,
    home: Arc<Home>,
}

impl Redis {
    /// Starts Redis without a password.
    pub async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    /// Starts another program, or one with a user, TLS or other settings.
    pub async fn start_with(setup: Setup) -> Self {
        elsewhere(move || Self::launch(setup, Role::Single)).await
    }

    fn launch(setup: Setup, role: Role) -> Self {
        let home = Arc::new(Home::new(setup, role));
        Self { process: Some(home.start()), home }
    }

    /// The address, which stays the same after a restart.
    pub fn address(&self) -> SocketAddr {
        self.home.address()
    }

    /// The URL, with the user and the password if there is one: `redis://127.0.0.1:17000`, or `rediss://…` if it has TLS.
    pub fn url(&self) -> String {
        self.home.url()
    }

    /// The certificate of the authority of its [`Setup`], in PEM: what a client must trust. None without TLS.
    pub fn root_certificate(&self) -> Option<&str> {
        self.home.root_certificate()
    }

    /// Sends a command by `redis-cli`, as a user who may do everything. Returns what it prints: a number or a text as it is, an
    /// empty text for nil, and the elements of an array on lines of their own.
    ///
    /// An error fails the test. While the server is paused, this waits.
    pub async fn cli(&self, command: &[&str]) -> String {
        self.try_cli(command).await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// The same, but an error does not fail the test.
    ///
    /// # Errors
    ///
    /// The text of the server's error, such as `WRONGTYPE Operation against a key holding the wrong kind of value`, or why the
    /// server cannot be reached.
    pub async fn try_cli(&self, command: &[&str]) -> Result<String, String> {
        let home = Arc::clone(&self.home);
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        elsewhere(move || home.cli(&command)).await
    }

    /// Deletes all keys.
    pub async fn flush(&self) {
        self.cli(&["FLUSHALL"]).await;
    }

    /// Kills it by `SIGKILL`, also while it is paused. What it held is lost.
    pub async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            // This is also how it ends when it is dropped.
            elsewhere(move || drop(process)).await;
        }
    }

    /// Kills it if it is running, and starts it without data at the same address.
    pub async fn restart(&mut self) {
        self.kill().await;
        let home = Arc::clone(&self.home);
        self.process = Some(elsewhere(move || home.start()).await);
    }

    /// Stops it by `SIGSTOP`: connections stay open and the kernel accepts new ones, but nothing is answered until it is resumed.
    pub async fn pause(&self) {
        let pid = self.pid();
        elsewhere(move || suspend(pid)).await;
    }

    /// Continues it by `SIGCONT`. It then answers what has come meanwhile.
    pub async fn resume(&self) {
        let pid = self.pid();
        elsewhere(move || resume(pid)).await;
    }

    /// The process ID. Fails the test if it was killed.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a server that was not killed").pid()
    }

    /// Whether it is neither killed nor paused.
    fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !is_suspended(process.pid()))
    }
}
