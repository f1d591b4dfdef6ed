//! Usage by key and hour.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sqlx::AssertSqlSafe;
use tokio::time::sleep;
use tollgate_core::{
    clock::{Clock, SystemClock},
    denial::Unavailable,
    usage::{HourlyUsage, StoredUsage, UsageBatch},
};

use crate::{
    database::{Connection, Done, PAUSE, Urgency, Value},
    fault::Fault,
    instant::{from_micros, to_micros},
    kind::DatabaseKind,
    record::generation,
    shared::Shared,
};

/// The row of a batch that is being added by the writer `$1`. A comma is the next character after a plus.
macro_rules! in_progress {
    () => {
        "writer >= $1 || '+' AND writer < $1 || ','"
    };
}

/// How many counts one transaction adds. Changes of keys wait for no more than that.
const PART: usize = 200;

/// How many counts one statement adds. A key with more counts than [`PART`] needs several statements in one transaction.
const CHUNK: usize = 500;

/// The most requests that one batch adds to an hour. A thousand times as many still fit into a column.
const MAX_REQUESTS: u64 = 1 << 53;

/// How long the last batch number of a writer is kept. No writer repeats a batch after that.
const WRITER_RETENTION: Duration = Duration::from_hours(30 * 24);

/// The usage of one key in one hour.
#[derive(Clone, Default)]
struct Count {
    requests: u64,
    last_used_at: i64,
}

/// Counts by key and hour: each once and in order, so that two writers never deadlock.
type Counts = BTreeMap<(Box<str>, i64), Count>;

/// Adds a batch in parts, except for the parts that were added before. Changes of keys can run between two parts.
pub(crate) async fn add(shared: &Shared, batch: UsageBatch) -> Result<(), Unavailable> {
    let Ok(number) = i64::try_from(batch.number) else {
        return Err(Unavailable::new("the batch number is too large"));
    };
    let mut counts = Counts::new();
    for count in batch.counts.iter().filter(|count| !count.key.contains('\0')) {
        let sum = counts.entry((count.key.clone(), to_micros(count.hour))).or_default();
        sum.requests = sum.requests.saturating_add(count.requests).min(MAX_REQUESTS);
        sum.last_used_at = sum.last_used_at.max(to_micros(count.last_used_at));
    }
    let (counts, limit) = (Arc::new(counts), shared.settings.admin_deadline);
    loop {
        let writer = Writer { id: writer_id(batch.writer), number, now: to_micros(SystemClock.now()) };
        let counts = Arc::clone(&counts);
        let added = shared.database.transact(limit, Urgency::CanWait, |connection| {
            Box::pin(async move { writer.add_next_part(connection, &counts).await })
        });
        match added.await.map_err(|fault: Fault| Unavailable::from(fault))? {
            Progress::Incomplete => sleep(PAUSE).await,
            Progress::Complete => return Ok(()),
        }
    }
}

/// How much of a batch was added.
enum Progress {
    Incomplete,
    Complete,
}

/// The writer of a batch.
///
/// `tollgate_usage_writers` has a row with its identifier and the number of its last complete batch. While a batch is added, there is
/// a second row, `<identifier>+<key>`, with the number of the batch. The batch's counts of all keys up to this one were added.
struct Writer {
    id: String,
    number: i64,
    now: i64,
}

impl Writer {
    async fn add_next_part(
        self,
        connection: &mut Connection,
        counts: &Counts,
    ) -> Result<Done<Progress>, Fault> {
        if !self.lock(connection).await? {
            return Ok(Done::RollBack(Progress::Complete));
        }
        let part = next_part(counts, self.last_key(connection).await?.as_deref());
        for chunk in part.chunks(CHUNK) {
            add_chunk(connection, chunk).await?;
        }
        let is_last = part.last().map(|(key, _)| key) == counts.last_key_value().map(|(key, _)| key);
        connection
            .execute(concat!("DELETE FROM tollgate_usage_writers WHERE ", in_progress!()), [self.id()])
            .await?;
        if is_last {
            let sql = "UPDATE tollgate_usage_writers SET number = $2 WHERE writer = $1";
            connection.execute(sql, [self.id(), self.number.into()]).await?;
            return Ok(Done::Commit(Progress::Complete));
        }
        let last_key = part.last().map_or("", |((key, _), _)| &**key);
        let sql = "INSERT INTO tollgate_usage_writers (writer, number, updated_at) VALUES ($1, $2, $3)";
        let values = [format!("{}+{last_key}", self.id).into(), self.number.into(), self.now.into()];
        connection.execute(sql, values).await?;
        Ok(Done::Commit(Progress::Incomplete))
    }

    /// Locks the row of the writer. `false` if its batch, or a later one, was added before.
    async fn lock(&self, connection: &mut Connection) -> Result<bool, Fault> {
        if self.number <= 1 {
            // A new writer deletes those that have not written for long.
            let retention = i64::try_from(WRITER_RETENTION.as_micros()).unwrap_or(i64::MAX);
            let sql = "DELETE FROM tollgate_usage_writers WHERE updated_at < $1";
            connection.execute(sql, [self.now.saturating_sub(retention).into()]).await?;
        }
        let sql = "INSERT INTO tollgate_usage_writers AS w (writer, number, updated_at) VALUES ($1, 0, $3) \
                   ON CONFLICT (writer) DO UPDATE SET updated_at = excluded.updated_at WHERE w.number < $2";
        Ok(connection.execute(sql, [self.id(), self.number.into(), self.now.into()]).await? > 0)
    }

    /// The last key whose counts of this batch were added.
    async fn last_key(&self, connection: &mut Connection) -> Result<Option<Box<str>>, Fault> {
        let sql = concat!("SELECT writer FROM tollgate_usage_writers WHERE number = $2 AND ", in_progress!());
        let row = connection.row(sql, [self.id(), self.number.into()]).await?;
        let Some(name) = row.map(|row| row.text(0)).transpose()? else { return Ok(None) };
        Ok(name.split_once('+').map(|(_, key)| key.into()))
    }

    fn id(&self) -> Value {
        (&*self.id).into()
    }
}

/// The counts after this key, of as many keys as one transaction adds. All counts of a key are in the same part.
fn next_part(counts: &Counts, after: Option<&str>) -> Vec<((Box<str>, i64), Count)> {
    let after = after.map_or(Bound::Unbounded, |key| Bound::Excluded((key.into(), i64::MAX)));
    let mut part: Vec<((Box<str>, i64), Count)> = Vec::new();
    for (key, count) in counts.range((after, Bound::Unbounded)) {
        if part.len() >= PART && part.last().is_some_and(|((last, _), _)| *last != key.0) {
            break;
        }
        part.push((key.clone(), count.clone()));
    }
    part
}

async fn add_chunk(connection: &mut Connection, counts: &[((Box<str>, i64), Count)]) -> Result<(), Fault> {
    // Adds counts of existing keys only, in the order of the keys.
    let select = "SELECT v.column1, v.column2, v.column3 FROM ";
    let hours = "INSERT INTO tollgate_usage AS u (key_id, hour, requests) ";
    let sql = format!(
        "{hours}{select}{} ON CONFLICT (key_id, hour) DO UPDATE SET requests = u.requests + excluded.requests",
        existing_keys(connection, counts.len(), 3)
    );
    let values = counts.iter().flat_map(|((key, hour), count)| -> [Value; 3] {
        [(&**key).into(), (*hour).into(), i64::try_from(count.requests).unwrap_or(i64::MAX).into()]
    });
    connection.rows_unprepared(AssertSqlSafe(sql), values).await?;

    let mut last_uses = BTreeMap::<&str, i64>::new();
    for ((key, _), count) in counts {
        let last = last_uses.entry(key).or_insert(i64::MIN);
        *last = count.last_used_at.max(*last);
    }
    let sql = format!(
        "INSERT INTO tollgate_last_uses AS u (key_id, at) SELECT v.column1, v.column2 FROM {} \
         ON CONFLICT (key_id) DO UPDATE SET at = excluded.at WHERE u.at < excluded.at",
        existing_keys(connection, last_uses.len(), 2)
    );
    let values = last_uses.into_iter().flat_map(|(key, at)| -> [Value; 2] { [key.into(), at.into()] });
    connection.rows_unprepared(AssertSqlSafe(sql), values).await?;
    Ok(())
}

/// Rows of values whose first one is the identifier of an existing key, sorted.
fn existing_keys(connection: &Connection, rows: usize, columns: usize) -> String {
    let mut values = String::new();
    for row in 0..rows {
        let row: Vec<_> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        values.push_str(if values.is_empty() { "(" } else { ", (" });
        values.push_str(&row.join(", "));
        values.push(')');
    }
    // Waits for a concurrent deletion of a key, and then leaves the key out.
    let lock = match connection.kind() {
        DatabaseKind::Sqlite => "",
        DatabaseKind::Postgres => "FOR KEY SHARE OF k",
    };
    format!(
        "(VALUES {values}) AS v JOIN tollgate_keys k ON k.id = v.column1 WHERE 1 = 1 ORDER BY 1, 2 {lock}"
    )
}

/// The usage of a key by hour, and the number of a writer's last batch with this key. One statement reads both, so they belong
/// together.
pub(crate) async fn usage(
    shared: &Shared,
    key: Box<str>,
    (from, until): (SystemTime, SystemTime),
    writer: Option<u128>,
) -> Result<StoredUsage, Fault> {
    const SQL: &str = "SELECT CAST(0 AS BIGINT), hour, requests FROM tollgate_usage \
                       WHERE key_id = $1 AND hour >= $2 AND hour < $3 UNION ALL \
                       SELECT CAST(1 AS BIGINT), number, CAST(0 AS BIGINT) FROM tollgate_usage_writers \
                       WHERE writer = $4 OR (writer >= $4 || '+' || $1 AND writer < $4 || ',') ORDER BY 1, 2";
    if key.contains('\0') {
        return Ok(StoredUsage::new(Vec::new(), 0));
    }
    // The limits round up: an hour that begins in the same microsecond as `from`, but before it, is left out.
    let writer = writer.map(writer_id).unwrap_or_default();
    let values = [Value::from(&*key), ceil_micros(from).into(), ceil_micros(until).into(), writer.into()];
    let limit = shared.settings.admin_deadline;
    let rows: Vec<_> = shared
        .database
        .read(limit, |connection| Box::pin(async move { connection.rows(SQL, values).await }))
        .await?;
    let (mut hours, mut last_number) = (Vec::new(), 0);
    for row in rows {
        if row.number(0)? == 0 {
            hours.push(HourlyUsage::new(from_micros(row.number(1)?), generation(row.number(2)?)));
        } else {
            last_number = generation(row.number(1)?);
        }
    }
    Ok(StoredUsage::new(hours, last_number))
}

/// The text by which the tables identify a writer.
fn writer_id(writer: u128) -> String {
    format!("{writer:032x}")
}

fn ceil_micros(instant: SystemTime) -> i64 {
    let micros = to_micros(instant);
    if from_micros(micros) < instant { micros.saturating_add(1) } else { micros }
}
