//! Credits in this process, behind a backend whose calls can be slow, fail, or lose their answers.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tollgate::{
    Answer,
    answer::Pending,
    credits::{
        Balance, CreditAdmin as _, Credits, Idempotency, MemoryCredits, NewGrant, ReserveRequest, Reserved,
        SettleRequest, Settlement,
    },
    denial::Unavailable,
    key::Digest,
    manage::{Actor, Command},
};

use super::{Backend, at};

/// How a call of [`FaultyCredits`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// It is answered at once.
    Prompt,
    /// It is done, and answered, after this time, also if its caller no longer waits.
    Slow(Duration),
    /// It fails at once, and nothing is done.
    Fails,
    /// It fails after a moment, and nothing is done.
    FailsLater,
    /// It is done, and then fails: its answer is lost.
    LosesAnswer,
    /// It is done, and never answered.
    Hangs,
    /// It is not done, and never answered.
    HangsUndone,
}

/// Credits whose calls go as the test says. Clones are the same backend.
#[derive(Clone, Default)]
pub struct FaultyCredits {
    credits: MemoryCredits,
    reserve: Arc<Mutex<Script>>,
    settle: Arc<Mutex<Script>>,
}

/// How the next calls go, and all others.
struct Script {
    next: VecDeque<Call>,
    otherwise: Call,
    calls: usize,
}

impl Default for Script {
    fn default() -> Self {
        Self { next: VecDeque::new(), otherwise: Call::Prompt, calls: 0 }
    }
}

impl Script {
    fn call(&mut self) -> Call {
        self.calls += 1;
        self.next.pop_front().unwrap_or(self.otherwise)
    }
}

impl FaultyCredits {
    /// Credits that are granted to one account.
    ///
    /// # Panics
    /// If the grant fails.
    pub fn granted(account: &str, amount: u64) -> Self {
        let credits = Self::default();
        credits.grant(account, amount);
        credits
    }

    /// Grants credits to an account.
    ///
    /// # Panics
    /// If the grant fails.
    pub fn grant(&self, account: &str, amount: u64) {
        let command = Command::new(NewGrant::new(account, amount), Actor::new("billing"), at(0));
        now(self.credits.grant(command)).unwrap();
    }

    /// From now on, reservations go like this.
    ///
    /// # Panics
    /// If another thread has panicked during a call.
    pub fn reserving(self, call: Call) -> Self {
        self.reserve.lock().unwrap().otherwise = call;
        self
    }

    /// From now on, settlements go like this.
    ///
    /// # Panics
    /// If another thread has panicked during a call.
    pub fn settling(self, call: Call) -> Self {
        self.settle.lock().unwrap().otherwise = call;
        self
    }

    /// The next settlements go like these.
    ///
    /// # Panics
    /// If another thread has panicked during a call.
    pub fn settling_next(self, calls: impl IntoIterator<Item = Call>) -> Self {
        self.settle.lock().unwrap().next.extend(calls);
        self
    }

    /// How often a reservation was asked for.
    ///
    /// # Panics
    /// If another thread has panicked during a call.
    pub fn reservations(&self) -> usize {
        self.reserve.lock().unwrap().calls
    }

    /// How often a settlement was asked for.
    ///
    /// # Panics
    /// If another thread has panicked during a call.
    pub fn settlements(&self) -> usize {
        self.settle.lock().unwrap().calls
    }

    /// What an account has, at the instant at which worlds begin: available, reserved and owed.
    ///
    /// # Panics
    /// If the account does not agree with its ledger.
    pub fn account(&self, account: &str) -> (u64, u64, u64) {
        self.account_at(account, at(0))
    }

    /// What an account has at this instant.
    ///
    /// # Panics
    /// If the account does not agree with its ledger.
    pub fn account_at(&self, account: &str, instant: SystemTime) -> (u64, u64, u64) {
        let Balance { available, reserved, owed, .. } = now(self.credits.balance(account, instant)).unwrap();
        assert!(now(self.credits.check(account)).unwrap().agrees);
        (available, reserved, owed)
    }
}

impl Credits for FaultyCredits {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Answer<Result<Reserved, Unavailable>> {
        let (credits, account) = (self.credits.clone(), request.account.to_owned());
        let (amount, expires_at, at) = (request.amount, request.expires_at, request.now);
        let key: Option<(String, Digest)> =
            request.idempotency.map(|one| (one.key.to_owned(), one.fingerprint));
        let call = self.reserve.lock().unwrap().call();
        go(call, move || {
            let mut request = ReserveRequest::new(&account, amount, expires_at, at);
            request.idempotency = key.as_ref().map(|(key, fingerprint)| Idempotency::new(key, *fingerprint));
            now(credits.reserve(&request))
        })
    }

    fn settle(&self, request: &SettleRequest<'_>) -> Answer<Result<Settlement, Unavailable>> {
        let (credits, account) = (self.credits.clone(), request.account.to_owned());
        let (id, action, at) = (request.id, request.action, request.now);
        let call = self.settle.lock().unwrap().call();
        go(call, move || now(credits.settle(&SettleRequest::new(&account, id, action, at))))
    }

    fn balance(&self, account: &str, now: SystemTime) -> Answer<Result<Balance, Unavailable>> {
        self.credits.balance(account, now)
    }
}

impl fmt::Debug for FaultyCredits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyCredits")
    }
}

fn go<T: Send + 'static>(
    call: Call,
    act: impl FnOnce() -> Result<T, Unavailable> + Send + 'static,
) -> Answer<Result<T, Unavailable>> {
    let failed = || Err(Unavailable::new("the test has broken this call"));
    match call {
        Call::Prompt => Answer::Now(act()),
        Call::Fails => Answer::Now(failed()),
        Call::FailsLater => Answer::later(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            failed()
        }),
        Call::LosesAnswer => {
            drop(act());
            Answer::later(async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                failed()
            })
        }
        Call::Hangs => {
            drop(act());
            Answer::Later(Box::pin(std::future::pending()) as Pending<_>)
        }
        Call::HangsUndone => Answer::Later(Box::pin(std::future::pending()) as Pending<_>),
        Call::Slow(time) => {
            // As in a database, a change that has begun is completed.
            let done = tokio::spawn(async move {
                tokio::time::sleep(time).await;
                act()
            });
            Answer::later(async { done.await.unwrap() })
        }
    }
}

/// The answer of the credits in this process, which is there at once.
fn now<T>(answer: Answer<T>) -> T {
    match answer {
        Answer::Now(value) => value,
        Answer::Later(_) => panic!("the credits in this process answer at once"),
    }
}

/// An account with many credits, on a backend of the test's choice.
pub(super) struct SlowCredits {
    backend: Backend,
    credits: FaultyCredits,
}

impl SlowCredits {
    pub(super) fn new(backend: &Backend) -> Self {
        Self { backend: backend.clone(), credits: FaultyCredits::granted("acme", 1_000_000) }
    }

    fn answer<T: Send + 'static>(
        &self,
        answer: Answer<Result<T, Unavailable>>,
    ) -> Answer<Result<T, Unavailable>> {
        self.backend.answer(now(answer)).map(|answer| answer?)
    }
}

impl Credits for SlowCredits {
    fn reserve(&self, request: &ReserveRequest<'_>) -> Answer<Result<Reserved, Unavailable>> {
        self.answer(self.credits.reserve(request))
    }

    fn settle(&self, request: &SettleRequest<'_>) -> Answer<Result<Settlement, Unavailable>> {
        self.answer(self.credits.settle(request))
    }

    fn balance(&self, account: &str, now: SystemTime) -> Answer<Result<Balance, Unavailable>> {
        self.answer(self.credits.balance(account, now))
    }
}
