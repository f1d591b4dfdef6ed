//! Usage, by key and hour.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use sqlx::AssertSqlSafe;
use tollgate_core::{
    clock::{Clock, SystemClock},
    denial::Unavailable,
    usage::{HourlyUsage, StoredUsage, UsageBatch},
};

use crate::{
    database::{Connection, Done, Value},
    fault::Fault,
    instant::{from_micros, to_micros},
    keys::Shared,
    record::generation,
};

/// How many counts go into one statement.
const CHUNK: usize = 500;

/// More requests than one batch counts, and few enough that a thousand batches of them can still be added up.
const MOST: u64 = 1 << 53;

/// How long it is remembered which batches a writer has sent. Nobody tries for longer to send one again.
const MEMORY: Duration = Duration::from_hours(30 * 24);

/// What one key has used in one hour.
#[derive(Default)]
struct Count {
    requests: u64,
    last_used_at: i64,
}

/// Adds a batch, unless it was added before.
pub(crate) async fn add(shared: &Shared, batch: UsageBatch) -> Result<(), Unavailable> {
    let Ok(number) = i64::try_from(batch.number) else {
        return Err(Unavailable::new("there are more batches of usage than can be numbered"));
    };
    // Each once and in order: so that two writers never wait for each other in a circle.
    let mut counts = BTreeMap::<_, Count>::new();
    for count in batch.counts.iter().filter(|count| !count.key.contains('\0')) {
        let sum = counts.entry((count.key.clone(), to_micros(count.hour))).or_default();
        sum.requests = sum.requests.saturating_add(count.requests).min(MOST);
        sum.last_used_at = sum.last_used_at.max(to_micros(count.last_used_at));
    }
    let (writer, now) = (name_of(batch.writer), to_micros(SystemClock.now()));
    let limit = shared.settings.admin_deadline;
    let added = shared.database.transact(limit, |connection| {
        Box::pin(async move {
            if !is_new(connection, writer, number, now).await? {
                return Ok(Done::RollBack(()));
            }
            let counts: Vec<_> = counts.into_iter().collect();
            for chunk in counts.chunks(CHUNK) {
                add_chunk(connection, chunk).await?;
            }
            Ok(Done::Commit(()))
        })
    });
    added.await.map_err(|fault: Fault| fault.into())
}

/// Notes that a writer's batch of this number is there. `false` if it was there before.
async fn is_new(connection: &mut Connection, writer: String, number: i64, now: i64) -> Result<bool, Fault> {
    if number <= 1 {
        // A writer that begins clears away after those that have ended long ago.
        let long_ago = now.saturating_sub(i64::try_from(MEMORY.as_micros()).unwrap_or(i64::MAX));
        let sql = "DELETE FROM tollgate_usage_writers WHERE updated_at < $1";
        connection.execute(sql, [long_ago.into()]).await?;
    }
    let sql = "INSERT INTO tollgate_usage_writers AS w (writer, number, updated_at) VALUES ($1, $2, $3) \
               ON CONFLICT (writer) DO UPDATE SET number = excluded.number, updated_at = excluded.updated_at \
               WHERE w.number < excluded.number";
    Ok(connection.execute(sql, [writer.into(), number.into(), now.into()]).await? > 0)
}

async fn add_chunk(connection: &mut Connection, counts: &[((Box<str>, i64), Count)]) -> Result<(), Fault> {
    // In the order of the keys, and only of those that are there.
    let known = "SELECT v.column1, v.column2, v.column3 FROM ";
    let hours = "INSERT INTO tollgate_usage AS u (key_id, hour, requests) ";
    let sql = format!(
        "{hours}{known}{} ON CONFLICT (key_id, hour) DO UPDATE SET requests = u.requests + excluded.requests",
        known_of(connection, counts.len(), 3)
    );
    let values = counts.iter().flat_map(|((key, hour), count)| -> [Value; 3] {
        [(&**key).into(), (*hour).into(), i64::try_from(count.requests).unwrap_or(i64::MAX).into()]
    });
    connection.rows_of_once(AssertSqlSafe(sql), values).await?;

    let mut last_uses = BTreeMap::<&str, i64>::new();
    for ((key, _), count) in counts {
        let last = last_uses.entry(key).or_insert(i64::MIN);
        *last = count.last_used_at.max(*last);
    }
    let sql = format!(
        "INSERT INTO tollgate_last_uses AS u (key_id, at) SELECT v.column1, v.column2 FROM {} \
         ON CONFLICT (key_id) DO UPDATE SET at = excluded.at WHERE u.at < excluded.at",
        known_of(connection, last_uses.len(), 2)
    );
    let values = last_uses.into_iter().flat_map(|(key, at)| -> [Value; 2] { [key.into(), at.into()] });
    connection.rows_of_once(AssertSqlSafe(sql), values).await?;
    Ok(())
}

/// Rows of values whose first one is a key that is there, sorted by it.
fn known_of(connection: &Connection, rows: usize, columns: usize) -> String {
    let mut values = String::new();
    for row in 0..rows {
        let row: Vec<_> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        values.push_str(if values.is_empty() { "(" } else { ", (" });
        values.push_str(&row.join(", "));
        values.push(')');
    }
    // Who deletes a key meanwhile is waited for, and the key is left out then.
    let lock = if connection.is_postgres() { "FOR KEY SHARE OF k" } else { "" };
    format!(
        "(VALUES {values}) AS v JOIN tollgate_keys k ON k.id = v.column1 WHERE 1 = 1 ORDER BY 1, 2 {lock}"
    )
}

/// How often a key was used, hour by hour, and how far a writer had come by then: as one statement, which sees one moment.
pub(crate) async fn usage(
    shared: &Shared,
    key: Box<str>,
    (from, until): (SystemTime, SystemTime),
    writer: Option<u128>,
) -> Result<StoredUsage, Fault> {
    const SQL: &str = "SELECT CAST(0 AS BIGINT), hour, requests FROM tollgate_usage \
                       WHERE key_id = $1 AND hour >= $2 AND hour < $3 UNION ALL \
                       SELECT CAST(1 AS BIGINT), number, CAST(0 AS BIGINT) FROM tollgate_usage_writers WHERE writer = $4 \
                       ORDER BY 1, 2";
    if key.contains('\0') {
        return Ok(StoredUsage::new(Vec::new(), 0));
    }
    // Hours that begin within the microsecond after `from`'s are at `from` or later only if that is a whole one.
    let writer = writer.map(name_of).unwrap_or_default();
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

/// A writer, as its row is found by.
fn name_of(writer: u128) -> String {
    format!("{writer:032x}")
}

fn ceil_micros(instant: SystemTime) -> i64 {
    let micros = to_micros(instant);
    if from_micros(micros) < instant { micros.saturating_add(1) } else { micros }
}
