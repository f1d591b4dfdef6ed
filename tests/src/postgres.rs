//! A PostgreSQL server of a test's own.
//!
//! It listens on the loopback, trusts everybody, and takes about 150 ms to start: its files are copied from a template,
//! which is made once for a machine. It ends with its [`Postgres`], and at the latest with the test's process, even if
//! that is killed.
//!
//! ```no_run
//! # async fn example() {
//! use tests::{postgres::Postgres, relay::Relay};
//!
//! let mut postgres = Postgres::start().await;
//! let database = postgres.fresh_database().await; // "postgres://postgres@127.0.0.1:15432/test_1"
//!
//! // With a network in between that can fail.
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

/// A server, which ends when this is dropped, and leaves nothing behind.
///
/// Its methods wait on other threads, so that the runtime of a test goes on meanwhile, and a clock of tokio's that is
/// paused stands still.
#[derive(Debug)]
pub struct Postgres {
    // Ends before its home does.
    postmaster: Option<Postmaster>,
    home: Arc<Home>,
    databases: AtomicU32,
}

/// What stays the same when a server is restarted.
#[derive(Debug)]
struct Home {
    programs: Programs,
    folder: Folder,
    durability: Durability,
}

#[derive(Clone, Copy, Debug)]
enum Durability {
    /// A commit is handed over to the operating system: it outlives the server, but not the machine.
    Quick,
    /// A commit is on the disk, as in production.
    Durable,
}

impl Postgres {
    /// Starts a server that does not wait for the disk (`fsync=off`).
    ///
    /// What it has committed outlives a [`kill`](Self::kill) all the same, since the operating system goes on and has
    /// it.
    pub async fn start() -> Self {
        Self::start_with(Durability::Quick).await
    }

    /// Starts a server that keeps what it has committed as one in production does, on the disk: for tests of what is
    /// kept. This takes about a second.
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

    /// Where it listens, also after a restart.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.home.folder.port()).into()
    }

    /// The database that every server has.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Creates an empty database, and gives its URL: tests that share a server do not meet.
    pub async fn fresh_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed) + 1);
        let mut connection = PgConnection::connect(&self.url()).await.expect("a server that runs");
        // A name cannot be a parameter, and this one is ours.
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut connection).await.expect("a new database");
        connection.close().await.expect("a server that runs");
        self.url_of(&name)
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address())
    }

    /// Stops it in good order: whoever is connected is told so, and everything is on the disk.
    pub async fn stop(&mut self) {
        if let Some(postmaster) = self.postmaster.take() {
            elsewhere(move || postmaster.stop()).await;
        }
    }

    /// Kills all of its processes by `SIGKILL`: nobody is told anything, and the next start has to recover.
    pub async fn kill(&mut self) {
        if let Some(postmaster) = self.postmaster.take() {
            elsewhere(move || postmaster.kill()).await;
        }
    }

    /// Starts it again, with the same files at the same address. One that still runs is stopped first.
    pub async fn restart(&mut self) {
        self.stop().await;
        let home = Arc::clone(&self.home);
        self.postmaster = Some(elsewhere(move || Postmaster::start(home)).await);
    }
}

/// Runs what waits on a thread of its own.
async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let result = tokio::task::spawn_blocking(work).await;
    // Nobody cancels it: what has failed has panicked.
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
