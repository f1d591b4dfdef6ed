//! Loans: reservations whose credits another backend lends.

use super::{Account, ReservationState, ReservedPart, StoredReservation};
use crate::{
    bounds::MAX_CREDITS,
    credits::{ChargeLentRequest, SettleAction, SettleRequest, Settlement, ShrinkRequest},
};

impl Account {
    /// Gives back what a loan holds beyond the amount of the request, unless it holds less or is not open. `loan` is the stored reservation
    /// of the account with the identifier of the request.
    pub fn shrink(&mut self, request: &ShrinkRequest<'_>, loan: Option<StoredReservation>) {
        let ShrinkRequest { amount, now: at, .. } = *request;
        let loan = loan.map(|loan| self.latest(loan, at));
        let is_larger =
            |loan: &StoredReservation| loan.state == ReservationState::Held && loan.amount > amount;
        let Some(mut loan) = loan.filter(is_larger) else { return };
        self.put_back(&loan, amount, at);
        self.reserved = self.reserved.saturating_sub(loan.amount - amount);
        loan.amount = amount;
        loan.parts = first_credits(loan.parts, amount);
        self.repay(at);
        self.store(loan);
    }

    /// Charges what was lent to a request: from the loan as far as it is open and holds it, and the rest as
    /// [`settle`](Self::settle) does for a reservation that has expired. `known` and `loan` are the stored reservations of the account with
    /// the two identifiers of the request.
    ///
    /// A request that is `known` was charged before, and keeps its settlement, unless it is
    /// [forgotten](StoredReservation::forgotten_at). An open reservation with its identifier is committed.
    pub fn charge_lent(
        &mut self,
        request: &ChargeLentRequest<'_>,
        known: Option<StoredReservation>,
        loan: Option<StoredReservation>,
    ) -> Settlement {
        let ChargeLentRequest { account, id, lent, actual, excess, now: at, .. } = *request;
        let known = known.map(|known| self.latest(known, at)).filter(|known| at < known.forgotten_at());
        if known.is_some() {
            let commit = SettleAction::Commit { actual, excess };
            return self.settle(&SettleRequest::new(account, id, commit, at), known);
        }
        let loan = loan.map(|loan| self.latest(loan, at));
        let mut taken = 0;
        if let Some(mut loan) = loan.filter(|loan| loan.state == ReservationState::Held) {
            taken = actual.min(lent).min(loan.amount);
            loan.amount -= taken;
            loan.parts = last_credits(loan.parts, loan.amount);
            self.reserved = self.reserved.saturating_sub(taken);
            self.store(loan);
        }
        let rest = StoredReservation::new(id, lent - taken, at, ReservationState::Expired);
        let Settlement { charged, uncharged, .. } = self.charge(&rest, actual - taken, excess, at);
        let charged = charged + taken;
        let state = ReservationState::Committed { charged, uncharged, at };
        self.store(StoredReservation { amount: lent.min(MAX_CREDITS), state, ..rest });
        Settlement::new(id, charged, uncharged)
    }
}

/// The parts without what is beyond this amount.
fn first_credits(parts: Vec<ReservedPart>, amount: u64) -> Vec<ReservedPart> {
    let mut left = amount;
    let keep = |mut part: ReservedPart| {
        part.amount = part.amount.min(left);
        left -= part.amount;
        (part.amount > 0).then_some(part)
    };
    parts.into_iter().filter_map(keep).collect()
}

/// The parts without what is before the last `amount` credits.
fn last_credits(mut parts: Vec<ReservedPart>, amount: u64) -> Vec<ReservedPart> {
    parts.reverse();
    let mut last = first_credits(parts, amount);
    last.reverse();
    last
}
