//! A Redis Cluster.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{net::SocketAddr, sync::Arc};

use super::{
    Redis, Setup,
    home::{Home, Role},
};
use crate::server::{elsewhere, wait_for, wait_until};

/// A cluster of three primaries with a replica each. Dropped, it ends and deletes its files.
///
/// A primary that does not answer for a second is replaced by its replica. On a machine without load, this takes about 2 s from
/// its death.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

/// The slots of each primary.
const SLOTS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];

impl RedisCluster {
    /// Starts a cluster of Redis without a password, and waits until every node serves.
    pub async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    /// The same with another program or settings.
    pub async fn start_with(setup: Setup) -> Self {
        elsewhere(move || {
            let nodes = (0..2 * SLOTS.len()).map(|_| Redis::launch(setup.clone(), Role::ClusterNode));
            let cluster = Self { nodes: nodes.collect() };
            let homes = cluster.homes();
            join(&homes);
            wait_until("the cluster is whole", || is_whole(&homes));
            cluster
        })
        .await
    }

    /// The URLs of all nodes, also of killed ones.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// All nodes: three primaries and three replicas, in no particular order.
    pub fn nodes(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }

    /// What a client must trust. None without TLS.
    pub fn root_certificate(&self) -> Option<&str> {
        self.nodes.iter().find_map(Redis::root_certificate)
    }

    /// The node that serves a key, as others see it: for some seconds also a node that was killed or paused.
    pub async fn primary_of(&mut self, key: &str) -> &mut Redis {
        let (running, key) = (self.running(), key.to_owned());
        let address = elsewhere(move || {
            wait_for("a node serves the key", || running.iter().find_map(|home| primary_of(home, &key)))
        })
        .await;
        self.nodes.iter_mut().find(|node| node.address() == address).expect("a node of this cluster")
    }

    /// Kills the node that serves a key, and returns its address. Its replica then takes its place: see
    /// [`until_it_serves`](Self::until_it_serves).
    pub async fn kill_primary_of(&mut self, key: &str) -> SocketAddr {
        let primary = self.primary_of(key).await;
        primary.kill().await;
        primary.address()
    }

    /// Waits until every running node serves, and sees a running node for each slot. Fails the test after a minute.
    pub async fn until_it_serves(&self) {
        let running = self.running();
        elsewhere(move || wait_until("the cluster serves", || serves(&running))).await;
    }

    /// Starts all nodes that were killed, without data, and waits until each node serves and has its data again.
    ///
    /// Wait [`until_it_serves`](Self::until_it_serves) before: a primary that comes back before it was replaced stays primary,
    /// and its replica deletes its own data.
    pub async fn restart_killed(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.process.is_none()) {
            node.restart().await;
        }
        let homes = self.homes();
        elsewhere(move || wait_until("the cluster is whole", || is_whole(&homes))).await;
    }

    /// Sends a command to the node that serves this key, like [`Redis::cli`].
    pub async fn cli(&mut self, key: &str, command: &[&str]) -> String {
        self.primary_of(key).await.cli(command).await
    }

    /// Deletes all keys.
    pub async fn flush(&self) {
        let running = self.running();
        elsewhere(move || {
            for home in running {
                // A replica refuses, and follows its primary.
                let refused = home.cli(&["FLUSHALL"]).err();
                assert!(refused.as_ref().is_none_or(|error| error.starts_with("READONLY")), "{refused:?}");
            }
        })
        .await;
    }

    fn homes(&self) -> Vec<Arc<Home>> {
        self.nodes.iter().map(|node| Arc::clone(&node.home)).collect()
    }

    fn running(&self) -> Vec<Arc<Home>> {
        let running = self.nodes.iter().filter(|node| node.is_running());
        running.map(|node| Arc::clone(&node.home)).collect()
    }
}

/// Makes a cluster of new nodes.
fn join(homes: &[Arc<Home>]) {
    let (primaries, replicas) = homes.split_at(SLOTS.len());
    for (epoch, (home, (start, end))) in (1..).zip(primaries.iter().zip(SLOTS)) {
        home.ask(&["CLUSTER", "ADDSLOTSRANGE", start, end]);
        // Only while it knows no other node. With equal ones, the nodes would have to agree first.
        home.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &format!("{epoch}")]);
    }
    for home in homes.iter().skip(1) {
        let (address, bus_port) = (home.address(), home.bus_port().to_string());
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        homes[0].ask(&["CLUSTER", "MEET", &ip, &port, &bus_port]);
    }
    for (replica, primary) in replicas.iter().zip(primaries) {
        let id = primary.ask(&["CLUSTER", "MYID"]);
        // It cannot follow a node that it does not know yet.
        wait_until("the nodes have met", || replica.cli(&["CLUSTER", "REPLICATE", &id]).is_ok());
    }
}

/// Whether each node serves, and every replica has the data of its primary.
fn is_whole(homes: &[Arc<Home>]) -> bool {
    homes.iter().filter(|home| home.follows()).count() == SLOTS.len()
        && serves(homes)
        && homes.iter().all(|home| knows_all(home))
}

/// Whether a node sees all of them, and none of them as failed.
fn knows_all(home: &Home) -> bool {
    let nodes = nodes(home);
    let is_up = |node: &Node| {
        let wrong = ["fail", "fail?", "handshake", "noaddr"];
        !node.flags.split(',').any(|flag| wrong.contains(&flag))
    };
    nodes.len() == 2 * SLOTS.len()
        && nodes.iter().all(is_up)
        && nodes.iter().filter(|node| node.flags.contains("slave")).count() == SLOTS.len()
}

/// Whether each of these nodes serves, and sees one of these for each slot.
fn serves(running: &[Arc<Home>]) -> bool {
    running.iter().all(|home| {
        home.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            && nodes(home)
                .iter()
                .filter(|node| node.has_slots)
                .all(|node| running.iter().any(|home| node.address == home.address()))
    })
}

/// What a node knows of another one, or of itself.
struct Node {
    address: SocketAddr,
    flags: String,
    has_slots: bool,
}

fn nodes(home: &Home) -> Vec<Node> {
    // `07c37df… 127.0.0.1:17001@17501,hostname slave,fail e7d1eec… 0 1426238317239 4 connected 0-5460`
    let lines = home.ask(&["CLUSTER", "NODES"]);
    let nodes = lines.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (address, _) = fields.next()?.split_once('@')?;
        // A node in handshake can have no address yet.
        let address = address.parse().ok()?;
        Some(Node { address, flags: fields.next()?.to_owned(), has_slots: fields.nth(5).is_some() })
    });
    nodes.collect()
}

/// Where a node sees the key: it serves the key itself, or names the node that does. None while it sees none.
fn primary_of(home: &Home, key: &str) -> Option<SocketAddr> {
    match home.cli(&["EXISTS", key]) {
        Ok(_) => Some(home.address()),
        Err(error) => error.strip_prefix("MOVED ")?.split(' ').nth(1)?.parse().ok(),
    }
}
