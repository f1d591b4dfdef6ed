//! Grants as rows.

use tollgate_core::credits::{AccountGrant, Grant, NewGrant};

use super::{UNREADABLE, amount, number};
use crate::{
    database::{Connection, Row},
    fault::Fault,
    instant::{from_micros, to_micros},
};

macro_rules! select {
    () => {
        "SELECT id, amount, remaining, priority, granted_at, expires_at, refill, note, period, has_ended \
         FROM tollgate_credit_grants"
    };
}

/// The grants of an account that have not ended.
pub(super) async fn live(connection: &mut Connection, account: &str) -> Result<Vec<AccountGrant>, Fault> {
    let sql = concat!(select!(), " WHERE account = $1 AND has_ended = 0");
    let rows = connection.rows(sql, [account.into()]).await?;
    rows.iter().map(|row| read(row, account)).collect()
}

/// The grant with this identifier, if it has ended.
pub(super) async fn ended(
    connection: &mut Connection,
    account: &str,
    id: &str,
) -> Result<Option<AccountGrant>, Fault> {
    if id.contains('\0') {
        return Ok(None);
    }
    let sql = concat!(select!(), " WHERE account = $1 AND id = $2 AND has_ended = 1");
    let row = connection.row(sql, [account.into(), id.into()]).await?;
    row.map(|row| read(&row, account)).transpose()
}

/// Stores a new or a changed grant.
pub(super) async fn store(
    connection: &mut Connection,
    account: &str,
    grant: &AccountGrant,
) -> Result<(), Fault> {
    let sql = "INSERT INTO tollgate_credit_grants (account, id, amount, remaining, priority, granted_at, expires_at, refill, \
               note, period, has_ended) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
               ON CONFLICT (account, id) DO UPDATE SET remaining = excluded.remaining, period = excluded.period, \
               has_ended = excluded.has_ended";
    let AccountGrant { grant, period, has_ended, .. } = grant;
    let refill = grant.refill.map(|refill| refill.to_string());
    let values = [
        account.into(),
        (&*grant.id).into(),
        number(grant.amount),
        number(grant.remaining),
        i64::from(grant.priority).into(),
        to_micros(grant.granted_at).into(),
        grant.expires_at.map(to_micros).into(),
        refill.as_deref().into(),
        (&*grant.note).into(),
        number(*period),
        i64::from(*has_ended).into(),
    ];
    connection.execute(sql, values).await?;
    Ok(())
}

fn read(row: &Row, account: &str) -> Result<AccountGrant, Fault> {
    let mut new = NewGrant::new(account, amount(row, 1)?).with_note(row.text(7)?);
    new.priority = i32::try_from(row.number(3)?).map_err(|_| UNREADABLE)?;
    new.expires_at = row.optional_number(5)?.map(from_micros);
    new.refill = row.optional_text(6)?.map(|refill| refill.parse().map_err(|_| UNREADABLE)).transpose()?;
    let mut grant = Grant::new(row.text(0)?, new, from_micros(row.number(4)?));
    grant.remaining = amount(row, 2)?;
    Ok(AccountGrant::new(grant, amount(row, 8)?, row.number(9)? == 1))
}
