//! Policies: whose counter, and what it is held against.

use std::{borrow::Cow, fmt, sync::Arc};

use tollgate_core::{
    limit::{Charge, Quota},
    request::RequestHead,
    verify::Principal,
};

use super::{
    cost::{self, Cost},
    subject::{CustomSubject, Subject},
};
use crate::{RequestContext, engine::DeferredCost};

/// A named quota, and whose counter it is held against.
///
/// The name tells counters of different policies apart, in one process and in a shared store: renaming a policy starts its
/// counters afresh.
#[derive(Clone)]
pub struct Policy {
    name: &'static str,
    subject: Subject,
    quota: Quota,
    tiers: Vec<(Box<str>, Quota)>,
    quota_function: Option<Arc<QuotaFunction>>,
    cost: Cost,
}

/// The subject of all requests whose address is not known.
const NOBODYS_ADDRESS: &str = "unknown";

type QuotaFunction = dyn for<'r> Fn(RequestHead<'r>, Option<&'r Principal>) -> Option<Quota> + Send + Sync;

impl Policy {
    /// Each key has this quota, unless its principal has [one of its own](Principal::with_quota) under the policy's name.
    pub fn new(name: &'static str, quota: Quota) -> Self {
        Self {
            name,
            subject: Subject::Key,
            quota,
            tiers: Vec::new(),
            quota_function: None,
            cost: Cost::default(),
        }
    }

    /// Counts by another subject than the key.
    pub fn by(mut self, subject: Subject) -> Self {
        self.subject = subject;
        self
    }

    /// Principals with an active plan of this tier have this quota instead. Changing the tier keeps the count. The plan is the
    /// principal's, or what an `EntitlementLayer` further out has found.
    pub fn with_tier(mut self, tier: impl Into<Box<str>>, quota: Quota) -> Self {
        self.tiers.push((tier.into(), quota));
        self
    }

    /// Requests have the quota that a function reads from their head and their principal; where it says nothing, it is as without
    /// it. A principal's quota of its own takes the place of this one, too. The count stays whatever the quota.
    ///
    /// Token buckets keep their tokens alike, which come at the rate of the quota that was asked for last: so whoever may ask for a
    /// fast one in between fills a slow one with it. Requests that need a slow bucket need a policy of their own, by a subject that
    /// names only them.
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

    /// What a request costs. Default: 1.
    pub fn with_cost(mut self, cost: impl Into<Cost>) -> Self {
        self.cost = cost.into();
        self
    }

    /// Whether a request costs 1, and nothing but its principal decides about its quota.
    pub(super) fn is_plain(&self) -> bool {
        self.quota_function.is_none() && matches!(self.cost.0, cost::Kind::Units(1))
    }

    pub(super) fn counts_by_principal(&self) -> bool {
        matches!(self.subject, Subject::Key | Subject::Tenant)
    }

    /// Whose counter this request is charged to; `None` if this policy does not concern it.
    #[inline]
    pub(super) fn subject<'r>(
        &self,
        head: RequestHead<'r>,
        principal: Option<&'r Principal>,
    ) -> Option<Cow<'r, str>> {
        match &self.subject {
            Subject::Key | Subject::Tenant => self.subject_of(principal?),
            Subject::Address(address) => Some(match address.subject(head, "RateLimitLayer") {
                Some(address) => Cow::Owned(address),
                None => Cow::Borrowed(NOBODYS_ADDRESS),
            }),
            Subject::Custom(CustomSubject(name)) => name(head, principal),
        }
    }

    /// Whose counter a principal is charged to; `None` if its request decides.
    #[inline]
    fn subject_of<'r>(&self, principal: &'r Principal) -> Option<Cow<'r, str>> {
        match &self.subject {
            Subject::Key => Some(Cow::Borrowed(principal.id())),
            Subject::Tenant => Some(match principal.tenant() {
                Some(tenant) => Cow::Borrowed(tenant),
                // A key that belongs to nobody is a tenant of its own. Nobody's tenant is called so: what begins with a zero byte
                // is no text to a database, and none that anybody would type.
                None => Cow::Owned(format!("\0{}", principal.id())),
            }),
            Subject::Address(_) | Subject::Custom(_) => None,
        }
    }

    /// Whose counter a principal is charged to, and what that is held against, whatever it asks for; `None` if that depends.
    pub(super) fn of_principal<'c>(
        &'c self,
        context: &'c RequestContext,
    ) -> Option<(Cow<'c, str>, &'c Quota)> {
        let is_fixed = self.quota_function.is_none() || self.own_quota(context).is_some();
        let subject = self.subject_of(context.principal()?).filter(|_| is_fixed)?;
        Some((subject, self.quota(context)))
    }

    /// A charge by a [plain](Self::is_plain) policy.
    #[inline]
    pub(super) fn plain_charge<'c>(&'c self, subject: &'c str, context: &'c RequestContext) -> Charge<'c> {
        self.charge_of_one(subject, self.quota(context), context)
    }

    /// A charge of what the request costs as far as that is known, and the cost that is not.
    pub(super) fn charge<'c>(
        &self,
        subject: &'c str,
        quota: &'c Quota,
        head: RequestHead<'_>,
        context: &'c RequestContext,
    ) -> (Charge<'c>, Option<DeferredCost>) {
        let charge = self.charge_of_one(subject, quota, context);
        match &self.cost.0 {
            cost::Kind::Units(units) => (charge.with_cost(*units), None),
            cost::Kind::Request(cost) => {
                (charge.with_cost(cost(head, context.principal().map(Arc::as_ref))), None)
            }
            cost::Kind::Later(cost) => (charge.with_deferred_cost(), Some(cost.clone())),
        }
    }

    /// A charge of 1, whatever the request costs.
    #[inline]
    pub(super) fn charge_of_one<'c>(
        &self,
        subject: &'c str,
        quota: &'c Quota,
        context: &'c RequestContext,
    ) -> Charge<'c> {
        Charge::new(self.name, subject, self.group(subject, context), quota)
    }

    /// Where a subject's counter lives.
    #[inline]
    fn group<'c>(&self, subject: &'c str, context: &'c RequestContext) -> &'c str {
        match self.subject {
            // A tenant's counter and those of its keys are decided together.
            Subject::Key | Subject::Tenant => {
                context.principal().and_then(|principal| principal.tenant()).unwrap_or(subject)
            }
            // Another subject may be shared by many tenants, and still has one counter.
            Subject::Address(_) | Subject::Custom(_) => subject,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// What the counter is held against: the principal's own quota, else what a function says, else its tier's, else the policy's.
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

    fn own_quota<'c>(&self, context: &'c RequestContext) -> Option<&'c Quota> {
        context.principal()?.quota(self.name)
    }

    /// The same where no function has a say.
    fn quota<'c>(&'c self, context: &'c RequestContext) -> &'c Quota {
        let own = self.own_quota(context);
        let tier = || {
            // A plan that was asked for elsewhere counts; that there is none there does not, or trying an `EntitlementLayer` in
            // report-only mode would already change the limits.
            let plan = context.plan().or_else(|| context.principal()?.plan());
            let tier = plan.filter(|plan| plan.is_active())?.tier();
            self.tiers.iter().find(|(name, _)| **name == *tier).map(|(_, quota)| quota)
        };
        own.or_else(tier).unwrap_or(&self.quota)
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
