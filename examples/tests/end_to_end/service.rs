//! An example as a running process.

use std::{
    env::consts::EXE_SUFFIX,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    task::JoinHandle,
    time::timeout,
};

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A running example. Killed when dropped.
pub(crate) struct Service {
    child: Child,
    /// `None` if the log was taken.
    pub(crate) stderr: Option<BufReader<ChildStderr>>,
    ready: Value,
}

impl Service {
    /// Starts an example and waits for its ready line.
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_with(name, &[]).await
    }

    /// Like [`start`](Self::start), with arguments.
    pub(crate) async fn start_with(name: &str, arguments: &[&str]) -> Self {
        Self::start_logging(name, arguments, "warn").await
    }

    /// Like [`start_with`](Self::start_with), with a filter for the log: see [`log`](Self::log).
    pub(crate) async fn start_logging(name: &str, arguments: &[&str], filter: &str) -> Self {
        let mut child = command(name)
            .args(arguments)
            .env("RUST_LOG", filter)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().map(BufReader::new);
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, stdout.next_line()).await.expect("no ready line").unwrap().unwrap();
        let ready = serde_json::from_str(&line).unwrap();
        Self { child, stderr, ready }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> &str {
        self.ready["url"].as_str().unwrap().strip_prefix("http://").unwrap()
    }

    /// A member of the ready line.
    pub(crate) fn announced(&self, name: &str) -> &Value {
        &self.ready[name]
    }

    /// The processes that it has started.
    pub(crate) async fn children(&self) -> Vec<u32> {
        let list = format!("ps -o pid= --ppid {}", self.child.id().unwrap());
        let output = Command::new("sh").args(["-c", &list]).output().await.unwrap();
        let pids = String::from_utf8(output.stdout).unwrap();
        // The shell and `ps` are not its children.
        pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    /// A credential from the ready line.
    pub(crate) fn key(&self, name: &str) -> &str {
        self.ready["credentials"][name].as_str().unwrap_or_else(|| panic!("no credential is named {name}"))
    }

    /// Sends SIGTERM and returns at once: see [`ended`](Self::ended).
    pub(crate) async fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id().unwrap());
        assert!(Command::new("sh").args(["-c", &kill]).status().await.unwrap().success());
    }

    /// Waits for a clean exit. A shutdown that cuts open connections logs a warning, which fails this.
    pub(crate) async fn ended(mut self) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it did not end").unwrap();
        let mut stderr = String::new();
        if let Some(mut reader) = self.stderr {
            reader.read_to_string(&mut stderr).await.unwrap();
        }
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert_eq!(stderr, "", "stderr is empty");
    }

    /// Takes the log, which is complete when the service has ended. It is read from now on, so that a long log does not stop the
    /// service.
    pub(crate) fn log(&mut self) -> JoinHandle<String> {
        let mut stderr = self.stderr.take().unwrap();
        tokio::spawn(async move {
            let mut log = String::new();
            stderr.read_to_string(&mut log).await.unwrap();
            log
        })
    }

    pub(crate) async fn end(self) {
        self.terminate().await;
        self.ended().await;
    }
}

/// The output of an example that exits by itself.
pub(crate) async fn output(name: &str, arguments: &[&str]) -> Output {
    let output = command(name).args(arguments).kill_on_drop(true).output();
    timeout(PATIENCE, output).await.expect("it did not end").unwrap()
}

/// The program of an example, at the path where `cargo build` puts it.
fn command(name: &str) -> Command {
    let this_test = std::env::current_exe().unwrap();
    let target: PathBuf = this_test.ancestors().nth(2).unwrap().into();
    let program = target.join("examples").join(format!("{name}{EXE_SUFFIX}"));
    assert!(
        program.is_file(),
        "{} is missing: run `cargo build --workspace --examples` first, as ./test does",
        program.display()
    );
    Command::new(program)
}
