//! An account as rows of the tables.

mod entries; // entries of the ledger
mod grants;
mod reservations;

use std::time::SystemTime;

use tollgate_core::credits::{Account, ReservationId, StoredReservation};

pub(super) use self::{
    entries::{read_entry, select_entries},
    reservations::{MAX_DUE, all_due, delete_forgotten},
};
use crate::{
    database::{Connection, Row, Value},
    fault::Fault,
};

const UNREADABLE: Fault = Fault::Unreadable("an account of credits");

/// What a change loads beside the account.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'w> {
    Nothing,
    Reservation(ReservationId),
    /// A reservation, and the loan that it is charged from.
    Lent(ReservationId, ReservationId),
    /// The reservation with this idempotency key.
    ReservationWithKey(&'w str),
    /// A grant that may have ended.
    EndedGrant(&'w str),
}

/// The reservations that a change is about.
#[derive(Default)]
pub(super) struct Known {
    pub(super) reservation: Option<StoredReservation>,
    /// The loan that the reservation is charged from.
    pub(super) loan: Option<StoredReservation>,
}

/// The reservations that a change loads.
#[derive(Default)]
pub(super) struct Found {
    /// Those whose time is up: at most [`MAX_DUE`].
    pub(super) due: Vec<StoredReservation>,
    pub(super) wanted: Known,
    /// Whether enough reservations are forgotten to delete some.
    pub(super) has_forgotten: bool,
}

/// An account in a transaction that has locked it.
pub(super) struct LockedAccount<'n> {
    name: &'n str,
    pub(super) account: Account,
    totals: Totals,
}

/// The row of an account.
#[derive(Clone, Copy, Default)]
pub(super) struct Totals {
    owed: u64,
    reserved: u64,
    open_reservations: u32,
    entries: i64,
}

impl<'n> LockedAccount<'n> {
    /// Locks an account until the end of the transaction. Inserts it if it is missing.
    pub(super) async fn lock(connection: &mut Connection, name: &'n str) -> Result<Self, Fault> {
        let mut locked = totals(connection, name, "FOR UPDATE").await?;
        if locked.is_none() {
            let sql = "INSERT INTO tollgate_credit_accounts (account, owed, reserved, open_reservations, entries) \
                       VALUES ($1, 0, 0, 0, 0) ON CONFLICT DO NOTHING";
            connection.execute(sql, [name.into()]).await?;
            locked = totals(connection, name, "FOR UPDATE").await?;
        }
        Ok(Self { name, account: Account::default(), totals: locked.ok_or(UNREADABLE)? })
    }

    /// Loads the account, and what a change has to know.
    pub(super) async fn load(
        &mut self,
        connection: &mut Connection,
        now: SystemTime,
        wanted: Wanted<'_>,
    ) -> Result<Found, Fault> {
        self.account = account(connection, self.name, self.totals).await?;
        if let Wanted::EndedGrant(id) = wanted
            && let Some(grant) = grants::ended(connection, self.name, id).await?
        {
            self.account.add_ended_grant(grant);
        }
        reservations::found(connection, self.name, now, wanted).await
    }

    /// Stores what has changed. Returns whether anything has.
    pub(super) async fn store(
        &mut self,
        connection: &mut Connection,
        new: Option<ReservationId>,
    ) -> Result<bool, Fault> {
        let changes = self.account.take_changes();
        let mut has_changed = !changes.entries.is_empty() || !changes.reservations.is_empty();
        for grant in self.account.take_changed_grants() {
            grants::store(connection, self.name, &grant).await?;
            has_changed = true;
        }
        for reservation in &changes.reservations {
            if new == Some(reservation.id) {
                reservations::insert(connection, self.name, reservation).await?;
            } else {
                reservations::update(connection, reservation).await?;
            }
        }
        self.totals.entries =
            entries::insert(connection, self.name, self.totals.entries, &changes.entries).await?;
        if has_changed {
            let sql = "UPDATE tollgate_credit_accounts SET owed = $2, reserved = $3, open_reservations = $4, entries = $5 \
                       WHERE account = $1";
            let account = &self.account;
            let values = [
                self.name.into(),
                number(account.owed()),
                number(account.reserved()),
                i64::from(account.open_reservations()).into(),
                self.totals.entries.into(),
            ];
            connection.execute(sql, values).await?;
        }
        Ok(has_changed)
    }
}

/// The row of an account, with this row lock.
pub(super) async fn totals(
    connection: &mut Connection,
    name: &str,
    lock: &'static str,
) -> Result<Option<Totals>, Fault> {
    let sql =
        "SELECT owed, reserved, open_reservations, entries FROM tollgate_credit_accounts WHERE account = $1";
    let sql = connection.locking(sql, lock);
    let Some(row) = connection.row(sql, [name.into()]).await? else { return Ok(None) };
    let open_reservations = u32::try_from(row.number(2)?).map_err(|_| UNREADABLE)?;
    Ok(Some(Totals {
        owed: amount(&row, 0)?,
        reserved: amount(&row, 1)?,
        open_reservations,
        entries: row.number(3)?,
    }))
}

/// An account with the grants that have not ended.
pub(super) async fn account(
    connection: &mut Connection,
    name: &str,
    totals: Totals,
) -> Result<Account, Fault> {
    let grants = grants::live(connection, name).await?;
    Ok(Account::new(grants, totals.owed, totals.reserved, totals.open_reservations))
}

/// An amount in a column. None is negative.
fn amount(row: &Row, column: usize) -> Result<u64, Fault> {
    u64::try_from(row.number(column)?).map_err(|_| UNREADABLE)
}

/// An amount as a value. Core keeps each amount, and the sum of those of an account, below the maximum.
fn number(amount: u64) -> Value {
    i64::try_from(amount).unwrap_or(i64::MAX).into()
}
