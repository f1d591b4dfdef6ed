//! A PostgreSQL server for one test.
//!
//! It listens on the loopback interface, accepts every user without a password, and takes about 150 ms to start: its files are
//! copied from a template, which is created once per machine. It ends when its [`Postgres`] is dropped, and also when the test
//! process is killed.
//!
//! ```no_run
//! # async fn example() {
//! use tests::{postgres::Postgres, relay::Relay};
//!
//! let mut postgres = Postgres::start().await;
//! let database = postgres.fresh_database().await; // "postgres://postgres@127.0.0.1:15432/test_1"
//!
//! // Through a network that can fail.
//! let relay = Relay::to(postgres.address());
//! let database = relay.reroute(&database);
//!
//! postgres.kill().await;
//! postgres.restart().await;
//! # }
//! ```
#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

mod folder;
mod postmaster;
mod programs;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use folder::Folder;
use postmaster::Postmaster;
use programs::Programs;

use crate::server::elsewhere;

/// A server. Dropped, it ends and deletes its files.
///
/// Its methods wait on other threads, so they do not block the runtime of a test, and do not advance a paused tokio clock.
#[derive(Debug)]
pub struct Postgres {
    // Ends before its files are deleted.
    postmaster: Option<Postmaster>,
    home: Arc<Home>,
    databases: AtomicU32,
}

/// What stays the same across restarts.
#[derive(Debug)]
struct Home {
    programs: Programs,
    folder: Folder,
    durability: Durability,
}

#[derive(Clone, Copy, Debug)]
enum Durability {
    /// A commit is written to the operating system: it survives a crash of the server, but not of the machine.
    Quick,
    /// A commit is written to the disk, as in production.
    Durable,
}

impl Postgres {
    /// Starts a server that does not wait for the disk (`fsync=off`).
    ///
    /// A commit still survives a [`kill`](Self::kill), because the operating system has it.
    pub async fn start() -> Self {
        Self::start_with(Durability::Quick).await
    }

    /// Starts a server that writes commits to the disk, for tests of durability. This takes about a second.
    pub async fn start_durable() -> Self {
        Self::start_with(Durability::Durable).await
    }

    async fn start_with(durability: Durability) -> Self {
        elsewhere(move || {
            let programs = Programs::find();
            let folder = Folder::take(&programs, durability);
            let home = Arc::new(Home { programs, folder, durability });
            let postmaster = Some(Postmaster::start(Arc::clone(&home)));
            Self { postmaster, home, databases: AtomicU32::new(0) }
        })
        .await
    }

    /// The address, which stays the same after a restart.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.home.folder.port()).into()
    }

    /// The URL of the database `postgres`, which every server has.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Creates an empty database, and returns its URL.
    pub async fn fresh_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed) + 1);
        let mut connection = PgConnection::connect(&self.url()).await.expect("the server is running");
        // A name cannot be a parameter, and this one is safe.
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut connection).await.expect("a new database");
        connection.close().await.expect("the server is running");
        self.url_of(&name)
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address())
    }

    /// Stops it: clients are disconnected with an error, and everything is written to the disk.
    pub async fn stop(&mut self) {
        if let Some(postmaster) = self.postmaster.take() {
            elsewhere(move || postmaster.stop()).await;
        }
    }

    /// Kills all of its processes by `SIGKILL`. The next start recovers.
    pub async fn kill(&mut self) {
        if let Some(postmaster) = self.postmaster.take() {
            elsewhere(move || postmaster.kill()).await;
        }
    }

    /// Stops it if it is running, and starts it with the same files at the same address.
    pub async fn restart(&mut self) {
        self.stop().await;
        let home = Arc::clone(&self.home);
        self.postmaster = Some(elsewhere(move || Postmaster::start(home)).await);
    }
}
