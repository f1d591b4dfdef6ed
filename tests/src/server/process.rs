//! A server's process, which a test has started.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    fs, io,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use super::{DEADLINE, wait_until};

/// A process. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    // The exit status, from the thread that waits for the process.
    end: Receiver<io::Result<ExitStatus>>,
    has_ended: bool,
    last_signal: &'static str,
}

impl Process {
    /// Starts a program. `last_signal` is what ends it when it is dropped.
    ///
    /// This happens on a thread of its own, which then waits for its end: a command by [`ends_with_its_thread`] ends with the
    /// thread that has started it, and threads of a test and its runtime can end early.
    pub(crate) fn start(name: &str, mut command: Command, last_signal: &'static str) -> Self {
        let (start_sender, start) = mpsc::channel();
        let (end_sender, end) = mpsc::channel();
        let wait = move || {
            let child = command.spawn();
            // The receiver may be gone.
            let _ = start_sender.send(child.as_ref().map(std::process::Child::id).map_err(io::Error::kind));
            let _ = end_sender.send(child.and_then(|mut child| child.wait()));
        };
        thread::Builder::new().name(name.to_owned()).spawn(wait).expect("a thread");
        let pid =
            start.recv().expect("the thread sends it").expect("`setpriv` starts; it is part of util-linux");
        Self { pid, end, has_ended: false, last_signal }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// How it has ended, as text. None while it runs.
    pub(crate) fn end(&mut self) -> Option<String> {
        let status = self.end.try_recv().ok()?;
        self.has_ended = true;
        Some(format!("{status:?}"))
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) {
        let end = self.end.recv_timeout(DEADLINE);
        self.has_ended = end.is_ok();
        end.expect("the server ends in time").expect("its end can be waited for");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended || self.end().is_some() {
            return;
        }
        signal(self.last_signal, &[self.pid]);
        if self.end.recv_timeout(DEADLINE).is_err() {
            signal("KILL", &[self.pid]);
        }
    }
}

/// A command that runs another one, which ends with the **thread** that has started it: the kernel then sends it this signal.
///
/// Add options of `setpriv`, `--`, and the other command.
pub(crate) fn ends_with_its_thread(signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.arg(format!("--pdeathsig={signal}"));
    command
}

/// Signals processes. The shell does it without `unsafe` and without a crate.
pub(crate) fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let mut command = Command::new("sh");
    command.args(["-c", r#"kill -s "$@""#, "sh", name]).args(pids);
    // Ignores processes that have ended already.
    let _ = command.stderr(Stdio::null()).status();
}

/// Stops a process: it does nothing until it is resumed or killed.
pub(crate) fn suspend(pid: u32) {
    signal("STOP", &[pid]);
    wait_until("the server is stopped", || !lives(pid) || is_suspended(pid));
}

/// Continues it.
pub(crate) fn resume(pid: u32) {
    signal("CONT", &[pid]);
    wait_until("the server runs", || !is_suspended(pid));
}

/// Whether a process was stopped.
pub(crate) fn is_suspended(pid: u32) -> bool {
    status(pid).is_some_and(|status| status.state == 'T')
}

/// Whether a process has not ended. A zombie has: it holds no files or sockets.
pub(crate) fn lives(pid: u32) -> bool {
    status(pid).is_some()
}

/// The processes that a process has started, and that have not ended.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| status(*pid).is_some_and(|status| status.parent == parent)).collect()
}

/// What the kernel tells about a process that has not ended.
struct Status {
    state: char,
    parent: u32,
}

fn status(pid: u32) -> Option<Status> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before can contain any character.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next().filter(|state| !matches!(state, 'Z' | 'X'))?;
    Some(Status { state, parent: fields.next()?.parse().ok()? })
}
