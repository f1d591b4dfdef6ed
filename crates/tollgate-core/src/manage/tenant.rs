//! Tenants: what a store keeps about them, and how that changes.

use super::KeyAction;
use crate::verify::Plan;

/// What a store keeps about a tenant, beside its keys. A tenant need not be created: until it is changed, it has no plan and is not
/// suspended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantDetails {
    /// The tenant.
    pub tenant: Box<str>,
    /// The plan that it has bought. A key with [a plan of its own](crate::manage::KeyDetails::plan) has that one instead.
    pub plan: Option<Plan>,
    /// Whether it is suspended: all its keys are refused.
    pub is_suspended: bool,
    /// The version of this record. A higher number is newer.
    pub generation: u64,
}

impl TenantDetails {
    /// A tenant without a plan. Set other fields afterwards.
    pub fn new(tenant: impl Into<Box<str>>) -> Self {
        Self { tenant: tenant.into(), plan: None, is_suspended: false, generation: 0 }
    }
}

/// A change to a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TenantChange {
    /// Suspends the tenant: all its keys are refused, including those issued later. The tenant need not have keys yet.
    Suspend {
        /// The tenant.
        tenant: Box<str>,
    },
    /// Resumes the tenant: its keys are valid again, except revoked ones.
    Resume {
        /// The tenant.
        tenant: Box<str>,
    },
    /// Sets the plan of all keys of the tenant that have none of their own, including those issued later. The tenant need not
    /// have keys yet.
    SetPlan {
        /// The tenant.
        tenant: Box<str>,
        /// The plan; `None` removes it.
        plan: Option<Plan>,
    },
}

impl TenantChange {
    /// The tenant.
    pub fn tenant(&self) -> &str {
        match self {
            Self::Suspend { tenant } | Self::Resume { tenant } | Self::SetPlan { tenant, .. } => tenant,
        }
    }

    /// Applies the change. If the details are equal afterwards, it has no effect, and a store adds no event.
    pub fn apply(&self, details: &mut TenantDetails) {
        match self {
            Self::Suspend { .. } => details.is_suspended = true,
            Self::Resume { .. } => details.is_suspended = false,
            Self::SetPlan { plan, .. } => details.plan.clone_from(plan),
        }
    }

    /// The action that the history has for this change.
    pub fn action(&self) -> KeyAction {
        match self {
            Self::Suspend { .. } => KeyAction::TenantSuspended,
            Self::Resume { .. } => KeyAction::TenantResumed,
            Self::SetPlan { .. } => KeyAction::TenantUpdated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_the_rest_of_a_tenant_as_it_is() {
        let tenant = || "acme".into();
        let mut details = TenantDetails::new("acme");
        TenantChange::SetPlan { tenant: tenant(), plan: Some(Plan::active("pro")) }.apply(&mut details);
        TenantChange::Suspend { tenant: tenant() }.apply(&mut details);
        assert_eq!((details.plan.clone(), details.is_suspended), (Some(Plan::active("pro")), true));
        TenantChange::SetPlan { tenant: tenant(), plan: None }.apply(&mut details);
        assert_eq!((details.plan.clone(), details.is_suspended), (None, true));
        TenantChange::Resume { tenant: tenant() }.apply(&mut details);
        assert_eq!(details, TenantDetails::new("acme"));
    }
}
