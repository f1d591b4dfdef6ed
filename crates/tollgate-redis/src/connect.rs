//! Opens connections.

#[cfg(feature = "cluster")]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, Cmd, RedisError, RedisResult, Value,
    aio::{MultiplexedConnection, PubSub},
};

use crate::{ConnectError, RedisSettings, settings::Servers};

/// How long a new connection may take until it answers, in deadlines: it needs several round trips.
const DEADLINES_TO_CONNECT: u32 = 10;

/// An open connection, which all requests share.
#[derive(Clone)]
pub(crate) enum Connection {
    One(MultiplexedConnection),
    #[cfg(feature = "cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

impl Connection {
    pub(crate) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        let reply = match self {
            Self::One(connection) => connection.send_packed_command(command).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(connection) => {
                use redis::aio::ConnectionLike as _;
                connection.req_packed_command(command).await
            }
        };
        reply?.extract_error()
    }

    /// Sends a command that names no key to the server that has this one.
    pub(crate) async fn send_to_server_of(&mut self, key: &str, command: &Cmd) -> RedisResult<Value> {
        match self {
            #[cfg(feature = "cluster")]
            Self::Cluster(connection) => {
                use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
                let route = SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master));
                let reply = connection.route_command(command.clone(), RoutingInfo::SingleNode(route)).await;
                reply?.extract_error()
            }
            Self::One(_) => {
                let _ = key;
                self.send(command).await
            }
        }
    }
}

/// Opens connections to the servers of some settings.
pub(crate) struct Connector {
    servers: Prepared,
    // What errors call them.
    name: String,
    deadline: Duration,
}

enum Prepared {
    One(Client),
    #[cfg(feature = "cluster")]
    Cluster(Box<redis::cluster::ClusterClient>, Nodes),
    #[cfg(feature = "sentinel")]
    Sentinels(tokio::sync::Mutex<redis::sentinel::SentinelClient>),
}

/// The nodes of a cluster whose URLs are known, one after another: each of them delivers what is published on any.
#[cfg(feature = "cluster")]
struct Nodes {
    clients: Vec<Client>,
    next: AtomicUsize,
}

impl Connector {
    /// # Errors
    /// If the settings are wrong.
    pub(crate) fn new(settings: &RedisSettings) -> Result<Self, ConnectError> {
        let deadline = settings.deadline;
        let prepared = match &settings.servers {
            Servers::One(url) => prepare_one(url, settings).map(Prepared::One),
            #[cfg(feature = "cluster")]
            Servers::Cluster(urls) => prepare_cluster(urls, settings).and_then(|client| {
                let clients = prepare_nodes(urls, settings)?;
                Ok(Prepared::Cluster(client.into(), Nodes { clients, next: AtomicUsize::new(0) }))
            }),
            #[cfg(feature = "sentinel")]
            Servers::Sentinels { urls, primary, user } => {
                let client = prepare_sentinels(urls, primary, user.as_ref(), settings);
                client.map(|client| Prepared::Sentinels(client.into()))
            }
        };
        let servers = prepared.map_err(|error| {
            ConnectError::new(format!(
                "the URL of the Redis server is wrong, write it like redis://user:password@host:6379: {}",
                describe(&error)
            ))
        })?;
        let name = match &settings.servers {
            Servers::One(_) => "the Redis server".to_owned(),
            #[cfg(feature = "cluster")]
            Servers::Cluster(_) => "the Redis cluster".to_owned(),
            #[cfg(feature = "sentinel")]
            Servers::Sentinels { primary, .. } => {
                format!("the Redis server that the Sentinels name {primary:?}")
            }
        };
        Ok(Self { servers, name, deadline })
    }

    /// Opens a connection, and waits until it answers.
    pub(crate) async fn connect(&self) -> Result<Connection, ConnectError> {
        let most = self.deadline * DEADLINES_TO_CONNECT;
        let connected = tokio::time::timeout(most, async {
            let mut connection = self.open().await?;
            connection.send(&redis::cmd("PING")).await?;
            Ok(connection)
        });
        match connected.await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.error(&format!("cannot be reached: {}", describe(&error)))),
            Err(_) => Err(self.error(&format!("does not answer within {most:?}"))),
        }
    }

    fn error(&self, what: &str) -> ConnectError {
        ConnectError::new(format!(
            "{} {what}. Check the address, the user with its password and permissions, and whether the server expects TLS (rediss://)",
            self.name
        ))
    }

    /// Opens a connection of its own that receives what is published on these channels.
    pub(crate) async fn subscribe(&self, channels: &[&str]) -> Result<PubSub, ConnectError> {
        let most = self.deadline * DEADLINES_TO_CONNECT;
        let subscribed = tokio::time::timeout(most, async {
            let mut connection = self.open_for_messages().await?;
            connection.subscribe(channels).await?;
            Ok(connection)
        });
        match subscribed.await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.error(&format!("cannot be subscribed to: {}", describe(&error)))),
            Err(_) => Err(self.error(&format!("does not answer within {most:?}"))),
        }
    }

    async fn open_for_messages(&self) -> RedisResult<PubSub> {
        match &self.servers {
            Prepared::One(client) => client.get_async_pubsub().await,
            #[cfg(feature = "cluster")]
            Prepared::Cluster(_, nodes) => {
                // Another one each time: this one may be down.
                let next = nodes.next.fetch_add(1, Ordering::Relaxed);
                let client = nodes.clients.iter().cycle().nth(next % nodes.clients.len().max(1));
                let no_url = || RedisError::from((redis::ErrorKind::InvalidClientConfig, "no URL"));
                client.ok_or_else(no_url)?.get_async_pubsub().await
            }
            #[cfg(feature = "sentinel")]
            Prepared::Sentinels(client) => {
                let client = client.lock().await.async_get_client().await?;
                client.get_async_pubsub().await
            }
        }
    }

    async fn open(&self) -> RedisResult<Connection> {
        // Each command has a deadline of its own, which also covers the wait before it is sent. So has `connect`.
        let config = || AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        match &self.servers {
            Prepared::One(client) => {
                client.get_multiplexed_async_connection_with_config(&config()).await.map(Connection::One)
            }
            #[cfg(feature = "cluster")]
            Prepared::Cluster(client, _) => client.get_async_connection().await.map(Connection::Cluster),
            #[cfg(feature = "sentinel")]
            Prepared::Sentinels(client) => {
                let mut client = client.lock().await;
                client.get_async_connection_with_config(&config()).await.map(Connection::One)
            }
        }
    }
}

fn prepare_one(url: &str, settings: &RedisSettings) -> RedisResult<Client> {
    #[cfg(feature = "tls")]
    if let Some(certificates) = certificates(settings) {
        return Client::build_with_tls(url, certificates);
    }
    let _ = settings;
    Client::open(url)
}

#[cfg(feature = "tls")]
fn certificates(settings: &RedisSettings) -> Option<redis::TlsCertificates> {
    let root_cert = settings.root_certificate.clone()?;
    Some(redis::TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
}

#[cfg(feature = "cluster")]
fn prepare_cluster(urls: &[String], settings: &RedisSettings) -> RedisResult<redis::cluster::ClusterClient> {
    let builder = redis::cluster::ClusterClientBuilder::new(urls.iter().map(String::as_str))
        .connection_timeout(settings.deadline * DEADLINES_TO_CONNECT)
        .response_timeout(settings.deadline * DEADLINES_TO_CONNECT)
        .retries(3);
    #[cfg(feature = "tls")]
    if let Some(certificates) = certificates(settings) {
        return builder.certs(certificates).build();
    }
    builder.build()
}

/// A client of each node that has a URL, with the user and the password of the first one.
#[cfg(feature = "cluster")]
fn prepare_nodes(urls: &[String], settings: &RedisSettings) -> RedisResult<Vec<Client>> {
    use redis::IntoConnectionInfo as _;
    let mut of_first = None;
    let infos = urls.iter().map(|url| {
        let info = url.as_str().into_connection_info()?;
        let user = of_first.get_or_insert_with(|| info.redis_settings().clone()).clone();
        let info = info.set_redis_settings(user);
        #[cfg(feature = "tls")]
        if let Some(certificates) = certificates(settings) {
            return Client::build_with_tls(info, certificates);
        }
        let _ = settings;
        Client::open(info)
    });
    infos.collect()
}

#[cfg(feature = "sentinel")]
fn prepare_sentinels(
    urls: &[String],
    primary: &str,
    user: Option<&(String, String)>,
    settings: &RedisSettings,
) -> RedisResult<redis::sentinel::SentinelClient> {
    use redis::{
        IntoConnectionInfo as _, TlsMode,
        sentinel::{SentinelClientBuilder, SentinelServerType},
    };
    let infos =
        urls.iter().map(|url| url.as_str().into_connection_info()).collect::<RedisResult<Vec<_>>>()?;
    let addresses: Vec<_> = infos.iter().map(|info| info.addr().clone()).collect();
    let is_tls = addresses.iter().any(|address| matches!(address, redis::ConnectionAddr::TcpTls { .. }));
    let mut builder = SentinelClientBuilder::new(addresses, primary, SentinelServerType::Master)?;
    if let Some(first) = infos.first().map(redis::ConnectionInfo::redis_settings) {
        if let Some(user) = first.username() {
            builder = builder.set_client_to_sentinel_username(user);
        }
        if let Some(password) = first.password() {
            builder = builder.set_client_to_sentinel_password(password);
        }
    }
    if let Some((user, password)) = user {
        builder = builder.set_client_to_redis_username(user).set_client_to_redis_password(password);
    }
    if is_tls {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        #[cfg(feature = "tls")]
        if let Some(certificates) = certificates(settings) {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates);
        }
    }
    let _ = settings;
    builder.build()
}

/// What happened, without the URL.
pub(crate) fn describe(error: &RedisError) -> String {
    // The text of an I/O error has the reason, and nothing that was sent.
    if error.is_io_error() {
        return error.to_string();
    }
    let kind = error.code().unwrap_or_else(|| error.category());
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{kind}{detail}")
}
