//! Which counters are shown or reset.

use tollgate_core::manage::Actor;

use crate::limiter::key_name::{KeyName, key_pattern};

/// Which counters: those of a group, a policy and a subject. What is `None` is any.
///
/// The layers of `tollgate` make these groups and subjects of a request:
///
/// | `tollgate::limit::Subject` | group | subject |
/// |---|---|---|
/// | `Key` | the tenant; of a key without one, its identifier | the identifier of the key |
/// | `Tenant` | the tenant | the tenant |
/// | an address, or a name by a function of your own | the subject | the address, or the name |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitQuery {
    /// The group, usually a tenant. A Redis Cluster needs it.
    pub group: Option<Box<str>>,
    /// The policy.
    pub policy: Option<Box<str>>,
    /// The subject, such as the identifier of a key.
    pub subject: Option<Box<str>>,
}

impl LimitQuery {
    /// All counters of a group.
    pub fn of_group(group: impl Into<Box<str>>) -> Self {
        Self { group: Some(group.into()), ..Self::default() }
    }

    /// All counters of a subject, in any group.
    pub fn of_subject(subject: impl Into<Box<str>>) -> Self {
        Self::default().with_subject(subject)
    }

    /// Only those of a policy.
    pub fn with_policy(mut self, policy: impl Into<Box<str>>) -> Self {
        self.policy = Some(policy.into());
        self
    }

    /// Only those of a subject.
    pub fn with_subject(mut self, subject: impl Into<Box<str>>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    pub(super) fn pattern(&self, prefix: &str) -> String {
        key_pattern(prefix, self.group.as_deref(), self.policy.as_deref(), self.subject.as_deref())
    }

    pub(super) fn matches(&self, name: &KeyName) -> bool {
        let is =
            |wanted: &Option<Box<str>>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        is(&self.group, &name.group) && is(&self.policy, &name.policy) && is(&self.subject, &name.subject)
    }

    /// The part that this actor may reset. `None`: nothing.
    pub(super) fn restricted_to(&self, actor: &Actor) -> Option<Self> {
        let mut query = self.clone();
        if let Some(tenant) = actor.tenant() {
            let group = query.group.get_or_insert_with(|| tenant.into());
            if **group != *tenant {
                return None;
            }
        }
        Some(query)
    }
}
