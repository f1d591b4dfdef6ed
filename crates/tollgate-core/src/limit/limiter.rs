//! The backend trait that counts.

use std::{sync::Arc, time::SystemTime};

use crate::{
    answer::Answer,
    denial::Unavailable,
    limit::{Decision, Quota, window::second_of},
};

/// What a request is charged to: the counters of one subject under one policy, one for each of the quota's limits.
///
/// A counter's identity is the policy's name, the subject, the window and the algorithm. The quota is not part of it: when
/// a plan is upgraded, the count stays and the limit rises.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Charge<'r> {
    /// The policy's name.
    pub policy: &'static str,
    /// Whose counters: a key's identifier, a tenant, an address.
    pub subject: &'r str,
    /// Where the counters live: those of one group, usually a tenant and its keys, live in one place, so that they can be
    /// decided together everywhere. Always the same for one counter: named in another group, it may be another one.
    pub group: &'r str,
    /// What the counters are held against.
    pub quota: &'r Quota,
    /// How much room each counter must have for the request to be admitted. 0: it is admitted whatever is used.
    pub required: u64,
    /// How much each of them counts if it is admitted.
    pub cost: u64,
}

impl<'r> Charge<'r> {
    /// A charge of 1 to the counters of `subject` under `policy`, which live in `group`.
    pub fn new(policy: &'static str, subject: &'r str, group: &'r str, quota: &'r Quota) -> Self {
        Self { policy, subject, group, quota, required: 1, cost: 1 }
    }

    /// A charge of so much, for which there must be room. 0 is a peek: admitted and not counted.
    pub fn with_cost(self, cost: u64) -> Self {
        Self { required: cost, cost, ..self }
    }

    /// A charge whose cost is known later: now there must be room for 1, and nothing is counted.
    pub fn with_deferred_cost(self) -> Self {
        Self { required: 1, cost: 0, ..self }
    }

    /// What a request has cost that was admitted before: counted whether there is room or not.
    pub fn settled(self, cost: u64) -> Self {
        Self { required: 0, cost, ..self }
    }
}

/// What a request takes from its quotas.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LimitRequest<'r> {
    /// What it is charged to.
    pub charges: &'r [Charge<'r>],
    /// The request's instant. A limiter with a clock of its own may use that instead, and says so in the decision.
    pub now: SystemTime,
}

impl<'r> LimitRequest<'r> {
    /// A request at `now` and all its charges.
    pub fn new(charges: &'r [Charge<'r>], now: SystemTime) -> Self {
        Self { charges, now }
    }

    /// The request's instant in whole seconds since the Unix epoch; 0 for any time before it.
    #[inline]
    pub fn second(&self) -> u64 {
        second_of(self.now)
    }
}

/// Counts requests, and decides whether there is room for one more.
///
/// [`Decision`] has the arithmetic, and an example of it. What is left for a limiter is to keep a [`Counter`](crate::limit::Counter) for
/// each limit of each charge, at least until it [resets](crate::limit::Counter::resets_at), and to let nobody come between reading
/// the counters of a request and writing them: a lock, a transaction, or one that is tried again if they have changed
/// meanwhile. A counter that is found nowhere is a [new](crate::limit::Counter::new) one.
pub trait Limiter: Send + Sync + 'static {
    /// Weighs a request against all its charges and counts it in all of them or in none, in one step.
    ///
    /// What a response has cost is [settled](Charge::settled) by this as well. Whoever settles when a body ends may be gone
    /// before an answer that comes later: a limiter begins its work when it is asked, not when its answer is first polled.
    ///
    /// # Errors
    /// [`Unavailable`] if the counters cannot be reached.
    fn acquire(&self, request: &LimitRequest<'_>) -> Answer<Result<Decision, Unavailable>>;
}

impl<L: Limiter + ?Sized> Limiter for Arc<L> {
    fn acquire(&self, request: &LimitRequest<'_>) -> Answer<Result<Decision, Unavailable>> {
        (**self).acquire(request)
    }
}
