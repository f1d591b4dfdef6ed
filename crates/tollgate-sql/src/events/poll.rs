//! SQLite: looks whether another process has changed the file.

use std::sync::Arc;

use sqlx::{Row as _, SqliteConnection};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Event, recheck::recheck};
use crate::{
    connect_error::ConnectError,
    database::{Connection, sqlite::Pools},
    fault::Fault,
    keys::Shared,
};

/// How many events are read at once.
const BATCH: i64 = 1_000;

/// What has been seen of the file.
struct Seen {
    // Of its own, since SQLite tells each connection what others have changed.
    connection: SqliteConnection,
    version: i64,
}

pub(super) async fn follow(
    shared: &Arc<Shared>,
    pools: &Pools,
    mut stopped: watch::Receiver<()>,
) -> Result<JoinHandle<()>, ConnectError> {
    let refused = |fault: Fault| ConnectError::from_fault(&fault);
    let mut seen = Some(Seen::open(pools).await.map_err(refused)?);
    let mut generation = last_generation(shared).await.map_err(refused)?;
    shared.events.resumed();
    let (shared, pools) = (Arc::clone(shared), pools.clone());
    Ok(tokio::spawn(async move {
        let mut ticks = interval(shared.settings.poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stopped.changed() => break,
                _ = ticks.tick() => {}
            }
            let was_lost = seen.is_none();
            let looked = look(&shared, &pools, &mut seen, &mut generation);
            let looked = timeout(shared.settings.deadline, looked).await.unwrap_or(Err(Fault::TooSlow));
            let looked = match looked {
                // What was missed is told already; this is for what was looked up meanwhile.
                Ok(()) if was_lost => recheck(&shared).await,
                looked => looked,
            };
            match looked {
                Ok(()) => shared.events.resumed(),
                Err(fault) => {
                    if !was_lost {
                        tracing::warn!(target: "tollgate", detail = %fault, "news of keys are lost");
                    }
                    seen = None;
                    shared.events.lost();
                }
            }
        }
        shared.events.lost();
    }))
}

/// Tells what is new, if the file was changed since the last time.
async fn look(
    shared: &Shared,
    pools: &Pools,
    seen: &mut Option<Seen>,
    generation: &mut i64,
) -> Result<(), Fault> {
    if let Some(seen) = seen {
        let version = data_version(&mut seen.connection).await?;
        if version == seen.version {
            return Ok(());
        }
        tell_since(shared, generation).await?;
        seen.version = version;
        return Ok(());
    }
    let opened = Seen::open(pools).await?;
    tell_since(shared, generation).await?;
    *seen = Some(opened);
    Ok(())
}

/// Tells what the history holds beyond this generation. SQLite has one writer at a time, so that what is committed later has a
/// higher one.
async fn tell_since(shared: &Shared, generation: &mut i64) -> Result<(), Fault> {
    loop {
        let since = *generation;
        let events = shared.database.read(shared.settings.deadline, |connection| {
            Box::pin(async move { events_since(connection, since).await })
        });
        let events: Vec<Event> = events.await?;
        let Some(last) = events.last() else { return Ok(()) };
        let last = last.generation;
        for change in events.iter().filter_map(Event::to_store_event) {
            shared.events.hear(&change);
        }
        *generation = last;
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
        let version = data_version(&mut connection).await?;
        Ok(Self { connection, version })
    }
}

async fn data_version(connection: &mut SqliteConnection) -> Result<i64, Fault> {
    Ok(sqlx::query("PRAGMA data_version").fetch_one(connection).await?.try_get(0)?)
}
