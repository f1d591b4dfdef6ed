//! A Redis server for this fleet alone, on a free port of the loopback interface. It writes nothing to the disk.

use std::{
    env,
    error::Error,
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{self, Stdio},
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    time::sleep,
};
use tollgate_redis::Redis;

use crate::follower::command_of_its_own_group;

/// A running server. Killed when dropped.
pub(crate) struct RedisServer {
    // Ends before its folder is deleted.
    child: Child,
    port: u16,
    _folder: Folder,
}

/// How often it is asked whether it is ready.
const TRIES: u32 = 100;

impl RedisServer {
    /// Starts it, and waits until it answers.
    pub(crate) async fn start(program: &Path) -> Result<Self, Box<dyn Error>> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let folder = Folder::new()?;
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--loglevel", "warning"]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(&folder.0);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command_of_its_own_group(command).kill_on_drop(true).spawn();
        let child = child.map_err(|error| match error.kind() {
            ErrorKind::NotFound => format!(
                "the program `{}` was not found: install Redis or Valkey, or say where it is with --redis-server PATH, or use a server \
                 that runs already with --redis redis://HOST:PORT",
                program.display()
            ),
            _ => format!("cannot start `{}`: {error}", program.display()),
        })?;
        let mut server = Self { child, port, _folder: folder };
        for _ in 0..TRIES {
            if Redis::connect(server.url()).await.is_ok() {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("`{}` has ended with {status}", program.display()).into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(format!("`{}` does not answer", program.display()).into())
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it. It has nothing to save.
    pub(crate) async fn end(mut self) -> Result<(), Box<dyn Error>> {
        self.child.kill().await?;
        Ok(())
    }
}

/// A folder, deleted when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Box<dyn Error>> {
        let path = env::temp_dir().join(format!("tollgate_fleet_{}", process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
