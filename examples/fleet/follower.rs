//! Another instance, as a process of its own.
//!
//! It reads its orders from standard input, and ends when that is closed: so it does not outlive the process that has started it. On
//! standard output, it writes its ready line, and then its counts, as lines of JSON.

use std::{env, error::Error, process::Stdio, time::Duration};

use serde_json::Value;
use support::Host;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, stdin},
    process::{Child, ChildStdout, Command},
    time::{interval, timeout},
};

use crate::{
    counts::{Counts, Windows},
    instance::{Instance, Orders},
};

/// How often a process tells its counts.
const PERIOD: Duration = Duration::from_millis(200);

/// How long a process may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Another instance, from the outside. Killed when dropped.
pub(crate) struct Follower {
    child: Child,
    pub(crate) url: String,
    pub(crate) counts: Counts,
}

impl Follower {
    /// Starts this program again, and waits until it serves.
    pub(crate) async fn start(number: usize, orders: &Orders) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(env::current_exe()?);
        command.arg(format!("--instance={number}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command_of_its_own_group(command).kill_on_drop(true).spawn()?;
        let (Some(stdin), Some(stdout)) = (&mut child.stdin, child.stdout.take()) else {
            return Err("the pipes of a new process are missing".into());
        };
        // On a command line, other users of this machine could read the secrets.
        stdin.write_all(format!("{}\n", serde_json::to_string(orders)?).as_bytes()).await?;

        let mut lines = BufReader::new(stdout).lines();
        let ready = timeout(PATIENCE, lines.next_line()).await??.ok_or("an instance has not started")?;
        let ready: Value = serde_json::from_str(&ready)?;
        let url = ready.get("url").and_then(Value::as_str).ok_or("an instance has no URL")?.to_owned();
        let counts = Counts::default();
        tokio::spawn(receive(lines, counts.clone()));
        Ok(Self { child, url, counts })
    }

    /// Ends it, and waits for its end.
    pub(crate) async fn end(mut self) -> Result<(), Box<dyn Error>> {
        drop(self.child.stdin.take());
        let status = timeout(PATIENCE, self.child.wait()).await??;
        if status.success() { Ok(()) } else { Err(format!("an instance has ended with {status}").into()) }
    }
}

async fn receive(mut lines: Lines<BufReader<ChildStdout>>, counts: Counts) {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(windows) = serde_json::from_str::<Windows>(&line) {
            counts.set(windows);
        }
    }
}

/// Ctrl-C on a terminal ends only the first process, which then ends the others.
pub(crate) fn command_of_its_own_group(mut command: Command) -> Command {
    #[cfg(unix)]
    command.process_group(0);
    command
}

/// Serves as another instance until standard input is closed.
pub(crate) async fn run(host: Host, number: usize) -> Result<(), Box<dyn Error>> {
    let mut input = BufReader::new(stdin());
    let mut orders = String::new();
    input.read_line(&mut orders).await?;
    let orders: Orders = serde_json::from_str(&orders)?;
    let Instance { app, limiter, counts } = Instance::new(number, &orders).await?;
    let mut rest = Vec::new();
    // The first instance has printed them.
    let no_credentials: [(&str, &str); 0] = [];
    let outcome = tokio::select! {
        outcome = host.serve(app, &no_credentials) => outcome,
        () = tell(counts) => Ok(()),
        _ = input.read_to_end(&mut rest) => Ok(()),
    };
    limiter.close().await;
    outcome
}

async fn tell(counts: Counts) {
    let mut period = interval(PERIOD);
    // The first tick is at once, before the ready line.
    period.tick().await;
    loop {
        period.tick().await;
        if let Ok(line) = serde_json::to_string(&counts.get()) {
            println!("{line}");
        }
    }
}
