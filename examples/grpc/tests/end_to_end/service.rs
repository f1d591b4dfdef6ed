//! The example as a running process.

use std::{
    env::{self, consts::EXE_SUFFIX},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The running example. Killed when dropped.
pub(crate) struct Service {
    child: Child,
    ready: Value,
}

impl Service {
    /// Starts the example and waits for its ready line.
    pub(crate) async fn start() -> Self {
        let program = folder(2).join("examples").join(format!("grpc{EXE_SUFFIX}"));
        assert!(
            program.is_file(),
            "{} is missing: run `cargo build -p grpc --examples` first, as ./test does",
            program.display()
        );
        let mut child = Command::new(program)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, stdout.next_line()).await.expect("no ready line").unwrap().unwrap();
        Self { child, ready: serde_json::from_str(&line).unwrap() }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> &str {
        self.ready["url"].as_str().unwrap().strip_prefix("http://").unwrap()
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
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).await.unwrap();
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert_eq!(stderr, "", "stderr is empty");
    }

    pub(crate) async fn end(self) {
        self.terminate().await;
        self.ended().await;
    }
}

/// A folder above the program of this test, which is in `target/debug/deps`: 1 is `deps`, 3 is `target`.
pub(crate) fn folder(levels: usize) -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(levels).unwrap().into()
}
