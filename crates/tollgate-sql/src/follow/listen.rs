//! PostgreSQL: listens for the notifications of other processes, and checks that they would arrive.

use std::{sync::Arc, time::Duration};

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};

use super::{message::Message, recheck::recheck};
use crate::{
    connect_error::ConnectError, database::postgres::Pool, event::Event, fault::Fault, shared::Shared,
};

/// The pause before another attempt to connect: the first one, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

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
async fn keep_listening(shared: &Shared, pool: &Pool, mut listener: PgListener) {
    loop {
        let fault = receive(shared, listener).await;
        tracing::warn!(target: "tollgate", detail = %fault, "key change notifications interrupted");
        pool.drop_idle();
        shared.notifier.disconnected();
        let mut backoff = BACKOFF.0;
        listener = loop {
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
            let limit = shared.settings.heartbeat.saturating_mul(2).max(BACKOFF.1);
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
async fn listen(shared: &Shared, pool: &Pool) -> Result<PgListener, Fault> {
    let Some(channel) = &shared.channel else { return Err(Fault::Stopped) };
    // A listener needs a pool, and keeps its connection permanently.
    let own = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
        .connect_lazy_with(pool.connect_options());
    let mut listener = PgListener::connect_with(&own).await?;
    listener.ignore_pool_close_event(true);
    // An automatic reconnect would hide that notifications were missed.
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    // A pooler in transaction mode accepts LISTEN, and does not deliver notifications.
    let (limit, channel) = (shared.settings.admin_deadline, channel.clone());
    let probe = shared.database.read(limit, |connection| {
        let values = [channel.into(), Message::PROBE.into()];
        Box::pin(connection.execute("SELECT pg_notify($1, $2)", values))
    });
    probe.await?;
    loop {
        let Some(received) = listener.try_recv().await? else { return Err(connection_closed()) };
        if let Message::Probe = process(shared, received.payload()).await? {
            return Ok(listener);
        }
    }
}

/// Receives notifications until none would arrive any more, and returns why.
async fn receive(shared: &Shared, mut listener: PgListener) -> Fault {
    let heartbeat = shared.settings.heartbeat;
    // The last quarter of the two heartbeats of `staleness_bound` is for the delays of a busy machine.
    let limit = heartbeat.mul_f32(0.75);
    let mut beats = interval_at(Instant::now() + heartbeat, heartbeat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let received = tokio::select! {
            received = listener.try_recv() => received,
            _ = beats.tick() => {
                // On the connection that notifications use: a firewall can drop it alone, in silence.
                let beat = sqlx::query("SELECT 1").execute(&mut listener);
                match timeout(limit, beat).await {
                    Ok(Ok(_)) => continue,
                    Ok(Err(error)) => return error.into(),
                    Err(_) => return Fault::TimedOut,
                }
            }
        };
        let processed = match received {
            Ok(Some(received)) => process(shared, received.payload()).await,
            Ok(None) => Err(connection_closed()),
            Err(error) => Err(error.into()),
        };
        if let Err(fault) = processed {
            return fault;
        }
    }
}

/// Publishes what a notification reports.
async fn process(shared: &Shared, payload: &str) -> Result<Message, Fault> {
    let message = Message::read(payload);
    match &message {
        Message::Event(event) => shared.notifier.publish_reported(event),
        Message::LookUp(generation) => {
            let generation = *generation;
            let event = shared.database.read(shared.settings.deadline, |connection| {
                Box::pin(async move {
                    let sql = "SELECT generation, key_id, tenant, ended FROM tollgate_history WHERE generation = $1";
                    connection.row(sql, [generation.into()]).await?.map(|row| Event::read(&row)).transpose()
                })
            });
            let event = event.await?.and_then(|event| event.to_store_event());
            shared.notifier.publish_reported(&event.ok_or(Fault::Unreadable("an entry of the history"))?);
        }
        Message::Probe => {}
        // To reconnect reads everything again.
        Message::Unknown => return Err(Fault::Unreadable("a notification")),
    }
    Ok(message)
}

fn connection_closed() -> Fault {
    Fault::Database(sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into()))
}
