//! Credits: what a tenant has bought in advance, and what its requests cost.
//!
//! An account has grants. A request first [reserves](Credits::reserve) an estimate of its cost. When its response is complete, the
//! reservation is [settled](Credits::settle): the actual cost is charged, and the rest is available again. A request that failed is
//! charged nothing.
//!
//! Amounts are whole numbers. If a request may cost a fraction of a credit, count in a smaller unit.

mod account;
mod check;
mod grant;
mod ledger;
mod loan;
mod reservation;

use std::{sync::Arc, time::SystemTime};

use crate::{
    answer::Answer,
    denial::Unavailable,
    manage::{Command, Page},
};

pub use account::{Account, AccountGrant, Changes, ReservationState, ReservedPart, StoredReservation};
pub use grant::{CreditAdminError, Grant, GrantId, InvalidRefill, NewGrant, Refill, WithdrawGrant};
pub use ledger::{EntryKind, LedgerChange, LedgerCheck, LedgerEntry, LedgerQuery};
pub use loan::{ChargeLentRequest, ShrinkRequest};
pub use reservation::{
    Balance, Excess, Idempotency, InvalidReservationId, Reservation, ReservationId, ReserveRequest, Reserved,
    SettleAction, SettleRequest, Settlement, Shortage,
};

/// Accounts of credits: reserves and charges what requests cost.
///
/// # What a backend guarantees
///
/// - No credit is made or lost: at each moment, the available credits less the debt are the sum of the [ledger](LedgerEntry).
/// - Available credits never go below zero. Of concurrent reservations, only those succeed for which there are enough credits.
/// - The first settlement of a reservation wins. A repeated call returns the same settlement, so a caller that has lost the answer calls
///   again.
/// - A reservation that is not settled before [its time is up](ReserveRequest::expires_at) gives its credits back. A settlement within 24
///   hours after that charges what was reserved all the same: what is not available by then becomes a debt.
/// - A change that has begun is completed even if its future is dropped.
pub trait Credits: Send + Sync + 'static {
    /// Reserves credits: they are not available to other requests until the reservation is settled.
    ///
    /// # Errors
    /// [`Unavailable`] if the backend does not answer: the request is refused with 503. A reservation that was made all the same
    /// expires.
    fn reserve(&self, request: &ReserveRequest<'_>) -> Answer<Result<Reserved, Unavailable>>;

    /// Charges or releases a reservation. It must not panic: it is called when a response is dropped.
    ///
    /// # Errors
    /// [`Unavailable`] if it is not known whether the reservation was settled: call again.
    fn settle(&self, request: &SettleRequest<'_>) -> Answer<Result<Settlement, Unavailable>>;

    /// What an account has. An account that was never granted anything has nothing.
    ///
    /// # Errors
    /// [`Unavailable`] if the backend does not answer.
    fn balance(&self, account: &str, now: SystemTime) -> Answer<Result<Balance, Unavailable>>;
}

impl<C: Credits + ?Sized> Credits for Arc<C> {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Answer<Result<Reserved, Unavailable>> {
        (**self).reserve(request)
    }

    fn settle(&self, request: &SettleRequest<'_>) -> Answer<Result<Settlement, Unavailable>> {
        (**self).settle(request)
    }

    fn balance(&self, account: &str, now: SystemTime) -> Answer<Result<Balance, Unavailable>> {
        (**self).balance(account, now)
    }
}

/// Loans: reservations whose credits another backend lends to requests, as `RedisCredits` of `tollgate-redis` does.
///
/// That backend takes a loan by [`reserve`](Credits::reserve), and closes it by [`settle`](Credits::settle). What it has lent is charged here
/// by [`charge_lent`](Self::charge_lent), under an identifier that it has made.
///
/// Each change is atomic, and completes even if its future is dropped.
pub trait CreditLoans: Credits {
    /// Gives back what a loan holds beyond an amount. The loan stays open, and then holds this amount. Nothing changes if it holds less, or
    /// is not open.
    ///
    /// # Errors
    /// [`Unavailable`] if it is not known whether the loan has changed: call again.
    fn shrink(&self, request: &ShrinkRequest<'_>) -> Answer<Result<(), Unavailable>>;

    /// Charges what was lent to a request, once within 24 hours: a repeated call returns the same settlement.
    ///
    /// What the loan still holds is charged first, up to what was lent. The rest is charged as for a reservation that has expired: up to what
    /// was lent in full, if need be as a debt.
    ///
    /// # Errors
    /// [`Unavailable`] if it is not known whether the request was charged: call again.
    fn charge_lent(&self, request: &ChargeLentRequest<'_>) -> Answer<Result<Settlement, Unavailable>>;

    /// What was charged under an identifier, by either kind of settlement. 0 if nothing was, or if it was more than 24 hours ago.
    ///
    /// # Errors
    /// [`Unavailable`] if the backend does not answer.
    fn charged(&self, account: &str, id: ReservationId, now: SystemTime) -> Answer<Result<u64, Unavailable>>;
}

impl<C: CreditLoans + ?Sized> CreditLoans for Arc<C> {
    fn shrink(&self, request: &ShrinkRequest<'_>) -> Answer<Result<(), Unavailable>> {
        (**self).shrink(request)
    }

    fn charge_lent(&self, request: &ChargeLentRequest<'_>) -> Answer<Result<Settlement, Unavailable>> {
        (**self).charge_lent(request)
    }

    fn charged(&self, account: &str, id: ReservationId, now: SystemTime) -> Answer<Result<u64, Unavailable>> {
        (**self).charged(account, id, now)
    }
}

/// Grants credits, and keeps the ledger.
///
/// Each change is atomic, and completes even if its future is dropped. Only an [actor](crate::manage::Actor) that manages all tenants
/// may change an account.
pub trait CreditAdmin: Credits {
    /// Grants credits to an account. A grant with an [identifier of its own](NewGrant::with_id) is made once: if the account has such a
    /// grant, it is returned and nothing changes.
    ///
    /// # Errors
    /// [`CreditAdminError`]. Nothing was changed, except for `Unavailable`: then the outcome is unknown.
    fn grant(&self, command: Command<NewGrant>) -> Answer<Result<Grant, CreditAdminError>>;

    /// Takes back what is left of a grant, and ends its refills. Reserved credits stay reserved.
    ///
    /// # Errors
    /// Like [`grant`](Self::grant).
    fn withdraw(&self, command: Command<WithdrawGrant>) -> Answer<Result<Grant, CreditAdminError>>;

    /// The grants of an account that have not ended, in the order in which they are spent.
    ///
    /// # Errors
    /// [`CreditAdminError::Unavailable`].
    fn grants(&self, account: &str, now: SystemTime) -> Answer<Result<Vec<Grant>, CreditAdminError>>;

    /// The ledger of an account, latest entry first.
    ///
    /// # Errors
    /// [`CreditAdminError::InvalidCursor`] or [`CreditAdminError::Unavailable`].
    fn ledger(&self, query: &LedgerQuery) -> Answer<Result<Page<LedgerEntry>, CreditAdminError>>;

    /// Releases the expired reservations of all accounts, and ends the grants that have expired. Returns the number of reservations.
    /// It may fill up grants with a new period, and remove what is [forgotten](StoredReservation::forgotten_at).
    ///
    /// It need not be called: each use of an account does this for the account.
    ///
    /// # Errors
    /// [`CreditAdminError::Unavailable`].
    fn sweep(&self, now: SystemTime) -> Answer<Result<u64, CreditAdminError>>;

    /// Computes an account anew from its ledger, and compares.
    ///
    /// # Errors
    /// [`CreditAdminError::Unavailable`].
    fn check(&self, account: &str) -> Answer<Result<LedgerCheck, CreditAdminError>>;
}
