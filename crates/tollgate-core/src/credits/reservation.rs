//! Reservations and their settlement.

use std::{fmt, str::FromStr, time::SystemTime};

use crate::key::Digest;

/// A reservation to make.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ReserveRequest<'r> {
    /// The account that pays: usually a tenant.
    pub account: &'r str,
    /// The estimated cost.
    pub amount: u64,
    /// The instant from which the reservation has expired: its credits are available again. A settlement that comes later still charges
    /// what was reserved, and what is not available by then becomes a debt.
    pub expires_at: SystemTime,
    /// By what the request is recognized if it is sent again.
    pub idempotency: Option<Idempotency<'r>>,
    /// The request's instant.
    pub now: SystemTime,
}

impl<'r> ReserveRequest<'r> {
    /// Reserves `amount` of `account` until `expires_at`.
    pub fn new(account: &'r str, amount: u64, expires_at: SystemTime, now: SystemTime) -> Self {
        Self { account, amount, expires_at, idempotency: None, now }
    }

    /// Charges requests with the same key once.
    pub fn with_idempotency(self, idempotency: Idempotency<'r>) -> Self {
        Self { idempotency: Some(idempotency), ..self }
    }
}

/// By what a request is recognized if its caller sends it again.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Idempotency<'r> {
    /// The caller's key. It belongs to the account: another account's same key is another key.
    pub key: &'r str,
    /// What the request is about: a digest of its method, its target and its estimated cost. A key must not be used for another request.
    pub fingerprint: Digest,
}

impl<'r> Idempotency<'r> {
    /// The caller's key of a request with this fingerprint.
    pub fn new(key: &'r str, fingerprint: Digest) -> Self {
        Self { key, fingerprint }
    }
}

/// The answer to a [`ReserveRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reserved {
    /// The credits are reserved.
    Held(Reservation),
    /// The account has too few credits. Nothing is reserved.
    Insufficient(Shortage),
    /// A request with this idempotency key was charged before, and this one is not charged again.
    Repeated(Settlement),
    /// A request with this idempotency key has not ended yet.
    InProgress,
    /// The idempotency key was used for a request with another fingerprint.
    KeyReused,
    /// The account has [`MAX_OPEN_RESERVATIONS`](crate::bounds::MAX_OPEN_RESERVATIONS). Nothing is reserved.
    TooManyOpen,
}

/// Credits that are reserved for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reservation {
    /// Its identifier, made by the backend.
    pub id: ReservationId,
    /// The reserved amount.
    pub amount: u64,
    /// What else is available to the account.
    pub available: u64,
}

impl Reservation {
    /// A reservation of `amount`, after which `available` is left.
    pub fn new(id: ReservationId, amount: u64, available: u64) -> Self {
        Self { id, amount, available }
    }
}

/// The identifier of a reservation: `res_` and 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReservationId(u128);

impl ReservationId {
    /// A random identifier.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub fn random() -> Result<Self, crate::denial::Unavailable> {
        super::grant::random().map(Self)
    }

    /// The identifier with this number: for backends with identifiers of their own, and for tests.
    pub const fn from_number(number: u128) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u128 {
        self.0
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "res_{:032x}", self.0)
    }
}

impl FromStr for ReservationId {
    type Err = InvalidReservationId;

    fn from_str(text: &str) -> Result<Self, InvalidReservationId> {
        let digits = text.strip_prefix("res_").filter(|digits| digits.len() == 32);
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u128::from_str_radix(digits, 16).ok());
        number.map(Self).ok_or(InvalidReservationId(()))
    }
}

/// A text is no identifier of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidReservationId(());

impl fmt::Display for InvalidReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reservation's identifier is `res_` and 32 hexadecimal digits")
    }
}

impl std::error::Error for InvalidReservationId {}

/// Too few credits, or a debt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shortage {
    /// What is available to the account.
    pub available: u64,
    /// What the request needs.
    pub needed: u64,
    /// The debt. The next grants pay it first, so an account that needs `needed` has to be granted both.
    pub owed: u64,
}

impl Shortage {
    /// `available` is less than `needed`, and the account has no debt.
    pub fn new(available: u64, needed: u64) -> Self {
        Self { available, needed, owed: 0 }
    }

    /// The account has a debt.
    pub fn with_debt(self, owed: u64) -> Self {
        Self { owed, ..self }
    }
}

/// A settlement to make.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SettleRequest<'r> {
    /// The account of the reservation. A reservation of another account is not found.
    pub account: &'r str,
    /// The reservation.
    pub id: ReservationId,
    /// What to do with it.
    pub action: SettleAction,
    /// The instant of the settlement.
    pub now: SystemTime,
}

impl<'r> SettleRequest<'r> {
    /// Settles a reservation of `account`.
    pub fn new(account: &'r str, id: ReservationId, action: SettleAction, now: SystemTime) -> Self {
        Self { account, id, action, now }
    }
}

/// How a reservation is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettleAction {
    /// Charges the actual cost. The rest is available again.
    Commit {
        /// The actual cost.
        actual: u64,
        /// What to do if it is more than was reserved.
        excess: Excess,
    },
    /// Charges nothing.
    Release,
}

/// What happens if a request costs more than was reserved for it. What was reserved is charged in any case: if the reservation has expired
/// and its credits are used, it becomes a debt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Excess {
    /// Charges what was reserved.
    #[default]
    Cap,
    /// Charges also what is available, and the rest is not charged.
    TakeAvailable,
    /// Charges also what is available, and the rest becomes a debt, as long as the debt of the account is at most this. The next grants
    /// pay the debt. An account with a debt cannot reserve.
    Owe(u64),
}

/// How a reservation was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settlement {
    /// The reservation.
    pub id: ReservationId,
    /// What was charged, a debt included. 0 if it was released.
    pub charged: u64,
    /// The part of the actual cost that was not charged.
    pub uncharged: u64,
}

impl Settlement {
    /// A settlement that charged `charged`, and did not charge `uncharged`.
    pub fn new(id: ReservationId, charged: u64, uncharged: u64) -> Self {
        Self { id, charged, uncharged }
    }
}

/// What an account has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Balance {
    /// What can be reserved. Reserved credits are already subtracted.
    pub available: u64,
    /// What is reserved.
    pub reserved: u64,
    /// The debt. Nothing is available until it is paid.
    pub owed: u64,
}

impl Balance {
    /// `available` and `reserved` credits, without a debt.
    pub fn new(available: u64, reserved: u64) -> Self {
        Self { available, reserved, owed: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_read_as_it_is_written() {
        let id = ReservationId::random().unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in [
            "",
            "res_",
            "res_1",
            "res_+0000000000000000000000000000001",
            "key_00000000000000000000000000000001",
        ] {
            assert!(text.parse::<ReservationId>().is_err(), "{text}");
        }
    }
}
