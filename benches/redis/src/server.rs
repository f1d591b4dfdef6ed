//! A Redis server for one run.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tollgate_redis::Redis;

/// Ends when it is dropped.
pub(crate) struct Server {
    process: Child,
    url: String,
    _folder: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is missing: install the package redis-server");
        let server = Self { process, url: format!("redis://127.0.0.1:{port}"), _folder: folder };
        while redis::Client::open(server.url.as_str()).unwrap().get_connection().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server
    }

    /// A connection without Tollgate.
    pub(crate) async fn bare(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url.as_str()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    pub(crate) async fn manager(&self) -> redis::aio::ConnectionManager {
        redis::Client::open(self.url.as_str()).unwrap().get_connection_manager().await.unwrap()
    }

    /// A connection as a process has it.
    pub(crate) async fn connect(&self) -> Redis {
        Redis::connect(self.url.as_str()).await.unwrap()
    }

    /// How many commands clients have sent, without those of scripts.
    pub(crate) async fn trips(&self) -> u64 {
        let statistics: String =
            redis::cmd("INFO").arg("commandstats").query_async(&mut self.bare().await).await.unwrap();
        let calls = |name: &str| -> u64 {
            let start = format!("cmdstat_{name}:calls=");
            let line = statistics.lines().find_map(|line| line.strip_prefix(&start));
            line.and_then(|rest| rest.split(',').next()).map_or(0, |calls| calls.parse().unwrap())
        };
        calls("evalsha") + calls("eval")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
