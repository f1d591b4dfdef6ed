//! Entries of the ledger as rows.

use sqlx::AssertSqlSafe;
use tollgate_core::credits::{EntryKind, LedgerChange, LedgerEntry};

use super::UNREADABLE;
use crate::{
    database::{Connection, Row, Value},
    fault::Fault,
    instant::{from_micros, to_micros},
};

/// The columns of an entry that [`read_entry`] reads.
macro_rules! select_entries {
    () => {
        "SELECT number, at, kind, amount, grant_id, reservation, actor, note FROM tollgate_credit_ledger"
    };
}
pub(in crate::credits) use select_entries;

/// The most entries that one statement inserts.
const CHUNK: usize = 100;

/// Statements for up to so many entries are kept prepared. Most changes have no more.
const PREPARED: usize = 4;

/// Adds entries after those that the account has. Returns how many it has then.
pub(super) async fn insert(
    connection: &mut Connection,
    account: &str,
    before: i64,
    entries: &[LedgerChange],
) -> Result<i64, Fault> {
    let mut last = before;
    for chunk in entries.chunks(CHUNK) {
        let mut values = Vec::with_capacity(chunk.len() * 9);
        for entry in chunk {
            last += 1;
            values.extend(columns(account, last, entry));
        }
        let sql = AssertSqlSafe(statement(chunk.len()));
        if chunk.len() <= PREPARED {
            connection.execute(sql, values).await?;
        } else {
            connection.rows_unprepared(sql, values).await?;
        }
    }
    Ok(last)
}

/// The statement that inserts this number of entries.
fn statement(entries: usize) -> String {
    let rows: Vec<_> = (0..entries)
        .map(|row| {
            let columns: Vec<_> = (1..=9).map(|column| format!("${}", row * 9 + column)).collect();
            format!("({})", columns.join(", "))
        })
        .collect();
    format!(
        "INSERT INTO tollgate_credit_ledger (account, number, at, kind, amount, grant_id, reservation, actor, note) VALUES {}",
        rows.join(", ")
    )
}

fn columns(account: &str, number: i64, entry: &LedgerChange) -> [Value; 9] {
    let reservation = entry.reservation.map(|id| id.to_string());
    [
        account.into(),
        number.into(),
        to_micros(entry.at).into(),
        entry.kind.as_str().into(),
        entry.amount.into(),
        entry.grant.as_deref().into(),
        reservation.as_deref().into(),
        entry.actor.as_deref().into(),
        (&*entry.note).into(),
    ]
}

pub(in crate::credits) fn read_entry(row: &Row, account: &str) -> Result<LedgerEntry, Fault> {
    let kind = EntryKind::from_name(&row.text(2)?).ok_or(UNREADABLE)?;
    let mut change = LedgerChange::new(from_micros(row.number(1)?), kind, row.number(3)?);
    change.grant = row.optional_text(4)?;
    change.reservation = row.optional_text(5)?.map(|id| id.parse().map_err(|_| UNREADABLE)).transpose()?;
    change.actor = row.optional_text(6)?;
    change.note = row.text(7)?;
    let number = u64::try_from(row.number(0)?).map_err(|_| UNREADABLE)?;
    Ok(LedgerEntry::new(number, account, change))
}
