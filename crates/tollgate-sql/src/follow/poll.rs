//! SQLite: polls the file for changes by other processes.

use std::sync::Arc;

use sqlx::{Row as _, SqliteConnection};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use super::recheck::{end_all, recheck};
use crate::{
    connect_error::ConnectError,
    database::{
        Connection, Row,
        sqlite::{FileIdentity, Pools},
    },
    event::Event,
    fault::Fault,
    shared::Shared,
};

/// How many events one statement reads.
const BATCH: i64 = 1_000;

/// What the last poll has seen of the file.
struct Seen {
    file: FileIdentity,
    /// `PRAGMA data_version` reports changes by other connections than the one that asks.
    connection: SqliteConnection,
    data_version: i64,
}

/// The last entry of the history that was read, and its timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    generation: i64,
    at: Option<i64>,
}

/// How far the changes of other processes were followed.
struct Following {
    /// `None` after an interruption.
    seen: Option<Seen>,
    /// The file that the position is in.
    file: FileIdentity,
    position: Position,
}

pub(super) async fn follow(
    shared: &Arc<Shared>,
    pools: &Pools,
    mut stopped: watch::Receiver<()>,
) -> Result<JoinHandle<()>, ConnectError> {
    let refused = |fault: Fault| ConnectError::from_fault(&fault);
    let seen = Seen::open(pools).await.map_err(refused)?;
    let position = last_position(shared).await.map_err(refused)?;
    let mut following = Following { file: seen.file, seen: Some(seen), position };
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
            let was_interrupted = following.seen.is_none();
            let polled = following.poll(&shared, &pools);
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
                    following.seen = None;
                    shared.notifier.disconnected();
                }
            }
        }
        shared.notifier.disconnected();
    }))
}

impl Following {
    /// Publishes new events, if the file was changed since the last time. Fails if the file, or the database in it, was replaced.
    async fn poll(&mut self, shared: &Shared, pools: &Pools) -> Result<(), Fault> {
        let is_same_file = pools.file_identity().await.ok() == Some(self.file);
        if !is_same_file {
            pools.file_was_replaced();
        }
        let Some(seen) = &mut self.seen else { return self.resume(shared, pools).await };
        if !is_same_file {
            return Err(Fault::FileReplaced);
        }
        let data_version = data_version(&mut seen.connection).await?;
        if data_version != seen.data_version {
            // A change of this process may not have been polled yet. The database that it is in has its generation.
            let own = shared.notifier.latest_own();
            if !self.position.is_in(shared, own).await? {
                self.position = Position::IN_NO_DATABASE;
                return Err(Fault::FileReplaced);
            }
            self.position.publish_since(shared).await?;
            seen.data_version = data_version;
        }
        Ok(())
    }

    /// Follows again after an interruption.
    async fn resume(&mut self, shared: &Shared, pools: &Pools) -> Result<(), Fault> {
        let seen = Seen::open(pools).await?;
        if seen.file != self.file || !self.position.is_in(shared, None).await? {
            // Another database, such as a backup. Its generations cannot be compared with the ones read before.
            self.position = last_position(shared).await?;
            self.file = seen.file;
            end_all(shared);
        } else {
            self.position.publish_since(shared).await?;
        }
        self.seen = Some(seen);
        Ok(())
    }
}

impl Position {
    /// After the last entry of any history.
    const IN_NO_DATABASE: Self = Self { generation: i64::MAX, at: None };

    /// Whether the history contains this entry, or contained it before old entries were deleted, and has reached the generation `own`.
    /// Otherwise it is another history.
    async fn is_in(self, shared: &Shared, own: Option<u64>) -> Result<bool, Fault> {
        let sql = "SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'tollgate_history'), \
                   (SELECT at FROM tollgate_history WHERE generation = $1)";
        let read = shared.database.read(shared.settings.deadline, |connection| {
            Box::pin(async move { connection.row(sql, [self.generation.into()]).await })
        });
        let row = read.await?.ok_or(Fault::Unreadable("the history"))?;
        let (last, at) = (row.optional_number(0)?.unwrap_or(0), row.optional_number(1)?);
        let has_own = own.is_none_or(|own| u64::try_from(last).is_ok_and(|last| last >= own));
        Ok(has_own && last >= self.generation && (at.is_none() || at == self.at))
    }

    /// Publishes the events of the history after this entry. SQLite has one writer at a time, so a later commit has a higher
    /// generation.
    async fn publish_since(&mut self, shared: &Shared) -> Result<(), Fault> {
        loop {
            let since = self.generation;
            let events = shared.database.read(shared.settings.deadline, |connection| {
                Box::pin(async move { events_since(connection, since).await })
            });
            // SQLite's numbers have no gap. So a gap means that entries were pruned before this process has read them.
            let mut is_complete = true;
            for (event, position) in events.await? {
                is_complete &= position.generation == self.generation.saturating_add(1);
                if let Some(event) = event.to_store_event() {
                    shared.notifier.publish_reported(&event);
                }
                *self = position;
            }
            if !is_complete {
                return Err(Fault::Pruned);
            }
            if self.generation == since {
                return Ok(());
            }
        }
    }
}

async fn events_since(connection: &mut Connection, generation: i64) -> Result<Vec<(Event, Position)>, Fault> {
    let sql = "SELECT generation, key_id, tenant, ended, at FROM tollgate_history WHERE generation > $1 \
               ORDER BY generation LIMIT $2";
    let rows = connection.rows(sql, [generation.into(), BATCH.into()]).await?;
    let read = |row: &Row| {
        Ok((Event::read(row)?, Position { generation: row.number(0)?, at: Some(row.number(4)?) }))
    };
    rows.iter().map(read).collect()
}

/// The last entry of the history, which may have been deleted since.
async fn last_position(shared: &Shared) -> Result<Position, Fault> {
    let sql = "SELECT s.seq, h.at FROM sqlite_sequence s LEFT JOIN tollgate_history h ON h.generation = s.seq \
               WHERE s.name = 'tollgate_history'";
    let read = shared.database.read(shared.settings.admin_deadline, |connection| {
        Box::pin(async move { connection.row(sql, []).await })
    });
    let Some(row) = read.await? else { return Ok(Position::default()) };
    Ok(Position { generation: row.number(0)?, at: row.optional_number(1)? })
}

impl Seen {
    async fn open(pools: &Pools) -> Result<Self, Fault> {
        // Read first: if the file is replaced in between, the next poll notices it.
        let file = pools.file_identity().await?;
        let mut connection = pools.connect().await?;
        let data_version = data_version(&mut connection).await?;
        Ok(Self { file, connection, data_version })
    }
}

async fn data_version(connection: &mut SqliteConnection) -> Result<i64, Fault> {
    Ok(sqlx::query("PRAGMA data_version").fetch_one(connection).await?.try_get(0)?)
}
