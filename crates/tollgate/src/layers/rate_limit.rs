//! Limits how often a caller may send requests, and shows in headers where its limits stand.
//!
//! # What is refused
//!
//! | condition | status | headers |
//! |---|---|---|
//! | a window of a policy is used up | 429 | `Retry-After`, `X-RateLimit-*` of the violated window that opens last |
//! | a limit is 0, or below the request's cost | 429 | `X-RateLimit-*` of the violated window |
//! | a window of a policy by address is used up | 429 | `Retry-After` |
//! | the counters cannot be reached | 503 | |
//! | a policy counts by principal and no `VerifyLayer` ran outside | 500 | |
//! | an anonymous request, where every policy counts by principal | 500 | |
//!
//! Every response to an admitted request, refusals by inner layers included, carries `X-RateLimit-Limit`, `-Remaining` and
//! `-Reset` (seconds since the Unix epoch), all three of the same window: the one with the smallest share of its limit left, since
//! policies may count in different units. [`RateLimitHeaders`] has the other forms. A handler's own values of these headers are
//! replaced. `-Remaining` is in units of cost. On a refusal it is 0, even if a cheaper request would still fit, so that a caller
//! that tests it does not repeat the refused request.
//!
//! A caller that waits for `Retry-After` seconds (rounded up) is admitted with the same request. A caller whose requests cost 1,
//! and that waits for the reset when nothing is left, is never refused. Both hold if no other caller shares its counters. A request
//! that is never admitted, because it costs more than the limit or the limit is 0, is refused without `Retry-After`, and the log
//! says why. This holds for one layer. Of stacked layers the outer one has counted what the inner one refuses; each writes its
//! headers where there are none yet, or where its own window is tighter. Put policies that belong together into one layer.
//!
//! # Where it stands
//!
//! Inside `VerifyLayer`: then a caller sees only its own values, and invented keys are not counted. With subjects that are read
//! from the request, its [address](Subject::Address) or [another](Subject::custom), it also works without one.
//!
//! # Examples
//!
//! ```
//! use tollgate::{PerWindow, RateLimitLayer};
//!
//! let layer = RateLimitLayer::new(60.per_minute().and(1_000.per_hour()));
//! ```
//!
//! Each key has its plan's quota, and all keys of an organization share another one. Both are checked and then counted in one
//! step:
//!
//! ```
//! use tollgate::{PerWindow, Policy, RateLimitLayer, limit::Subject};
//!
//! let layer = RateLimitLayer::from_policies([
//!     Policy::new("key", 60.per_minute()).with_tier("pro", 600.per_minute()),
//!     Policy::new("organization", 10_000.per_day()).with_subject(Subject::Tenant),
//! ])?;
//! # Ok::<(), tollgate::ConfigurationError>(())
//! ```
//!
//! Windows are aligned to UTC by default. [Sliding windows](Quota::sliding) avoid bursts at their boundaries, and
//! [token buckets](Quota::with_burst) admit bursts of a given size. A request [costs](Cost) 1 by default; its cost may depend on
//! the request or on the response:
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
//! ])?
//! .with_headers(RateLimitHeaders::new().with_ietf_draft_10());
//! # Ok::<(), tollgate::ConfigurationError>(())
//! ```
//!
//! Where anonymous callers are accepted, they need a policy of their own, because policies by principal do not apply to them:
//!
//! ```
//! use tollgate::{PerWindow, Policy, RateLimitLayer, limit::Subject};
//!
//! let layer = RateLimitLayer::from_policies([
//!     Policy::new("key", 60.per_minute()),
//!     Policy::new("anonymous", 100.per_minute())
//!         .with_subject(Subject::custom(|_head, principal| principal.is_none().then_some("all".into()))),
//! ])?;
//! # Ok::<(), tollgate::ConfigurationError>(())
//! ```
//!
//! # Security
//!
//! Counting is exact: of any number of concurrent requests on a quota of N, exactly N are admitted. Costs by response are not
//! exact, because concurrent requests are admitted before their cost is known. A request that this layer refuses is counted in no
//! window of any policy; one that an inner guard refuses has been counted. A policy's name is part of its counters' identity, its
//! quota is not: a caller that changes its plan keeps its count.
//!
//! No header shows what an [address](Subject::Address) has left, because unrelated callers share an address. A [subject of your
//! own](Subject::custom) is shown to each caller that is counted under it, also before authentication.
//!
//! Without [`with_limiter`](RateLimitLayer::with_limiter) counters live in this process: each process admits the whole quota. The crate
//! `tollgate-redis` has a limiter that processes share.
//!
//! Public routes and CORS preflights are not counted.

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
    engine::{Caller, Cx, DeferredCharge, DeferredItem, Flow, Settings, impl_layer},
    limit::MemoryLimiter,
};

mod cost;
mod costs;
mod headers;
mod messages;
mod policy;
mod subject;

pub use cost::Cost;
pub use costs::Costs;
pub use headers::RateLimitHeaders;
pub(crate) use headers::RateLimitValues;
pub(crate) use messages::MessageLimits;
pub use policy::Policy;
pub use subject::{CustomSubject, Subject};

/// The name of the policy of [`RateLimitLayer::new`].
pub const DEFAULT_POLICY: &str = "default";

/// Limits how often a caller may send requests. See the [module](self).
///
/// ```
/// use tollgate::{PerWindow, Policy, RateLimitLayer, limit::Subject};
///
/// let default = RateLimitLayer::new(60.per_minute().and(1_000.per_hour())); // for each key
/// let custom = RateLimitLayer::from_policies([
///     Policy::new("key", 60.per_minute()).with_tier("pro", 600.per_minute()),
///     Policy::new("organization", 10_000.per_day()).with_subject(Subject::Tenant),
/// ])?;
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RateLimitLayer {
    pub(crate) gate: RateLimitGate,
    pub(crate) settings: Settings,
}

impl RateLimitLayer {
    /// Each key has this quota, by a policy named [`DEFAULT_POLICY`]. Counts in this process.
    pub fn new(quota: Quota) -> Self {
        Self::with_policies([Policy::new(DEFAULT_POLICY, quota)].into())
    }

    /// Charges each request to all of these policies, or refuses it and charges none. Counts in this process.
    ///
    /// # Errors
    /// If there is no policy; if two of them have the same name, because they would share their counters; or if a fixed cost is above
    /// one of the policy's limits, because no request would ever be admitted.
    pub fn from_policies(policies: impl IntoIterator<Item = Policy>) -> Result<Self, ConfigurationError> {
        let policies: Arc<[Policy]> = policies.into_iter().collect();
        if policies.is_empty() {
            return Err(ConfigurationError::new(
                "RateLimitLayer has no policy: add one, or leave the layer out",
            ));
        }
        let mut names: Vec<_> = policies.iter().map(Policy::name).collect();
        names.sort_unstable();
        if let Some([twice, _]) = names.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(ConfigurationError::new(format!(
                "RateLimitLayer has two policies named \"{twice}\", which would share their counters: rename one"
            )));
        }
        for policy in &*policies {
            if let Some((cost, limit)) = policy.cost_above_limit() {
                return Err(ConfigurationError::new(format!(
                    "the policy \"{}\" of RateLimitLayer has a cost of {cost} and a limit of {limit}, which never admits a request: \
                     raise the limit, or lower the cost",
                    policy.name()
                )));
            }
        }
        Ok(Self::with_policies(policies))
    }

    fn with_policies(policies: Arc<[Policy]>) -> Self {
        let gate = RateLimitGate {
            limiter: Arc::new(MemoryLimiter::new()),
            counts_principals: policies.iter().any(Policy::counts_by_principal),
            policies,
            headers: RateLimitHeaders::new(),
        };
        Self { gate, settings: Settings::default() }
    }

    /// Counts in `limiter`, which other layers and other processes may share.
    ///
    /// ```
    /// use tollgate::{PerWindow, Policy, RateLimitLayer, limit::MemoryLimiter};
    ///
    /// let limiter = MemoryLimiter::new();
    /// let api = RateLimitLayer::from_policies([Policy::new("api", 60.per_minute())])?.with_limiter(limiter.clone())?;
    /// let exports = RateLimitLayer::from_policies([Policy::new("exports", 5.per_hour())])?.with_limiter(limiter)?;
    /// # Ok::<(), tollgate::ConfigurationError>(())
    /// ```
    ///
    /// # Errors
    /// If a policy has the name [`DEFAULT_POLICY`]: two such layers that share a limiter would count each request twice in one
    /// counter.
    pub fn with_limiter(mut self, limiter: impl Limiter) -> Result<Self, ConfigurationError> {
        if self.gate.policies.iter().any(|policy| *policy.name() == *DEFAULT_POLICY) {
            return Err(ConfigurationError::new(format!(
                "RateLimitLayer::with_limiter: the policy has the default name \"{DEFAULT_POLICY}\", which other layers of this limiter may \
                 have, too: name the policy, as in RateLimitLayer::from_policies([Policy::new(\"api\", quota)])"
            )));
        }
        self.gate.limiter = Arc::new(limiter);
        Ok(self)
    }

    /// Shows callers where their limits stand by other headers than the three usual ones.
    pub fn with_headers(mut self, headers: RateLimitHeaders) -> Self {
        self.gate.headers = headers;
        self
    }

    /// Where a principal's limits stand at `now`. Counts nothing. For account pages, which have a key's
    /// [details](tollgate_core::manage::KeyDetails) but no request of the key.
    ///
    /// Clones of a layer share their counters: keep a clone of the layer that a stack is built with.
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
    /// The decision has each policy by key or tenant, with the quota of the principal or of its plan. It leaves out what depends on a
    /// request: policies by address or by a [function](Subject::custom), and policies with a [quota by
    /// request](Policy::with_quota_by). A plan that a `PlanLayer` would look up is not known here: give it to the principal.
    ///
    /// # Errors
    /// [`Unavailable`] if the counters cannot be reached.
    pub async fn peek(
        &self,
        principal: impl Into<Arc<Principal>>,
        now: SystemTime,
    ) -> Result<Decision, Unavailable> {
        let answer = self.gate.peek(&RequestContext::authenticated(principal.into()), now);
        answer.await
    }
}

impl From<Quota> for RateLimitLayer {
    fn from(quota: Quota) -> Self {
        Self::new(quota)
    }
}

impl_layer!(RateLimitLayer, RateLimit);

pub(crate) const LAYER: &str = "RateLimitLayer";

#[derive(Clone)]
pub(crate) struct RateLimitGate {
    limiter: Arc<dyn Limiter>,
    policies: Arc<[Policy]>,
    // Whether one of them counts by principal.
    pub(crate) counts_principals: bool,
    headers: RateLimitHeaders,
}

impl RateLimitGate {
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        let context = &*cx.context;
        self.check_countable(context)?;
        let Some((answer, deferred)) = self.acquire(cx.head(), context) else { return Ok(Flow::Continue) };
        let headers = self.headers;
        cx.when_answered(answer, move |decided, context| {
            let is_stacked = context.decision.is_some();
            let decision = context.decision.insert(decided?);
            context.parts.show_limit(decision, headers, is_stacked);
            if !decision.is_allowed() {
                return Err(refusal(decision));
            }
            if let Some(deferred) = deferred {
                context.parts.defer(*deferred, Some((decision, headers)));
            }
            Ok(())
        })
    }

    /// Whether enough is known about the caller to count its request.
    #[inline]
    fn check_countable(&self, context: &RequestContext) -> Result<(), Denial> {
        match context.caller {
            Caller::Anonymous if self.counts_anonymous() => Ok(()),
            Caller::Anonymous => Err(Denial::misconfigured(ANONYMOUS_UNCOUNTED)),
            _ if self.counts_principals => context.guarded(LAYER).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Whether a policy applies to requests without a principal.
    pub(crate) fn counts_anonymous(&self) -> bool {
        self.policies.iter().any(|policy| !policy.counts_by_principal())
    }

    /// Charges the request to all policies that apply to it; `None` if none does. What depends on the response is charged
    /// later.
    #[inline]
    fn acquire(&self, head: RequestHead<'_>, context: &RequestContext) -> Option<Acquired> {
        match &*self.policies {
            // The usual case needs no list.
            [policy] if policy.is_plain() && context.principal().is_some() => {
                let subject = policy.subject(head, context, LAYER)?;
                let charges = [policy.charge(&subject, policy.quota(context), context)];
                Some((self.limiter.acquire(&LimitRequest::new(&charges, context.instant())), None))
            }
            _ if matches!(context.caller, Caller::Exempt) => None,
            policies => self.acquire_all(policies, head, context),
        }
    }

    #[inline(never)]
    fn acquire_all(
        &self,
        policies: &[Policy],
        head: RequestHead<'_>,
        context: &RequestContext,
    ) -> Option<Acquired> {
        let applicable: SmallVec<[_; 2]> = policies
            .iter()
            .filter_map(|policy| {
                Some((policy, policy.subject(head, context, LAYER)?, policy.quota_for(head, context)))
            })
            .collect();
        let mut charges = SmallVec::<[Charge<'_>; 2]>::new();
        let mut deferred = Vec::new();
        for (policy, subject, quota) in &applicable {
            let charge = policy.charge(subject, quota, context);
            let (charge, later) = policy.cost(charge, head, context);
            deferred.extend(later.map(|cost| DeferredItem::new(&charge, cost)));
            charges.push(charge);
        }
        if charges.is_empty() {
            return None;
        }
        let answer = self.limiter.acquire(&LimitRequest::new(&charges, context.instant()));
        let deferred = (!deferred.is_empty()).then(|| DeferredCharge::new(&self.limiter, deferred, context));
        Some((answer, deferred.map(Box::new)))
    }

    /// Where the limits stand that hold for a principal whatever it requests.
    fn peek(&self, context: &RequestContext, now: SystemTime) -> Answer<Result<Decision, Unavailable>> {
        let applicable: Vec<(&Policy, Cow<'_, str>, &Quota)> = self
            .policies
            .iter()
            .filter_map(|policy| {
                policy.of_principal(context).map(|(subject, quota)| (policy, subject, quota))
            })
            .collect();
        let charges: Vec<_> = applicable
            .iter()
            .map(|(policy, subject, quota)| policy.charge(subject, quota, context).with_cost(0))
            .collect();
        self.limiter.acquire(&LimitRequest::new(&charges, now))
    }
}

/// A limiter's answer, and what is charged once the response is there.
type Acquired = (Answer<Result<Decision, Unavailable>>, Option<Box<DeferredCharge>>);

#[cold]
fn refusal(decision: &Decision) -> Denial {
    Denial::rate_limited(decision.clone())
}

/// Why anonymous callers and limits by principal do not go together.
pub(crate) const ANONYMOUS_UNCOUNTED: &str = "RateLimitLayer has no policy for anonymous requests, which \
    CredentialLayer::with_anonymous accepts: add a policy by Subject::Address or Subject::custom";

impl fmt::Debug for RateLimitGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitGate").field("policies", &self.policies).finish_non_exhaustive()
    }
}
