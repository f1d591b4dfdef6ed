//! Policies: whose counter, and what it is held against.

use std::{borrow::Cow, fmt, sync::Arc};

use tollgate_core::{Charge, Head, Principal, Quota};

use crate::Passage;

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
}

impl Policy {
    /// Each key has this quota, unless its principal has [one of its own](Principal::with_quota) under the policy's name.
    pub fn new(name: &'static str, quota: Quota) -> Self {
        Self { name, subject: Subject::Key, quota, tiers: Vec::new() }
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

    pub(super) fn counts_by_principal(&self) -> bool {
        matches!(self.subject, Subject::Key | Subject::Tenant)
    }

    /// Whose counter this request is charged to; `None` if this policy does not concern it.
    #[inline]
    pub(super) fn subject<'r>(
        &self,
        head: Head<'r>,
        principal: Option<&'r Principal>,
    ) -> Option<Cow<'r, str>> {
        match &self.subject {
            Subject::Key => principal.map(|principal| Cow::Borrowed(principal.id())),
            Subject::Tenant => principal.map(|principal| match principal.tenant() {
                Some(tenant) => Cow::Borrowed(tenant),
                // A key that belongs to nobody is a tenant of its own. Nobody's tenant is called so: what begins with a zero byte
                // is no text to a database, and none that anybody would type.
                None => Cow::Owned(format!("\0{}", principal.id())),
            }),
            Subject::Custom(CustomSubject(name)) => name(head, principal),
        }
    }

    /// The charge to a subject's counter.
    #[inline]
    pub(super) fn charge<'c>(&'c self, subject: &'c str, passage: &'c Passage) -> Charge<'c> {
        let tenant = passage.principal().and_then(|principal| principal.tenant());
        let group = match self.subject {
            // A tenant's counter and those of its keys are decided together.
            Subject::Key | Subject::Tenant => tenant.unwrap_or(subject),
            // Another subject may be shared by many tenants, and still has one counter.
            Subject::Custom(_) => subject,
        };
        Charge::new(self.name, subject, group, self.quota(passage))
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// What the counter is held against: the principal's own quota, else its tier's, else the policy's.
    fn quota<'c>(&'c self, passage: &'c Passage) -> &'c Quota {
        let principal = passage.principal();
        let own = principal.and_then(|principal| principal.quota(self.name));
        let tier = || {
            // A plan that was asked for elsewhere counts; that there is none there does not, or trying an `EntitlementLayer` in
            // report-only mode would already change the limits.
            let plan = passage.plan().or_else(|| passage.principal()?.plan());
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
            .finish()
    }
}

/// Whose counter a request is charged to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Subject {
    /// The principal's key (or subject).
    Key,
    /// The principal's tenant: all its keys share the counter.
    Tenant,
    /// Whatever a function reads from the request: see [`Subject::custom`].
    Custom(CustomSubject),
}

/// A function that names a subject: see [`Subject::custom`].
#[derive(Clone)]
pub struct CustomSubject(Arc<Namer>);

type Namer = dyn for<'r> Fn(Head<'r>, Option<&'r Principal>) -> Option<Cow<'r, str>> + Send + Sync;

impl Subject {
    /// A subject of your own, read from the request's head and its principal, if it has one. `None`: the policy does not
    /// concern this request.
    ///
    /// Beware of what strangers can invent: a counter by a header that anybody may set limits nobody.
    ///
    /// ```
    /// use tollgate::{PerWindow, Policy, Subject};
    ///
    /// let exports = Policy::new("exports", 5.per_hour()).by(Subject::custom(|head, principal| {
    ///     let is_export = head.uri.path().ends_with("/export");
    ///     principal.filter(|_| is_export).map(|principal| principal.id().into())
    /// }));
    /// ```
    pub fn custom(
        name: impl for<'r> Fn(Head<'r>, Option<&'r Principal>) -> Option<Cow<'r, str>> + Send + Sync + 'static,
    ) -> Self {
        Self::Custom(CustomSubject(Arc::new(name)))
    }
}

impl fmt::Debug for CustomSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomSubject(..)")
    }
}
