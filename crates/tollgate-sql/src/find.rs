//! Key lookups by digest.

use std::time::SystemTime;

use sqlx::AssertSqlSafe;
use tokio::time::Instant;
use tollgate_core::{key::Digest, manage::KeyDetails, store::KeyRecord};

#[cfg(feature = "postgres")]
use crate::database::Query;
use crate::{
    database::{Connection, Row, Value},
    fault::Fault,
    instant::to_micros,
    record::{COLUMNS, columns, digest_columns, read_details, to_record},
    shared::Shared,
};

/// The record of the key with one of these digests. An expired former secret is not found.
pub(crate) async fn find(
    shared: &Shared,
    digests: &[Digest],
    now: SystemTime,
) -> Result<Option<KeyRecord>, Fault> {
    if digests.is_empty() {
        return Ok(None);
    }
    let deadline = Instant::now() + shared.settings.deadline;
    let mut has_retried = false;
    loop {
        // Begins before the database is read, and so notices a change during the read.
        let lookup = shared.notifier.begin_lookup();
        let (digests, left) = (digests.to_vec(), deadline.saturating_duration_since(Instant::now()));
        let found = shared.database.read(left, |connection| Box::pin(read(connection, digests, now))).await;
        match found {
            Ok(None) => return Ok(None),
            Ok(Some((details, valid_until))) => {
                if let Ok(record) = lookup.finish(to_record(details, valid_until)) {
                    return Ok(Some(record));
                }
                // The key changed during the read: read again.
            }
            // The server has restarted since the connection was used last.
            Err(fault) if fault.is_connection_lost() && !has_retried => has_retried = true,
            Err(fault) => return Err(fault),
        }
    }
}

async fn read(
    connection: &mut Connection,
    digests: Vec<Digest>,
    now: SystemTime,
) -> Result<Option<(KeyDetails, Option<i64>)>, Fault> {
    let values = [Value::from(to_micros(now))].into_iter().chain(digests.iter().flat_map(digest_columns));
    let rows = connection.rows(AssertSqlSafe(statement(digests.len())), values).await?;
    // Prefer the digest with the current pepper, which is the first.
    let place = |row: &Row| -> Result<usize, Fault> {
        let bytes = row.bytes(COLUMNS)?;
        Ok(digests.iter().position(|digest| *digest.as_bytes() == *bytes).unwrap_or(usize::MAX))
    };
    let mut first = None;
    for row in rows {
        let place = place(&row)?;
        if first.as_ref().is_none_or(|(earlier, _)| place < *earlier) {
            first = Some((place, row));
        }
    }
    first.map(|(_, row)| Ok((read_details(&row)?, row.optional_number(COLUMNS + 1)?))).transpose()
}

/// Lookups as those of a verifier without peppers or with one, and of a verifier with two, or with one and without.
#[cfg(feature = "postgres")]
pub(crate) fn warm_up() -> Vec<Query> {
    let nothing = [Value::Bytes(Some(Vec::new())), Value::from(0_i64)];
    let query = |digests| Query {
        sql: statement(digests),
        values: [Value::from(0_i64)].into_iter().chain((0..digests).flat_map(|_| nothing.clone())).collect(),
    };
    vec![query(1), query(2)]
}

/// The statement for this number of digests. Its text depends on nothing else, so it is prepared once for each number.
fn statement(digests: usize) -> String {
    let conditions: Vec<_> = (0..digests)
        .map(|number| format!("(d.digest = ${} AND d.pepper = ${})", 2 * number + 2, 2 * number + 3))
        .collect();
    let select = concat!(
        "SELECT ",
        columns!(),
        ", d.digest, d.valid_until FROM tollgate_digests d JOIN tollgate_keys k ON k.id = d.key_id \
         LEFT JOIN tollgate_tenants t ON t.tenant = k.tenant"
    );
    format!("{select} WHERE ({}) AND (d.valid_until IS NULL OR d.valid_until > $1)", conditions.join(" OR "))
}
