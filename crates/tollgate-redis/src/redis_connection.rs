//! The connection that everything shares, and what happens while it is down.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tollgate_core::denial::Unavailable;

use crate::{
    ConnectError, RedisSettings,
    connect::{Connection, Connector, describe},
};

/// A connection to Redis or Valkey, which limits, places and events share. A clone is a handle of the same connection.
///
/// # While the server is down
///
/// A command waits at most its [deadline](RedisSettings::with_deadline). After a lost connection, or after three commands in a row that
/// were not answered in time, the connection is *down*: commands fail at once, and no request waits. A task of this connection, and no
/// request, then tries to reach the server: first after 50 ms, later once a second. Both turns are logged once each, as `WARN` and
/// `INFO`. The task ends with the last handle. While the connection is up, the task sends a `PING` each second to a single server: so an
/// outage is also noticed while no request is sent, and while all callers hang up before the deadline. A server that refuses commands,
/// because the user lacks a permission or the memory is full, is logged as `WARN` at most once a minute.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    settings: RedisSettings,
    connector: Arc<Connector>,
    state: Mutex<State>,
    // How many commands in a row were not answered in time.
    unanswered: AtomicU32,
    went_down: Notify,
    // When a refused command was logged last.
    refused: Mutex<Option<Instant>>,
    runtime: Handle,
}

struct State {
    connection: Option<Connection>,
    // The number of connections so far: a late failure of an old one does not end the present one.
    number: u64,
}

/// How many commands in a row may be unanswered before the connection is down.
const MOST_UNANSWERED: u32 = 3;

const LATE: &str = "it does not answer in time";

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

impl Redis {
    /// Connects, and waits until the server answers.
    ///
    /// # Errors
    /// If the settings are wrong, or the server cannot be reached. Call it in a tokio runtime.
    pub async fn connect(settings: impl Into<RedisSettings>) -> Result<Self, ConnectError> {
        let settings = settings.into();
        let connector = Connector::new(&settings)?;
        let connection = connector.connect().await?;
        Ok(Self::start(settings, connector, Some(connection)))
    }

    /// Does not wait for the server: until it answers, the connection is down. So a service can start while Redis is down.
    ///
    /// # Errors
    /// If the settings are wrong.
    #[expect(clippy::unused_async, reason = "it needs a runtime, as `connect` does")]
    pub async fn connect_in_background(settings: impl Into<RedisSettings>) -> Result<Self, ConnectError> {
        let settings = settings.into();
        let connector = Connector::new(&settings)?;
        tracing::warn!(name: "tollgate.redis_down", "Redis is down until the first connection");
        Ok(Self::start(settings, connector, None))
    }

    fn start(settings: RedisSettings, connector: Connector, connection: Option<Connection>) -> Self {
        let connector = Arc::new(connector);
        let shared = Arc::new(Shared {
            settings,
            connector: Arc::clone(&connector),
            state: Mutex::new(State { number: 0, connection }),
            unanswered: AtomicU32::new(0),
            went_down: Notify::new(),
            refused: Mutex::new(None),
            runtime: Handle::current(),
        });
        tokio::spawn(keep_connected(Arc::downgrade(&shared), connector));
        Self { shared }
    }

    /// Whether the server answers, as far as is known.
    pub fn is_up(&self) -> bool {
        self.shared.state().connection.is_some()
    }

    /// The number of connections so far.
    pub(crate) fn number(&self) -> u64 {
        self.shared.state().number
    }

    pub(crate) fn settings(&self) -> &RedisSettings {
        &self.shared.settings
    }

    /// What opens other connections to the same server.
    pub(crate) fn connector(&self) -> &Connector {
        &self.shared.connector
    }

    /// The runtime in which this was connected.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.shared.runtime
    }

    /// Sends a command, and waits for its reply until the deadline.
    ///
    /// # Errors
    /// If the connection is down, the server does not answer in time, or answers that it cannot do this now.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value, SendError> {
        self.deliver(command, None).await
    }

    /// Runs a script. `command` makes `EVALSHA` with its hash, or `EVAL` with its source, for a server that does not have it yet.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub(crate) async fn run(
        &self,
        script: &Script,
        source: &str,
        command: impl Fn(&str, &str) -> Cmd,
    ) -> Result<Value, SendError> {
        match self.send(&command("EVALSHA", script.get_hash())).await {
            Err(error) if error.is_of(ServerErrorKind::NoScript) => self.send(&command("EVAL", source)).await,
            reply => reply,
        }
    }

    /// [Sends](Self::send) a command that names no key, to the server of a cluster that has this one.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub(crate) async fn send_to_server_of(&self, key: &str, command: &Cmd) -> Result<Value, SendError> {
        self.deliver(command, Some(key)).await
    }

    /// Counts a command of the connection with this number that was dropped at its deadline.
    pub(crate) fn count_late(&self, number: u64) {
        self.shared.count_unanswered(number, LATE);
    }

    async fn deliver(&self, command: &Cmd, server_of: Option<&str>) -> Result<Value, SendError> {
        let (mut connection, number) = {
            let state = self.shared.state();
            let connection = state.connection.clone().ok_or(SendError::Down)?;
            (connection, state.number)
        };
        let sent = async {
            match server_of {
                None => connection.send(command).await,
                Some(key) => connection.send_to_server_of(key, command).await,
            }
        };
        match timeout(self.shared.settings.deadline, sent).await {
            Ok(Ok(reply)) => {
                self.shared.unanswered.store(0, Ordering::Relaxed);
                Ok(reply)
            }
            Ok(Err(error)) => {
                if ends_connection(&error) {
                    // The connection to a cluster finds its servers again by itself, and others may still answer.
                    if self.shared.settings.is_cluster() {
                        self.shared.count_unanswered(number, &describe(&error));
                    } else {
                        self.shared.end_connection(number, &describe(&error));
                    }
                } else if error.kind() != ErrorKind::Server(ServerErrorKind::NoScript) {
                    self.shared.log_refused(&describe(&error));
                }
                Err(SendError::Failed(error))
            }
            Err(_) => {
                self.count_late(number);
                Err(SendError::Late(self.shared.settings.deadline))
            }
        }
    }
}

/// Why a command has no reply.
#[derive(Debug)]
pub(crate) enum SendError {
    Down,
    Late(Duration),
    Failed(RedisError),
    Unreadable,
}

impl SendError {
    pub(crate) fn is_of(&self, kind: ServerErrorKind) -> bool {
        matches!(self, Self::Failed(error) if error.kind() == ErrorKind::Server(kind))
    }
}

impl From<SendError> for Unavailable {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Down => Self::new("Redis is down"),
            SendError::Late(deadline) => Self::new(format!("Redis has not answered within {deadline:?}")),
            SendError::Unreadable => Self::new("the reply of Redis cannot be read"),
            SendError::Failed(error) => {
                Self::new(format!("Redis has refused a command: {}", describe(&error)))
            }
        }
    }
}

/// Whether no other command would succeed on the connection: it is closed, the server was demoted to a replica, or it no longer knows
/// the user.
fn ends_connection(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || error.is_io_error()
        || matches!(
            error.kind(),
            ErrorKind::AuthenticationFailed
                | ErrorKind::Server(
                    ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading
                )
        )
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is an assignment, so a panic on another thread leaves the value valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_unanswered(&self, number: u64, why: &str) {
        if self.state().number == number
            && self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_UNANSWERED
        {
            self.end_connection(number, why);
        }
    }

    /// Otherwise limits would be counted by each process alone, and the log would not say why.
    fn log_refused(&self, why: &str) {
        let now = Instant::now();
        let mut last = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now.duration_since(last) >= LOG_REFUSED_EVERY) {
            *last = Some(now);
            drop(last);
            tracing::warn!(name: "tollgate.redis_refused", "Redis has refused a command: {why}");
        }
    }

    fn end_connection(&self, number: u64, why: &str) {
        {
            let mut state = self.state();
            if state.number != number || state.connection.is_none() {
                return;
            }
            state.connection = None;
        }
        tracing::warn!(name: "tollgate.redis_down", "Redis is down: {why}");
        self.went_down.notify_one();
    }

    fn begin_connection(&self, connection: Connection) {
        {
            let mut state = self.state();
            state.number += 1;
            state.connection = Some(connection);
        }
        self.unanswered.store(0, Ordering::Relaxed);
        tracing::info!(name: "tollgate.redis_up", "Redis is up");
    }
}

/// How often a single server is asked whether it answers, and how soon the task ends after the last handle.
const CHECK_EVERY: Duration = Duration::from_secs(1);

const LOG_REFUSED_EVERY: Duration = Duration::from_secs(60);

/// Connects again after each loss, until the last handle is dropped.
async fn keep_connected(shared: Weak<Shared>, connector: Arc<Connector>) {
    let mut wait = FIRST_RETRY;
    loop {
        let Some(present) = shared.upgrade() else { return };
        let is_up = present.state().connection.is_some();
        if is_up {
            wait = FIRST_RETRY;
            let went_down = timeout(CHECK_EVERY, present.went_down.notified()).await.is_ok();
            // The connection to a cluster looks after its servers by itself.
            if !went_down && !present.settings.is_cluster() {
                // A failure ends the connection, or is counted.
                let _ = Redis { shared: present }.send(&redis::cmd("PING")).await;
            }
            continue;
        }
        drop(present);
        sleep(wait).await;
        wait = (wait * 2).min(LAST_RETRY);
        let connected = connector.connect().await;
        let Some(present) = shared.upgrade() else { return };
        match connected {
            Ok(connection) => present.begin_connection(connection),
            Err(error) => tracing::debug!(name: "tollgate.redis_still_down", "{error}"),
        }
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("settings", &self.shared.settings)
            .field("is_up", &self.is_up())
            .finish_non_exhaustive()
    }
}
