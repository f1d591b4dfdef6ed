//! Policies: named quotas, and what they count by.

use std::{borrow::Cow, fmt, sync::Arc};

use tollgate_core::{
    limit::{Charge, PolicyName, Quota, WindowLimit},
    request::RequestHead,
    verify::Principal,
};

use super::{
    cost::{self, Cost},
    subject::Subject,
};
use crate::{RequestContext, engine::DeferredCost};

/// A named quota, and the subject that it counts by.
///
/// The name is part of the identity of the policy's counters, in one process and in a shared store: a renamed policy starts with
/// new counters. A name from a configuration file is [interned](PolicyName::interned).
#[derive(Clone)]
pub struct Policy {
    name: PolicyName,
    subject: Subject,
    quota: Quota,
    tiers: Vec<(Box<str>, Quota)>,
    quota_function: Option<Arc<QuotaFunction>>,
    cost: Cost,
}

type QuotaFunction = dyn for<'r> Fn(RequestHead<'r>, Option<&'r Principal>) -> Option<Quota> + Send + Sync;

impl Policy {
    /// Each key has this quota, unless its principal has [one of its own](Principal::with_quota) under the policy's name.
    pub fn new(name: impl Into<PolicyName>, quota: Quota) -> Self {
        Self {
            name: name.into(),
            subject: Subject::Key,
            quota,
            tiers: Vec::new(),
            quota_function: None,
            cost: Cost::default(),
        }
    }

    /// Counts by another subject than the key.
    pub fn with_subject(mut self, subject: Subject) -> Self {
        self.subject = subject;
        self
    }

    /// Principals with an active plan of this tier have this quota instead. A changed tier keeps the count. The plan is the
    /// principal's, or what a `PlanLayer` outside has found.
    pub fn with_tier(mut self, tier: impl Into<Box<str>>, quota: Quota) -> Self {
        self.tiers.push((tier.into(), quota));
        self
    }

    /// Requests have the quota that a function returns for their head and their principal. For `None`, and for a principal with
    /// a quota of its own, the quota is as without the function. The count stays whatever the quota.
    ///
    /// A token bucket fills at the rate of the quota of the latest request. So requests with a fast quota also fill the bucket of
    /// requests with a slow one; give requests with a slow bucket a policy and a subject of their own.
    ///
    /// ```
    /// use tollgate::{PerWindow, Policy};
    ///
    /// let policy = Policy::new("key", 60.per_minute())
    ///     .with_quota_by(|head, _principal| head.uri.path().starts_with("/bulk").then(|| 6.per_minute()));
    /// ```
    pub fn with_quota_by(
        mut self,
        quota: impl for<'r> Fn(RequestHead<'r>, Option<&'r Principal>) -> Option<Quota> + Send + Sync + 'static,
    ) -> Self {
        self.quota_function = Some(Arc::new(quota));
        self
    }

    /// What a request costs. Default: 1. A fixed cost above a limit of the policy is a configuration error. If a function returns a
    /// cost above the limit, the request is refused without `Retry-After`, and the log says why.
    pub fn with_cost(mut self, cost: impl Into<Cost>) -> Self {
        self.cost = cost.into();
        self
    }

    pub(super) fn name(&self) -> PolicyName {
        self.name
    }

    /// A fixed cost and a limit of the policy or of a tier that never admits it. A limit of 0 is meant to admit nothing.
    pub(super) fn cost_above_limit(&self) -> Option<(u64, WindowLimit)> {
        let cost::Kind::Units(cost) = self.cost.0 else { return None };
        let quotas = std::iter::once(&self.quota).chain(self.tiers.iter().map(|(_, quota)| quota));
        let mut limits = quotas.flat_map(Quota::limits);
        let limit = limits.find(|limit| (1..cost).contains(&limit.capacity()))?;
        Some((cost, *limit))
    }

    /// Whether a request costs 1, and its quota depends on its principal alone.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.quota_function.is_none() && matches!(self.cost.0, cost::Kind::Units(1))
    }

    #[inline]
    pub(super) fn counts_by_principal(&self) -> bool {
        self.subject.is_of_principal()
    }

    /// The subject of this request's counter, for `layer`; `None` if this policy does not apply to it.
    #[inline]
    pub(super) fn subject<'r>(
        &self,
        head: RequestHead<'r>,
        context: &'r RequestContext,
        layer: &'static str,
    ) -> Option<Cow<'r, str>> {
        self.subject.name(head, context, layer)
    }

    /// The subject of a principal's counter and its quota, whatever it requests; `None` if they depend on the request.
    pub(super) fn of_principal<'c>(
        &'c self,
        context: &'c RequestContext,
    ) -> Option<(Cow<'c, str>, &'c Quota)> {
        let is_fixed = self.quota_function.is_none() || self.own_quota(context).is_some();
        let subject = self.subject.name_of(context.principal()?).filter(|_| is_fixed)?;
        Some((subject, self.quota(context)))
    }

    /// A charge of 1.
    #[inline]
    pub(super) fn charge<'c>(
        &self,
        subject: &'c str,
        quota: &'c Quota,
        context: &'c RequestContext,
    ) -> Charge<'c> {
        let charge = Charge::new(self.name, subject, self.subject.group(subject, context), quota);
        match (&self.subject, context.principal()) {
            (Subject::Key, Some(principal)) => charge.with_place(principal.counter_place()),
            // Unrelated callers share an address.
            (Subject::Address(_), _) => charge.hidden(),
            _ => charge,
        }
    }

    /// The charge with the request's cost as far as it is known, and the cost that depends on the response.
    pub(super) fn cost<'c>(
        &self,
        charge: Charge<'c>,
        head: RequestHead<'_>,
        context: &RequestContext,
    ) -> (Charge<'c>, Option<DeferredCost>) {
        match &self.cost.0 {
            cost::Kind::Units(units) => (charge.with_cost(*units), None),
            cost::Kind::Request(cost) => {
                (charge.with_cost(cost(head, context.principal().map(Arc::as_ref))), None)
            }
            cost::Kind::Deferred(cost) => (charge.with_deferred_cost(), Some(cost.clone())),
        }
    }

    /// The quota of a request: the principal's own, else what the function returns, else its tier's, else the policy's.
    pub(super) fn quota_for<'c>(
        &'c self,
        head: RequestHead<'_>,
        context: &'c RequestContext,
    ) -> Cow<'c, Quota> {
        if let Some(function) = &self.quota_function
            && self.own_quota(context).is_none()
            && let Some(quota) = function(head, context.principal().map(Arc::as_ref))
        {
            return Cow::Owned(quota);
        }
        Cow::Borrowed(self.quota(context))
    }

    /// The quota without the function.
    #[inline]
    pub(super) fn quota<'c>(&'c self, context: &'c RequestContext) -> &'c Quota {
        self.own_quota(context).or_else(|| self.tier_quota(context)).unwrap_or(&self.quota)
    }

    #[inline]
    fn own_quota<'c>(&self, context: &'c RequestContext) -> Option<&'c Quota> {
        context.principal()?.quota(&self.name)
    }

    #[inline]
    fn tier_quota(&self, context: &RequestContext) -> Option<&Quota> {
        if self.tiers.is_empty() {
            return None;
        }
        let tier = context.active_plan()?.tier();
        self.tiers.iter().find(|(name, _)| **name == *tier).map(|(_, quota)| quota)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("name", &self.name)
            .field("subject", &self.subject)
            .field("quota", &self.quota)
            .field("tiers", &self.tiers)
            .field("cost", &self.cost)
            .finish_non_exhaustive()
    }
}
