//! Deletes old entries of the history, old usage, and reservations of credits that are forgotten.
//!
//! A prune walks through a table in the order of its primary key, without an index by age, which each change would have to maintain.
//! Each step reads a few rows, and deletes the old ones among them in a short transaction, so that a revocation waits for no more
//! than one step.

use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use tollgate_core::clock::{Clock as _, SystemClock};

use crate::{
    database::{Done, PAUSE, Row, Urgency, Value},
    fault::Fault,
    instant::to_micros,
    kind::DatabaseKind,
    shared::Shared,
};

/// The rows of one step. The statements below contain this number.
const STEP: usize = 500;

/// Younger entries of the history are always kept: a running process may not have read them yet.
const MIN_HISTORY_AGE: Duration = Duration::from_hours(24);

/// What [`SqlKeys::prune`](crate::SqlKeys::prune) keeps. [`everything`](Self::everything) keeps the whole history and all usage; the other methods restrict it.
///
/// Reservations of credits that have no effect any more are deleted in any case. The ledger is never deleted.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tollgate_sql::{Retention, SqlKeys};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keys = SqlKeys::connect("sqlite::memory:").await?;
/// let days = |days: u64| SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
/// let retention = Retention::everything().with_history_since(days(365)).with_usage_since(days(90));
///
/// let old = keys.count_prunable(retention).await?; // deletes nothing
/// println!("{} entries of the history, {} hours of usage", old.history, old.usage);
/// keys.prune(retention).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "nothing is deleted until it is passed to `SqlKeys::prune`"]
pub struct Retention {
    history_since: Option<SystemTime>,
    usage_since: Option<SystemTime>,
}

impl Retention {
    /// Keeps the whole history and all usage.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Keeps entries of the history from this instant on. The entries of the last 24 hours, and the latest entry of all, are always kept:
    /// other processes read them to follow changes.
    pub fn with_history_since(mut self, instant: SystemTime) -> Self {
        self.history_since = Some(instant);
        self
    }

    /// Keeps the usage of hours that end after this instant.
    pub fn with_usage_since(mut self, instant: SystemTime) -> Self {
        self.usage_since = Some(instant);
        self
    }
}

/// How many rows were deleted, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Entries of the history.
    pub history: u64,
    /// Hours of usage: one for each key that was used in an hour.
    pub usage: u64,
    /// Reservations of credits that ended more than [24 hours](tollgate_core::bounds::SETTLEMENT_KEPT) ago.
    pub reservations: u64,
}

/// Deletes what the retention does not keep, or only counts it.
pub(crate) async fn prune(shared: &Shared, retention: Retention, deletes: bool) -> Result<Pruned, Fault> {
    const HOUR: Duration = Duration::from_hours(1);
    let mut pruned = Pruned::default();
    let now = to_micros(SystemClock.now());
    pruned.reservations = Table::Reservations.prune(shared, now.saturating_add(1), deletes).await?;
    if let Some(since) = retention.history_since {
        let latest = SystemClock.now().checked_sub(MIN_HISTORY_AGE).unwrap_or(SystemTime::UNIX_EPOCH);
        pruned.history = Table::History.prune(shared, to_micros(since.min(latest)), deletes).await?;
    }
    if let Some(since) = retention.usage_since {
        let begun_before =
            to_micros(since.checked_sub(HOUR).unwrap_or(SystemTime::UNIX_EPOCH)).saturating_add(1);
        pruned.usage = Table::Usage.prune(shared, begun_before, deletes).await?;
    }
    Ok(pruned)
}

#[derive(Clone, Copy)]
enum Table {
    History,
    Usage,
    Reservations,
}

impl Table {
    /// Selects the rows of a step after a position. The second column is the age of a row.
    fn select(self) -> &'static str {
        match self {
            // The latest entry stays: it shows another process that earlier entries are missing, if it has not read them.
            Self::History => {
                "SELECT generation, at FROM tollgate_history WHERE generation > $1 \
                 AND generation < (SELECT MAX(generation) FROM tollgate_history) ORDER BY generation LIMIT 500"
            }
            Self::Usage => {
                "SELECT key_id, hour FROM tollgate_usage WHERE (key_id, hour) > ($1, $2) \
                 ORDER BY key_id, hour LIMIT 500"
            }
            // An open reservation stays, whatever its age.
            Self::Reservations => {
                "SELECT id, CASE state WHEN 'held' THEN 9223372036854775807 ELSE forgotten_at END \
                 FROM tollgate_credit_reservations WHERE id > $1 ORDER BY id LIMIT 500"
            }
        }
    }

    /// Deletes the old rows after a position, up to another position.
    fn delete(self, kind: DatabaseKind) -> &'static str {
        match self {
            Self::History => {
                "DELETE FROM tollgate_history WHERE generation > $1 AND generation <= $2 AND at < $3"
            }
            Self::Usage => {
                "DELETE FROM tollgate_usage WHERE (key_id, hour) > ($1, $2) AND (key_id, hour) <= ($3, $4) \
                 AND hour < $5"
            }
            Self::Reservations => match kind {
                DatabaseKind::Sqlite => {
                    "DELETE FROM tollgate_credit_reservations WHERE id > $1 AND id <= $2 AND state <> 'held' AND forgotten_at < $3"
                }
                // Changes of accounts delete such rows as well, in another order: to wait for one of them could be a deadlock.
                DatabaseKind::Postgres => {
                    "DELETE FROM tollgate_credit_reservations WHERE id IN (SELECT id FROM tollgate_credit_reservations \
                     WHERE id > $1 AND id <= $2 AND state <> 'held' AND forgotten_at < $3 FOR UPDATE SKIP LOCKED)"
                }
            },
        }
    }

    /// The position before all rows.
    fn start(self) -> Vec<Value> {
        match self {
            Self::History => vec![i64::MIN.into()],
            Self::Usage => vec!["".into(), i64::MIN.into()],
            Self::Reservations => vec!["".into()],
        }
    }

    fn position(self, row: &Row) -> Result<Vec<Value>, Fault> {
        Ok(match self {
            Self::History => vec![row.number(0)?.into()],
            Self::Usage => vec![(&*row.text(0)?).into(), row.number(1)?.into()],
            Self::Reservations => vec![(&*row.text(0)?).into()],
        })
    }

    async fn prune(self, shared: &Shared, before: i64, deletes: bool) -> Result<u64, Fault> {
        let limit = shared.settings.admin_deadline;
        let (mut from, mut count) = (self.start(), 0);
        loop {
            let position = from.clone();
            let rows =
                shared.database.read(limit, |connection| Box::pin(connection.rows(self.select(), position)));
            let rows: Vec<Row> = rows.await?;
            let Some(last) = rows.last() else { return Ok(count) };
            let to = self.position(last)?;
            let mut old = 0_u64;
            for row in &rows {
                old += u64::from(row.number(1)? < before);
            }
            if old > 0 && deletes {
                let range = [from, to.clone(), vec![before.into()]].concat();
                let step = shared.database.transact(limit, Urgency::CanWait, |connection| {
                    let sql = self.delete(connection.kind());
                    Box::pin(async move { Ok(Done::Commit(connection.execute(sql, range).await?)) })
                });
                let removed: Result<u64, Fault> = step.await;
                old = removed?;
                sleep(PAUSE).await;
            }
            count += old;
            if rows.len() < STEP {
                return Ok(count);
            }
            from = to;
        }
    }
}
