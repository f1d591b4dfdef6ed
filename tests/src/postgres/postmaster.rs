//! A running server: its main process, which starts all others.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs,
    process::{Command, Stdio},
    sync::Arc,
};

use super::{Durability, Home};
use crate::server::{
    folder::open,
    process::{Process, children, lives, signal, suspend},
    wait_until,
};

/// A running server. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Postmaster {
    // `SIGQUIT` ends it at once, without writing to its files, but it still ends its processes.
    process: Process,
    // Keeps its files while it runs.
    home: Arc<Home>,
}

impl Postmaster {
    /// Starts a server, and waits until it answers.
    pub(super) fn start(home: Arc<Home>) -> Self {
        let process = Process::start("postgres", command(&home), "QUIT");
        let mut postmaster = Self { process, home };
        let mut is_ready = is_ready(&postmaster.home);
        wait_until("the server answers", || {
            if let Some(end) = postmaster.process.end() {
                let log = fs::read_to_string(postmaster.home.folder.log()).unwrap_or_default();
                panic!("PostgreSQL has ended ({end}):\n{log}");
            }
            is_ready.status().expect("pg_isready runs").success()
        });
        postmaster
    }

    /// Stops it: open transactions are rolled back, and clients get an error.
    pub(super) fn stop(mut self) {
        signal("INT", &[self.process.pid()]);
        self.process.wait();
    }

    /// Kills all of its processes.
    pub(super) fn kill(mut self) {
        // A stopped process starts no other ones.
        suspend(self.process.pid());
        let mut all = children(self.process.pid());
        all.push(self.process.pid());
        signal("KILL", &all);
        self.process.wait();
        // No other server can use the files while one of them is alive.
        wait_until("its processes are gone", || all.iter().all(|pid| !lives(*pid)));
    }
}

fn command(home: &Home) -> Command {
    let Home { programs, folder, durability } = home;
    let mut settings = vec![
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        // In its folder, so it is deleted with it, even if the server was killed.
        "dynamic_shared_memory_type=mmap",
    ];
    if matches!(durability, Durability::Quick) {
        // Keeps `full_page_writes` and `synchronous_commit`: without them a killed server loses commits.
        settings.push("fsync=off");
    }
    let log = open(&folder.log());
    let mut command = programs.command(programs.path("postgres"));
    command.arg("-D").arg(folder.data()).args(["-p", &folder.port().to_string()]);
    command.args(settings.iter().flat_map(|setting| ["-c", setting]));
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file of our own")).stderr(log);
    command
}

/// The command that checks whether the server accepts clients. It begins to listen some time before.
fn is_ready(home: &Home) -> Command {
    let mut command = Command::new(home.programs.path("pg_isready"));
    command.args(["--quiet", "--timeout=1", "--host=127.0.0.1", "--username=postgres", "--dbname=postgres"]);
    command.arg(format!("--port={}", home.folder.port()));
    command.stdin(Stdio::null());
    command
}
