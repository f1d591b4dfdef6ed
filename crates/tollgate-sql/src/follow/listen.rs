//! PostgreSQL: listens for the notifications of other processes, and checks that they would arrive.

use std::{sync::Arc, time::Duration};

use sqlx::{
    AssertSqlSafe,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout},
};

use super::recheck::recheck;
use crate::{
    connect_error::ConnectError,
    database::{Row, postgres::Pool},
    event::Event,
    fault::Fault,
    message::{Message, PROBE},
    shared::Shared,
};

/// The pause before another attempt to connect: the first one, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long an attempt to connect and to receive a notification may take, at least. It takes some 14 round trips.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(4);

/// The least time between two reads of the history. In a flood of notifications, one read answers all that have arrived meanwhile.
const READ_INTERVAL: Duration = Duration::from_millis(20);

/// The most notifications that one read answers, and the most events that one statement reads.
const BATCH: usize = 1_000;

/// A connection on which notifications arrive.
struct Listener {
    connection: PgListener,
    /// The highest generation that was read from the history.
    last: i64,
}

pub(super) async fn follow(
    shared: &Arc<Shared>,
    pool: &Arc<Pool>,
    mut stopped: watch::Receiver<()>,
) -> Result<JoinHandle<()>, ConnectError> {
    let listener = timeout(shared.settings.admin_deadline, listen(shared, pool)).await;
    let listener = listener
        .unwrap_or(Err(Fault::TimedOut))
        .map_err(|fault| ConnectError::NoNotifications(fault.to_string().into()))?;
    shared.notifier.connected();
    let (shared, pool) = (Arc::clone(shared), Arc::clone(pool));
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = stopped.changed() => {}
            () = keep_listening(&shared, &pool, listener) => {}
        }
        shared.notifier.disconnected();
    }))
}

/// Listens, and connects again whenever the connection is lost. Never returns.
async fn keep_listening(shared: &Shared, pool: &Arc<Pool>, mut listener: Listener) {
    loop {
        let fault = answer(shared, pool, listener).await;
        tracing::warn!(target: "tollgate", detail = %fault, "key change notifications interrupted");
        pool.drop_idle();
        shared.notifier.disconnected();
        let mut backoff = BACKOFF.0;
        listener = loop {
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
            let limit = shared.settings.heartbeat.saturating_mul(2).max(ATTEMPT_LIMIT);
            if let Ok(Ok(listener)) = timeout(limit, listen(shared, pool)).await {
                // Nothing is missed from here on. The recheck finds what was missed before.
                if recheck(shared).await.is_ok() {
                    break listener;
                }
            }
        };
        shared.notifier.connected();
        tracing::info!(target: "tollgate", "key change notifications restored");
    }
}

/// A listener that has received a notification of this process.
async fn listen(shared: &Shared, pool: &Pool) -> Result<Listener, Fault> {
    let Some(channel) = &shared.channel else { return Err(Fault::Stopped) };
    // A listener needs a pool, and keeps its connection permanently.
    let own = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
        .connect_lazy_with(pool.connect_options());
    let mut connection = PgListener::connect_with(&own).await?;
    connection.ignore_pool_close_event(true);
    // An automatic reconnect would hide that notifications were missed.
    connection.eager_reconnect(false);
    connection.listen(channel).await?;
    // A pooler in transaction mode accepts LISTEN, and does not deliver notifications.
    let (limit, channel) = (shared.settings.admin_deadline, channel.clone());
    let probe = shared.database.read(limit, |connection| {
        let values = [channel.into(), PROBE.into()];
        Box::pin(connection.execute("SELECT pg_notify($1, $2)", values))
    });
    probe.await?;
    while receive(&mut connection).await? != Message::Probe {}
    // Earlier notifications are of changes that the caller sees anyway: it reads the tables after this.
    let last = shared.database.read(limit, |connection| {
        Box::pin(async move {
            let sql = "SELECT COALESCE(MAX(generation), 0) FROM tollgate_history";
            connection.row(sql, []).await?.map_or(Ok(0), |row| row.number(0))
        })
    });
    Ok(Listener { connection, last: last.await? })
}

async fn receive(connection: &mut PgListener) -> Result<Message, Fault> {
    match connection.try_recv().await? {
        Some(received) => Ok(Message::read(received.payload())),
        None => Err(Fault::Database(sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into()))),
    }
}

/// Answers notifications until the connection fails, and returns the reason.
async fn answer(shared: &Shared, pool: &Arc<Pool>, mut listener: Listener) -> Fault {
    let heartbeat = shared.settings.heartbeat;
    // The last quarter of the two heartbeats of `staleness_bound` is for the delays of a busy machine.
    let limit = heartbeat.mul_f32(0.75);
    let mut beats = interval_at(Instant::now() + heartbeat, heartbeat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_read = Instant::now();
    let mut tests: Option<JoinHandle<()>> = None;
    loop {
        let received = tokio::select! {
            received = receive(&mut listener.connection) => received,
            _ = beats.tick() => {
                // On the connection that notifications use: a firewall can drop it alone, in silence.
                let beat = sqlx::query("SELECT 1").execute(&mut listener.connection);
                match timeout(limit, beat).await {
                    Ok(Ok(_)) => {
                        if tests.as_ref().is_none_or(JoinHandle::is_finished) {
                            let pool = Arc::clone(pool);
                            // Ends by itself, at the latest when the deadline of its last test has passed.
                            tests = Some(tokio::spawn(async move { pool.test_idle(heartbeat / 2).await }));
                        }
                        continue;
                    }
                    Ok(Err(error)) => return error.into(),
                    Err(_) => return Fault::TimedOut,
                }
            }
        };
        let read = match received {
            Ok(Message::Probe) => continue,
            Ok(first) => listener.read_history(shared, first, next_read),
            Err(fault) => return fault,
        };
        match timeout(limit, read).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => return fault,
            Err(_) => return Fault::TimedOut,
        }
        next_read = Instant::now() + READ_INTERVAL;
    }
}

impl Listener {
    /// Publishes the changes of this notification, and of those that arrive until this instant. An unknown or invented one costs no
    /// more than this read. It reads on the listener's own connection, so that it waits for no other query.
    async fn read_history(
        &mut self,
        shared: &Shared,
        first: Message,
        not_before: Instant,
    ) -> Result<(), Fault> {
        let mut messages = vec![first];
        while messages.len() < BATCH {
            tokio::select! {
                biased;
                received = receive(&mut self.connection) => messages.push(received?),
                () = sleep_until(not_before) => break,
            }
        }
        sleep_until(not_before).await;
        // A change may commit after another one with a higher generation: its notification names it.
        let mut named: Vec<_> = messages.iter().filter_map(Message::generation).collect();
        loop {
            let events = self.events(&named).await?;
            for event in &events {
                self.last = self.last.max(event.generation);
                if let Some(event) = event.to_store_event() {
                    shared.notifier.publish_reported(&event);
                }
            }
            if events.len() < BATCH {
                return Ok(());
            }
            // The named events up to `last` are read: they come first, and are no more than `BATCH`. The others come after `last`.
            named.clear();
        }
    }

    /// The events with these generations, and those after the last one.
    async fn events(&mut self, named: &[i64]) -> Result<Vec<Event>, Fault> {
        let named: Vec<_> = named.iter().map(i64::to_string).collect();
        let either = if named.is_empty() {
            String::new()
        } else {
            format!(" OR generation IN ({})", named.join(", "))
        };
        let sql = format!(
            "SELECT generation, key_id, tenant, ended FROM tollgate_history WHERE generation > {}{either} \
             ORDER BY generation LIMIT {BATCH}",
            self.last
        );
        let query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
        let rows = query.fetch_all(&mut self.connection).await?;
        rows.into_iter().map(|row| Event::read(&Row::Postgres(row))).collect()
    }
}
