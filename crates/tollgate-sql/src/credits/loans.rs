//! The calls of a backend that lends credits. They own their values, as those in [`calls`](super::calls) do.

use std::time::SystemTime;

use tollgate_core::{
    credits::{Account, ChargeLentRequest, Excess, ReservationId, Settlement, ShrinkRequest},
    denial::Unavailable,
};

use super::{
    rows::{Known, Wanted},
    transaction::Call,
};

pub(super) struct ShrinkCall {
    account: Box<str>,
    loan: ReservationId,
    amount: u64,
    now: SystemTime,
}

impl ShrinkCall {
    pub(super) fn new(request: &ShrinkRequest<'_>) -> Self {
        let ShrinkRequest { account, loan, amount, now, .. } = *request;
        Self { account: account.into(), loan, amount, now }
    }
}

impl Call for ShrinkCall {
    type Answer = ();
    type Error = Unavailable;

    fn account(&self) -> &str {
        &self.account
    }

    fn now(&self) -> SystemTime {
        self.now
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted::Reservation(self.loan)
    }

    fn apply(&self, account: &mut Account, known: Known) -> Result<(), Unavailable> {
        let request = ShrinkRequest::new(&self.account, self.loan, self.amount, self.now);
        account.shrink(&request, known.reservation);
        Ok(())
    }
}

pub(super) struct ChargeLentCall {
    account: Box<str>,
    id: ReservationId,
    loan: Option<ReservationId>,
    lent: u64,
    actual: u64,
    excess: Excess,
    now: SystemTime,
}

impl ChargeLentCall {
    pub(super) fn new(request: &ChargeLentRequest<'_>) -> Self {
        let ChargeLentRequest { account, id, loan, lent, actual, excess, now, .. } = *request;
        Self { account: account.into(), id, loan, lent, actual, excess, now }
    }
}

impl Call for ChargeLentCall {
    type Answer = Settlement;
    type Error = Unavailable;

    fn account(&self) -> &str {
        &self.account
    }

    fn now(&self) -> SystemTime {
        self.now
    }

    fn wanted(&self) -> Wanted<'_> {
        match self.loan {
            Some(loan) => Wanted::Lent(self.id, loan),
            None => Wanted::Reservation(self.id),
        }
    }

    fn new_reservation(&self) -> Option<ReservationId> {
        Some(self.id)
    }

    fn apply(&self, account: &mut Account, known: Known) -> Result<Settlement, Unavailable> {
        let mut request = ChargeLentRequest::new(&self.account, self.id, self.lent, self.actual, self.now)
            .with_excess(self.excess);
        request.loan = self.loan;
        Ok(account.charge_lent(&request, known.reservation, known.loan))
    }
}

/// Changes nothing.
pub(super) struct ChargedCall {
    pub(super) account: Box<str>,
    pub(super) id: ReservationId,
    pub(super) now: SystemTime,
}

impl Call for ChargedCall {
    type Answer = u64;
    type Error = Unavailable;

    fn account(&self) -> &str {
        &self.account
    }

    fn now(&self) -> SystemTime {
        self.now
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted::Reservation(self.id)
    }

    fn apply(&self, _account: &mut Account, known: Known) -> Result<u64, Unavailable> {
        Ok(known.reservation.map_or(0, |known| known.charged(self.now)))
    }
}
