//! Credits in the database: the handle, and the backend traits that it implements.

mod calls; // what changes an account, with owned values
mod loans; // calls of a backend that lends credits
mod read; // balances, grants, the ledger, and its check
mod rows; // an account as rows of the tables
mod sweep; // expired reservations and grants of all accounts
mod transaction; // one change of an account

use std::{fmt, sync::Arc, time::SystemTime};

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

use self::{
    calls::{GrantCall, ReserveCall, SettleCall, WithdrawCall},
    loans::{ChargeLentCall, ChargedCall, ShrinkCall},
    transaction::Call,
};
use crate::{
    database::Urgency,
    keys::{Handle, SqlKeys},
    shared::Shared,
};

/// Credits in SQLite or PostgreSQL, beside the keys of a [`SqlKeys`].
///
/// A service without keys opens a [`SqlKeys`] for its credits alone. Clones share the connections of the store, and are closed
/// with it.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use tollgate_core::{
///     credits::{
///         CreditAdmin, Credits, Excess, NewGrant, ReserveRequest, Reserved, SettleAction, SettleRequest,
///     },
///     manage::{Actor, Command},
/// };
/// use tollgate_sql::SqlKeys;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
/// let store = SqlKeys::connect("sqlite::memory:").await?; // or `sqlite://keys.db`, `postgres://…`
/// let credits = store.credits();
/// let grant = NewGrant::new("acme", 100).with_id("invoice_17").with_note("invoice 17");
/// credits.grant(Command::new(grant, Actor::new("billing"), now)).await?;
///
/// let request = ReserveRequest::new("acme", 10, now + Duration::from_secs(60), now);
/// let Reserved::Held(held) = credits.reserve(&request).await? else { panic!("there are credits") };
///
/// // The request has cost less than was estimated.
/// let commit = SettleAction::Commit { actual: 3, excess: Excess::Cap };
/// credits.settle(&SettleRequest::new("acme", held.id, commit, now)).await?;
/// assert_eq!(credits.balance("acme", now).await?.available, 97);
/// assert!(credits.check("acme").await?.agrees);
/// # store.close().await;
/// # Ok(())
/// # }
/// ```
///
/// # Several processes
///
/// All processes with the database share the accounts. Each change is one transaction that locks its account, so together they never
/// reserve more than there is. Within a process, changes of one account queue, and occupy one connection: a busy account does not
/// delay others.
///
/// Each process decides by its own clock. If clocks differ by some seconds, reservations and grants expire, and periods begin, earlier or
/// later by as much; no credit is made or lost.
///
/// # Failures
///
/// | failure | effect |
/// |---|---|
/// | the database does not answer within the [deadline](crate::SqlKeysBuilder::with_credit_deadline), 2 s | the call is `Unavailable` |
/// | the connection breaks during the commit of a reservation | the call is `Unavailable`. If the reservation was made, it expires |
/// | the connection breaks during the commit of a settlement | the call is `Unavailable`: call again, which charges nothing twice |
/// | the process is killed | each change was made as a whole, or not at all. Open reservations expire |
/// | the caller drops a future that it has polled | the change is made |
///
/// # What is stored
///
/// Of an idempotency key, its SHA-256 digest: a key that callers choose may contain personal data. A reservation that has ended is deleted
/// after [24 hours](tollgate_core::bounds::SETTLEMENT_KEPT): some at each use of its account, and all by [`SqlKeys::prune`]. The
/// ledger and the grants are never deleted.
#[derive(Clone)]
pub struct SqlCredits(Arc<Handle>);

impl SqlKeys {
    /// The accounts of credits in this database.
    pub fn credits(&self) -> SqlCredits {
        SqlCredits(Arc::clone(&self.0))
    }
}

impl SqlCredits {
    fn change<C: Call>(&self, call: C) -> Answer<Result<C::Answer, C::Error>> {
        let shared = self.shared();
        self.0.spawn_to_completion(async move {
            Ok(transaction::run(&shared, Arc::new(call), Urgency::Now).await?.answer)
        })
    }

    fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.0.shared)
    }
}

impl Credits for SqlCredits {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Answer<Result<Reserved, Unavailable>> {
        match ReservationId::random() {
            Ok(id) => self.change(ReserveCall::new(request, id)),
            Err(error) => Answer::Now(Err(error)),
        }
    }

    fn settle(&self, request: &SettleRequest<'_>) -> Answer<Result<Settlement, Unavailable>> {
        self.change(SettleCall::new(request))
    }

    fn balance(&self, account: &str, now: SystemTime) -> Answer<Result<Balance, Unavailable>> {
        let (shared, account) = (self.shared(), Box::from(account));
        self.0.spawn_to_completion(async move { Ok(read::account(&shared, account, now).await?.balance()) })
    }
}

impl CreditLoans for SqlCredits {
    fn shrink(&self, request: &ShrinkRequest<'_>) -> Answer<Result<(), Unavailable>> {
        self.change(ShrinkCall::new(request))
    }

    fn charge_lent(&self, request: &ChargeLentRequest<'_>) -> Answer<Result<Settlement, Unavailable>> {
        self.change(ChargeLentCall::new(request))
    }

    fn charged(&self, account: &str, id: ReservationId, now: SystemTime) -> Answer<Result<u64, Unavailable>> {
        // As a change, it waits for a charge that is being made.
        self.change(ChargedCall { account: account.into(), id, now })
    }
}

impl CreditAdmin for SqlCredits {
    fn grant(&self, command: Command<NewGrant>) -> Answer<Result<Grant, CreditAdminError>> {
        match command.change.id_or_random() {
            Ok(id) => self.change(GrantCall { command, id }),
            Err(error) => Answer::Now(Err(error.into())),
        }
    }

    fn withdraw(&self, command: Command<WithdrawGrant>) -> Answer<Result<Grant, CreditAdminError>> {
        self.change(WithdrawCall { command })
    }

    fn grants(&self, account: &str, now: SystemTime) -> Answer<Result<Vec<Grant>, CreditAdminError>> {
        let (shared, account) = (self.shared(), Box::from(account));
        self.0
            .spawn_to_completion(async move { Ok(read::account(&shared, account, now).await?.live_grants()) })
    }

    fn ledger(&self, query: &LedgerQuery) -> Answer<Result<Page<LedgerEntry>, CreditAdminError>> {
        let (shared, query) = (self.shared(), query.clone());
        Answer::later(async move { read::ledger(&shared, query).await })
    }

    fn sweep(&self, now: SystemTime) -> Answer<Result<u64, CreditAdminError>> {
        let shared = self.shared();
        self.0.spawn_to_completion(async move { Ok(sweep::sweep(&shared, now).await?) })
    }

    fn check(&self, account: &str) -> Answer<Result<LedgerCheck, CreditAdminError>> {
        let (shared, account) = (self.shared(), Box::from(account));
        self.0.spawn_to_completion(async move { Ok(read::check(&shared, account).await?) })
    }
}

impl fmt::Debug for SqlCredits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlCredits").field("database", &self.0.shared.database).finish()
    }
}
