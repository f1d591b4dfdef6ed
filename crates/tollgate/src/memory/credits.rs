//! Credits in this process.

mod ledger;
mod stored_account;

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex},
    time::SystemTime,
};

use tollgate_core::{
    answer::Answer,
    credits::{
        Balance, ChargeLentRequest, CreditAdmin, CreditAdminError, CreditLoans, Credits, Grant, LedgerCheck,
        LedgerEntry, LedgerQuery, NewGrant, ReservationId, ReserveRequest, Reserved, SettleRequest,
        Settlement, ShrinkRequest, WithdrawGrant,
    },
    denial::Unavailable,
    manage::{Command, Page},
};

use self::stored_account::StoredAccount;
use super::lock;

/// Credits in memory: for tests and demonstrations, and for services whose credits come from elsewhere at start-up. All accounts are
/// lost when the process ends.
///
/// Clones share their state. It answers at once.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use tollgate::{
///     credits::{CreditAdmin, Credits, Excess, MemoryCredits, NewGrant, ReserveRequest, Reserved, SettleAction, SettleRequest},
///     manage::{Actor, Command},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
/// let credits = MemoryCredits::new();
/// let grant = NewGrant::new("acme", 100).with_id("invoice_17").with_note("invoice 17");
/// credits.grant(Command::new(grant, Actor::new("billing"), now)).await?;
///
/// let request = ReserveRequest::new("acme", 10, now + Duration::from_secs(60), now);
/// let Reserved::Held(held) = credits.reserve(&request).await? else { panic!("there are credits") };
///
/// // The request has cost less than was estimated.
/// let commit = SettleAction::Commit { actual: 3, excess: Excess::Cap };
/// let settlement = credits.settle(&SettleRequest::new("acme", held.id, commit, now)).await?;
/// assert_eq!(settlement.charged, 3);
/// assert_eq!(credits.balance("acme", now).await?.available, 97);
/// assert!(credits.check("acme").await?.agrees);
/// # Ok(())
/// # }
/// ```
///
/// # Memory
///
/// Of each account it keeps the latest 10,000 entries of the ledger, and the sums of older ones; 1,000 grants that have ended; the open
/// reservations; and the latest 100,000 reservations that have ended, for [24 hours](crate::bounds::SETTLEMENT_KEPT). So an idempotency
/// key is forgotten sooner if the account has made 100,000 requests since. The number of accounts is not bounded: the application makes
/// them with their first grant.
#[derive(Clone)]
pub struct MemoryCredits(Arc<Inner>);

struct Inner {
    // An account is in one shard, behind one lock.
    shards: [Mutex<HashMap<Box<str>, StoredAccount>>; SHARDS],
    hasher: RandomState,
}

/// Enough that two cores rarely use the same shard.
const SHARDS: usize = 64;

impl MemoryCredits {
    /// No accounts.
    pub fn new() -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self(Arc::new(Inner { shards, hasher: RandomState::new() }))
    }

    /// Uses what is stored of an account. An account without records is not kept.
    fn with_account<T>(&self, name: &str, use_account: impl FnOnce(&mut StoredAccount) -> T) -> T {
        let mut shard = lock(self.shard(name));
        if let Some(account) = shard.get_mut(name) {
            return use_account(account);
        }
        let mut account = StoredAccount::default();
        let outcome = use_account(&mut account);
        if !account.is_empty() {
            shard.insert(name.into(), account);
        }
        outcome
    }

    #[expect(clippy::indexing_slicing, reason = "the index is below SHARDS")]
    fn shard(&self, account: &str) -> &Mutex<HashMap<Box<str>, StoredAccount>> {
        let hash = self.0.hasher.hash_one(account);
        // Cannot fail: it is below SHARDS.
        &self.0.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }
}

impl Credits for MemoryCredits {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Answer<Result<Reserved, Unavailable>> {
        Answer::Now(
            ReservationId::random()
                .and_then(|id| self.with_account(request.account, |account| account.reserve(request, id))),
        )
    }

    fn settle(&self, request: &SettleRequest<'_>) -> Answer<Result<Settlement, Unavailable>> {
        Answer::Now(Ok(self.with_account(request.account, |account| account.settle(request))))
    }

    fn balance(&self, account: &str, now: SystemTime) -> Answer<Result<Balance, Unavailable>> {
        Answer::Now(Ok(self.with_account(account, |account| account.balance(now))))
    }
}

impl CreditLoans for MemoryCredits {
    fn shrink(&self, request: &ShrinkRequest<'_>) -> Answer<Result<(), Unavailable>> {
        self.with_account(request.account, |account| account.shrink(request));
        Answer::Now(Ok(()))
    }

    fn charge_lent(&self, request: &ChargeLentRequest<'_>) -> Answer<Result<Settlement, Unavailable>> {
        Answer::Now(Ok(self.with_account(request.account, |account| account.charge_lent(request))))
    }

    fn charged(&self, account: &str, id: ReservationId, now: SystemTime) -> Answer<Result<u64, Unavailable>> {
        Answer::Now(Ok(self.with_account(account, |account| account.charged(id, now))))
    }
}

impl CreditAdmin for MemoryCredits {
    fn grant(&self, command: Command<NewGrant>) -> Answer<Result<Grant, CreditAdminError>> {
        Answer::Now(self.with_account(&command.change.account, |account| account.grant(&command)))
    }

    fn withdraw(&self, command: Command<WithdrawGrant>) -> Answer<Result<Grant, CreditAdminError>> {
        Answer::Now(self.with_account(&command.change.account, |account| account.withdraw(&command)))
    }

    fn grants(&self, account: &str, now: SystemTime) -> Answer<Result<Vec<Grant>, CreditAdminError>> {
        Answer::Now(Ok(self.with_account(account, |account| account.grants(now))))
    }

    fn ledger(&self, query: &LedgerQuery) -> Answer<Result<Page<LedgerEntry>, CreditAdminError>> {
        let Ok(before) = query.after.as_deref().map(str::parse).transpose() else {
            return Answer::Now(Err(CreditAdminError::InvalidCursor));
        };
        Answer::Now(Ok(self.with_account(&query.account, |account| account.ledger().page(query, before))))
    }

    fn sweep(&self, now: SystemTime) -> Answer<Result<u64, CreditAdminError>> {
        let mut released = 0;
        for shard in &self.0.shards {
            lock(shard).retain(|_, account| {
                released += account.advance(now);
                !account.is_empty()
            });
        }
        Answer::Now(Ok(released))
    }

    fn check(&self, account: &str) -> Answer<Result<LedgerCheck, CreditAdminError>> {
        Answer::Now(Ok(self.with_account(account, |account| account.check())))
    }
}

impl Default for MemoryCredits {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryCredits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accounts: usize = self.0.shards.iter().map(|shard| lock(shard).len()).sum();
        f.debug_struct("MemoryCredits").field("accounts", &accounts).finish()
    }
}

#[cfg(test)]
mod tests;
