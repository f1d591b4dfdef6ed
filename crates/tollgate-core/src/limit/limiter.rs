//! The backend trait that counts.

use std::{sync::Arc, time::SystemTime};

use crate::{
    answer::Answer,
    denial::Unavailable,
    limit::{CounterPlace, Decision, PolicyName, Quota, window::second_of},
};

/// What a request is charged to: the counters of one subject under one policy, one for each of the quota's limits.
///
/// The policy's name, the subject, the window and the algorithm identify a counter. The quota does not: when a plan is
/// upgraded, the count stays and the limit rises.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Charge<'r> {
    /// The policy's name.
    pub policy: PolicyName,
    /// The subject of the counters: a key's identifier, a tenant, an address.
    pub subject: &'r str,
    /// The group of the counters, usually a tenant. A distributed limiter keeps all counters of a group in one place, so that it
    /// can decide about them in one step. A counter always has the same group: in another group it may be another counter.
    pub group: &'r str,
    /// The limits of the counters.
    pub quota: &'r Quota,
    /// How much each counter must have left for the request to be admitted. 0: the request is admitted in any case.
    pub required: u64,
    /// How much each counter counts if the request is admitted.
    pub cost: u64,
    /// Where the limiter may keep the place of the counters, which it would otherwise compute from policy, subject and group.
    pub place: Option<&'r CounterPlace>,
    /// Whether callers must not see where the counters stand.
    pub is_hidden: bool,
}

impl<'r> Charge<'r> {
    /// A charge of 1 to the counters of `subject` under `policy`, in `group`.
    #[inline]
    pub fn new(policy: impl Into<PolicyName>, subject: &'r str, group: &'r str, quota: &'r Quota) -> Self {
        Self {
            policy: policy.into(),
            subject,
            group,
            quota,
            required: 1,
            cost: 1,
            place: None,
            is_hidden: false,
        }
    }

    /// The same charge. `place` belongs to this subject and group alone.
    #[inline]
    pub fn with_place(self, place: &'r CounterPlace) -> Self {
        Self { place: Some(place), ..self }
    }

    /// A charge of `cost`, which must be left. 0 is a peek: admitted and not counted.
    pub fn with_cost(self, cost: u64) -> Self {
        Self { required: cost, cost, ..self }
    }

    /// A charge whose cost is known later: 1 must be left now, and nothing is counted.
    pub fn with_deferred_cost(self) -> Self {
        Self { required: 1, cost: 0, ..self }
    }

    /// The same charge, but callers must not see where the counters stand: unrelated callers share the counters of an address.
    #[inline]
    pub fn hidden(self) -> Self {
        Self { is_hidden: true, ..self }
    }

    /// A deferred charge, for a request that was admitted before: counted in any case.
    pub fn settled(self, cost: u64) -> Self {
        Self { required: 0, cost, ..self }
    }
}

/// A request for admission by a limiter.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LimitRequest<'r> {
    /// Its charges.
    pub charges: &'r [Charge<'r>],
    /// The request's instant. A limiter with a clock of its own may use that instead; the decision has the instant it used.
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

/// Counts requests and decides whether there is room for one more.
///
/// [`Decision`] has the arithmetic, and an example of it. A limiter keeps a [`Counter`](crate::limit::Counter) for each limit
/// of each charge, at least until it [resets](crate::limit::Counter::resets_at). It reads and writes all counters of a request
/// in one step: behind a lock, in a transaction, or by compare and swap. A counter that is not found is a
/// [new](crate::limit::Counter::new) one.
///
/// Tollgate does not limit how long a request waits for its answer: give remote calls a deadline.
pub trait Limiter: Send + Sync + 'static {
    /// Evaluates all charges of a request and counts the request in all of them or in none, in one step.
    ///
    /// Deferred charges are [made](Charge::settled) by this method, too. The caller may drop the answer then, because a body
    /// has ended: a limiter begins its work when it is called, not when its answer is first polled.
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
