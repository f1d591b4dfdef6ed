//! The tools of other tests: servers that can be stopped, killed and restarted, and a relay that fails on command.

mod postgres;
mod redis;
mod relay;

use std::{env, fs, path::Path, process::Stdio, time::Duration};

use tests::hosts::within;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

/// Whether a process runs. A zombie does not count.
fn lives(pid: &str) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid).join("status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

/// Runs the test of this name, which calls this, in another process. There, `start` starts servers and returns them and the IDs of
/// their processes. Kills that test, and waits until the processes have ended.
async fn ends_with_its_test<T>(name: &str, start: impl AsyncFnOnce() -> (T, Vec<String>)) {
    const INNER: &str = "TOLLGATE_TEST_TO_KILL";
    if env::var_os(INNER).is_some() {
        let (_servers, pids) = start().await;
        println!("\nprocesses {}", pids.join(" "));
        return std::future::pending().await;
    }

    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(INNER, "1").stdout(Stdio::piped()).kill_on_drop(true);
    let mut inner = command.spawn().unwrap();
    let mut lines = BufReader::new(inner.stdout.take().unwrap()).lines();
    let pids = loop {
        let line = within(lines.next_line()).await.unwrap().unwrap();
        if let Some(pids) = line.strip_prefix("processes ") {
            break pids.split(' ').map(str::to_owned).collect::<Vec<_>>();
        }
    };
    assert!(pids.iter().all(|pid| lives(pid)));

    inner.kill().await.unwrap();
    within(async {
        while pids.iter().any(|pid| lives(pid)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
