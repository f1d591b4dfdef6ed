//! Limits how often a caller may ask, and tells it where it stands.
//!
//! # What is refused
//!
//! | condition | status | headers |
//! |---|---|---|
//! | a window of a policy is used up | 429 | `Retry-After`, `X-RateLimit-*` of the violated window that opens last |
//! | the counters cannot be reached | 503 | |
//! | a policy counts by principal and no `VerifyLayer` ran outside | 500 | |
//! | an anonymous request, where every policy counts by principal | 500 | |
//!
//! Every response from here on, refusals further in included, carries `X-RateLimit-Limit`, `-Remaining` and `-Reset` (epoch
//! seconds), all three from the same window: the one with the least left.
//!
//! # Where it stands
//!
//! Inside `VerifyLayer`: then numbers are shown to nobody but their owner, and invented keys count nowhere. With
//! [subjects](Subject::custom) that are read from the request it works alone, too.
//!
//! # Examples
//!
//! ```
//! use tollgate::{PerWindow, RateLimitLayer};
//!
//! let layer = RateLimitLayer::new(60.per_minute().and(1_000.per_hour()));
//! ```
//!
//! Each key has its plan's quota, and all keys of an organization share another one. Both are checked, then both are
//! counted, in one step:
//!
//! ```
//! use tollgate::{PerWindow, Policy, RateLimitLayer, Subject};
//!
//! let layer = RateLimitLayer::from_policies([
//!     Policy::new("key", 60.per_minute()).with_tier("pro", 600.per_minute()),
//!     Policy::new("organization", 10_000.per_day()).by(Subject::Tenant),
//! ]);
//! ```
//!
//! Beside optional credentials, strangers share a counter of their own; what counts by principal does not concern them:
//!
//! ```
//! use tollgate::{PerWindow, Policy, RateLimitLayer, Subject};
//!
//! let layer = RateLimitLayer::from_policies([
//!     Policy::new("key", 60.per_minute()),
//!     Policy::new("strangers", 100.per_minute())
//!         .by(Subject::custom(|_head, principal| principal.is_none().then_some("all".into()))),
//! ]);
//! ```
//!
//! # Security
//!
//! Counting is exact: of any number of concurrent requests as many pass as the quota says. A refused request is counted in
//! no window, of no policy. One that a guard further in refuses has been counted. A policy's name is part of its
//! counters' identity, its quota is not: whoever changes their plan keeps their count.
//!
//! A CORS preflight is not counted.

use std::{borrow::Cow, fmt, sync::Arc};

use smallvec::SmallVec;
use tollgate_core::{Answer, Charge, Decision, Denial, Head, Limiter, Quota, Take, Unavailable};

use crate::{
    ConfigurationError, MemoryLimiter, Passage,
    engine::{Asked, Entrant, Gate, Learned, Numbers, Settings, Stamp, Standing, impl_layer},
};

mod policy;

pub use policy::{CustomSubject, Policy, Subject};

/// The name of the policy of [`RateLimitLayer::new`].
pub const DEFAULT_POLICY: &str = "default";

/// Limits how often a caller may ask. See the [module](self).
#[derive(Clone, Debug)]
pub struct RateLimitLayer {
    pub(crate) gate: RateLimitGate,
    settings: Settings,
}

impl RateLimitLayer {
    /// Each key has this quota, by a policy named [`DEFAULT_POLICY`]. Counts in this process.
    pub fn new(quota: Quota) -> Self {
        Self::from_policies([Policy::new(DEFAULT_POLICY, quota)])
    }

    /// Each request is charged to every one of these policies, or refused and charged to none.
    pub fn from_policies(policies: impl IntoIterator<Item = Policy>) -> Self {
        let limiter = Arc::new(MemoryLimiter::new());
        let policies: Arc<[Policy]> = policies.into_iter().collect();
        let gate = RateLimitGate {
            limiter,
            counts_principals: policies.iter().any(Policy::counts_by_principal),
            policies,
        };
        Self { gate, settings: Settings::default() }
    }

    /// Counts in `limiter`, which other layers may share.
    pub fn with_limiter(mut self, limiter: impl Limiter) -> Self {
        self.gate.limiter = Arc::new(limiter);
        self
    }
}

impl From<Quota> for RateLimitLayer {
    fn from(quota: Quota) -> Self {
        Self::new(quota)
    }
}

impl_layer!(RateLimitLayer, RateLimit);

#[derive(Clone)]
pub(crate) struct RateLimitGate {
    limiter: Arc<dyn Limiter>,
    policies: Arc<[Policy]>,
    // Whether one of them counts by principal.
    counts_principals: bool,
}

/// Why optional credentials and limits by principal do not go together.
pub(crate) const ANONYMOUS_UNCOUNTED: &str = "RateLimitLayer has no counter for anonymous requests, which CredentialLayer's \
    optional mode lets through: add a policy by Subject::custom, which may name their address or count them all together";

impl RateLimitGate {
    /// Whether somebody has thought of requests without a principal.
    pub(crate) fn counts_anonymous(&self) -> bool {
        self.policies.iter().any(|policy| !policy.counts_by_principal())
    }

    /// Whether what is known of the caller suffices to count its request.
    #[inline]
    fn check_countable(&self, passage: &Passage) -> Result<(), Denial> {
        match passage.standing() {
            Standing::Anonymous if self.counts_anonymous() => Ok(()),
            Standing::Anonymous => Err(Denial::misconfigured(ANONYMOUS_UNCOUNTED)),
            _ if self.counts_principals => passage.guarded(self.layer()).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Charges the request to all policies that have a subject for it; `None` if none has.
    fn charge_all(&self, head: Head<'_>, passage: &Passage) -> Option<Answer<Result<Decision, Unavailable>>> {
        let principal = passage.principal().map(Arc::as_ref);
        let mut subjects: SmallVec<[(&Policy, Cow<'_, str>); 4]> = SmallVec::new();
        for policy in self.policies.iter() {
            if let Some(subject) = policy.subject(head, principal) {
                subjects.push((policy, subject));
            }
        }
        let mut charges = SmallVec::<[Charge<'_>; 4]>::new();
        for (policy, subject) in &subjects {
            charges.push(policy.charge(subject, passage));
        }
        (!charges.is_empty()).then(|| self.limiter.take(&Take::new(&charges, passage.instant())))
    }
}

impl Gate for RateLimitGate {
    fn layer(&self) -> &'static str {
        "RateLimitLayer"
    }

    fn flaw(&self) -> Option<ConfigurationError> {
        let mut names: Vec<_> = self.policies.iter().map(Policy::name).collect();
        if names.is_empty() {
            return Some(ConfigurationError::new(
                "RateLimitLayer has no policy: add one, or leave the layer out",
            ));
        }
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair.first() == pair.last())?.first()?;
        Some(ConfigurationError::new(format!(
            "RateLimitLayer has two policies named \"{twice}\", which would share their counters: rename one"
        )))
    }

    #[inline(always)]
    fn ask(&self, entrant: &mut impl Entrant) -> Asked {
        let passage = entrant.passage();
        if passage.standing() == Standing::Preflight {
            return Asked::Answered(Ok(()));
        }
        if let Err(denial) = self.check_countable(passage) {
            return Asked::Answered(Err(denial));
        }
        // The usual case needs no list, and its answer is taken up where it is given.
        if let [policy] = &*self.policies {
            let Some(subject) = policy.subject(entrant.head(), passage.principal().map(Arc::as_ref)) else {
                return Asked::Answered(Ok(()));
            };
            let charges = [policy.charge(&subject, passage)];
            let answer = self.limiter.take(&Take::new(&charges, passage.instant()));
            return self.settle(entrant, answer, Learned::Decision);
        }
        match self.charge_all(entrant.head(), passage) {
            Some(answer) => self.settle(entrant, answer, Learned::Decision),
            None => Asked::Answered(Ok(())),
        }
    }

    #[inline]
    fn judge(&self, passage: &Passage) -> Result<(), Denial> {
        match passage.used_up() {
            Some(decision) => Err(Denial::rate_limited(decision.clone())),
            None => Ok(()),
        }
    }

    fn stamps(&self) -> bool {
        true
    }

    #[inline]
    fn stamp(&self, passage: &mut Passage, stamp: &mut Stamp) {
        stamp.numbers = passage.decision().and_then(Decision::governing).map(|window| Numbers {
            limit: window.limit,
            remaining: window.remaining(),
            resets_at: window.reset_second,
            are_merged: passage.is_decision_stacked(),
        });
    }
}

impl fmt::Debug for RateLimitGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitGate").field("policies", &self.policies).finish_non_exhaustive()
    }
}
