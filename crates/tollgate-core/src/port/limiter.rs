//! The port that counts.

use std::{sync::Arc, time::SystemTime};

use crate::{Answer, Decision, Quota, Unavailable, window::second_of};

/// One counter that a request is charged to.
///
/// The counter's identity is the policy's name, the subject and the window. The quota is not part of it: when a plan is
/// upgraded, the count stays and the limit rises.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Charge<'r> {
    /// The policy's name.
    pub policy: &'static str,
    /// Whose counter: a key's identifier, a tenant, an address.
    pub subject: &'r str,
    /// Where the counter lives: counters of one group, usually a tenant and its keys, live in one place, so that they can be
    /// decided together everywhere. Always the same for one counter: named in another group, it may be another one.
    pub group: &'r str,
    /// What the counter is held against.
    pub quota: &'r Quota,
    /// How much room the counter must have for the request to be admitted. 0: it is admitted whatever is used.
    pub room: u64,
    /// How much is counted if it is admitted.
    pub cost: u64,
}

impl<'r> Charge<'r> {
    /// A charge of 1 to the counter of `subject` under `policy`, which lives in `group`.
    pub fn new(policy: &'static str, subject: &'r str, group: &'r str, quota: &'r Quota) -> Self {
        Self { policy, subject, group, quota, room: 1, cost: 1 }
    }

    /// A charge of so much, for which there must be room. 0 is a peek: admitted and not counted.
    pub fn with_cost(self, cost: u64) -> Self {
        Self { room: cost, cost, ..self }
    }

    /// A charge whose cost is known later: now there must be room for 1, and nothing is counted.
    pub fn with_cost_later(self) -> Self {
        Self { room: 1, cost: 0, ..self }
    }

    /// What a request has cost that was admitted before: counted whether there is room or not.
    pub fn settling(self, cost: u64) -> Self {
        Self { room: 0, cost, ..self }
    }
}

/// What a request takes from its quotas.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Take<'r> {
    /// The counters that it is charged to.
    pub charges: &'r [Charge<'r>],
    /// The request's instant. A limiter with a clock of its own may use that instead, and says so in the decision.
    pub now: SystemTime,
}

impl<'r> Take<'r> {
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
pub trait Limiter: Send + Sync + 'static {
    /// Weighs a request against all its charges and counts it in all of them or in none, in one step.
    ///
    /// What a response has cost is [settled](Charge::settling) by this as well. Whoever settles when a body ends may be gone
    /// before an answer that comes later: a limiter begins its work when it is asked, not when its answer is first polled.
    ///
    /// # Errors
    /// [`Unavailable`] if the counters cannot be reached.
    fn take(&self, take: &Take<'_>) -> Answer<Result<Decision, Unavailable>>;
}

impl<L: Limiter + ?Sized> Limiter for Arc<L> {
    fn take(&self, take: &Take<'_>) -> Answer<Result<Decision, Unavailable>> {
        (**self).take(take)
    }
}
