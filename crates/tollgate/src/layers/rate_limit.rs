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
//! Every response from here on, refusals further in included, carries `X-RateLimit-Limit`, `-Remaining` and `-Reset` (a second
//! since the Unix epoch), all three from the same window: the one with the least left. [`RateLimitHeaders`] has the other forms
//! there are.
//!
//! A caller that waits for `Retry-After` seconds (whole ones, rounded up) finds room for the same request, and one that waits for
//! the reset whenever nothing is left is never refused, if nobody else is counted with it. This is promised of one layer: of stacked
//! ones the outer has counted what the inner one refuses, and may have nothing left when that wait is over. Policies that belong
//! together belong into one layer.
//!
//! # Where it stands
//!
//! Inside `VerifyLayer`: then numbers are shown to nobody but their owner, and invented keys count nowhere. With subjects that are
//! read from the request, its [address](Subject::Address) or [another](Subject::custom), it works alone, too.
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
//! use tollgate::{PerWindow, Policy, RateLimitLayer, limit::Subject};
//!
//! let layer = RateLimitLayer::from_policies([
//!     Policy::new("key", 60.per_minute()).with_tier("pro", 600.per_minute()),
//!     Policy::new("organization", 10_000.per_day()).by(Subject::Tenant),
//! ]);
//! ```
//!
//! Windows are aligned to UTC unless a quota says otherwise: [`sliding`](Quota::sliding) ones have no boundary to crowd at, and token
//! buckets let [bursts](Quota::with_burst) through that the rate makes good. Requests may [cost](Cost) more or less than 1, or
//! what only their response tells:
//!
//! ```
//! use tollgate::{
//!     PerWindow, Policy, RateLimitLayer,
//!     limit::{Cost, RateLimitHeaders},
//! };
//!
//! let layer = RateLimitLayer::from_policies([
//!     Policy::new("requests", 10.per_second().with_burst(50).and(20_000.per_hour().sliding()))
//!         .with_cost(Cost::by_request(|head, _principal| if head.uri.path() == "/search" { 5 } else { 1 })),
//!     Policy::new("failures", 100.per_hour())
//!         .with_cost(Cost::by_response(|response| u64::from(response.status.is_client_error()))),
//! ])
//! .with_headers(RateLimitHeaders::new().with_ietf_draft_10());
//! ```
//!
//! Beside optional credentials, strangers share a counter of their own; what counts by principal does not concern them:
//!
//! ```
//! use tollgate::{PerWindow, Policy, RateLimitLayer, limit::Subject};
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
//! Counting is exact: of any number of concurrent requests as many pass as the quota says; but what is charged by the response
//! cannot be, since requests are under way before anybody knows their cost. A refused request is counted in no window, of no
//! policy. One that a guard further in refuses has been counted. A policy's name is part of its
//! counters' identity, its quota is not: whoever changes their plan keeps their count.
//!
//! A CORS preflight is not counted.

use std::{borrow::Cow, fmt, sync::Arc, time::SystemTime};

use smallvec::SmallVec;
use tollgate_core::{
    answer::Answer,
    denial::{Denial, Unavailable},
    limit::{Charge, Decision, LimitRequest, Limiter, Quota},
    request::RequestHead,
    verify::Principal,
};

use crate::{
    ConfigurationError, RequestContext,
    engine::{
        Asked, DeferredCharge, DeferredCost, DeferredItem, Entrant, Gate, Learned, ResponseParts, Settings,
        Standing, impl_layer,
    },
    limit::{MemoryLimiter, RateLimitHeaders},
};

mod cost;
mod policy;
mod subject;

pub use cost::Cost;
pub use policy::Policy;
pub use subject::{CustomSubject, Subject};

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
        let policies: Arc<[Policy]> = policies.into_iter().collect();
        let gate = RateLimitGate {
            limiter: Arc::new(MemoryLimiter::new()),
            counts_principals: policies.iter().any(Policy::counts_by_principal),
            is_plain: matches!(&*policies, [policy] if policy.is_plain()),
            policies,
            headers: RateLimitHeaders::new(),
            tells_expired: false,
        };
        Self { gate, settings: Settings::default() }
    }

    /// Counts in `limiter`, which other layers may share.
    pub fn with_limiter(mut self, limiter: impl Limiter) -> Self {
        self.gate.limiter = Arc::new(limiter);
        self
    }

    /// Tells callers where they stand by other headers than the three usual ones.
    pub fn with_headers(mut self, headers: RateLimitHeaders) -> Self {
        self.gate.headers = headers;
        self
    }

    /// Also tells callers whose key is genuine but has expired where their limits stand, on the 401 that they get. Nothing is
    /// counted for it.
    ///
    /// Only in a [built](crate::Tollgate) stack: a layer that stands alone does not see what is refused outside it. Only for
    /// verifiers that hand over the principal of an expired key, as [`KeyVerifier`](crate::KeyVerifier) does, and leave it to
    /// `VerifyLayer` to refuse it. Whoever has found an old key can watch its owner's traffic by it, so this is not the
    /// default.
    pub fn with_numbers_for_expired(mut self) -> Self {
        self.gate.tells_expired = true;
        self
    }

    /// Where a principal's limits stand at `now`, as its next response would tell, and counts nothing: for pages that show it
    /// to the principal's owner, who may have its [details](tollgate_core::manage::KeyDetails) and no request of its own.
    ///
    /// Clones of a layer count together, so keep one of what a stack is built with:
    ///
    /// ```
    /// use std::time::SystemTime;
    ///
    /// use tollgate::{
    ///     PerWindow, RateLimitLayer, denial::Unavailable, manage::KeyDetails, store::EndSignal,
    /// };
    ///
    /// let limits = RateLimitLayer::new(60.per_minute().and(1_000.per_hour()));
    /// let guard = limits.clone(); // .rate_limit(guard)
    ///
    /// async fn live_limits(limits: &RateLimitLayer, key: &KeyDetails, now: SystemTime) -> Result<Vec<String>, Unavailable> {
    ///     let decision = limits.peek(key.to_principal(EndSignal::new()), now).await?;
    ///     let windows = decision.windows().iter();
    ///     Ok(windows.map(|window| format!("{} of {} left", window.remaining(), window.limit)).collect())
    /// }
    /// # let _ = guard;
    /// ```
    ///
    /// Each policy by key or tenant is told of, with the quota of the principal or of its plan. What only a request decides is
    /// left out: policies by address or by a [function](Subject::custom), and those whose [quota](Policy::with_quota_by) a function
    /// names. A plan that an `EntitlementLayer` would ask for elsewhere is not known here: give it to the principal.
    ///
    /// # Errors
    /// [`Unavailable`] if the counters cannot be reached.
    pub async fn peek(
        &self,
        principal: impl Into<Arc<Principal>>,
        now: SystemTime,
    ) -> Result<Decision, Unavailable> {
        let answer = self.gate.peek(&RequestContext::proven(principal.into()), now);
        answer.wait().await
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
    // Whether there is one, by which each request costs 1.
    is_plain: bool,
    headers: RateLimitHeaders,
    tells_expired: bool,
}

/// A policy that concerns a request.
struct Applicable<'r> {
    policy: &'r Policy,
    subject: Cow<'r, str>,
    quota: Cow<'r, Quota>,
}

/// What a limiter says of a request that it was charged for.
enum Charged {
    Wholly(Answer<Result<Decision, Unavailable>>),
    /// The rest is charged when the response is there, if the request is admitted.
    InPart(Answer<Result<Box<(Decision, DeferredCharge)>, Unavailable>>),
}

/// Why optional credentials and limits by principal do not go together.
pub(crate) const ANONYMOUS_UNCOUNTED: &str = "RateLimitLayer has no counter for anonymous requests, which CredentialLayer's \
    optional mode lets through: add a policy by Subject::Address, or by Subject::custom, which may count them all together";

impl RateLimitGate {
    /// Whether somebody has thought of requests without a principal.
    pub(crate) fn counts_anonymous(&self) -> bool {
        self.policies.iter().any(|policy| !policy.counts_by_principal())
    }

    /// Whether what is known of the caller suffices to count its request.
    #[inline]
    fn check_countable(&self, context: &RequestContext) -> Result<(), Denial> {
        match context.standing() {
            Standing::Anonymous if self.counts_anonymous() => Ok(()),
            Standing::Anonymous => Err(Denial::misconfigured(ANONYMOUS_UNCOUNTED)),
            _ if self.counts_principals => context.guarded(self.layer()).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Charges the request to all policies that have a subject for it; `None` if none has.
    #[inline(never)]
    fn charge_all(&self, head: RequestHead<'_>, context: &RequestContext) -> Option<Charged> {
        let policies = self.applicable(head, context);
        let mut charges = SmallVec::<[Charge<'_>; 4]>::new();
        let mut owed = Vec::new();
        for Applicable { policy, subject, quota } in &policies {
            let (charge, later) = policy.charge(subject, quota, head, context);
            owed.extend(later.map(|cost| DeferredItem::new(&charge, cost)));
            charges.push(charge);
        }
        if charges.is_empty() {
            return None;
        }
        let answer = self.limiter.acquire(&LimitRequest::new(&charges, context.instant()));
        if owed.is_empty() {
            return Some(Charged::Wholly(answer));
        }
        let settlement = context.settlement(&self.limiter, owed);
        let with_settlement =
            |decided: Result<_, _>| decided.map(|decision| Box::new((decision, settlement)));
        Some(Charged::InPart(answer.map(with_settlement)))
    }

    /// The policies that concern the request, whose counter it is charged to, and what that is held against.
    fn applicable<'r>(
        &'r self,
        head: RequestHead<'r>,
        context: &'r RequestContext,
    ) -> SmallVec<[Applicable<'r>; 4]> {
        let principal = context.principal().map(Arc::as_ref);
        let mut applicable = SmallVec::new();
        for policy in self.policies.iter() {
            if let Some(subject) = policy.subject(head, principal) {
                applicable.push(Applicable { policy, subject, quota: policy.quota_for(head, context) });
            }
        }
        applicable
    }
}

impl RateLimitGate {
    /// Where the limits stand that hold for a principal whatever it asks for.
    fn peek(&self, context: &RequestContext, now: SystemTime) -> Answer<Result<Decision, Unavailable>> {
        let of_principal =
            |policy| Policy::of_principal(policy, context).map(|(subject, quota)| (policy, subject, quota));
        let concerned: Vec<_> = self.policies.iter().filter_map(of_principal).collect();
        let peeks = concerned
            .iter()
            .map(|(policy, subject, quota)| policy.charge_of_one(subject, quota, context).with_cost(0));
        let charges: Vec<_> = peeks.collect();
        self.limiter.acquire(&LimitRequest::new(&charges, now))
    }
}

impl Gate for RateLimitGate {
    fn layer(&self) -> &'static str {
        "RateLimitLayer"
    }

    fn configuration_error(&self) -> Option<ConfigurationError> {
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
        let context = entrant.context();
        if context.standing() == Standing::Preflight {
            return Asked::Answered(Ok(()));
        }
        if let Err(denial) = self.check_countable(context) {
            return Asked::Answered(Err(denial));
        }
        // The usual case needs no list, and its answer is taken up where it is given.
        if let [policy] = &*self.policies
            && self.is_plain
        {
            let Some(subject) = policy.subject(entrant.head(), context.principal().map(Arc::as_ref)) else {
                return Asked::Answered(Ok(()));
            };
            let charges = [policy.plain_charge(&subject, context)];
            let answer = self.limiter.acquire(&LimitRequest::new(&charges, context.instant()));
            return self.take_up(entrant, answer, Learned::Decision);
        }
        match self.charge_all(entrant.head(), context) {
            None => Asked::Answered(Ok(())),
            Some(Charged::Wholly(answer)) => self.take_up(entrant, answer, Learned::Decision),
            Some(Charged::InPart(answer)) => self.take_up(entrant, answer, Learned::Charged),
        }
    }

    #[inline(always)]
    fn judge(&self, context: &RequestContext) -> Result<(), Denial> {
        match context.used_up() {
            Some(decision) => Err(Denial::rate_limited(decision.clone())),
            None => Ok(()),
        }
    }

    fn stamps(&self) -> bool {
        true
    }

    #[inline]
    fn stamp(&self, context: &mut RequestContext, stamp: &mut ResponseParts) {
        let headers = context.tell_by(self.headers);
        stamp.are_numbers_merged = context.is_decision_stacked();
        if let Some(decision) = context.decision() {
            headers.tell(decision, stamp);
            if context.may_be_told_anew() {
                stamp.will_tell_anew(decision, headers);
            }
        }
    }

    fn tell_expired(
        &self,
        head: RequestHead<'_>,
        context: &RequestContext,
    ) -> Option<(DeferredCharge, RateLimitHeaders)> {
        if !self.tells_expired || context.principal().is_none() {
            return None;
        }
        let peek = |Applicable { policy, subject, quota }: &Applicable<'_>| {
            DeferredItem::new(&policy.charge_of_one(subject, quota, context), DeferredCost::Peek)
        };
        let peeks = self.applicable(head, context).iter().map(peek).collect();
        Some((context.settlement(&self.limiter, peeks), self.headers))
    }
}

impl fmt::Debug for RateLimitGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitGate").field("policies", &self.policies).finish_non_exhaustive()
    }
}
