//! Reservations: made, settled, and expired.

use std::time::SystemTime;

use super::{Account, AccountGrant, Cause, ReservationState, StoredReservation, amount_of, signed};
use crate::{
    bounds::{MAX_CREDITS, MAX_IDEMPOTENCY_KEY_BYTES, MAX_OPEN_RESERVATIONS, MAX_RESERVATION_TIME},
    credits::{
        EntryKind, Excess, Reservation, ReservationId, ReserveRequest, Reserved, SettleAction, SettleRequest,
        Settlement, Shortage,
    },
    denial::Unavailable,
};

impl Account {
    /// Reserves credits. `id` is the identifier of the new reservation. `earlier` is the stored reservation of the account that has
    /// the idempotency key of the request.
    ///
    /// An account with a debt cannot reserve anything, not even 0: a request without an estimate could increase the debt. An account
    /// has at most [`MAX_OPEN_RESERVATIONS`], and a reservation lasts for at most [`MAX_RESERVATION_TIME`].
    ///
    /// If `earlier` was released or has expired, the new reservation has its key from now on. An expired one can still be charged: its
    /// request may be at work.
    ///
    /// # Errors
    /// [`Unavailable`] if the idempotency key is longer than [`MAX_IDEMPOTENCY_KEY_BYTES`].
    pub fn reserve(
        &mut self,
        request: &ReserveRequest<'_>,
        id: ReservationId,
        earlier: Option<StoredReservation>,
    ) -> Result<Reserved, Unavailable> {
        let now = request.now;
        let key = request.idempotency.map(|idempotency| idempotency.key);
        if key.is_some_and(|key| key.len() > MAX_IDEMPOTENCY_KEY_BYTES) {
            let detail = format!(
                "the idempotency key of a reservation is longer than {MAX_IDEMPOTENCY_KEY_BYTES} bytes"
            );
            return Err(Unavailable::new(detail));
        }
        let earlier = earlier.map(|earlier| self.latest(earlier, now));
        if let (Some(earlier), Some(asked)) = (&earlier, request.idempotency)
            && now < earlier.forgotten_at()
            && let Some((_, fingerprint)) = &earlier.idempotency
        {
            match earlier.state {
                _ if *fingerprint != asked.fingerprint => return Ok(Reserved::KeyReused),
                ReservationState::Held => return Ok(Reserved::InProgress),
                ReservationState::Committed { charged, uncharged, .. } => {
                    return Ok(Reserved::Repeated(Settlement::new(earlier.id, charged, uncharged)));
                }
                ReservationState::Expired | ReservationState::Released { .. } => {}
            }
        }
        let available = self.available();
        if self.owed > 0 || request.amount > available.min(MAX_CREDITS) {
            let shortage = Shortage::new(available, request.amount).with_debt(self.owed);
            return Ok(Reserved::Insufficient(shortage));
        }
        if self.open_reservations >= MAX_OPEN_RESERVATIONS {
            return Ok(Reserved::TooManyOpen);
        }

        if let Some(mut earlier) = earlier {
            earlier.idempotency = None;
            self.store(earlier);
        }
        let cause = Cause { at: now, kind: EntryKind::Reserved, reservation: Some(id) };
        let parts = self.take(request.amount, cause);
        let latest_end = now.checked_add(MAX_RESERVATION_TIME).unwrap_or(now);
        let idempotency = request.idempotency.map(|asked| (asked.key.into(), asked.fingerprint));
        let held = StoredReservation::new(
            id,
            request.amount,
            request.expires_at.min(latest_end),
            ReservationState::Held,
        )
        .with_parts(parts)
        .with_idempotency(idempotency);
        self.store(held);
        self.reserved += request.amount;
        self.open_reservations += 1;
        Ok(Reserved::Held(Reservation::new(id, request.amount, available - request.amount)))
    }

    /// Charges or releases a reservation. `found` is the stored reservation of the account with the identifier of the request.
    ///
    /// A reservation that is settled already keeps its settlement; a commit after a release is uncharged. One that has expired charges
    /// the actual cost up to the reserved amount in full: what is not available becomes a debt, whatever [`Excess`] says, since it was
    /// promised when it was reserved. One that is not found, or is [forgotten](StoredReservation::forgotten_at), charges nothing and
    /// returns nothing: it may have been settled before.
    pub fn settle(&mut self, request: &SettleRequest<'_>, found: Option<StoredReservation>) -> Settlement {
        let nothing = || match request.action {
            SettleAction::Commit { actual, .. } => Settlement::new(request.id, 0, storable(actual)),
            SettleAction::Release => Settlement::new(request.id, 0, 0),
        };
        let found = found.map(|found| self.latest(found, request.now));
        let Some(mut reservation) = found.filter(|found| request.now < found.forgotten_at()) else {
            return nothing();
        };
        match reservation.state {
            ReservationState::Committed { charged, uncharged, .. } => {
                return Settlement::new(reservation.id, charged, uncharged);
            }
            ReservationState::Released { .. } => return nothing(),
            ReservationState::Held => self.close(&reservation),
            ReservationState::Expired => {}
        }

        let at = request.now;
        let (settlement, state) = match request.action {
            SettleAction::Commit { actual, excess } => {
                let settlement = self.charge(&reservation, actual, excess, at);
                let Settlement { charged, uncharged, .. } = settlement;
                (settlement, ReservationState::Committed { charged, uncharged, at })
            }
            SettleAction::Release => {
                self.put_back(&reservation, 0, at);
                (Settlement::new(reservation.id, 0, 0), ReservationState::Released { at })
            }
        };
        self.repay(at);
        reservation.parts.clear();
        reservation.state = state;
        self.store(reservation);
        settlement
    }

    /// Gives the credits of an open reservation back. Returns it as it is then.
    pub(super) fn expire(&mut self, held: StoredReservation, now: SystemTime) -> StoredReservation {
        self.close(&held);
        self.put_back(&held, 0, now);
        StoredReservation { parts: Vec::new(), state: ReservationState::Expired, ..held }
    }

    /// Charges the actual cost: from what is reserved, then from what is available, then as a debt. A debt is at most [`MAX_CREDITS`].
    pub(super) fn charge(
        &mut self,
        reservation: &StoredReservation,
        actual: u64,
        excess: Excess,
        at: SystemTime,
    ) -> Settlement {
        let from_parts = actual.min(amount_of(&reservation.parts));
        self.put_back(reservation, from_parts, at);
        // What was promised, and is not reserved any more since the reservation has expired.
        let promised = actual.min(reservation.amount).saturating_sub(from_parts);
        let beyond = if excess == Excess::Cap { 0 } else { actual.saturating_sub(reservation.amount) };
        let cause = |kind| Cause { at, kind, reservation: Some(reservation.id) };
        let from_grants = amount_of(&self.take(promised.saturating_add(beyond), cause(EntryKind::Charged)));
        let promised_left = promised.saturating_sub(from_grants);
        let beyond_left = beyond - from_grants.saturating_sub(promised).min(beyond);
        let most_owed = if let Excess::Owe(most) = excess { most.min(MAX_CREDITS) } else { 0 };
        let as_debt = promised_left.min(MAX_CREDITS.saturating_sub(self.owed));
        let as_debt = as_debt + beyond_left.min(most_owed.saturating_sub(self.owed + as_debt));
        if as_debt > 0 {
            self.owed += as_debt;
            self.changes.record(cause(EntryKind::Owed), -signed(as_debt), None);
        }
        let charged = from_parts + from_grants + as_debt;
        Settlement::new(reservation.id, charged, storable(actual - charged))
    }

    /// Returns what is reserved, except for the first `kept` credits. What cannot return to its grant lapses.
    pub(super) fn put_back(&mut self, reservation: &StoredReservation, kept: u64, at: SystemTime) {
        let cause = |kind| Cause { at, kind, reservation: Some(reservation.id) };
        let mut kept = kept;
        for part in &reservation.parts {
            let amount = part.amount - part.amount.min(kept);
            kept -= part.amount - amount;
            if amount == 0 {
                continue;
            }
            self.changes.record(cause(EntryKind::Returned), signed(amount), Some(&part.grant));
            let of_part = |grant: &&mut AccountGrant| {
                grant.grant.id == part.grant && grant.period == part.period && !grant.has_ended
            };
            if let Some(grant) = self.grants.iter_mut().find(of_part) {
                grant.grant.remaining += amount;
                grant.is_changed = true;
            } else {
                self.changes.record(cause(EntryKind::Lapsed), -signed(amount), Some(&part.grant));
            }
        }
    }

    /// Counts a reservation as no longer open.
    fn close(&mut self, held: &StoredReservation) {
        self.reserved = self.reserved.saturating_sub(held.amount);
        self.open_reservations = self.open_reservations.saturating_sub(1);
    }

    /// A loaded reservation as it is at this instant: `advance` may have changed it.
    pub(super) fn latest(&mut self, loaded: StoredReservation, now: SystemTime) -> StoredReservation {
        let changed = self.changes.reservations.iter().rev().find(|changed| changed.id == loaded.id);
        let latest = changed.cloned().unwrap_or(loaded);
        if latest.state != ReservationState::Held || now < latest.expires_at {
            return latest;
        }
        let expired = self.expire(latest, now);
        self.repay(now);
        self.store(expired.clone());
        expired
    }

    /// Adds a reservation to the changes, or replaces the version of it that is there.
    pub(super) fn store(&mut self, reservation: StoredReservation) {
        let reservations = &mut self.changes.reservations;
        if let Some(former) = reservations.iter_mut().find(|former| former.id == reservation.id) {
            *former = reservation;
        } else {
            reservations.push(reservation);
        }
    }
}

/// Databases have signed numbers.
fn storable(uncharged: u64) -> u64 {
    uncharged.min(i64::MAX.unsigned_abs())
}
