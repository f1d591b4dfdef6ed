//! PostgreSQL: listens to what other processes tell, and finds out when it no longer would hear them.

use std::{sync::Arc, time::Duration};

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};

use super::{Event, message::Message, recheck::recheck};
use crate::{connect_error::ConnectError, database::postgres::Pool, fault::Fault, keys::Shared};

/// How long to wait before the link is made anew: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

pub(super) async fn follow(
    shared: &Arc<Shared>,
    pool: &Pool,
    mut stopped: watch::Receiver<()>,
) -> Result<JoinHandle<()>, ConnectError> {
    let listener = timeout(shared.settings.admin_deadline, listen(shared, pool)).await;
    let listener = match listener.unwrap_or(Err(Fault::TooSlow)) {
        Ok(listener) => listener,
        Err(fault) => return Err(ConnectError::NoNews(fault.to_string().into())),
    };
    shared.events.resumed();
    let (shared, pool) = (Arc::clone(shared), pool.clone());
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = stopped.changed() => {}
            () = keep_listening(&shared, &pool, listener) => {}
        }
        shared.events.lost();
    }))
}

/// Listens, for ever, and makes the link anew whenever it is lost.
async fn keep_listening(shared: &Shared, pool: &Pool, mut listener: PgListener) {
    loop {
        let fault = hear(shared, listener).await;
        tracing::warn!(target: "tollgate", detail = %fault, "news of keys are lost");
        pool.forget_idle();
        shared.events.lost();
        let mut backoff = BACKOFF.0;
        listener = loop {
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
            let limit = shared.settings.heartbeat.saturating_mul(2).max(BACKOFF.1);
            if let Ok(Ok(listener)) = timeout(limit, listen(shared, pool)).await {
                // From here on nothing is missed. What was missed before is looked up.
                if recheck(shared).await.is_ok() {
                    break listener;
                }
            }
        };
        shared.events.resumed();
        tracing::info!(target: "tollgate", "news of keys flow again");
    }
}

/// A link that is known to work.
async fn listen(shared: &Shared, pool: &Pool) -> Result<PgListener, Fault> {
    let Some(channel) = &shared.channel else { return Err(Fault::Stopped) };
    // A pool of its own, of one connection, which a listener takes for good.
    let own = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
        .connect_lazy_with(pool.options().clone());
    let mut listener = PgListener::connect_with(&own).await?;
    listener.ignore_pool_close_event(true);
    // It would make a new link without a word, and what was told meanwhile would be missed.
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    // A pooler that hands out connections by transaction takes the order to listen and forgets about it.
    let (limit, channel) = (shared.settings.admin_deadline, channel.clone());
    let trial = shared.database.read(limit, |connection| {
        let values = [channel.into(), Message::TRIAL.into()];
        Box::pin(connection.execute("SELECT pg_notify($1, $2)", values))
    });
    trial.await?;
    loop {
        let Some(heard) = listener.try_recv().await? else { return Err(closed()) };
        if let Message::Trial = take_in(shared, heard.payload()).await? {
            return Ok(listener);
        }
    }
}

/// Hears what is told, until nothing would be heard any more: why that is.
async fn hear(shared: &Shared, mut listener: PgListener) -> Fault {
    let heartbeat = shared.settings.heartbeat;
    // The last quarter of the two heartbeats that are promised is for a machine that has no time to notice.
    let patience = heartbeat.mul_f32(0.75);
    let mut beats = interval_at(Instant::now() + heartbeat, heartbeat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let heard = tokio::select! {
            heard = listener.try_recv() => heard,
            _ = beats.tick() => {
                // On the very connection by which news come: a proxy that silently stops passing on lets nothing through.
                let beat = sqlx::query("SELECT 1").execute(&mut listener);
                match timeout(patience, beat).await {
                    Ok(Ok(_)) => continue,
                    Ok(Err(error)) => return error.into(),
                    Err(_) => return Fault::TooSlow,
                }
            }
        };
        let taken_in = match heard {
            Ok(Some(heard)) => take_in(shared, heard.payload()).await,
            Ok(None) => Err(closed()),
            Err(error) => Err(error.into()),
        };
        if let Err(fault) = taken_in {
            return fault;
        }
    }
}

/// Tells on what was heard.
async fn take_in(shared: &Shared, payload: &str) -> Result<Message, Fault> {
    let message = Message::read(payload);
    match &message {
        Message::Event(change) => shared.events.hear(change),
        Message::LookUp(generation) => {
            let generation = *generation;
            let event = shared.database.read(shared.settings.deadline, |connection| {
                Box::pin(async move {
                    let sql = "SELECT generation, key_id, tenant, ended FROM tollgate_history WHERE generation = $1";
                    connection.row(sql, [generation.into()]).await?.map(|row| Event::read(&row)).transpose()
                })
            });
            let change = event.await?.and_then(|event| event.to_store_event());
            shared.events.hear(&change.ok_or(Fault::Unreadable("the history"))?);
        }
        Message::Trial => {}
        // All is forgotten and looked up again: the safe side.
        Message::Unknown => return Err(Fault::Unreadable("the news")),
    }
    Ok(message)
}

fn closed() -> Fault {
    Fault::Database(sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into()))
}
