//! A running server: its main process, which starts all others.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs::{self, File},
    io,
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Durability, Home};

/// The limit for operations that take milliseconds on a machine without load.
const DEADLINE: Duration = Duration::from_mins(1);

const PAUSE: Duration = Duration::from_millis(5);

/// A running server. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Postmaster {
    pid: u32,
    // The exit status, from the thread that waits for the process.
    end: Receiver<io::Result<ExitStatus>>,
    has_ended: bool,
    // Keeps its files while it runs.
    home: Arc<Home>,
}

impl Postmaster {
    /// Starts a server, and waits until it answers.
    pub(super) fn start(home: Arc<Home>) -> Self {
        let (pid, end) = spawn(command(&home));
        let mut postmaster = Self { pid, end, has_ended: false, home };
        let mut is_ready = is_ready(&postmaster.home);
        wait_until("the server answers", || {
            if let Ok(status) = postmaster.end.try_recv() {
                postmaster.has_ended = true;
                let log = fs::read_to_string(postmaster.home.folder.log()).unwrap_or_default();
                panic!("PostgreSQL has ended ({status:?}):\n{log}");
            }
            is_ready.status().expect("pg_isready runs").success()
        });
        postmaster
    }

    /// Stops it: open transactions are rolled back, and clients get an error.
    pub(super) fn stop(mut self) {
        signal("INT", &[self.pid]);
        self.wait();
    }

    /// Kills all of its processes.
    pub(super) fn kill(mut self) {
        // A stopped process starts no other ones.
        signal("STOP", &[self.pid]);
        wait_until("the server is stopped", || process(self.pid).is_none_or(|process| process.state == 'T'));
        let mut all = children(self.pid);
        all.push(self.pid);
        signal("KILL", &all);
        self.wait();
        // No other server can use the files while one of them is alive.
        wait_until("its processes are gone", || all.iter().all(|pid| process(*pid).is_none()));
    }

    fn wait(&mut self) {
        let end = self.end.recv_timeout(DEADLINE);
        self.has_ended = end.is_ok();
        end.expect("PostgreSQL ends in time").expect("its end can be waited for");
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        if self.has_ended || self.end.try_recv().is_ok() {
            return;
        }
        // Ends at once, without writing to its files, but still ends its processes.
        signal("QUIT", &[self.pid]);
        if self.end.recv_timeout(DEADLINE).is_err() {
            signal("KILL", &[self.pid]);
        }
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
    let log = File::options().create(true).append(true).open(folder.log()).expect("a file of our own");
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

/// Starts a program on a thread of its own, which then waits for its end: the server ends with the thread that has started it,
/// and threads of a test and its runtime can end early.
fn spawn(mut command: Command) -> (u32, Receiver<io::Result<ExitStatus>>) {
    let (start_sender, start) = mpsc::channel();
    let (end_sender, end) = mpsc::channel();
    let wait = move || {
        let child = command.spawn();
        // The receiver may be gone.
        let _ = start_sender.send(child.as_ref().map(std::process::Child::id).map_err(io::Error::kind));
        let _ = end_sender.send(child.and_then(|mut child| child.wait()));
    };
    thread::Builder::new().name("postgres".to_owned()).spawn(wait).expect("a thread");
    let pid = start.recv().expect("the thread sends it").expect("`setpriv` starts; it is part of util-linux");
    (pid, end)
}

/// Signals processes. The shell does it without `unsafe` and without a crate.
fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let mut command = Command::new("sh");
    command.args(["-c", r#"kill -s "$@""#, "sh", name]).args(pids);
    // Ignores processes that have ended already.
    let _ = command.stderr(Stdio::null()).status();
}

/// The state of a process.
struct Process {
    state: char,
    parent: u32,
}

/// A process, unless it has ended. A zombie has ended: it holds no files or sockets.
fn process(pid: u32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before can contain any character.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next().filter(|state| !matches!(state, 'Z' | 'X'))?;
    Some(Process { state, parent: fields.next()?.parse().ok()? })
}

fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| process(*pid).is_some_and(|process| process.parent == parent)).collect()
}

#[expect(clippy::disallowed_methods, reason = "a server uses the real time")]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} until {what}");
        thread::sleep(PAUSE);
    }
}
