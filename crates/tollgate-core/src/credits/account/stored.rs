//! What a backend stores of an account.

use std::{cmp::Ordering, time::SystemTime};

use crate::{
    bounds::SETTLEMENT_KEPT,
    credits::{Grant, GrantId, ReservationId},
    key::Digest,
};

/// A grant as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccountGrant {
    /// The grant.
    pub grant: Grant,
    /// The start of the period for which it was filled up last, in seconds since the Unix epoch. 0 if it is not refilled.
    pub period: u64,
    /// Whether it has expired or was withdrawn. Then nothing is left of it. It is stored on, so that the same grant is not made again.
    pub has_ended: bool,
    pub(super) is_changed: bool,
}

impl AccountGrant {
    /// A grant as it is stored.
    pub fn new(grant: Grant, period: u64, has_ended: bool) -> Self {
        Self { grant, period, has_ended, is_changed: false }
    }

    /// Grants are spent in this order: by priority, then the one that lapses first, then the older one, then by identifier.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        fn order(grant: &AccountGrant) -> impl Ord {
            let lapses_at = grant.lapses_at();
            (grant.grant.priority, lapses_at.is_none(), lapses_at, grant.grant.granted_at, &*grant.grant.id)
        }
        order(self).cmp(&order(other))
    }

    /// When what is left of the grant lapses: at its expiry, or at the end of its period.
    fn lapses_at(&self) -> Option<SystemTime> {
        let period_ends_at = self.grant.refill.map(|refill| refill.end_of_period(self.period));
        match (self.grant.expires_at, period_ends_at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

/// A reservation as it is stored, from the moment it is made until it is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredReservation {
    /// Its identifier.
    pub id: ReservationId,
    /// The reserved amount.
    pub amount: u64,
    /// The grants from which it was taken, in the order in which they are charged. Empty unless the state is
    /// [`Held`](ReservationState::Held).
    pub parts: Vec<ReservedPart>,
    /// The instant from which it has expired.
    pub expires_at: SystemTime,
    /// The caller's idempotency key and the request's fingerprint. No other reservation of the account has the same key.
    pub idempotency: Option<(Box<str>, Digest)>,
    /// What has become of it.
    pub state: ReservationState,
}

/// Credits of a grant that are reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReservedPart {
    /// The grant.
    pub grant: GrantId,
    /// The [period](AccountGrant::period) of the grant. Credits of an earlier period lapse when they are returned.
    pub period: u64,
    /// The amount: at least 1.
    pub amount: u64,
}

impl ReservedPart {
    /// `amount` of a grant and a period.
    pub fn new(grant: GrantId, period: u64, amount: u64) -> Self {
        Self { grant, period, amount }
    }
}

/// What has become of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReservationState {
    /// Its credits are reserved.
    Held,
    /// It was not settled in time, and its credits were given back. It can still be settled: then what is not available becomes a debt.
    Expired,
    /// It was charged.
    Committed {
        /// What was charged.
        charged: u64,
        /// The part of the actual cost that was not charged.
        uncharged: u64,
        /// When.
        at: SystemTime,
    },
    /// It was released: nothing was charged.
    Released {
        /// When.
        at: SystemTime,
    },
}

impl StoredReservation {
    /// A reservation as it is stored.
    pub fn new(id: ReservationId, amount: u64, expires_at: SystemTime, state: ReservationState) -> Self {
        Self { id, amount, parts: Vec::new(), expires_at, idempotency: None, state }
    }

    /// The grants from which it was taken.
    pub fn with_parts(self, parts: Vec<ReservedPart>) -> Self {
        Self { parts, ..self }
    }

    /// The caller's idempotency key and the request's fingerprint.
    pub fn with_idempotency(self, idempotency: Option<(Box<str>, Digest)>) -> Self {
        Self { idempotency, ..self }
    }

    /// What it was charged: 0 if it is open, was released, or is [forgotten](Self::forgotten_at).
    pub fn charged(&self, now: SystemTime) -> u64 {
        match self.state {
            ReservationState::Committed { charged, .. } if now < self.forgotten_at() => charged,
            _ => 0,
        }
    }

    /// The instant from which it is forgotten: [`SETTLEMENT_KEPT`] after it was settled or has expired. A backend removes it then, at
    /// any time, unless its state is [`Held`](ReservationState::Held).
    pub fn forgotten_at(&self) -> SystemTime {
        let ended_at = match self.state {
            ReservationState::Held | ReservationState::Expired => self.expires_at,
            ReservationState::Committed { at, .. } | ReservationState::Released { at } => at,
        };
        ended_at.checked_add(SETTLEMENT_KEPT).unwrap_or(ended_at)
    }
}
