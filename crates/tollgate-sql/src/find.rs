//! Finding a key by its digests.

use std::time::SystemTime;

use sqlx::AssertSqlSafe;
use tokio::time::Instant;
use tollgate_core::{key::Digest, manage::KeyDetails, store::KeyRecord};

use crate::{
    database::{Connection, Value},
    fault::Fault,
    instant::to_micros,
    keys::Shared,
    record::{COLUMNS, columns, digest_columns, read_details, to_record},
};

/// The record of the key with one of these digests. An expired former secret is as good as unknown.
pub(crate) async fn find(
    shared: &Shared,
    digests: &[Digest],
    now: SystemTime,
) -> Result<Option<KeyRecord>, Fault> {
    if digests.is_empty() {
        return Ok(None);
    }
    let until = Instant::now() + shared.settings.deadline;
    let mut had_dead_connection = false;
    loop {
        // Before the database is asked, so that what changes meanwhile is noticed.
        let lookup = shared.events.begin_lookup();
        let (digests, left) = (digests.to_vec(), until.saturating_duration_since(Instant::now()));
        let found = shared.database.read(left, |connection| Box::pin(read(connection, digests, now))).await;
        match found {
            Ok(None) => return Ok(None),
            Ok(Some((details, valid_until))) => {
                if let Ok(record) = lookup.finish(to_record(details, valid_until)) {
                    return Ok(Some(record));
                }
                // It changed meanwhile: once more.
            }
            // The database was started anew since: another connection may be a good one.
            Err(fault) if fault.is_of_the_connection() && !had_dead_connection => had_dead_connection = true,
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
    // The current pepper's digest comes first.
    let place = |row: &crate::database::Row| -> Result<usize, Fault> {
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
    first.map(|(_, row)| Ok((read_details(&row)?, row.some_number(COLUMNS + 1)?))).transpose()
}

/// The same text for as many digests, so that it is prepared once.
fn statement(digests: usize) -> String {
    let these: Vec<_> = (0..digests)
        .map(|number| format!("(d.digest = ${} AND d.pepper = ${})", 2 * number + 2, 2 * number + 3))
        .collect();
    let select = concat!(
        "SELECT ",
        columns!(),
        ", d.digest, d.valid_until FROM tollgate_digests d JOIN tollgate_keys k ON k.id = d.key_id \
         LEFT JOIN tollgate_tenants t ON t.tenant = k.tenant"
    );
    format!("{select} WHERE ({}) AND (d.valid_until IS NULL OR d.valid_until > $1)", these.join(" OR "))
}
