//! SQLite: polls the file for changes by other processes.

use std::sync::Arc;

use sqlx::{Row as _, SqliteConnection};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use super::recheck::recheck;
use crate::{
    connect_error::ConnectError,
    database::{Connection, sqlite::Pools},
    event::Event,
    fault::Fault,
    shared::Shared,
};

/// How many events one statement reads.
const BATCH: i64 = 1_000;

/// What was seen of the file last.
struct Seen {
    /// `PRAGMA data_version` reports changes by other connections than the one that asks.
    connection: SqliteConnection,
    data_version: i64,
}

pub(super) async fn follow(
    shared: &Arc<Shared>,
    pools: &Pools,
    mut stopped: watch::Receiver<()>,
) -> Result<JoinHandle<()>, ConnectError> {
    let refused = |fault: Fault| ConnectError::from_fault(&fault);
    let mut seen = Some(Seen::open(pools).await.map_err(refused)?);
    let mut generation = last_generation(shared).await.map_err(refused)?;
    shared.notifier.connected();
    let (shared, pools) = (Arc::clone(shared), pools.clone());
    Ok(tokio::spawn(async move {
        let mut ticks = interval(shared.settings.poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stopped.changed() => break,
                _ = ticks.tick() => {}
            }
            let was_interrupted = seen.is_none();
            let polled = poll(&shared, &pools, &mut seen, &mut generation);
            let polled = timeout(shared.settings.deadline, polled).await.unwrap_or(Err(Fault::TimedOut));
            let polled = match polled {
                // The missed events are published by now. This is for lookups that ran in the meantime.
                Ok(()) if was_interrupted => recheck(&shared).await,
                polled => polled,
            };
            match polled {
                Ok(()) => {
                    if was_interrupted {
                        tracing::info!(target: "tollgate", "key change notifications restored");
                    }
                    shared.notifier.connected();
                }
                Err(fault) => {
                    if !was_interrupted {
                        tracing::warn!(target: "tollgate", detail = %fault, "key change notifications interrupted");
                    }
                    seen = None;
                    shared.notifier.disconnected();
                }
            }
        }
        shared.notifier.disconnected();
    }))
}

/// Publishes new events, if the file was changed since the last time.
async fn poll(
    shared: &Shared,
    pools: &Pools,
    seen: &mut Option<Seen>,
    generation: &mut i64,
) -> Result<(), Fault> {
    if let Some(seen) = seen {
        let data_version = data_version(&mut seen.connection).await?;
        if data_version != seen.data_version {
            publish_since(shared, generation).await?;
            seen.data_version = data_version;
        }
        return Ok(());
    }
    let opened = Seen::open(pools).await?;
    publish_since(shared, generation).await?;
    *seen = Some(opened);
    Ok(())
}

/// Publishes the events of the history after this generation. SQLite has one writer at a time, so a later commit has a
/// higher generation.
async fn publish_since(shared: &Shared, generation: &mut i64) -> Result<(), Fault> {
    loop {
        let since = *generation;
        let events = shared.database.read(shared.settings.deadline, |connection| {
            Box::pin(async move { events_since(connection, since).await })
        });
        let events: Vec<Event> = events.await?;
        let Some(last) = events.last() else { return Ok(()) };
        let last = last.generation;
        // SQLite leaves no number out. So entries are missing if they were pruned before this process has read them.
        let expected = since.saturating_add(1)..;
        let is_complete =
            events.iter().map(|event| event.generation).zip(expected).all(|(found, next)| found == next);
        for event in events.iter().filter_map(Event::to_store_event) {
            shared.notifier.publish_reported(&event);
        }
        *generation = last;
        if !is_complete {
            return Err(Fault::Pruned);
        }
    }
}

async fn events_since(connection: &mut Connection, generation: i64) -> Result<Vec<Event>, Fault> {
    let sql = "SELECT generation, key_id, tenant, ended FROM tollgate_history WHERE generation > $1 \
               ORDER BY generation LIMIT $2";
    let rows = connection.rows(sql, [generation.into(), BATCH.into()]).await?;
    rows.iter().map(Event::read).collect()
}

async fn last_generation(shared: &Shared) -> Result<i64, Fault> {
    let read = shared.database.read(shared.settings.admin_deadline, |connection| {
        Box::pin(async move {
            let sql = "SELECT COALESCE(MAX(generation), 0) FROM tollgate_history";
            connection.row(sql, []).await?.map_or(Ok(0), |row| row.number(0))
        })
    });
    read.await
}

impl Seen {
    async fn open(pools: &Pools) -> Result<Self, Fault> {
        let mut connection = pools.connect().await?;
        let data_version = data_version(&mut connection).await?;
        Ok(Self { connection, data_version })
    }
}

async fn data_version(connection: &mut SqliteConnection) -> Result<i64, Fault> {
    Ok(sqlx::query("PRAGMA data_version").fetch_one(connection).await?.try_get(0)?)
}
