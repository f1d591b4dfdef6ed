//! A primary, its replica, and the sentinels that watch them.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, sync::Arc};

use super::{
    Redis, Setup,
    home::{Home, Role},
};
use crate::server::{elsewhere, wait_for, wait_until};

/// A primary with one replica, and three sentinels, of which two must agree. Dropped, all end and delete their files.
///
/// A primary that does not answer for a second is replaced by the replica. On a machine without load, this takes about 2 s from
/// its death.
#[derive(Debug)]
pub struct RedisSentinels {
    servers: [Redis; 2],
    sentinels: [Redis; 3],
}

impl RedisSentinels {
    /// The name of the primary, for which clients ask sentinels.
    pub const MASTER_NAME: &str = "tollgate";

    /// Starts Redis without a password, and waits until the sentinels know one another and the replica.
    pub async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    /// The same with another program or settings. The user is one of the servers: sentinels have none.
    pub async fn start_with(setup: Setup) -> Self {
        elsewhere(move || {
            let primary = Redis::launch(setup.clone(), Role::Single);
            let replica = Redis::launch(setup.clone(), Role::Replica(primary.address()));
            wait_until("the replica has its first copy", || replica.home.follows());
            let role = Role::Sentinel(primary.address());
            let sentinels = [(); 3].map(|()| Redis::launch(setup.clone(), role));
            for sentinel in &sentinels {
                hurry(&sentinel.home);
                wait_until("the sentinels know one another", || knows_all(&sentinel.home));
            }
            Self { servers: [primary, replica], sentinels }
        })
        .await
    }

    /// The URLs of the sentinels.
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Redis::url).collect()
    }

    /// The sentinels.
    pub fn sentinels(&mut self) -> &mut [Redis] {
        &mut self.sentinels
    }

    /// The primary and the replica, in no particular order.
    pub fn servers(&mut self) -> &mut [Redis] {
        &mut self.servers
    }

    /// What a client must trust. None without TLS.
    pub fn root_certificate(&self) -> Option<&str> {
        self.servers.iter().find_map(Redis::root_certificate)
    }

    /// The server that a sentinel names as primary: for some seconds also one that was killed or paused.
    pub async fn primary(&mut self) -> &mut Redis {
        let sentinels = running(&self.sentinels);
        let find =
            move || wait_for("a sentinel answers", || sentinels.first().and_then(|home| primary(home)));
        let address = elsewhere(find).await;
        self.servers.iter_mut().find(|server| server.address() == address).expect("one of the servers")
    }

    /// Kills the primary, and returns its address. The replica then takes its place: see
    /// [`until_it_serves`](Self::until_it_serves).
    pub async fn kill_primary(&mut self) -> SocketAddr {
        let primary = self.primary().await;
        primary.kill().await;
        primary.address()
    }

    /// Waits until all running sentinels name the same running server, and it is a primary. Fails the test after a minute.
    pub async fn until_it_serves(&self) {
        let (sentinels, servers) = (running(&self.sentinels), running(&self.servers));
        elsewhere(move || wait_until("there is a primary", || serves(&sentinels, &servers))).await;
    }

    /// Starts the server that was killed, without data, and waits until it follows the primary.
    ///
    /// Wait [`until_it_serves`](Self::until_it_serves) before: a primary that comes back before it was replaced stays primary,
    /// and its replica deletes its own data.
    pub async fn restart_killed(&mut self) {
        let primary = self.primary().await.address();
        for server in self.servers.iter_mut().filter(|server| server.process.is_none()) {
            server.restart().await;
            let home = Arc::clone(&server.home);
            elsewhere(move || {
                // Sentinels do this as well, but on a busy machine they have needed more than a minute.
                home.ask(&["REPLICAOF", &primary.ip().to_string(), &primary.port().to_string()]);
                wait_until("the restarted server is a replica", || home.follows());
            })
            .await;
        }
    }
}

fn running(servers: &[Redis]) -> Vec<Arc<Home>> {
    let running = servers.iter().filter(|server| server.is_running());
    running.map(|server| Arc::clone(&server.home)).collect()
}

/// Has a sentinel tell the others every 200 ms what it knows, and ask the servers every 500 ms what they are. The default periods
/// are 2 s and 10 s, so that they would need so long to find one another, and to give a restarted server its new primary.
fn hurry(sentinel: &Home) {
    sentinel.ask(&["SENTINEL", "DEBUG", "PUBLISH-PERIOD", "200", "INFO-PERIOD", "500"]);
}

fn knows_all(sentinel: &Home) -> bool {
    // Names and values, on lines in turn.
    let text = sentinel.ask(&["SENTINEL", "MASTER", RedisSentinels::MASTER_NAME]);
    let lines: Vec<&str> = text.lines().collect();
    let is = |name, value| lines.windows(2).any(|pair| *pair == [name, value]);
    is("flags", "master") && is("num-slaves", "1") && is("num-other-sentinels", "2")
}

/// The primary that a sentinel names.
fn primary(sentinel: &Home) -> Option<SocketAddr> {
    let address = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", RedisSentinels::MASTER_NAME]);
    let (ip, port) = address.split_once('\n')?;
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

fn serves(sentinels: &[Arc<Home>], servers: &[Arc<Home>]) -> bool {
    servers.iter().any(|server| {
        sentinels.iter().all(|sentinel| primary(sentinel) == Some(server.address()))
            && server.replicates(&["role:master"])
    })
}
