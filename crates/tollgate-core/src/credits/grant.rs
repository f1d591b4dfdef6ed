//! Grants: where credits come from.

use std::{error::Error, fmt, str::FromStr, time::SystemTime};

use crate::{
    denial::Unavailable,
    limit::{
        Window,
        window::{instant_of, second_of},
    },
};

/// The identifier of a grant: unique within its account.
pub type GrantId = Box<str>;

/// Credits to grant to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewGrant {
    /// The account: usually a tenant.
    pub account: Box<str>,
    /// The granted amount: of each period, if the grant is refilled.
    pub amount: u64,
    /// An identifier of the application's own, such as that of an invoice. `None`: the store makes one.
    pub id: Option<GrantId>,
    /// Grants of a lower number are spent first. Of equal ones, the one that expires first, then the older one. Default: 0.
    pub priority: i32,
    /// The instant from which the grant has ended: what is left of it lapses. Default: never.
    pub expires_at: Option<SystemTime>,
    /// When the grant is filled up again. Default: never.
    pub refill: Option<Refill>,
    /// A note for the ledger, such as `invoice 17`. Default: empty.
    pub note: Box<str>,
}

impl NewGrant {
    /// Grants `amount` to `account`.
    pub fn new(account: impl Into<Box<str>>, amount: u64) -> Self {
        Self {
            account: account.into(),
            amount,
            id: None,
            priority: 0,
            expires_at: None,
            refill: None,
            note: Box::default(),
        }
    }

    /// An identifier of the application's own: a grant with the same identifier is made once.
    pub fn with_id(self, id: impl Into<Box<str>>) -> Self {
        Self { id: Some(id.into()), ..self }
    }

    /// Grants of a lower number are spent first.
    pub fn with_priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }

    /// The instant from which the grant has ended.
    pub fn with_expiry(self, expires_at: SystemTime) -> Self {
        Self { expires_at: Some(expires_at), ..self }
    }

    /// Fills the grant up again in each period. What is left of the period before lapses.
    pub fn with_refill(self, refill: Refill) -> Self {
        Self { refill: Some(refill), ..self }
    }

    /// A note for the ledger.
    pub fn with_note(self, note: impl Into<Box<str>>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// The identifier, or a random one: `grant_` and 32 hexadecimal digits. For backends.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub fn id_or_random(&self) -> Result<GrantId, Unavailable> {
        match &self.id {
            Some(id) => Ok(id.clone()),
            None => Ok(format!("grant_{:032x}", random()?).into()),
        }
    }
}

/// A random number of 128 bits.
pub(super) fn random() -> Result<u128, Unavailable> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Unavailable::new("the operating system gives no random numbers").with_source(error)
    })?;
    Ok(u128::from_be_bytes(bytes))
}

/// When a grant is filled up again, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refill {
    /// At the beginning of each day.
    Daily,
    /// At the beginning of this day of each month, from 1 to 31. In a shorter month: at the beginning of its last day.
    Monthly {
        /// The day of the month.
        day: u8,
    },
}

impl Refill {
    /// The start of the period that contains an instant, in seconds since the Unix epoch.
    pub fn period_of(self, instant: SystemTime) -> u64 {
        self.window().start_of(second_of(instant))
    }

    /// The end of a period that begins at this second, which is the start of the next one.
    pub fn end_of_period(self, period: u64) -> SystemTime {
        instant_of(self.window().end_after(period))
    }

    fn window(self) -> Window {
        match self {
            Self::Daily => Window::DAY,
            Self::Monthly { day } => Window::month_from(day),
        }
    }
}

/// As text: `daily`, or `monthly:` and the day.
impl fmt::Display for Refill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daily => f.write_str("daily"),
            Self::Monthly { day } => write!(f, "monthly:{day}"),
        }
    }
}

impl FromStr for Refill {
    type Err = InvalidRefill;

    fn from_str(text: &str) -> Result<Self, InvalidRefill> {
        if text == "daily" {
            return Ok(Self::Daily);
        }
        let day = text.strip_prefix("monthly:").and_then(|day| day.parse().ok());
        let day = day.filter(|day| (1..=31).contains(day)).ok_or(InvalidRefill(()))?;
        Ok(Self::Monthly { day })
    }
}

/// A text is no refill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidRefill(());

impl fmt::Display for InvalidRefill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a refill is `daily`, or `monthly:` and a day from 1 to 31")
    }
}

impl Error for InvalidRefill {}

/// A grant of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// Its identifier, unique within the account.
    pub id: GrantId,
    /// The account.
    pub account: Box<str>,
    /// The granted amount: of each period, if the grant is refilled.
    pub amount: u64,
    /// What is left and not reserved.
    pub remaining: u64,
    /// Grants of a lower number are spent first.
    pub priority: i32,
    /// When it was granted.
    pub granted_at: SystemTime,
    /// The instant from which the grant has ended.
    pub expires_at: Option<SystemTime>,
    /// When it is filled up again.
    pub refill: Option<Refill>,
    /// The note of the ledger.
    pub note: Box<str>,
}

impl Grant {
    /// A grant of which nothing is used yet.
    pub fn new(id: impl Into<GrantId>, new: NewGrant, granted_at: SystemTime) -> Self {
        let NewGrant { account, amount, priority, expires_at, refill, note, .. } = new;
        let id = id.into();
        Self { id, account, amount, remaining: amount, priority, granted_at, expires_at, refill, note }
    }
}

/// A grant to take back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WithdrawGrant {
    /// The account.
    pub account: Box<str>,
    /// The grant's identifier.
    pub id: GrantId,
}

impl WithdrawGrant {
    /// Takes back what is left of a grant.
    pub fn new(account: impl Into<Box<str>>, id: impl Into<Box<str>>) -> Self {
        Self { account: account.into(), id: id.into() }
    }
}

/// Why an account was not changed or read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CreditAdminError {
    /// The account has no such grant.
    NotFound,
    /// The actor may not change accounts.
    NotPermitted,
    /// The command exceeds a bound, or names a day that no month has. The text says which, and what to do.
    Invalid(Box<str>),
    /// The cursor is not one that the store has given out.
    InvalidCursor,
    /// The store does not answer. For a change, the outcome is unknown.
    Unavailable(Unavailable),
}

impl fmt::Display for CreditAdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("the account has no such grant"),
            Self::NotPermitted => f.write_str("the actor may not change accounts of credits"),
            Self::Invalid(why) => f.write_str(why),
            Self::InvalidCursor => f.write_str("the cursor is not valid: begin with the first page"),
            Self::Unavailable(error) => error.fmt(f),
        }
    }
}

impl Error for CreditAdminError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unavailable(error) => error.source(),
            _ => None,
        }
    }
}

impl From<Unavailable> for CreditAdminError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refill_is_read_as_it_is_written() {
        for refill in [Refill::Daily, Refill::Monthly { day: 1 }, Refill::Monthly { day: 31 }] {
            assert_eq!(refill.to_string().parse(), Ok(refill));
        }
        for text in ["", "monthly", "monthly:", "monthly:0", "monthly:32", "monthly:1.5", "weekly"] {
            assert!(text.parse::<Refill>().is_err(), "{text}");
        }
    }
}
