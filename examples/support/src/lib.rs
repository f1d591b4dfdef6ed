//! Shared by the examples: the command line, the log, the ready line, a graceful shutdown with a deadline, and a clock that can be
//! moved.
#![forbid(unsafe_code)]

pub mod clock;

use std::{
    error::Error,
    future::Future,
    io::{self, IsTerminal},
    net::SocketAddr,
    time::Duration,
};

use axum::Router;
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use serde_json::{Map, Value};
use tokio::{net::TcpListener, sync::watch, time::sleep};
use tollgate::key::ApiKey;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// How long open requests and streams may take after a shutdown is requested.
const GRACE: Duration = Duration::from_secs(5);

/// A listening socket on which an example serves.
#[derive(Debug)]
pub struct Host {
    listener: TcpListener,
    address: SocketAddr,
    announced: Map<String, Value>,
    shutdown: watch::Sender<bool>,
}

#[derive(Parser)]
// Without a group: its name would be the struct's name, and conflict with an example's own `Arguments`.
#[group(skip)]
struct Arguments<Own: Args> {
    /// Address to listen on; port 0 takes a free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[command(flatten)]
    own: Own,
}

impl Host {
    /// Parses the command line, logs to stderr, and listens. `--help` prints `about`. An unknown argument ends the process with a
    /// message and exit code 2.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(about: &'static str) -> Result<Self, Box<dyn Error>> {
        let (host, ()) = Self::start_with(about).await?;
        Ok(host)
    }

    /// Like [`start`](Self::start), with additional arguments.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start_with<Own: Args>(about: &'static str) -> Result<(Self, Own), Box<dyn Error>> {
        Self::start_logging(about, LevelFilter::INFO).await
    }

    /// Like [`start_with`](Self::start_with), but refusals are not logged unless `RUST_LOG` says so.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start_quietly_with<Own: Args>(about: &'static str) -> Result<(Self, Own), Box<dyn Error>> {
        Self::start_logging(about, LevelFilter::WARN).await
    }

    async fn start_logging<Own: Args>(
        about: &'static str,
        level: LevelFilter,
    ) -> Result<(Self, Own), Box<dyn Error>> {
        let arguments = Arguments::<Own>::command().about(about).get_matches();
        let Arguments { listen, own } =
            Arguments::from_arg_matches(&arguments).unwrap_or_else(|error| error.exit());

        let level = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
        tracing_subscriber::fmt()
            .with_env_filter(level)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .init();

        let listener = TcpListener::bind(listen).await.map_err(|error| {
            format!("cannot listen on {listen}: {error}; choose another address with --listen")
        })?;
        let address = listener.local_addr()?;
        Ok((Self { listener, address, announced: Map::new(), shutdown: watch::Sender::new(false) }, own))
    }

    /// The service's URL: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a member to the ready line.
    pub fn announce(&mut self, name: &str, value: Value) {
        self.announced.insert(name.to_owned(), value);
    }

    /// A shutdown signal for connections that do not end by themselves.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.shutdown.subscribe())
    }

    /// Prints the ready line, then serves HTTP/1.1 and HTTP/2 until SIGTERM or Ctrl-C.
    ///
    /// The ready line is one JSON object on stdout: the `url`, and the `credentials` to try.
    ///
    /// # Errors
    /// If the signal handlers cannot be installed.
    pub async fn serve(
        self,
        app: impl Into<Router>,
        credentials: &[(impl AsRef<str>, impl Secret)],
    ) -> Result<(), Box<dyn Error>> {
        // Before the ready line, because its reader may stop the service at once.
        let termination = termination()?;
        let credentials: Map<String, Value> = credentials
            .iter()
            .map(|(name, secret)| (name.as_ref().to_owned(), secret.expose_secret().into()))
            .collect();
        let mut ready = self.announced.clone();
        ready.insert("url".to_owned(), self.url().into());
        ready.insert("credentials".to_owned(), credentials.into());
        println!("{}", Value::Object(ready));

        let shutdown = self.shutdown.clone();
        let begin_shutdown = async move {
            termination.await;
            tracing::info!("shutting down");
            shutdown.send_replace(true);
        };
        // Limits by client address need the peer's address.
        let service = app.into().into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(self.listener, service).with_graceful_shutdown(begin_shutdown);
        let mut shutdown = Shutdown(self.shutdown.subscribe());
        tokio::select! {
            result = async {
                serving.await?;
                // The server does not wait for upgraded connections. They have ended when every `Shutdown` is dropped.
                self.shutdown.closed().await;
                Ok(())
            } => result,
            () = async {
                shutdown.requested().await;
                drop(shutdown);
                sleep(GRACE).await;
            } => {
                tracing::warn!("shut down with connections still open");
                Ok(())
            }
        }
    }
}

/// The secret of a credential. Only the ready line prints it.
pub trait Secret {
    /// The secret itself.
    fn expose_secret(&self) -> &str;
}

impl Secret for ApiKey {
    fn expose_secret(&self) -> &str {
        self.expose_secret()
    }
}

/// A legacy secret, which is not an [`ApiKey`].
impl Secret for &str {
    fn expose_secret(&self) -> &str {
        self
    }
}

/// An access token.
impl Secret for String {
    fn expose_secret(&self) -> &str {
        self
    }
}

/// Signals long-lived connections that the service shuts down. The service waits up to 5 seconds until every `Shutdown` is
/// dropped.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// A signal that never comes, for tests.
    pub fn never() -> Self {
        Self(watch::Sender::new(false).subscribe())
    }

    /// Waits until a shutdown is requested.
    pub async fn requested(&mut self) {
        if self.0.wait_for(|is_requested| *is_requested).await.is_err() {
            // The sender is gone, so no shutdown can be requested.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
fn termination() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn termination() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
