//! A process that holds keys: the program `keyholder`.

use std::{
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use http::StatusCode;
use tests::hosts::{Connection, within};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// A running `keyholder`. Killed when dropped.
pub(crate) struct Keyholder {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Keyholder {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_keyholder"))
            .args(arguments)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line of its output; `None` at the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        within(self.lines.next_line()).await.unwrap()
    }

    /// Kills it with `SIGKILL`, and waits for its end. Earlier output can still be read.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}

/// A service in another process.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    _keyholder: Keyholder,
}

impl Service {
    pub(crate) async fn start(database: &str) -> Self {
        Self::start_with(&["serve", database]).await
    }

    /// A service that learns by Redis what other processes change.
    pub(crate) async fn start_by_redis(database: &str, redis: &str) -> Self {
        Self::start_with(&["serve", database, redis]).await
    }

    async fn start_with(arguments: &[&str]) -> Self {
        let mut keyholder = Keyholder::start(arguments);
        let line = keyholder.line().await.unwrap();
        let address = line.strip_prefix("listening ").unwrap().parse().unwrap();
        Self { address, _keyholder: keyholder }
    }

    pub(crate) async fn caller(&self) -> Caller {
        Caller(Connection::http1(self.address).await)
    }
}

pub(crate) struct Caller(Connection);

impl Caller {
    pub(crate) async fn status(&mut self, key: &str) -> StatusCode {
        self.0.get("/", Some(key)).await.status()
    }

    /// Asks until the answer is `expected`. The test's timeout ends an endless wait.
    pub(crate) async fn until(&mut self, key: &str, expected: StatusCode) {
        within(async {
            while self.status(key).await != expected {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Asks with a key that has ended until the answer is 401, and returns how long that took. After `bound`, no request may be
    /// allowed. A 503 is not counted: on a busy machine, a lookup can exceed its deadline.
    pub(crate) async fn until_refused(&mut self, key: &str, bound: Duration) -> Duration {
        let ended = Instant::now();
        within(async {
            loop {
                let asked = ended.elapsed();
                match self.status(key).await {
                    StatusCode::UNAUTHORIZED => return ended.elapsed(),
                    StatusCode::OK => assert!(asked < bound, "allowed {asked:?} after the key ended"),
                    other => assert_eq!(other, StatusCode::SERVICE_UNAVAILABLE),
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
    }
}
