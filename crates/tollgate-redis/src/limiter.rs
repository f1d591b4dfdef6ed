//! The limiter.

mod builder;
mod call;
mod charges;
pub(crate) mod key_name;
mod outage;

use std::{
    fmt,
    sync::{Arc, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use smallvec::SmallVec;
use tokio::{
    sync::{Mutex, oneshot},
    time::{Instant, sleep, timeout},
};
use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    limit::{Counter, Decision, LimitRequest, Limiter, WindowLimit},
};

pub use self::{builder::RedisLimiterBuilder, outage::Outage};
pub(crate) use self::{
    call::{ClockOf, DecideScript, Exchange, Reply, nanos_of_pair},
    charges::{Charges, decide, have_several_groups},
    outage::Outages,
};
use crate::{
    Redis,
    leases::{Ask, GiveBack, LeaseTable, Leases, Name, Step},
};

/// Counts exactly, for all processes that share a Redis or Valkey server.
///
/// One script decides about all windows and subjects of a request at once, by the server's clock: it checks all of them, and then
/// counts in all of them or in none. All algorithms and windows of [`Quota`](tollgate_core::limit::Quota) work as in one process.
///
/// ```no_run
/// use tollgate::{PerWindow, Policy, RateLimitLayer};
/// use tollgate_redis::{Redis, RedisLimiter};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let redis = Redis::connect("redis://127.0.0.1:6379").await?;
/// let policies = [Policy::new("key", 600.per_minute())];
/// let layer = RateLimitLayer::from_policies(policies)?.with_limiter(RedisLimiter::new(redis))?;
/// # let _ = layer;
/// # Ok(())
/// # }
/// ```
///
/// # Leases
///
/// A process borrows a part of a busy subject's quota and spends it without asking Redis: see [`Leases`].
///
/// # Refusals
///
/// A process remembers that a subject's quota is used up, and refuses its requests without asking Redis until a window opens, but asks
/// once a second, and whenever the quota was raised.
///
/// # While Redis is down
///
/// Each policy chooses by [`Outage`]: count in this process (the default), refuse, or allow. No request waits longer than the
/// [deadline](crate::RedisSettings::with_deadline). What Redis has counted without answering in time stays counted.
///
/// # What is stored
///
/// A subject under a policy is one key, `tollgate:{group}:policy:subject`, with its counters as text. It expires one minute after its
/// last window. The names of groups, policies and subjects are readable in Redis. Counts are exact up to 2^53.
///
/// Redis, and not this crate, bounds the number of keys: give it `maxmemory`, and the policy `noeviction`. Then a flood of invented
/// subjects makes Redis refuse new counts, which is logged and is an [`Outage`]. A policy that evicts keys would reset quotas.
///
/// In a Redis Cluster, all charges of a request that have the same group (a tenant) are decided by one script. Charges of different
/// groups are decided one group after another, and given back if a later one refuses; meanwhile, another request can be refused that
/// would have fitted.
///
/// A clone is a handle of the same limiter.
#[derive(Clone)]
pub struct RedisLimiter {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    redis: Redis,
    script: DecideScript,
    outages: Outages,
    leases: LeaseTable,
    // One at a time gives back what is not used.
    giving_back: Mutex<()>,
    started: Instant,
}

impl RedisLimiter {
    /// A limiter with the default settings: leases for busy subjects, and counts in this process while Redis is down.
    pub fn new(redis: Redis) -> Self {
        Self::builder(redis).build()
    }

    /// A limiter with other settings.
    pub fn builder(redis: Redis) -> RedisLimiterBuilder {
        RedisLimiterBuilder::new(redis)
    }

    fn start(redis: Redis, script: DecideScript, outages: Outages, leases: Leases) -> Self {
        let shared = Arc::new(Shared {
            redis,
            script,
            outages,
            leases: LeaseTable::new(leases),
            giving_back: Mutex::default(),
            started: Instant::now(),
        });
        // A test that gives the instants of requests gives none to a task.
        if shared.script.clock == ClockOf::Redis {
            shared.redis.runtime().spawn(give_back_unused(Arc::downgrade(&shared)));
        }
        Self { shared }
    }

    /// Gives back what was borrowed and is not used. Call it before the process ends; otherwise these units remain unused until their
    /// windows end.
    pub async fn close(&self) {
        // The task may have begun: the process must not end before it has given back.
        let _turn = self.shared.giving_back.lock().await;
        for unused in self.shared.leases.take_all() {
            self.shared.give_back(unused).await;
        }
    }
}

impl Limiter for RedisLimiter {
    fn acquire(&self, request: &LimitRequest<'_>) -> Answer<Result<Decision, Unavailable>> {
        let shared = &self.shared;
        let name = shared.leases.name(request.charges);
        let step = if shared.redis.settings().is_cluster()
            && have_several_groups(request.charges.iter().map(|charge| charge.group))
        {
            // They are in several slots, and a script reaches only one.
            Step::Direct
        } else {
            shared.leases.step(name, request, shared.elapsed(request.now))
        };
        if let Step::Decided(decision) = step {
            return Answer::Now(Ok(decision));
        }
        let charges = Arc::new(Charges::new(&shared.redis.settings().prefix, request));
        let decided = Arc::clone(shared).decide(name, Arc::clone(&charges), step);
        if charges.is_settlement() {
            // The answer may be dropped, but what was used is counted.
            let (sender, receiver) = oneshot::channel();
            shared.redis.runtime().spawn(async move {
                let _ = sender.send(decided.await);
            });
            return Answer::later(async move {
                receiver
                    .await
                    .unwrap_or_else(|_| Err(Unavailable::new("the runtime of the limiter has ended")))
            });
        }
        Answer::later(decided)
    }
}

impl Shared {
    /// Nanoseconds on a clock that never goes back: the machine's, or the requests' where their instants decide.
    fn elapsed(&self, now: SystemTime) -> u64 {
        match self.script.clock {
            ClockOf::Redis => nanos(self.started.elapsed()),
            ClockOf::Request => nanos(now.duration_since(UNIX_EPOCH).unwrap_or_default()),
        }
    }

    async fn decide(
        self: Arc<Self>,
        name: Name,
        charges: Arc<Charges>,
        step: Step,
    ) -> Result<Decision, Unavailable> {
        let (deadline, connection) = (self.redis.settings().deadline, self.redis.number());
        let is_direct = matches!(step, Step::Direct);
        let decided = async {
            match step {
                Step::Decided(decision) => Ok(decision),
                Step::Direct => self.decide_directly(name, &charges).await,
                step => Arc::clone(&self).decide_by_lease(name, &charges, step).await,
            }
        };
        match timeout(deadline, decided).await {
            Ok(Ok(decision)) => Ok(decision),
            Ok(Err(error)) => self.outages.decide(&charges, error),
            Err(_) => {
                // The command was dropped in the moment in which it would have been late. Those of leases have tasks of their own.
                if is_direct {
                    self.redis.count_late(connection);
                }
                let error = Unavailable::new(format!("Redis has not answered within {deadline:?}"));
                self.outages.decide(&charges, error)
            }
        }
    }

    /// Decides by one trip to Redis for this request alone.
    async fn decide_directly(&self, name: Name, charges: &Arc<Charges>) -> Result<Decision, Unavailable> {
        let sent_at = self.elapsed(charges.now);
        if self.redis.settings().is_cluster()
            && have_several_groups(charges.all.iter().map(charges::OwnCharge::group))
        {
            return self.decide_by_groups(charges).await;
        }
        let reply = self.script.call(&self.redis, charges, Exchange::default()).await?;
        let decision = decided(charges, &reply)?;
        if !decision.is_allowed() {
            self.leases.remember_refusal(name, charges, &reply, sent_at);
        }
        Ok(decision)
    }

    /// Decides about one group after another, and gives back what earlier ones have counted if a later one refuses.
    async fn decide_by_groups(&self, charges: &Charges) -> Result<Decision, Unavailable> {
        let mut counters = SmallVec::<[Counter; 4]>::new();
        let mut admitted: Vec<(Charges, Reply)> = Vec::new();
        let (mut at, mut is_allowed) = (charges.now, true);
        for group in charges.by_groups() {
            let group = if is_allowed { group } else { group.peek() };
            let reply = match self.script.call(&self.redis, &group, Exchange::default()).await {
                Ok(reply) => reply,
                Err(error) => {
                    self.undo(admitted).await;
                    return Err(error);
                }
            };
            at = reply.at;
            is_allowed &= reply.is_allowed;
            counters.extend(reply.counters.iter().copied());
            if is_allowed {
                admitted.push((group, reply));
            }
        }
        if !is_allowed {
            self.undo(admitted).await;
        }
        Ok(charges.in_order_of_groups().decide(&counters, at))
    }

    /// Gives back each charge by itself, because their costs can differ.
    async fn undo(&self, admitted: Vec<(Charges, Reply)>) {
        for (charges, reply) in admitted {
            let mut counters = counted(&charges, &reply, 0).into_iter();
            for charge in charges.all {
                let units = charge.cost;
                let counters = counters.by_ref().take(charge.quota.limits().len()).collect();
                let charges = Arc::new(Charges { all: SmallVec::from_iter([charge]), now: charges.now });
                self.give_back(GiveBack { charges, units, counters }).await;
            }
        }
    }

    /// Spends a lease, or waits for one.
    async fn decide_by_lease(
        self: Arc<Self>,
        name: Name,
        charges: &Arc<Charges>,
        mut step: Step,
    ) -> Result<Decision, Unavailable> {
        let started = Instant::now();
        loop {
            match step {
                Step::Decided(decision) => return Ok(decision),
                Step::Direct => return self.decide_directly(name, charges).await,
                Step::Wait(mut asked) => {
                    // An error says that the other request has its answer.
                    let _ = asked.changed().await;
                }
                Step::Ask(ask) => {
                    // In a task: what was borrowed is kept even if the caller hangs up.
                    let (sender, receiver) = oneshot::channel();
                    let asking = Arc::clone(&self).borrow(Arc::clone(charges), ask, sender);
                    self.redis.runtime().spawn(asking);
                    return receiver
                        .await
                        .unwrap_or_else(|_| Err(Unavailable::new("the runtime of the limiter has ended")));
                }
            }
            let request = &charges.borrowed();
            let request = LimitRequest::new(request, charges.now);
            step = match self.leases.step(name, &request, self.elapsed(charges.now)) {
                // Leases are small near the limit. A request must not wait for one after the other until its deadline ends.
                Step::Wait(_) if started.elapsed() > self.redis.settings().deadline / 2 => Step::Direct,
                step => step,
            };
        }
    }

    async fn borrow(
        self: Arc<Self>,
        charges: Arc<Charges>,
        ask: Ask,
        requester: oneshot::Sender<Result<Decision, Unavailable>>,
    ) {
        let returned = self.leases.take_returned(&ask);
        let returned = returned.as_ref().map(|(units, counters)| (*units, counters.as_slice()));
        let exchange = Exchange { wanted: ask.wanted, returned };
        let answer = match self.script.call(&self.redis, &charges, exchange).await {
            Ok(reply) => {
                let decision = decided(&charges, &reply);
                if decision.is_ok() {
                    self.leases.answered(&ask, &charges, &reply);
                }
                decision
            }
            Err(error) => Err(error),
        };
        let is_allowed = answer.as_ref().is_ok_and(Decision::is_allowed);
        if requester.send(answer).is_err() && is_allowed {
            self.leases.put_back(&ask, &charges);
        }
    }

    async fn give_back(&self, unused: GiveBack) {
        let charges = unused.charges.peek();
        let exchange = Exchange { wanted: 0, returned: Some((unused.units, &unused.counters)) };
        if let Err(error) = self.script.call(&self.redis, &charges, exchange).await {
            tracing::debug!(name: "tollgate.lease_lost", "{} borrowed units were not given back: {error:#}", unused.units);
        }
    }
}

/// The counters after a decision.
pub(crate) fn counted(charges: &Charges, reply: &Reply, lent: u64) -> SmallVec<[Counter; 4]> {
    let after = |((charge, limit), counter): ((&charges::OwnCharge, &_), &Counter)| {
        if reply.is_allowed { counter.counting(limit, charge.cost.saturating_add(lent)) } else { *counter }
    };
    charges.limits().zip(&reply.counters).map(after).collect()
}

/// The decision. It shows what is lent as used, because other processes cannot have it.
///
/// # Errors
/// If the script has decided otherwise.
fn decided(charges: &Charges, reply: &Reply) -> Result<Decision, Unavailable> {
    let lent = |((_, limit), counter): ((_, &WindowLimit), &Counter)| {
        if reply.lent > 0 { counter.counting(limit, reply.lent) } else { *counter }
    };
    let counters: SmallVec<[Counter; 4]> = charges.limits().zip(&reply.counters).map(lent).collect();
    let decision = charges.decide(&counters, reply.at);
    if decision.is_allowed() == reply.is_allowed {
        Ok(decision)
    } else {
        Err(Unavailable::new(
            "Redis has decided otherwise than this process: the count of a limit exceeds 2^53",
        ))
    }
}

/// How often leases that are not used are looked for.
const GIVE_BACK_EVERY: Duration = Duration::from_millis(100);

/// Gives back what busy subjects have borrowed and no longer use, until the limiter is dropped.
async fn give_back_unused(shared: Weak<Shared>) {
    loop {
        sleep(GIVE_BACK_EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        let _turn = shared.giving_back.lock().await;
        for unused in shared.leases.take_unused(nanos(shared.started.elapsed())) {
            shared.give_back(unused).await;
        }
    }
}

/// The most is 584 years.
pub(crate) fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for RedisLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLimiter")
            .field("redis", &self.shared.redis)
            .field("outages", &self.shared.outages)
            .field("leases", &self.shared.leases)
            .finish_non_exhaustive()
    }
}
