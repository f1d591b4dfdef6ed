//! Tables about credits.

use tollgate::credits::{Balance, Grant, LedgerEntry};

use super::{
    Stream, align_right, cell, day, empty, filled, finished, heading, instant, keep_whole, of_columns,
};

/// The balance of a tenant.
pub(crate) fn balance(tenant: &str, balance: &Balance, stream: Stream) -> String {
    let mut table = empty(stream);
    table.add_row([heading("tenant", stream), cell(tenant)]);
    table.add_row([heading("available", stream), cell(balance.available.to_string())]);
    table.add_row([heading("reserved", stream), cell(balance.reserved.to_string())]);
    if balance.owed > 0 {
        table.add_row([heading("owed", stream), cell(balance.owed.to_string())]);
    }
    finished(table)
}

/// The grants of a tenant, one on a line, without empty columns.
pub(crate) fn grants(grants: &[Grant], stream: Stream) -> String {
    let priority = |grant: &Grant| match grant.priority {
        0 => String::new(),
        priority => priority.to_string(),
    };
    let columns = filled(
        grants,
        &[
            ("GRANT", &|grant| grant.id.to_string()),
            ("LEFT", &|grant| grant.remaining.to_string()),
            ("OF", &|grant| grant.amount.to_string()),
            ("PRIORITY", &priority),
            ("GRANTED", &|grant| day(Some(grant.granted_at))),
            ("EXPIRES", &|grant| instant(grant.expires_at)),
            ("REFILL", &|grant| grant.refill.map_or(String::new(), |refill| refill.to_string())),
            ("NOTE", &|grant| grant.note.to_string()),
        ],
    );
    let mut table = of_columns(columns, stream);
    keep_whole(&mut table, 0);
    align_right(&mut table, 1);
    align_right(&mut table, 2);
    finished(table)
}

/// A ledger, one entry on a line, without empty columns.
pub(crate) fn ledger(entries: &[LedgerEntry], stream: Stream) -> String {
    let columns = filled(
        entries,
        &[
            ("WHEN", &|entry| instant(Some(entry.at))),
            ("WHAT", &|entry| entry.kind.as_str().to_owned()),
            ("AMOUNT", &|entry| format!("{:+}", entry.amount)),
            ("GRANT", &|entry| entry.grant.as_deref().unwrap_or_default().to_owned()),
            ("RESERVATION", &|entry| entry.reservation.map_or(String::new(), |id| id.to_string())),
            ("WHO", &|entry| entry.actor.as_deref().unwrap_or_default().to_owned()),
            ("NOTE", &|entry| entry.note.to_string()),
        ],
    );
    let mut table = of_columns(columns, stream);
    keep_whole(&mut table, 0);
    align_right(&mut table, 2);
    finished(table)
}
