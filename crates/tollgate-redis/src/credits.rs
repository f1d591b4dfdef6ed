//! Credits that are lent by Redis.

mod book;
mod builder;
mod id;
mod keeper;
mod reserve;
mod script;
mod settle;

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::oneshot, time::sleep};
use tollgate_core::{
    answer::Answer,
    clock::{Clock as _, SystemClock},
    credits::{
        Balance, CreditAdmin, CreditAdminError, CreditLoans, Credits, Grant, LedgerCheck, LedgerEntry,
        LedgerQuery, NewGrant, ReserveRequest, Reserved, SettleAction, SettleRequest, Settlement,
        WithdrawGrant,
    },
    denial::Unavailable,
    manage::{Command, Page},
};

pub use self::builder::RedisCreditsBuilder;
use self::{
    book::Book,
    id::Ids,
    reserve::OwnRequest,
    script::{Lent, LoanScript, millis},
};
use crate::Redis;

/// How long a loan lends. After that, another one takes its place.
const LENDING_TIME: Duration = Duration::from_secs(60);

/// How long a loan is reserved in the ledger beyond the longest reservation, so that it can be closed after an outage, and by clocks that
/// differ.
const SPARE_TIME: Duration = Duration::from_secs(600);

/// How often a balance is read while loans are taken or closed, and the time between. After that, what is lent counts as reserved.
const MOST_LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Lends the credits of busy accounts to the requests of all processes that share a Redis or Valkey server. The ledger, such as
/// `SqlCredits`, has every credit, and is asked once for each loan: about once a minute.
///
/// A ledger of your own implements [`CreditLoans`], as `SqlCredits` and `MemoryCredits` do, and passes
/// `tollgate_testing::suite::credit_loans`. Services with different ledgers need different
/// [prefixes](crate::RedisSettings::with_prefix): the names in Redis contain the account, and not the ledger.
///
/// ```no_run
/// use tollgate::{CreditsLayer, credits::MemoryCredits};
/// use tollgate_redis::{Redis, RedisCredits};
///
/// # async fn example() -> Result<(), tollgate_redis::ConnectError> {
/// let ledger = MemoryCredits::new(); // `SqlKeys::credits` of `tollgate-sql` in production
/// let credits = RedisCredits::new(Redis::connect("redis://127.0.0.1:6379").await?, ledger);
/// let layer = CreditsLayer::new(credits, 1);
/// # let _ = layer;
/// # Ok(())
/// # }
/// ```
///
/// # Loans
///
/// A *loan* is a reservation in the ledger: an eighth of what is available. Redis lends it to the requests of all processes, for a minute. A
/// request then takes one trip to Redis to reserve, and one to settle. When a loan lends no more, and its reservations have ended, one process
/// closes it: the ledger charges what each process has charged on it, and the rest is available again.
///
/// These requests reserve and settle in the ledger, as without Redis:
///
/// - those of accounts that are not busy, and of accounts in which an eighth does not suffice for 16 requests ([`Loans::Auto`]);
/// - those with an idempotency key;
/// - those whose reservation is longer than [10 minutes](RedisCreditsBuilder::with_longest_reservation);
/// - all of them while Redis is down, and each one for which Redis has not answered within the
///   [deadline](crate::RedisSettings::with_deadline).
///
/// If the ledger has too few credits for a request, all loans of its account give back what they have not lent. So a request is
/// refused only if the ledger and the loans together have too few. What a request costs beyond its estimate is taken from the loan, and then
/// charged in the ledger, also as a debt. After that, nothing is lent to the account until it has no debt.
///
/// # When something fails
///
/// No credit is sold twice, and no charge is made twice, by any of these, except where it says so.
///
/// | event | effect |
/// |---|---|
/// | Redis is down or late | requests reserve in the ledger. What is lent is missing there until Redis is back or the loan expires. A settlement of a loan is [`Unavailable`], and this process repeats it until Redis answers, also after its caller has given up |
/// | Redis loses its data | each process charges in the ledger what it has charged on the loan and what it settles later, from the loan, which is still reserved there. What no process has charged returns when the loan expires: 21 minutes after it was taken |
/// | a process is killed | what it has charged is in Redis, and is charged in the ledger by any process that uses Redis within 24 hours. Its open reservations expire |
/// | a process is killed while it borrows, or the answer of the ledger is lost | the credits of this loan return when it expires. All processes together take the next one up to 10 seconds later |
/// | Redis does not answer whether a loan is open | the process asks again, and takes no other loan of the account meanwhile |
/// | Redis loses its data, and a process is killed before it has charged in the ledger | what this process has charged is not charged: at most on the loans that are not closed |
/// | the ledger is down | loans lend until their minute is over. Then reservations are `Unavailable`. Loans are closed when it is back |
/// | a replica takes over that lacks the latest changes | a process that runs charges what the replica lacks. What it has lent twice can become a debt |
/// | Redis goes back to an older state, such as a snapshot | the same: a process that runs charges what it has charged since, and loans that were closed can be lent until their minute is over |
/// | Redis loses its data, and gets it back later | a settlement whose answer was lost before can be charged twice |
/// | another process settles what a killed one has reserved, and Redis loses its data before or after that | it may not be charged |
/// | the caller hangs up | a reservation that was made all the same is released if a loan lends it, and expires if not. A settlement is made |
///
/// An outage of Redis can cause a refusal with 402 although credits are lent. So can a loan in the milliseconds in which other processes
/// take, return or close one.
///
/// # What differs from the ledger
///
/// - A [`Reservation`](tollgate_core::credits::Reservation) of a loan says what was available when the loan was taken, and
///   what the loan has left. [`balance`](Credits::balance) is exact while Redis answers. Without it, and
///   in the milliseconds in which a loan is taken or returns, what is lent counts as reserved.
/// - The entries of the ledger are those of the loans, with their identifiers, not of single requests. Loans have idempotency keys
///   that begin with `tollgate-loan-`: an account that uses such keys itself may be lent nothing.
/// - What is lent stays lent for a minute if its grant expires, and lapses when it returns. [`withdraw`](CreditAdmin::withdraw),
///   [`grants`](CreditAdmin::grants) and [`check`](CreditAdmin::check) first give back what is not lent to a request.
/// - A debt that a request makes which has reserved in the ledger keeps the loan that lends from lending only when its minute is over.
/// - A settlement is remembered for 10 minutes after its loan was closed. A later settlement of a request that was not settled in time
///   is charged only if it comes from the process that has reserved.
///
/// # What is stored
///
/// Each account has a hash, `tollgate:credits:{acme}`, with about 200 bytes for each loan and 60 for each process that uses it; a sorted set of open
/// reservations, with about 100 bytes for each; and for each loan a hash of its reservations, at most 100,000, with about 120 bytes for each. The
/// first two expire after 24 hours, the last one 10 minutes after the loan was closed. `tollgate:credits` lists the loans of all accounts. Names of
/// accounts are readable in Redis.
///
/// This process remembers at most 100,000 reservations that are not settled, with about 200 bytes for each, and 10,000 accounts. Further requests
/// reserve in the ledger.
///
/// A user of Redis also needs the permissions `+del +hget +hset +hdel +hexists +hlen +hgetall +zadd +zrem +zcard +zrangebyscore +exists
/// +pttl +pexpire`.
///
/// A clone is a handle of the same credits. A task of its own closes loans, once a second. It ends with the last handle, when all
/// settlements are answered.
pub struct RedisCredits<L> {
    shared: Arc<Shared<L>>,
    // The task ends when all of these are dropped.
    handle: Arc<()>,
}

/// Which accounts borrow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loans {
    /// None: all requests reserve in the ledger. What other processes have borrowed is recalled and closed, as with the others.
    Off,
    /// Accounts with 10 requests in 10 seconds in this process, of which an eighth of what is available suffices for 16 requests. The default.
    #[default]
    Auto,
    /// Every account from its first request on, also if one request takes all that is available. For tests.
    Always,
}

struct Shared<L> {
    script: LoanScript,
    ledger: L,
    loans: Loans,
    longest: Duration,
    clock: Clock,
    ids: Ids,
    book: Mutex<Book>,
}

/// By which clock loans are closed.
enum Clock {
    System,
    /// The latest instant of a request, in milliseconds since 1970.
    Requests(AtomicU64),
}

impl Clock {
    fn requests() -> Self {
        Self::Requests(AtomicU64::new(0))
    }

    fn record(&self, now: SystemTime) {
        if let Self::Requests(latest) = self {
            latest.fetch_max(millis(now), Ordering::Relaxed);
        }
    }

    fn now(&self) -> SystemTime {
        match self {
            Self::System => SystemClock.now(),
            Self::Requests(latest) => UNIX_EPOCH + Duration::from_millis(latest.load(Ordering::Relaxed)),
        }
    }
}

impl<L: CreditLoans> RedisCredits<L> {
    /// Credits with the default settings: busy accounts borrow.
    pub fn new(redis: Redis, ledger: L) -> Self {
        Self::builder(redis, ledger).build()
    }

    fn start(redis: Redis, ledger: L, loans: Loans, longest: Duration, clock: Clock) -> Self {
        let runtime = redis.runtime().clone();
        let shared = Arc::new(Shared {
            script: LoanScript::new(redis),
            ledger,
            loans,
            longest,
            clock,
            ids: Ids::new(),
            book: Mutex::new(Book::new(loans)),
        });
        let handle = Arc::new(());
        runtime.spawn(keeper::keep(Arc::clone(&shared), Arc::downgrade(&handle)));
        Self { shared, handle }
    }

    /// Closes the loans that this process has used, if no request holds credits of them, and gives back what the others can lend. Call it
    /// before the last process ends: otherwise the ledger has the charges on open loans when a process starts again, within 24 hours.
    ///
    /// # Errors
    /// If a settlement has no answer, or the ledger does not have what this process has charged: call it again. Other processes close a
    /// loan that a request of theirs holds.
    pub async fn close(&self) -> Result<(), Unavailable> {
        self.shared.end().await
    }

    /// A call in a task of its own, which completes even if the caller hangs up.
    fn complete<T, E, F>(
        &self,
        now: SystemTime,
        call: impl FnOnce(Arc<Shared<L>>) -> F,
    ) -> Answer<Result<T, E>>
    where
        T: Send + 'static,
        E: From<Unavailable> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.shared.clock.record(now);
        let runtime = self.shared.script.redis().runtime().clone();
        let future = call(Arc::clone(&self.shared));
        Answer::later(async move {
            let ended = |_| Err(Unavailable::new("the runtime of the credits has ended").into());
            runtime.spawn(future).await.unwrap_or_else(ended)
        })
    }
}

impl<L> RedisCredits<L> {
    /// Credits with other settings.
    pub fn builder(redis: Redis, ledger: L) -> RedisCreditsBuilder<L> {
        RedisCreditsBuilder::new(redis, ledger)
    }
}

impl<L> Shared<L> {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Each change is complete, even if its thread panics afterwards.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: CreditLoans> Shared<L> {
    async fn balance(&self, account: &str, now: SystemTime) -> Result<Balance, Unavailable> {
        let mut lent = self.close_ended(account, now).await;
        for _ in 0..MOST_LOOKS {
            let balance = self.ledger.balance(account, now).await?;
            let (Some(before), Some(after)) = (lent, self.look(account, now).await) else {
                return Ok(balance);
            };
            // Otherwise a loan was taken or closed meanwhile, and may be counted twice.
            if after.is_as(&before) {
                return Ok(after.added_to(balance));
            }
            lent = Some(after);
            sleep(BETWEEN_LOOKS).await;
        }
        self.ledger.balance(account, now).await
    }
}

impl Lent {
    /// The balance of the ledger, in which all that is lent is reserved.
    fn added_to(&self, balance: Balance) -> Balance {
        let mut sum = balance;
        sum.available = balance.available.saturating_add(self.left);
        sum.reserved = balance.reserved.saturating_sub(self.left.saturating_add(self.charged));
        sum
    }
}

impl<L: CreditLoans> Credits for RedisCredits<L> {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Answer<Result<Reserved, Unavailable>> {
        let (own, now) = (OwnRequest::new(request), request.now);
        let account = own.account.clone();
        let (task, caller) = oneshot::channel::<Infallible>();
        let reserved = self.complete(now, move |shared| async move {
            let reserved = shared.reserve(own).await;
            if let (true, Ok(Reserved::Held(held))) = (task.is_closed(), &reserved) {
                // The caller has hung up, and only the caller would have had the identifier. The keeper releases it.
                shared.book().request_settlement(&account, held.id, SettleAction::Release, now);
            }
            reserved
        });
        Answer::later(async move {
            let _caller = caller;
            reserved.await
        })
    }

    fn settle(&self, request: &SettleRequest<'_>) -> Answer<Result<Settlement, Unavailable>> {
        let SettleRequest { account, id, action, now, .. } = *request;
        let account: Box<str> = account.into();
        self.complete(now, move |shared| async move { shared.settle(&account, id, action, now).await })
    }

    fn balance(&self, account: &str, now: SystemTime) -> Answer<Result<Balance, Unavailable>> {
        let account: Box<str> = account.into();
        self.complete(now, move |shared| async move { shared.balance(&account, now).await })
    }
}

impl<L: CreditAdmin + CreditLoans> CreditAdmin for RedisCredits<L> {
    fn grant(&self, command: Command<NewGrant>) -> Answer<Result<Grant, CreditAdminError>> {
        self.shared.ledger.grant(command)
    }

    fn withdraw(&self, command: Command<WithdrawGrant>) -> Answer<Result<Grant, CreditAdminError>> {
        self.complete(command.at, move |shared| async move {
            shared.recall_and_close(&command.change.account, command.at).await;
            shared.ledger.withdraw(command).await
        })
    }

    fn grants(&self, account: &str, now: SystemTime) -> Answer<Result<Vec<Grant>, CreditAdminError>> {
        let account: Box<str> = account.into();
        self.complete(now, move |shared| async move {
            shared.recall_and_close(&account, now).await;
            shared.ledger.grants(&account, now).await
        })
    }

    fn ledger(&self, query: &LedgerQuery) -> Answer<Result<Page<LedgerEntry>, CreditAdminError>> {
        self.shared.ledger.ledger(query)
    }

    fn sweep(&self, now: SystemTime) -> Answer<Result<u64, CreditAdminError>> {
        self.shared.ledger.sweep(now)
    }

    fn check(&self, account: &str) -> Answer<Result<LedgerCheck, CreditAdminError>> {
        let (account, now): (Box<str>, _) = (account.into(), self.shared.clock.now());
        self.complete(now, move |shared| async move {
            shared.recall_and_close(&account, now).await;
            shared.ledger.check(&account).await
        })
    }
}

impl<L> Clone for RedisCredits<L> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), handle: Arc::clone(&self.handle) }
    }
}

impl<L: fmt::Debug> fmt::Debug for RedisCredits<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCredits")
            .field("redis", self.shared.script.redis())
            .field("ledger", &self.shared.ledger)
            .field("loans", &self.shared.loans)
            .finish_non_exhaustive()
    }
}
