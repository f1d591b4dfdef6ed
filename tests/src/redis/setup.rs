//! Which program is started, and with which settings.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{env, path::PathBuf};

use super::certificate::Certificate;

/// The program of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Program {
    /// `redis-server`.
    #[default]
    Redis,
    /// `valkey-server`.
    Valkey,
}

impl Program {
    /// The programs that are installed. Redis always is: otherwise the test fails.
    ///
    /// Valkey is not packaged for every system. `./test` says so if it finds none.
    pub fn installed() -> Vec<Self> {
        Self::Redis.path();
        let valkey = Self::Valkey.find().map(|_| Self::Valkey);
        [Self::Redis].into_iter().chain(valkey).collect()
    }

    pub(super) fn path(self) -> PathBuf {
        self.find().unwrap_or_else(|| panic!("{} is not installed; `./test test` does that", self.name()))
    }

    fn find(self) -> Option<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        // `./test` can install it into the target folder.
        let test = env::current_exe().expect("a path");
        let target = test.ancestors().map(|folder| folder.join("python").join("bin"));
        env::split_paths(&path)
            .chain(target)
            .map(|folder| folder.join(self.name()))
            .find(|path| path.is_file())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Valkey => "valkey-server",
        }
    }
}

/// How servers are started. By default, it is Redis without a password and without TLS.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub(super) program: Program,
    pub(super) user: Option<User>,
    pub(super) certificate: Option<Certificate>,
    pub(super) settings: Vec<String>,
}

/// A user of the server.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: String,
    pub(super) rules: String,
}

impl Setup {
    /// Another program.
    pub fn of(program: Program) -> Self {
        Self { program, ..Self::default() }
    }

    /// Only this user can connect, with this password, and do what the rules of `ACL SETUSER` say: `~tollgate:* +@all`.
    ///
    /// The name and the password stand in the URL as they are, so letters and digits are best. Sentinels ask for no password.
    pub fn with_user(mut self, name: &str, password: &str, rules: &str) -> Self {
        let (name, password, rules) = (name.to_owned(), password.to_owned(), rules.to_owned());
        self.user = Some(User { name, password, rules });
        self
    }

    /// Accepts nothing but TLS, also between servers. The certificate is for `127.0.0.1` and `localhost`, by an authority of this
    /// setup's own.
    ///
    /// The Valkey that `./test` installs where Debian has none was built without TLS.
    pub fn with_tls(mut self) -> Self {
        self.certificate = Some(Certificate::new());
        self
    }

    /// Adds a line to the configuration file, though not to that of sentinels: `maxmemory 2mb`.
    pub fn with_setting(mut self, line: &str) -> Self {
        self.settings.push(line.to_owned());
        self
    }
}
