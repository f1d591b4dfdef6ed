//! Makes the connections of the pool, each in a task of its own and within a deadline of its own.
//!
//! Connecting takes some nine round trips, and a lookup takes one. So a lookup that waits for a new connection may give up. The
//! connection is still made, and the next lookup gets it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    runtime::Handle as Runtime,
    sync::{oneshot, watch},
    time::{Instant, timeout},
};

use crate::{
    database::connection::{Query, Value, bound},
    fault::Fault,
};

/// An older connection is replaced, so that connections spread again after a failover behind a load balancer.
const MAX_AGE: Duration = Duration::from_mins(30);

/// How long a graceful close may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// How each new connection is made.
pub(super) struct Setup {
    pub(super) options: PgConnectOptions,
    /// The statements that it runs first.
    pub(super) script: String,
    /// The queries that it runs once, which prepares them: after that, each takes one round trip.
    pub(super) warm_up: Vec<Query>,
    /// How long all this may take.
    pub(super) limit: Duration,
    pub(super) runtime: Runtime,
}

pub(super) struct Connector(Arc<Inner>);

struct Inner {
    setup: Setup,
    state: Mutex<State>,
    /// Each open connection has a receiver of it.
    open: watch::Sender<()>,
}

/// There are never more connections underway and ready than callers have waited. So the pool's size bounds all of them.
#[derive(Default)]
struct State {
    waiting: VecDeque<oneshot::Sender<Result<Session, Fault>>>,
    underway: usize,
    /// Made for callers who have given up.
    ready: Vec<Session>,
    /// How often all connections were dropped. Connections that were underway then are not counted in `underway`.
    round: u64,
    is_closed: bool,
}

pub(super) struct Session {
    pub(super) connection: PgConnection,
    opened_at: Instant,
    /// When the server last answered.
    pub(super) answered_at: Instant,
    /// Whether it may be used again. `false` while it is in use.
    pub(super) is_ready: bool,
    _open: watch::Receiver<()>,
}

impl Connector {
    pub(super) fn new(setup: Setup) -> Self {
        Self(Arc::new(Inner { setup, state: Mutex::default(), open: watch::Sender::new(()) }))
    }

    pub(super) fn setup(&self) -> &Setup {
        &self.0.setup
    }

    /// Drops the connections that are ready, and no longer counts those that are underway.
    pub(super) fn drop_ready(&self) {
        let mut state = self.0.state();
        state.ready.clear();
        state.underway = 0;
        state.round += 1;
    }

    /// Makes no more connections, and waits until all of them are closed.
    pub(super) async fn close(&self) {
        let ready = {
            let mut state = self.0.state();
            state.is_closed = true;
            std::mem::take(&mut state.ready)
        };
        for session in ready {
            session.close().await;
        }
        self.0.open.closed().await;
    }
}

impl Manager for Connector {
    type Type = Session;
    type Error = Fault;

    async fn create(&self) -> Result<Session, Fault> {
        match Inner::request(&self.0) {
            Ok(session) => Ok(session),
            Err(made) => made.await.unwrap_or(Err(Fault::Stopped)),
        }
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<Fault> {
        if session.is_ready && session.opened_at.elapsed() < MAX_AGE {
            Ok(())
        } else {
            Err(RecycleError::message("too old, or dropped during use"))
        }
    }
}

impl Inner {
    /// A connection that is ready, or one that is underway.
    fn request(self: &Arc<Self>) -> Result<Session, oneshot::Receiver<Result<Session, Fault>>> {
        let mut state = self.state();
        if let Some(session) = state.ready.pop() {
            return Ok(session);
        }
        let (sender, made) = oneshot::channel();
        state.waiting.retain(|caller| !caller.is_closed());
        state.waiting.push_back(sender);
        if state.underway < state.waiting.len() {
            state.underway += 1;
            let (connector, round) = (Arc::clone(self), state.round);
            self.setup.runtime.spawn(async move {
                let made = timeout(connector.setup.limit, connector.make()).await;
                connector.deliver(made.unwrap_or(Err(Fault::TimedOut)), round);
            });
        }
        Err(made)
    }

    /// Gives a connection, or the error, to the first caller that still waits.
    fn deliver(&self, mut made: Result<Session, Fault>, round: u64) {
        let mut state = self.state();
        if state.round == round {
            state.underway = state.underway.saturating_sub(1);
        }
        while let Some(caller) = state.waiting.pop_front() {
            match caller.send(made) {
                Ok(()) => return,
                Err(back) => made = back,
            }
        }
        if let Ok(session) = made
            && state.round == round
            && !state.is_closed
        {
            state.ready.push(session);
        }
    }

    async fn make(&self) -> Result<Session, Fault> {
        let Setup { options, script, warm_up, .. } = &self.setup;
        let mut connection = options.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(script.clone())).execute(&mut connection).await?;
        for Query { sql, values } in warm_up {
            let query = bound!(sqlx::query(AssertSqlSafe(sql.clone())), values.iter().cloned());
            match query.fetch_optional(&mut connection).await {
                // There are no tables yet.
                Ok(_) | Err(sqlx::Error::Database(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let now = Instant::now();
        let open = self.open.subscribe();
        Ok(Session { connection, opened_at: now, answered_at: now, is_ready: true, _open: open })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics between two related changes, so a panic on another thread leaves the value valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    pub(super) async fn close(self) {
        let _ = timeout(CLOSE_LIMIT, self.connection.close()).await;
    }
}
