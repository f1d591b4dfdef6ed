//! What the example services share: the command line, the log, the ready line, and an end that does not hang.
#![forbid(unsafe_code)]

use std::{
    error::Error,
    future::Future,
    io::{self, IsTerminal},
    net::SocketAddr,
    time::Duration,
};

use axum::Router;
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, sync::watch, time::sleep};
use tollgate::key::ApiKey;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// How long requests and streams that are still open may take once the service is asked to end.
const GRACE: Duration = Duration::from_secs(5);

/// A place on the network where an example runs its service.
#[derive(Debug)]
pub struct Host {
    listener: TcpListener,
    address: SocketAddr,
    shutdown: watch::Sender<bool>,
}

#[derive(Parser)]
// Without a group, whose name would be the struct's, and clash with that of an example's.
#[group(skip)]
struct Arguments<Own: Args> {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[command(flatten)]
    own: Own,
}

impl Host {
    /// Reads the command line, begins to log to stderr, and listens. `about` is what `--help` says. An argument that nobody
    /// knows ends the process with a message and exit code 2.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn start(about: &'static str) -> Result<Self, Box<dyn Error>> {
        let (host, ()) = Self::start_with(about).await?;
        Ok(host)
    }

    /// The same for an example that has arguments of its own.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn start_with<Own: Args>(about: &'static str) -> Result<(Self, Own), Box<dyn Error>> {
        let arguments = Arguments::<Own>::command().about(about).get_matches();
        let Arguments { listen, own } =
            Arguments::from_arg_matches(&arguments).unwrap_or_else(|error| error.exit());

        let level = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
        tracing_subscriber::fmt()
            .with_env_filter(level)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .init();

        let listener = TcpListener::bind(listen).await.map_err(|error| {
            format!("cannot listen on {listen}: {error}; choose another address with --listen")
        })?;
        let address = listener.local_addr()?;
        Ok((Self { listener, address, shutdown: watch::Sender::new(false) }, own))
    }

    /// Where the service is found: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For connections that would not end by themselves.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.shutdown.subscribe())
    }

    /// Prints the ready line, then serves HTTP/1.1 and HTTP/2 until SIGTERM or Ctrl-C.
    ///
    /// The ready line is one JSON object on stdout: the `url`, and the `credentials` to try it with.
    ///
    /// # Errors
    /// If the signals cannot be watched.
    pub async fn serve(
        self,
        app: Router,
        credentials: &[(impl AsRef<str>, impl Secret)],
    ) -> Result<(), Box<dyn Error>> {
        // Watched before the ready line is out: whoever reads it may end the service at once.
        let asked_to_end = asked_to_end()?;
        let credentials: Map<String, Value> = credentials
            .iter()
            .map(|(name, secret)| (name.as_ref().to_owned(), secret.expose_secret().into()))
            .collect();
        println!("{}", json!({ "url": self.url(), "credentials": credentials }));

        let shutdown = self.shutdown.clone();
        let begin_to_end = async move {
            asked_to_end.await;
            tracing::info!("ending");
            shutdown.send_replace(true);
        };
        // With the callers' addresses, for limits that count by them.
        let service = app.into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(self.listener, service).with_graceful_shutdown(begin_to_end);
        let mut shutdown = Shutdown(self.shutdown.subscribe());
        tokio::select! {
            result = async {
                serving.await?;
                // WebSockets have left the server's care: they end when nobody holds a `Shutdown` any more.
                self.shutdown.closed().await;
                Ok(())
            } => result,
            () = async {
                shutdown.requested().await;
                drop(shutdown);
                sleep(GRACE).await;
            } => {
                tracing::warn!("ended with connections still open");
                Ok(())
            }
        }
    }
}

/// By what a caller proves who they are. The ready line tells it, and nothing else does.
pub trait Secret {
    /// The secret itself.
    fn expose_secret(&self) -> &str;
}

impl Secret for ApiKey {
    fn expose_secret(&self) -> &str {
        self.expose_secret()
    }
}

/// One that was issued long ago, by something else.
impl Secret for &str {
    fn expose_secret(&self) -> &str {
        self
    }
}

/// Tells long-lived connections that the service is about to end. The service waits, for a few seconds, for those who hold
/// one.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// One that is never requested, for tests.
    pub fn never() -> Self {
        Self(watch::Sender::new(false).subscribe())
    }

    /// Waits until the service is asked to end.
    pub async fn requested(&mut self) {
        if self.0.wait_for(|is_requested| *is_requested).await.is_err() {
            // Nobody is left who could request it.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
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
fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
