//! Reads accounts and ledgers. What has to agree is read from one snapshot of the database.

use std::{sync::Arc, time::SystemTime};

use tollgate_core::{
    credits::{
        Account, Changes, CreditAdminError, GrantId, LedgerCheck, LedgerEntry, LedgerQuery, StoredReservation,
    },
    manage::Page,
};

use super::{
    calls::ExpireCall,
    rows::{self, read_entry, select_entries},
    transaction,
};
use crate::{
    database::{Connection, Urgency, Value},
    fault::Fault,
    shared::Shared,
};

/// An account as it is at this instant. What time has changed since the last change of the account is stored, so that the ledger has it.
pub(super) async fn account(shared: &Shared, name: Box<str>, now: SystemTime) -> Result<Account, Fault> {
    if name.contains('\0') {
        // No account can have this name, as PostgreSQL cannot store it.
        return Ok(Account::default());
    }
    let (mut account, due) = stored_with_due(shared, name.clone(), now).await?;
    account.advance(now, due);
    let has_changed =
        account.take_changes() != Changes::default() || !account.take_changed_grants().is_empty();
    if has_changed {
        transaction::run(shared, Arc::new(ExpireCall { account: name, now }), Urgency::Now).await?;
    }
    Ok(account)
}

/// An account as it is stored, with the reservations whose time is up.
async fn stored_with_due(
    shared: &Shared,
    name: Box<str>,
    now: SystemTime,
) -> Result<(Account, Vec<StoredReservation>), Fault> {
    let read = shared.database.snapshot(shared.settings.credit_deadline, |connection| {
        Box::pin(async move {
            match stored(connection, &name).await? {
                Some(account) => Ok((account, rows::all_due(connection, &name, now).await?)),
                None => Ok((Account::default(), Vec::new())),
            }
        })
    });
    read.await
}

/// Compares an account with the sums of its ledger.
pub(super) async fn check(shared: &Shared, name: Box<str>) -> Result<LedgerCheck, Fault> {
    if name.contains('\0') {
        return Ok(Account::default().check([]));
    }
    let read = shared.database.snapshot(shared.settings.admin_deadline, |connection| {
        Box::pin(async move {
            let account = stored(connection, &name).await?.unwrap_or_default();
            let sums = sums(connection, &name).await?;
            Ok(account.check(sums))
        })
    });
    read.await
}

async fn stored(connection: &mut Connection, name: &str) -> Result<Option<Account>, Fault> {
    match rows::totals(connection, name, "").await? {
        Some(totals) => Ok(Some(rows::account(connection, name, totals).await?)),
        None => Ok(None),
    }
}

/// The sums of a ledger by grant, and of the debt.
async fn sums(connection: &mut Connection, name: &str) -> Result<Vec<(Option<GrantId>, i64)>, Fault> {
    let sql = "SELECT grant_id, CAST(SUM(amount) AS BIGINT) FROM tollgate_credit_ledger WHERE account = $1 \
               GROUP BY grant_id";
    let rows = connection.rows(sql, [name.into()]).await?;
    rows.iter().map(|row| Ok((row.optional_text(0)?, row.number(1)?))).collect()
}

/// A page of a ledger, the latest entry first.
pub(super) async fn ledger(
    shared: &Shared,
    query: LedgerQuery,
) -> Result<Page<LedgerEntry>, CreditAdminError> {
    const SQL: &str =
        concat!(select_entries!(), " WHERE account = $1 AND number < $2 ORDER BY number DESC LIMIT $3");
    let before = match query.after.as_deref() {
        Some(cursor) => cursor
            .strip_prefix('l')
            .and_then(|number| number.parse::<i64>().ok())
            .ok_or(CreditAdminError::InvalidCursor)?,
        None => i64::MAX,
    };
    let (size, account) = (query.page_size(), query.account);
    if account.contains('\0') {
        return Ok(Page::new(Vec::new(), None));
    }
    // One more row says whether another page follows.
    let values: [Value; 3] = [(&*account).into(), before.into(), (i64::from(size) + 1).into()];
    let read = shared
        .database
        .read(shared.settings.admin_deadline, |connection| Box::pin(connection.rows(SQL, values)));
    let rows: Vec<_> = read.await?;
    let mut entries: Vec<_> = rows.iter().map(|row| read_entry(row, &account)).collect::<Result<_, _>>()?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let has_more = entries.len() > size;
    entries.truncate(size);
    let next = entries.last().filter(|_| has_more).map(|last| format!("l{}", last.number).into());
    Ok(Page::new(entries, next))
}
