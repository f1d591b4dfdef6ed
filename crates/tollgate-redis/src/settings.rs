//! How to reach a server.

use std::{fmt, time::Duration};

/// How to reach a Redis or Valkey server, and how long to wait for it.
///
/// ```
/// use std::time::Duration;
/// use tollgate_redis::RedisSettings;
///
/// let settings = RedisSettings::new("redis://limits:secret@127.0.0.1:6379")
///     .with_deadline(Duration::from_millis(20))
///     .with_prefix("shop");
/// assert!(!format!("{settings:?}").contains("secret"));
/// ```
#[derive(Clone)]
pub struct RedisSettings {
    pub(crate) servers: Servers,
    pub(crate) deadline: Duration,
    pub(crate) prefix: String,
    #[cfg(feature = "tls")]
    pub(crate) root_certificate: Option<Vec<u8>>,
}

/// The servers' URLs: they can contain passwords.
#[derive(Clone)]
pub(crate) enum Servers {
    One(String),
    #[cfg(feature = "cluster")]
    Cluster(Vec<String>),
    #[cfg(feature = "sentinel")]
    Sentinels {
        urls: Vec<String>,
        primary: String,
        user: Option<(String, String)>,
    },
}

impl RedisSettings {
    /// The time that a command may take, unless [`with_deadline`](Self::with_deadline) changes it: 50 ms.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_millis(50);

    /// One server: `redis://host:6379`, `redis://user:password@host:6379/2`, `redis+unix:///run/redis.sock`, and with the feature `tls`
    /// `rediss://host:6379`.
    pub fn new(url: impl Into<String>) -> Self {
        Self::of(Servers::One(url.into()))
    }

    /// A Redis Cluster, found by some of its nodes. User and password are in the first URL.
    #[cfg(feature = "cluster")]
    pub fn cluster(urls: impl IntoIterator<Item: Into<String>>) -> Self {
        Self::of(Servers::Cluster(urls.into_iter().map(Into::into).collect()))
    }

    /// The primary that Sentinels know by this name. The URLs are the Sentinels', with their user and password if they have one.
    #[cfg(feature = "sentinel")]
    pub fn sentinel(primary: impl Into<String>, urls: impl IntoIterator<Item: Into<String>>) -> Self {
        let urls = urls.into_iter().map(Into::into).collect();
        Self::of(Servers::Sentinels { urls, primary: primary.into(), user: None })
    }

    fn of(servers: Servers) -> Self {
        Self {
            servers,
            deadline: Self::DEFAULT_DEADLINE,
            prefix: "tollgate".into(),
            #[cfg(feature = "tls")]
            root_certificate: None,
        }
    }

    /// The user and the password of the primary that [Sentinels](Self::sentinel) name. Without Sentinels they are in the URL, and this
    /// changes nothing.
    #[cfg(feature = "sentinel")]
    pub fn with_primary_user(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        if let Servers::Sentinels { user: of_primary, .. } = &mut self.servers {
            *of_primary = Some((user.into(), password.into()));
        }
        self
    }

    /// How long a command may take, at least one millisecond. After this time the server counts as unavailable for the request.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.max(Duration::from_millis(1));
        self
    }

    /// What the names of all keys in Redis begin with, `tollgate` by default. Services with different prefixes share nothing.
    ///
    /// A user of Redis needs the permissions `~tollgate:* +ping +time +get +set +del +eval +evalsha`, in a cluster also
    /// `+cluster|slots`, and with Sentinels `+role`. Places need `+zadd +zrem +zcard +zscore +zremrangebyscore +pttl +pexpire` as well,
    /// events `&tollgate:* +publish +subscribe`, and credits what [`RedisCredits`](crate::RedisCredits) names.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The certificate, in PEM format, of the authority that signed the servers' certificates, in place of the operating system's.
    #[cfg(feature = "tls")]
    pub fn with_root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Whether one request may need counters on several servers.
    pub(crate) fn is_cluster(&self) -> bool {
        match self.servers {
            Servers::One(_) => false,
            #[cfg(feature = "cluster")]
            Servers::Cluster(_) => true,
            #[cfg(feature = "sentinel")]
            Servers::Sentinels { .. } => false,
        }
    }
}

impl From<&str> for RedisSettings {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

impl From<String> for RedisSettings {
    fn from(url: String) -> Self {
        Self::new(url)
    }
}

/// Without the URLs, which can contain passwords.
impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("deadline", &self.deadline)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
