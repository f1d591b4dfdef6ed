//! Releases the expired reservations of all accounts, and ends their expired grants.

use std::{sync::Arc, time::SystemTime};

use tokio::time::sleep;

use super::{calls::ExpireCall, transaction};
use crate::{
    database::{PAUSE, Urgency, Value},
    fault::Fault,
    instant::to_micros,
    shared::Shared,
};

/// How many accounts are read at once. The statement contains this number.
const ACCOUNTS: usize = 100;

/// Walks through the accounts with something that has expired, and changes each one in transactions of its own.
pub(super) async fn sweep(shared: &Shared, now: SystemTime) -> Result<u64, Fault> {
    let (mut released, mut after) = (0, Box::from(""));
    loop {
        let accounts = expired_accounts(shared, now, &after).await?;
        let is_last = accounts.len() < ACCOUNTS;
        for account in accounts {
            after.clone_from(&account);
            let call = Arc::new(ExpireCall { account, now });
            released += transaction::run(shared, call, Urgency::CanWait).await?.expired;
            sleep(PAUSE).await;
        }
        if is_last {
            return Ok(released);
        }
    }
}

/// The next accounts after this one, in order. The indexes that the statement uses contain only what is open.
async fn expired_accounts(shared: &Shared, now: SystemTime, after: &str) -> Result<Vec<Box<str>>, Fault> {
    let sql = "SELECT account FROM tollgate_credit_reservations \
               WHERE state = 'held' AND expires_at <= $1 AND account > $2 \
               UNION SELECT account FROM tollgate_credit_grants \
               WHERE has_ended = 0 AND expires_at <= $1 AND account > $2 \
               ORDER BY account LIMIT 100";
    let values: [Value; 2] = [to_micros(now).into(), after.into()];
    let limit = shared.settings.admin_deadline;
    let rows: Vec<_> =
        shared.database.read(limit, |connection| Box::pin(connection.rows(sql, values))).await?;
    rows.iter().map(|row| row.text(0)).collect()
}
