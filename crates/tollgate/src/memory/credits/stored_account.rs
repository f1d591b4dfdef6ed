//! What is stored of one account: its grants, its reservations and its ledger.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::SystemTime,
};

use tollgate_core::{
    credits::{
        Account, AccountGrant, Balance, ChargeLentRequest, CreditAdminError, Grant, LedgerCheck, NewGrant,
        ReservationId, ReservationState, ReserveRequest, Reserved, SettleRequest, Settlement, ShrinkRequest,
        StoredReservation, WithdrawGrant,
    },
    denial::Unavailable,
    manage::Command,
};

use super::ledger::Ledger;

/// The grants that have ended, and are known so that they are not made again.
const MAX_ENDED_GRANTS: usize = 1_000;

/// The reservations that are settled or have expired, and are known so that they are not charged again.
const MAX_ENDED_RESERVATIONS: usize = 100_000;

#[derive(Default)]
pub(super) struct StoredAccount {
    account: Account,
    // The one that ended first is the first one.
    ended_grants: VecDeque<AccountGrant>,
    reservations: HashMap<ReservationId, StoredReservation>,
    by_key: HashMap<Box<str>, ReservationId>,
    // The open reservations, by their expiry.
    open: BTreeSet<(SystemTime, ReservationId)>,
    // The others, by the instant from which they are forgotten.
    ended: BTreeSet<(SystemTime, ReservationId)>,
    ledger: Ledger,
}

impl StoredAccount {
    pub(super) fn reserve(
        &mut self,
        request: &ReserveRequest<'_>,
        id: ReservationId,
    ) -> Result<Reserved, Unavailable> {
        self.advance(request.now);
        let earlier = request.idempotency.and_then(|asked| self.by_key.get(asked.key));
        let earlier = earlier.and_then(|id| self.reservations.get(id)).cloned();
        let outcome = self.account.reserve(request, id, earlier);
        self.store();
        outcome
    }

    pub(super) fn settle(&mut self, request: &SettleRequest<'_>) -> Settlement {
        self.advance(request.now);
        let found = self.reservations.get(&request.id).cloned();
        let settlement = self.account.settle(request, found);
        self.store();
        settlement
    }

    pub(super) fn shrink(&mut self, request: &ShrinkRequest<'_>) {
        self.advance(request.now);
        let loan = self.reservations.get(&request.loan).cloned();
        self.account.shrink(request, loan);
        self.store();
    }

    pub(super) fn charge_lent(&mut self, request: &ChargeLentRequest<'_>) -> Settlement {
        self.advance(request.now);
        let known = self.reservations.get(&request.id).cloned();
        let loan = request.loan.and_then(|loan| self.reservations.get(&loan)).cloned();
        let settlement = self.account.charge_lent(request, known, loan);
        self.store();
        settlement
    }

    pub(super) fn charged(&mut self, id: ReservationId, now: SystemTime) -> u64 {
        self.advance(now);
        self.reservations.get(&id).map_or(0, |known| known.charged(now))
    }

    pub(super) fn balance(&mut self, now: SystemTime) -> Balance {
        self.advance(now);
        self.account.balance()
    }

    pub(super) fn grants(&mut self, now: SystemTime) -> Vec<Grant> {
        self.advance(now);
        self.account.live_grants()
    }

    pub(super) fn grant(&mut self, command: &Command<NewGrant>) -> Result<Grant, CreditAdminError> {
        let id = command.change.id_or_random()?;
        self.advance(command.at);
        self.load_ended(&id);
        let outcome = self.account.grant(command, &id);
        self.store();
        outcome
    }

    pub(super) fn withdraw(&mut self, command: &Command<WithdrawGrant>) -> Result<Grant, CreditAdminError> {
        self.advance(command.at);
        self.load_ended(&command.change.id);
        let outcome = self.account.withdraw(command);
        self.store();
        outcome
    }

    pub(super) fn check(&self) -> LedgerCheck {
        self.account.check(self.ledger.sums())
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Brings the account to an instant. Returns the number of reservations that have expired.
    pub(super) fn advance(&mut self, now: SystemTime) -> u64 {
        while let Some((forgotten_at, id)) = self.ended.first().copied()
            && forgotten_at <= now
        {
            self.forget(id);
        }
        let due = self.open.iter().take_while(|(expires_at, _)| *expires_at <= now);
        let due: Vec<_> = due.filter_map(|(_, id)| self.reservations.get(id)).cloned().collect();
        let expired = due.len() as u64;
        self.account.advance(now, due);
        self.store();
        expired
    }

    /// Whether nothing would be lost with these books.
    pub(super) fn is_empty(&self) -> bool {
        self.reservations.is_empty() && self.ledger.is_empty()
    }

    /// Stores what the account has changed.
    fn store(&mut self) {
        let changes = self.account.take_changes();
        self.ledger.add(changes.entries);
        for reservation in changes.reservations {
            self.put(reservation);
        }
        self.ended_grants.extend(self.account.take_ended_grants());
        let surplus = self.ended_grants.len().saturating_sub(MAX_ENDED_GRANTS);
        self.ended_grants.drain(..surplus);
    }

    fn put(&mut self, reservation: StoredReservation) {
        self.forget(reservation.id);
        let id = reservation.id;
        if let Some((key, _)) = &reservation.idempotency {
            self.by_key.insert(key.clone(), id);
        }
        match reservation.state {
            ReservationState::Held => self.open.insert((reservation.expires_at, id)),
            _ => self.ended.insert((reservation.forgotten_at(), id)),
        };
        self.reservations.insert(id, reservation);
        if self.ended.len() > MAX_ENDED_RESERVATIONS
            && let Some((_, oldest)) = self.ended.first().copied()
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, id: ReservationId) {
        let Some(reservation) = self.reservations.remove(&id) else { return };
        self.open.remove(&(reservation.expires_at, id));
        self.ended.remove(&(reservation.forgotten_at(), id));
        if let Some((key, _)) = reservation.idempotency {
            self.by_key.remove(&key);
        }
    }

    fn load_ended(&mut self, id: &str) {
        let place = self.ended_grants.iter().position(|grant| &*grant.grant.id == id);
        if let Some(grant) = place.and_then(|place| self.ended_grants.remove(place)) {
            self.account.add_ended_grant(grant);
        }
    }
}
