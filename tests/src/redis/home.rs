//! What stays the same across restarts of a server: its address and its files.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::{
    RedisSentinels,
    certificate::Certificate,
    setup::{Setup, User},
};
use crate::server::{
    folder::{Folder, in_memory, open},
    process::{Process, ends_with_its_thread},
    wait_until,
};

const PORTS: Range<u16> = 17_000..17_500;

/// The nodes of a cluster talk to one another on a port of their own, so much higher.
const TO_BUS_PORT: u16 = 500;

/// The password of the user who may do everything, if there are passwords.
const ADMIN_PASSWORD: &str = "of-the-test";

#[derive(Debug)]
pub(super) struct Home {
    setup: Setup,
    role: Role,
    folder: Folder,
}

/// What a server is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Single,
    ClusterNode,
    /// Follows a primary.
    Replica(SocketAddr),
    /// Watches a primary, and replaces it.
    Sentinel(SocketAddr),
}

impl Home {
    /// A folder with a configuration file.
    pub(super) fn new(setup: Setup, role: Role) -> Self {
        let folder = Folder::take(&in_memory("redis"), PORTS);
        let home = Self { setup, role, folder };
        if let Some(Certificate { root, own, key }) = &home.setup.certificate {
            home.write(ROOT, root);
            home.write(CERTIFICATE, own);
            home.write(KEY, key);
        }
        home.write(CONFIGURATION, &home.configuration().join("\n"));
        home
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.file(file), text).expect("a file of our own");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.folder.port()).into()
    }

    pub(super) fn bus_port(&self) -> u16 {
        self.folder.port() + TO_BUS_PORT
    }

    pub(super) fn url(&self) -> String {
        let scheme = if self.setup.certificate.is_some() { "rediss" } else { "redis" };
        let user = match self.user() {
            Some(User { name, password, .. }) => format!("{name}:{password}@"),
            None => String::new(),
        };
        format!("{scheme}://{user}{}", self.address())
    }

    pub(super) fn root_certificate(&self) -> Option<&str> {
        Some(&self.setup.certificate.as_ref()?.root)
    }

    /// The user of the setup. Sentinels have none.
    fn user(&self) -> Option<&User> {
        self.setup.user.as_ref().filter(|_| !self.is_sentinel())
    }

    fn is_sentinel(&self) -> bool {
        matches!(self.role, Role::Sentinel(_))
    }

    /// The lines of the configuration file.
    fn configuration(&self) -> Vec<String> {
        let folder = self.folder.path().display();
        let mut lines = vec!["bind 127.0.0.1".to_owned(), format!("dir {folder}")];
        lines.extend(self.listener());
        if !self.is_sentinel() {
            lines.extend(NOTHING_IS_KEPT.map(str::to_owned));
            lines.extend(self.users());
            lines.extend(self.setup.settings.clone());
        }
        lines.extend(self.role_settings());
        lines
    }

    fn listener(&self) -> Vec<String> {
        let port = self.folder.port();
        if self.setup.certificate.is_none() {
            return vec![format!("port {port}")];
        }
        vec![
            "port 0".to_owned(),
            format!("tls-port {port}"),
            format!("tls-ca-cert-file {}", self.file(ROOT).display()),
            format!("tls-cert-file {}", self.file(CERTIFICATE).display()),
            format!("tls-key-file {}", self.file(KEY).display()),
            // Clients need no certificate.
            "tls-auth-clients no".to_owned(),
            "tls-replication yes".to_owned(),
            "tls-cluster yes".to_owned(),
        ]
    }

    fn users(&self) -> Vec<String> {
        let Some(User { name, password, rules }) = self.user() else { return Vec::new() };
        vec![
            format!("user default on >{ADMIN_PASSWORD} ~* &* +@all"),
            format!("user {name} on >{password} {rules}"),
            format!("masterauth {ADMIN_PASSWORD}"),
        ]
    }

    fn role_settings(&self) -> Vec<String> {
        match self.role {
            Role::Single => Vec::new(),
            Role::ClusterNode => vec![
                "cluster-enabled yes".to_owned(),
                format!("cluster-port {}", self.bus_port()),
                // In milliseconds. A primary that does not answer for so long is replaced.
                "cluster-node-timeout 1000".to_owned(),
                // A replica stays with its primary.
                "cluster-allow-replica-migration no".to_owned(),
            ],
            Role::Replica(primary) => vec![format!("replicaof {} {}", primary.ip(), primary.port())],
            Role::Sentinel(primary) => {
                let name = RedisSentinels::MASTER_NAME;
                let mut lines = vec![
                    format!("sentinel monitor {name} {} {} 2", primary.ip(), primary.port()),
                    // In milliseconds. The second one is how long a failed attempt lasts.
                    format!("sentinel down-after-milliseconds {name} 1000"),
                    format!("sentinel failover-timeout {name} 5000"),
                ];
                if self.setup.user.is_some() {
                    lines.push(format!("sentinel auth-pass {name} {ADMIN_PASSWORD}"));
                }
                lines
            }
        }
    }

    /// Starts the server, and waits until it answers.
    pub(super) fn start(&self) -> Process {
        let mut process = Process::start("redis", self.server(), "KILL");
        wait_until("the server answers", || {
            if let Some(end) = process.end() {
                let log = fs::read_to_string(self.folder.log()).unwrap_or_default();
                panic!("Redis has ended ({end}):\n{log}");
            }
            self.cli(&["PING"]).is_ok()
        });
        process
    }

    fn server(&self) -> Command {
        let log = open(&self.folder.log());
        let mut command = ends_with_its_thread("KILL");
        command.arg("--").arg(self.setup.program.path()).arg(self.file(CONFIGURATION));
        if self.is_sentinel() {
            command.arg("--sentinel");
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file of our own")).stderr(log);
        command
    }

    /// The same as [`cli`](Self::cli), for a command that cannot fail.
    pub(super) fn ask(&self, command: &[&str]) -> String {
        self.cli(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Whether it is a replica, and has the data of its primary.
    pub(super) fn follows(&self) -> bool {
        self.replicates(&["role:slave", "master_link_status:up"])
    }

    /// Whether all of this stands in what it tells about its replication.
    ///
    /// A sentinel that gives it another role closes its connections, so a failed command means: ask again.
    pub(super) fn replicates(&self, how: &[&str]) -> bool {
        self.cli(&["INFO", "replication"]).is_ok_and(|text| how.iter().all(|line| text.contains(line)))
    }

    /// Sends a command, as the user who may do everything.
    pub(super) fn cli(&self, command: &[impl AsRef<str>]) -> Result<String, String> {
        let mut cli = Command::new("redis-cli");
        // `-e` distinguishes an error from a text.
        cli.args(["-e", "-h", "127.0.0.1", "-p", &self.folder.port().to_string()]);
        if self.setup.certificate.is_some() {
            cli.arg("--tls").arg("--cacert").arg(self.file(ROOT));
        }
        match self.user() {
            Some(_) => cli.env("REDISCLI_AUTH", ADMIN_PASSWORD),
            None => cli.env_remove("REDISCLI_AUTH"),
        };
        cli.args(command.iter().map(AsRef::as_ref)).stdin(Stdio::null());
        let output = cli.output().expect("`redis-cli` starts; it is part of redis-tools");
        let text = |bytes| String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

/// What a server holds is lost when it ends, and replicas wait no longer than necessary for the first copy.
const NOTHING_IS_KEPT: [&str; 3] = [r#"save """#, "rdb-del-sync-files yes", "repl-diskless-sync-delay 0"];

const CONFIGURATION: &str = "conf";
const ROOT: &str = "root.pem";
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";
