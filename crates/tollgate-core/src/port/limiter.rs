//! The port that counts.

use std::{sync::Arc, time::SystemTime};

use crate::{Answer, Decision, Quota, Unavailable};

/// One counter that a request is charged to.
///
/// The counter's identity is the policy's name, the subject and the window. The quota is not part of it: when a plan is
/// upgraded, the count stays and the limit rises.
#[derive(Clone, Copy, Debug)]
pub struct Charge<'a> {
    /// The policy's name.
    pub policy: &'static str,
    /// Whose counter: a key's identifier, a tenant, an address.
    pub subject: &'a str,
    /// Where the counter lives: counters of one group, usually a tenant and its keys, live in one place, so that they can be
    /// decided together everywhere. Always the same for one counter: named in another group, it may be another one.
    pub group: &'a str,
    /// What the counter is held against.
    pub quota: &'a Quota,
}

/// Counts requests, and decides whether there is room for one more.
pub trait Limiter: Send + Sync + 'static {
    /// Weighs a request against all `charges` and counts it in all of them or in none, in one step.
    ///
    /// A `cost` of 0 reads without counting. `now` is the request's instant; a limiter with a clock of its own may use that
    /// instead, and says so in the decision.
    ///
    /// # Errors
    /// [`Unavailable`] if the counters cannot be reached.
    fn take(
        &self,
        charges: &[Charge<'_>],
        cost: u64,
        now: SystemTime,
    ) -> Answer<Result<Decision, Unavailable>>;
}

impl<L: Limiter + ?Sized> Limiter for Arc<L> {
    fn take(
        &self,
        charges: &[Charge<'_>],
        cost: u64,
        now: SystemTime,
    ) -> Answer<Result<Decision, Unavailable>> {
        (**self).take(charges, cost, now)
    }
}
