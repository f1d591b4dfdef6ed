//! What a backend asks of the ledger whose credits it lends.

use std::time::SystemTime;

use super::{Excess, ReservationId};

/// A loan to shrink.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ShrinkRequest<'r> {
    /// The account of the loan. A loan of another account is not found.
    pub account: &'r str,
    /// The loan.
    pub loan: ReservationId,
    /// What it holds afterwards, at most.
    pub amount: u64,
    /// The request's instant.
    pub now: SystemTime,
}

impl<'r> ShrinkRequest<'r> {
    /// Shrinks a loan of `account` to `amount`.
    pub fn new(account: &'r str, loan: ReservationId, amount: u64, now: SystemTime) -> Self {
        Self { account, loan, amount, now }
    }
}

/// A charge of a request whose credits were lent.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ChargeLentRequest<'r> {
    /// The account that pays.
    pub account: &'r str,
    /// The identifier under which the request is charged. If it is that of a reservation of the account, this reservation is committed.
    pub id: ReservationId,
    /// The loan. `None`: nothing is taken from it.
    pub loan: Option<ReservationId>,
    /// What was lent to the request.
    pub lent: u64,
    /// The actual cost.
    pub actual: u64,
    /// What to do if it is more than was lent.
    pub excess: Excess,
    /// The request's instant.
    pub now: SystemTime,
}

impl<'r> ChargeLentRequest<'r> {
    /// Charges `actual` to `account`, out of no loan, and at most what was lent.
    pub fn new(account: &'r str, id: ReservationId, lent: u64, actual: u64, now: SystemTime) -> Self {
        Self { account, id, loan: None, lent, actual, excess: Excess::Cap, now }
    }

    /// Takes what was lent from this loan, as far as it still holds it.
    pub fn with_loan(self, loan: ReservationId) -> Self {
        Self { loan: Some(loan), ..self }
    }

    /// What to do if the actual cost is more than was lent.
    pub fn with_excess(self, excess: Excess) -> Self {
        Self { excess, ..self }
    }
}
