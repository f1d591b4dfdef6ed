//! The ledger: every change of an account, from which the account can be computed anew.

use std::time::SystemTime;

use super::{GrantId, ReservationId};

/// One change of an account. Entries are added, and never changed or removed.
///
/// The sum of all amounts of an account is what is available less the debt. The sum of a grant's amounts is what is available of the
/// grant. The sum of the amounts without a grant is the debt, negated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerEntry {
    /// Its number: a later entry of an account has a higher one.
    pub number: u64,
    /// The account.
    pub account: Box<str>,
    /// When it happened.
    pub at: SystemTime,
    /// What happened.
    pub kind: EntryKind,
    /// By how much the available credits of the grant changed, or the debt, negated.
    pub amount: i64,
    /// The grant; `None` for a change of the debt.
    pub grant: Option<GrantId>,
    /// The reservation, if one was made or settled.
    pub reservation: Option<ReservationId>,
    /// Who made the change, if a person or a program did. A request is recorded by its reservation.
    pub actor: Option<Box<str>>,
    /// The note of the grant, where it was granted. Otherwise empty.
    pub note: Box<str>,
}

impl LedgerEntry {
    /// The entry of a change: backends number the entries of an account.
    pub fn new(number: u64, account: impl Into<Box<str>>, change: LedgerChange) -> Self {
        let LedgerChange { at, kind, amount, grant, reservation, actor, note } = change;
        Self { number, account: account.into(), at, kind, amount, grant, reservation, actor, note }
    }
}

/// A [`LedgerEntry`] that has no number yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerChange {
    /// When it happened.
    pub at: SystemTime,
    /// What happened.
    pub kind: EntryKind,
    /// By how much the available credits of the grant changed, or the debt, negated.
    pub amount: i64,
    /// The grant; `None` for a change of the debt.
    pub grant: Option<GrantId>,
    /// The reservation, if one was made or settled.
    pub reservation: Option<ReservationId>,
    /// Who made the change, if a person or a program did.
    pub actor: Option<Box<str>>,
    /// The note of the grant, where it was granted. Otherwise empty.
    pub note: Box<str>,
}

impl LedgerChange {
    /// A change of the debt, without a reservation, an actor and a note.
    pub fn new(at: SystemTime, kind: EntryKind, amount: i64) -> Self {
        Self { at, kind, amount, grant: None, reservation: None, actor: None, note: Box::default() }
    }
}

/// What a ledger entry records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// Credits were granted.
    Granted,
    /// A grant was filled up for a new period.
    Refilled,
    /// What was left of a grant lapsed, since it expired or its period ended.
    Lapsed,
    /// A grant was taken back.
    Withdrawn,
    /// Credits were reserved.
    Reserved,
    /// Reserved credits were not charged, and are available again.
    Returned,
    /// More was charged than was reserved.
    Charged,
    /// More was charged than was available: a debt.
    Owed,
    /// Available credits paid a debt: two entries, of the grant and of the debt.
    Repaid,
}

impl EntryKind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Granted,
        Self::Refilled,
        Self::Lapsed,
        Self::Withdrawn,
        Self::Reserved,
        Self::Returned,
        Self::Charged,
        Self::Owed,
        Self::Repaid,
    ];

    /// The name in storage and in output, such as `granted`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Refilled => "refilled",
            Self::Lapsed => "lapsed",
            Self::Withdrawn => "withdrawn",
            Self::Reserved => "reserved",
            Self::Returned => "returned",
            Self::Charged => "charged",
            Self::Owed => "owed",
            Self::Repaid => "repaid",
        }
    }

    /// The kind with this [name](Self::as_str); `None` for any other text.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Which entries of a ledger to read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerQuery {
    /// The account.
    pub account: Box<str>,
    /// The number of entries on a page that is wished for. Default: 100. Stores use [`page_size`](Self::page_size).
    pub limit: u32,
    /// The cursor of the page before.
    pub after: Option<Box<str>>,
}

impl LedgerQuery {
    /// The latest entries of an account.
    pub fn new(account: impl Into<Box<str>>) -> Self {
        Self { account: account.into(), limit: 100, after: None }
    }

    /// At most this many entries: 1 to 100. Other numbers are brought into this range.
    pub fn with_limit(self, limit: u32) -> Self {
        Self { limit, ..self }
    }

    /// The number of entries on a page: 1 to 100.
    pub fn page_size(&self) -> u32 {
        self.limit.clamp(1, 100)
    }

    /// Continues behind the page whose [`next`](crate::manage::Page) this is.
    pub fn with_after(self, next: impl Into<Box<str>>) -> Self {
        Self { after: Some(next.into()), ..self }
    }
}

/// An account as it is stored, and as its ledger says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerCheck {
    /// What is stored as available.
    pub available: u64,
    /// What is stored as owed.
    pub owed: u64,
    /// What the ledger says is available, less the debt.
    pub net_by_ledger: i64,
    /// Whether the stored account agrees with its ledger: in sum, and for each grant.
    pub agrees: bool,
}

impl LedgerCheck {
    /// A stored account, and the sum of its ledger.
    pub fn new(available: u64, owed: u64, net_by_ledger: i64, agrees: bool) -> Self {
        Self { available, owed, net_by_ledger, agrees }
    }
}
