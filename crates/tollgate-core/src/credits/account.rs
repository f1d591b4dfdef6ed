//! The arithmetic of an account, which every backend uses.

mod grants;
mod loans;
mod reservations;
mod stored;

use std::time::SystemTime;

use super::{Balance, EntryKind, Grant, GrantId, LedgerChange, LedgerCheck, ReservationId};

pub use stored::{AccountGrant, ReservationState, ReservedPart, StoredReservation};

/// An account as a backend has loaded it, and the changes that it has to store.
///
/// A backend decides nothing itself. For each call, it does this in one transaction that excludes other changes of the account:
///
/// 1. Load the account: the grants that have not ended, what is owed and reserved, and the number of open reservations. For a command
///    that names a grant, load this grant too, even if it has ended.
/// 2. [`advance`](Self::advance) it to the instant of the call, with the open reservations whose time is up.
/// 3. [`reserve`](Self::reserve), [`settle`](Self::settle), [`grant`](Self::grant) or [`withdraw`](Self::withdraw), with the stored
///    reservation that the call is about. For [`CreditLoans`](super::CreditLoans): [`shrink`](Self::shrink), or
///    [`charge_lent`](Self::charge_lent), which also needs the loan. Its changes contain the loan and a new reservation.
/// 4. Store the [changed grants](Self::take_changed_grants), the [changes](Self::take_changes), and [what is owed](Self::owed),
///    [reserved](Self::reserved) and [open](Self::open_reservations).
///
/// A call that only reads does steps 1 and 2, and may leave out step 4: the next call makes the same changes.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tollgate_core::{
///     credits::{
///         Account, Excess, NewGrant, ReservationId, ReserveRequest, Reserved, SettleAction, SettleRequest,
///     },
///     manage::{Actor, Command},
/// };
///
/// let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
/// let mut account = Account::new(Vec::new(), 0, 0, 0); // 1. no account is stored yet
/// account.advance(now, []); // 2.
/// let command = Command::new(NewGrant::new("acme", 100), Actor::new("cli:ada"), now);
/// account.grant(&command, "grant_1")?; // 3.
/// assert_eq!(account.take_changes().entries.len(), 1); // 4. one entry: granted, +100
///
/// let id = ReservationId::random()?;
/// let request = ReserveRequest::new("acme", 30, now + Duration::from_secs(60), now);
/// let Reserved::Held(held) = account.reserve(&request, id, None)? else { panic!() };
/// assert_eq!(held.available, 70);
///
/// let [stored] = &account.take_changes().reservations[..] else { panic!() };
/// let commit = SettleAction::Commit { actual: 12, excess: Excess::Cap };
/// let settlement = account.settle(&SettleRequest::new("acme", id, commit, now), Some(stored.clone()));
/// assert_eq!((settlement.charged, account.balance().available), (12, 88));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Account {
    // While credits are owed, no grant has any left.
    grants: Vec<AccountGrant>,
    owed: u64,
    reserved: u64,
    open_reservations: u32,
    changes: Changes,
}

/// What a backend has to store after calls of an [`Account`], beside the account and its grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// The new entries of the ledger, in this order.
    pub entries: Vec<LedgerChange>,
    /// The new and the changed reservations, in this order: one that loses its idempotency key is before the one that has it now.
    pub reservations: Vec<StoredReservation>,
}

impl Account {
    /// An account as it is stored: its grants in any order, what is owed, what is reserved, and the number of open reservations.
    pub fn new(grants: Vec<AccountGrant>, owed: u64, reserved: u64, open_reservations: u32) -> Self {
        Self { grants, owed, reserved, open_reservations, changes: Changes::default() }
    }

    /// Brings the account to an instant: grants that have expired end, grants with a new period are filled up, and the open
    /// reservations in `due` give their credits back.
    ///
    /// `due` are the reservations of the account in [`ReservationState::Held`] whose `expires_at` is not after `now`. If several
    /// periods of a grant have begun since the last call, it is filled up once. A clock that steps backwards changes nothing.
    pub fn advance(&mut self, now: SystemTime, due: impl IntoIterator<Item = StoredReservation>) {
        self.roll(now);
        for held in due {
            let expired = self.expire(held, now);
            self.changes.reservations.push(expired);
        }
        self.repay(now);
    }

    /// What the account has.
    pub fn balance(&self) -> Balance {
        Balance { available: self.available(), reserved: self.reserved, owed: self.owed }
    }

    /// The grants that have not ended, in the order in which they are spent.
    pub fn live_grants(&self) -> Vec<Grant> {
        let mut live: Vec<_> = self.grants.iter().filter(|grant| !grant.has_ended).collect();
        live.sort_by(|one, other| one.compare(other));
        live.into_iter().map(|grant| grant.grant.clone()).collect()
    }

    /// All grants of the account that are loaded.
    pub fn grants(&self) -> &[AccountGrant] {
        &self.grants
    }

    /// The debt.
    pub fn owed(&self) -> u64 {
        self.owed
    }

    /// What all open reservations hold.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// The number of reservations in [`ReservationState::Held`].
    pub fn open_reservations(&self) -> u32 {
        self.open_reservations
    }

    /// The grants that were added or changed since the account was loaded, or since the last time.
    pub fn take_changed_grants(&mut self) -> Vec<AccountGrant> {
        let changed = self.grants.iter_mut().filter(|grant| grant.is_changed);
        let take = |grant: &mut AccountGrant| {
            grant.is_changed = false;
            grant.clone()
        };
        changed.map(take).collect()
    }

    /// The entries and reservations of the calls since the last time.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Removes the grants that have ended, and returns them: for a backend that keeps accounts loaded.
    pub fn take_ended_grants(&mut self) -> Vec<AccountGrant> {
        self.grants.extract_if(.., |grant| grant.has_ended).collect()
    }

    /// Adds a stored grant that was not loaded with the account, since it has ended.
    pub fn add_ended_grant(&mut self, grant: AccountGrant) {
        self.grants.push(grant);
    }

    /// Compares the account with its ledger: the sums of the amounts by grant, and the sum of those without a grant. A grant whose sum is
    /// given twice does not agree.
    pub fn check(&self, sums: impl IntoIterator<Item = (Option<GrantId>, i64)>) -> LedgerCheck {
        let mut net = 0_i64;
        let mut owed_agrees = self.owed == 0;
        let mut unmatched: Vec<_> =
            self.grants.iter().map(|grant| &grant.grant).filter(|grant| grant.remaining > 0).collect();
        let mut grants_agree = true;
        for (id, sum) in sums {
            net = net.saturating_add(sum);
            let Some(id) = id else {
                owed_agrees = sum.checked_neg().and_then(|owed| u64::try_from(owed).ok()) == Some(self.owed);
                continue;
            };
            let place = unmatched.iter().position(|grant| grant.id == id);
            let remaining = place.map_or(0, |place| unmatched.swap_remove(place).remaining);
            grants_agree &= u64::try_from(sum) == Ok(remaining);
        }
        let agrees = owed_agrees && grants_agree && unmatched.is_empty();
        LedgerCheck::new(self.available(), self.owed, net, agrees)
    }

    fn available(&self) -> u64 {
        self.grants.iter().map(|grant| grant.grant.remaining).fold(0, u64::saturating_add)
    }

    /// Takes up to `most` credits of the grants, in the order in which they are spent. Returns what was taken.
    fn take(&mut self, most: u64, cause: Cause) -> Vec<ReservedPart> {
        self.grants.sort_by(AccountGrant::compare);
        let mut parts = Vec::new();
        let mut left = most;
        for grant in self.grants.iter_mut().filter(|grant| !grant.has_ended) {
            let amount = left.min(grant.grant.remaining);
            if amount == 0 {
                continue;
            }
            left -= amount;
            grant.grant.remaining -= amount;
            grant.is_changed = true;
            self.changes.record(cause, -signed(amount), Some(&grant.grant.id));
            parts.push(ReservedPart::new(grant.grant.id.clone(), grant.period, amount));
        }
        parts
    }

    /// Pays the debt from what is available. Follows every change that makes credits available.
    fn repay(&mut self, at: SystemTime) {
        if self.owed == 0 {
            return;
        }
        let cause = Cause { at, kind: EntryKind::Repaid, reservation: None };
        let paid = amount_of(&self.take(self.owed, cause));
        if paid > 0 {
            self.owed -= paid;
            self.changes.record(cause, signed(paid), None);
        }
    }
}

/// Why amounts change.
#[derive(Clone, Copy)]
struct Cause {
    at: SystemTime,
    kind: EntryKind,
    reservation: Option<ReservationId>,
}

impl Changes {
    fn record(&mut self, cause: Cause, amount: i64, grant: Option<&str>) {
        let mut entry = LedgerChange::new(cause.at, cause.kind, amount);
        entry.grant = grant.map(Into::into);
        entry.reservation = cause.reservation;
        self.entries.push(entry);
    }
}

fn amount_of(parts: &[ReservedPart]) -> u64 {
    parts.iter().map(|part| part.amount).sum()
}

/// An amount as a number of the ledger. All amounts are far below the maximum: see [`MAX_CREDITS`](crate::bounds::MAX_CREDITS).
fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
