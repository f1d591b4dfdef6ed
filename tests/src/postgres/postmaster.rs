//! A server that runs: its first process, which starts all others.
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

/// How long anything may take that takes milliseconds on a machine that is not overloaded.
const DEADLINE: Duration = Duration::from_mins(1);

const PAUSE: Duration = Duration::from_millis(5);

/// A server that runs. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Postmaster {
    pid: u32,
    // From the thread that waits for it.
    end: Receiver<io::Result<ExitStatus>>,
    has_ended: bool,
    // Its files are there for as long as it runs.
    home: Arc<Home>,
}

impl Postmaster {
    /// Starts a server, and waits until it answers.
    pub(super) fn start(home: Arc<Home>) -> Self {
        let (pid, end) = spawn(command(&home));
        let mut postmaster = Self { pid, end, has_ended: false, home };
        let mut question = question(&postmaster.home);
        wait_until("the server answers", || {
            if let Ok(status) = postmaster.end.try_recv() {
                postmaster.has_ended = true;
                let log = fs::read_to_string(postmaster.home.folder.log()).unwrap_or_default();
                panic!("PostgreSQL has ended ({status:?}):\n{log}");
            }
            question.status().expect("pg_isready runs").success()
        });
        postmaster
    }

    /// Ends it in good order: whatever is open is rolled back, whoever is connected is told so.
    pub(super) fn stop(mut self) {
        signal("INT", &[self.pid]);
        self.wait();
    }

    /// Kills all of its processes.
    pub(super) fn kill(mut self) {
        // Only one that is held starts no more of them meanwhile.
        signal("STOP", &[self.pid]);
        wait_until("the server is held", || process(self.pid).is_none_or(|process| process.state == 'T'));
        let mut all = children(self.pid);
        all.push(self.pid);
        signal("KILL", &all);
        self.wait();
        // As long as one of them lives, no other server gets at the files.
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
        // At once, since nobody needs its files anymore; but it still ends its processes.
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
        // In its folder, where it is removed with it, even if the server was killed.
        "dynamic_shared_memory_type=mmap",
    ];
    if matches!(durability, Durability::Quick) {
        // And nothing else: without `full_page_writes` or `synchronous_commit` a killed server loses something.
        settings.push("fsync=off");
    }
    let log = File::options().create(true).append(true).open(folder.log()).expect("a file of our own");
    let mut command = programs.command(programs.path("postgres"));
    command.arg("-D").arg(folder.data()).args(["-p", &folder.port().to_string()]);
    command.args(settings.iter().flat_map(|setting| ["-c", setting]));
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file of our own")).stderr(log);
    command
}

/// Asks whether the server lets clients in; it begins to listen some time before it does.
fn question(home: &Home) -> Command {
    let mut command = Command::new(home.programs.path("pg_isready"));
    command.args(["--quiet", "--timeout=1", "--host=127.0.0.1", "--username=postgres", "--dbname=postgres"]);
    command.arg(format!("--port={}", home.folder.port()));
    command.stdin(Stdio::null());
    command
}

/// Starts a program on a thread of its own, which then waits for its end: a server dies with the thread that has
/// started it, and a test's threads, and those of its runtime, come and go.
fn spawn(mut command: Command) -> (u32, Receiver<io::Result<ExitStatus>>) {
    let (start_sender, start) = mpsc::channel();
    let (end_sender, end) = mpsc::channel();
    let wait = move || {
        let child = command.spawn();
        // Nobody has to hear of it anymore.
        let _ = start_sender.send(child.as_ref().map(std::process::Child::id).map_err(io::Error::kind));
        let _ = end_sender.send(child.and_then(|mut child| child.wait()));
    };
    thread::Builder::new().name("postgres".to_owned()).spawn(wait).expect("a thread");
    let pid = start.recv().expect("the thread tells it").expect("`setpriv` starts; it is part of util-linux");
    (pid, end)
}

/// Signals some processes. The shell can do it, without `unsafe` and without a crate.
fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let mut command = Command::new("sh");
    command.args(["-c", r#"kill -s "$@""#, "sh", name]).args(pids);
    // Those that are gone already need none.
    let _ = command.stderr(Stdio::null()).status();
}

/// What the kernel tells of a process.
struct Process {
    state: char,
    parent: u32,
}

/// A process that lives: one that is dead and not buried yet (a zombie) has given everything back.
fn process(pid: u32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may have any characters.
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

#[expect(clippy::disallowed_methods, reason = "a server has no clock of a test's")]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} until {what}");
        thread::sleep(PAUSE);
    }
}
