//! Processes with credits, each with a runtime of its own, and their ledger.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{runtime::Runtime, time::sleep};
use tollgate::{
    Answer,
    credits::{
        Balance, ChargeLentRequest, CreditAdmin, CreditAdminError, CreditLoans, Credits, Excess, Grant,
        LedgerCheck, LedgerEntry, LedgerQuery, MemoryCredits, NewGrant, ReservationId, ReserveRequest,
        Reserved, SettleAction, SettleRequest, Settlement, ShrinkRequest, WithdrawGrant,
    },
    denial::Unavailable,
    manage::{Actor, Command, Page},
};
use tollgate_redis::{Loans, Redis, RedisCredits, RedisSettings};

use crate::{patient, until};

/// How long the reservations of these tests last.
pub(super) const HOLD: Duration = Duration::from_mins(1);

pub(super) fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(2_000_000_000 + second)
}

/// A ledger in memory, which counts its calls, except for those that read balances, can be down, can let charges and answers wait, and can lose
/// answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) credits: MemoryCredits,
    granted: u64,
    calls: Arc<AtomicUsize>,
    is_down: Arc<AtomicBool>,
    is_slow: Arc<AtomicBool>,
    is_silent: Arc<AtomicBool>,
    is_late: Arc<AtomicBool>,
}

impl Ledger {
    /// With credits of the account `acme`.
    pub(super) async fn granted(amount: u64) -> Self {
        let ledger = Self { granted: amount, ..Self::default() };
        let grant = NewGrant::new("acme", amount).with_id("grant");
        ledger.credits.grant(Command::new(grant, Actor::new("root"), at(0))).await.unwrap();
        ledger
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    pub(super) fn set_slow(&self, is_slow: bool) {
        self.is_slow.store(is_slow, Ordering::Relaxed);
    }

    /// Reserves, and does not say so.
    pub(super) fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// Reserves, and says so when this is over.
    pub(super) fn set_late(&self, is_late: bool) {
        self.is_late.store(is_late, Ordering::Relaxed);
    }

    pub(super) async fn balance(&self, second: u64) -> Balance {
        self.credits.balance("acme", at(second)).await.unwrap()
    }

    fn call<T>(
        &self,
        call: impl FnOnce(&MemoryCredits) -> Answer<Result<T, Unavailable>>,
    ) -> Answer<Result<T, Unavailable>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.is_down.load(Ordering::Relaxed) {
            return Answer::Now(Err(Unavailable::new("the ledger is down")));
        }
        call(&self.credits)
    }

    /// A call that waits while the ledger is slow.
    fn call_later<T: Send + 'static>(
        &self,
        call: impl FnOnce(&MemoryCredits) -> Answer<Result<T, Unavailable>> + Send + 'static,
    ) -> Answer<Result<T, Unavailable>> {
        if !self.is_slow.load(Ordering::Relaxed) {
            return self.call(call);
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        let ledger = self.clone();
        Answer::later(async move {
            while ledger.is_slow.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(1)).await;
            }
            call(&ledger.credits).await
        })
    }
}

impl Credits for Ledger {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Answer<Result<Reserved, Unavailable>> {
        let is_silent = self.is_silent.load(Ordering::Relaxed);
        let reserved = self.call(|credits| credits.reserve(request));
        if self.is_late.load(Ordering::Relaxed) {
            let ledger = self.clone();
            return Answer::later(async move {
                while ledger.is_late.load(Ordering::Relaxed) {
                    sleep(Duration::from_millis(1)).await;
                }
                reserved.await
            });
        }
        if is_silent { Answer::Now(Err(Unavailable::new("its answer is lost"))) } else { reserved }
    }

    fn settle(&self, request: &SettleRequest<'_>) -> Answer<Result<Settlement, Unavailable>> {
        let SettleRequest { id, action, now, .. } = *request;
        self.call_later(move |credits| credits.settle(&SettleRequest::new("acme", id, action, now)))
    }

    fn balance(&self, account: &str, now: SystemTime) -> Answer<Result<Balance, Unavailable>> {
        self.credits.balance(account, now)
    }
}

impl CreditLoans for Ledger {
    fn shrink(&self, request: &ShrinkRequest<'_>) -> Answer<Result<(), Unavailable>> {
        let ShrinkRequest { loan, amount, now, .. } = *request;
        self.call_later(move |credits| credits.shrink(&ShrinkRequest::new("acme", loan, amount, now)))
    }

    fn charge_lent(&self, request: &ChargeLentRequest<'_>) -> Answer<Result<Settlement, Unavailable>> {
        let ChargeLentRequest { id, loan, lent, actual, excess, now, .. } = *request;
        let mut charge = ChargeLentRequest::new("acme", id, lent, actual, now).with_excess(excess);
        charge.loan = loan;
        self.call_later(move |credits| credits.charge_lent(&charge))
    }

    fn charged(&self, account: &str, id: ReservationId, now: SystemTime) -> Answer<Result<u64, Unavailable>> {
        self.call(|credits| credits.charged(account, id, now))
    }
}

impl CreditAdmin for Ledger {
    fn grant(&self, command: Command<NewGrant>) -> Answer<Result<Grant, CreditAdminError>> {
        self.credits.grant(command)
    }

    fn withdraw(&self, command: Command<WithdrawGrant>) -> Answer<Result<Grant, CreditAdminError>> {
        self.credits.withdraw(command)
    }

    fn grants(&self, account: &str, now: SystemTime) -> Answer<Result<Vec<Grant>, CreditAdminError>> {
        self.credits.grants(account, now)
    }

    fn ledger(&self, query: &LedgerQuery) -> Answer<Result<Page<LedgerEntry>, CreditAdminError>> {
        self.credits.ledger(query)
    }

    fn sweep(&self, now: SystemTime) -> Answer<Result<u64, CreditAdminError>> {
        self.credits.sweep(now)
    }

    fn check(&self, account: &str) -> Answer<Result<LedgerCheck, CreditAdminError>> {
        self.credits.check(account)
    }
}

/// A process, which can be killed.
pub(super) struct Process {
    pub(super) credits: RedisCredits<Ledger>,
    pub(super) redis: Redis,
    runtime: Option<Runtime>,
}

impl Process {
    pub(super) async fn start(url: &str, ledger: &Ledger, loans: Loans) -> Self {
        Self::with(patient(RedisSettings::new(url)), ledger, loans).await
    }

    pub(super) async fn with(settings: RedisSettings, ledger: &Ledger, loans: Loans) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let ledger = ledger.clone();
        let started = runtime.spawn(async move {
            let redis = Redis::connect(settings).await.unwrap();
            let credits =
                RedisCredits::builder(redis.clone(), ledger).with_loans(loans).with_request_time().build();
            (redis, credits)
        });
        let (redis, credits) = started.await.unwrap();
        Self { credits, redis, runtime: Some(runtime) }
    }

    pub(super) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub(super) async fn until_up(&self) {
        until("Redis is up", async || self.redis.is_up().then_some(())).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

pub(super) fn request(amount: u64, second: u64) -> ReserveRequest<'static> {
    ReserveRequest::new("acme", amount, at(second) + HOLD, at(second))
}

pub(super) async fn reserve(credits: &impl Credits, amount: u64, second: u64) -> Reserved {
    credits.reserve(&request(amount, second)).await.unwrap()
}

#[track_caller]
pub(super) fn held(reserved: &Reserved) -> ReservationId {
    match reserved {
        Reserved::Held(reservation) => reservation.id,
        other => panic!("expected a reservation, got {other:?}"),
    }
}

pub(super) async fn settle(
    credits: &impl Credits,
    id: ReservationId,
    action: SettleAction,
    second: u64,
) -> Result<Settlement, Unavailable> {
    credits.settle(&SettleRequest::new("acme", id, action, at(second))).await
}

/// Commits, and charges at most what was reserved. Returns what was charged and what was not.
pub(super) async fn commit(
    credits: &impl Credits,
    id: ReservationId,
    actual: u64,
    second: u64,
) -> (u64, u64) {
    let action = SettleAction::Commit { actual, excess: Excess::Cap };
    let settlement = settle(credits, id, action, second).await.unwrap();
    (settlement.charged, settlement.uncharged)
}

pub(super) async fn release(credits: &impl Credits, id: ReservationId, second: u64) {
    settle(credits, id, SettleAction::Release, second).await.unwrap();
}

pub(super) async fn balance(credits: &impl Credits, second: u64) -> Balance {
    credits.balance("acme", at(second)).await.unwrap()
}

pub(super) async fn withdraw(credits: &impl CreditAdmin, second: u64) {
    let command = Command::new(WithdrawGrant::new("acme", "grant"), Actor::new("root"), at(second));
    credits.withdraw(command).await.unwrap();
}

/// Waits until all loans are closed at this instant, and asserts that the ledger has charged this.
pub(super) async fn settled(processes: &[&Process], ledger: &Ledger, second: u64, charged: u64) {
    let closed = async || {
        for process in processes {
            // The instants of requests are the clock.
            let _ = process.credits.balance("acme", at(second)).await;
        }
        let balance = ledger.balance(second).await;
        let of_ledger = ledger.granted + balance.owed - balance.available;
        (balance.reserved == 0 && of_ledger >= charged).then_some((of_ledger, balance))
    };
    let (of_ledger, balance) = until("all loans are closed", closed).await;
    assert_eq!(of_ledger, charged, "charged in the ledger, and by settlements: {balance:?}");
    let check = ledger.credits.check("acme").await.unwrap();
    assert!(check.agrees, "{check:?}");
}
