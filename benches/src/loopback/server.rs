//! A server in a separate process: this program with another command.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    ops::Sub,
    process::{Child, ChildStdin, Command, Stdio},
};

use axum::Router;
use benches::cast;
use tokio::net::TcpListener;

/// A running server. Dropping this closes the server's standard input, which ends it.
pub(super) struct Server {
    process: Child,
    input: Option<ChildStdin>,
    /// The address on which it listens.
    pub(super) address: String,
    /// A valid key.
    pub(super) key: String,
}

impl Server {
    /// Starts a server and waits until it listens.
    pub(super) fn start(stack: &str) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["serve-http", stack])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (address, key) = line.trim_end().split_once(' ').expect("the server did not start");
        let (address, key) = (address.to_owned(), key.to_owned());
        Self { input: process.stdin.take(), process, address, key }
    }

    /// The CPU time that it has used so far.
    pub(super) fn used(&self) -> Used {
        /// The kernel's `USER_HZ`, the unit of these times (`proc_pid_stat(5)`).
        const TICKS_PER_SECOND: f64 = 100.0;

        let line = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        // The program's name comes first, in parentheses, and can contain any character.
        let (_, fields) = line.rsplit_once(") ").unwrap();
        let ticks = |field: usize| fields.split(' ').nth(field - 3).unwrap().parse::<f64>().unwrap();
        Used { user: ticks(14) / TICKS_PER_SECOND, system: ticks(15) / TICKS_PER_SECOND }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        // An error in `drop` cannot be reported or handled.
        let _ = self.process.wait();
    }
}

/// Seconds of CPU time.
#[derive(Clone, Copy)]
pub(super) struct Used {
    pub(super) user: f64,
    pub(super) system: f64,
}

impl Sub for Used {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

/// The main function of the server process: prints its address and a valid key, and serves until its input ends.
pub(crate) fn serve(router: Router) {
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{} {}", listener.local_addr().unwrap(), cast::keys()[0]);
        io::stdout().flush().unwrap();
        axum::serve(listener, router).await.unwrap();
    });
}
