//! A charge that outlives its request.

use tollgate_core::limit::{Charge, PolicyName, Quota};

/// A charge that outlives its request: its subject and its quota. Its cost is known later.
#[derive(Clone)]
pub(crate) struct KeptCharge {
    policy: PolicyName,
    subject: Box<str>,
    group: Box<str>,
    quota: Quota,
    is_hidden: bool,
}

impl KeptCharge {
    pub(crate) fn new(charge: &Charge<'_>) -> Self {
        Self {
            policy: charge.policy,
            subject: charge.subject.into(),
            group: charge.group.into(),
            quota: charge.quota.clone(),
            is_hidden: charge.is_hidden,
        }
    }

    /// The charge, with a cost of 1.
    pub(crate) fn charge(&self) -> Charge<'_> {
        let charge = Charge::new(self.policy, &self.subject, &self.group, &self.quota);
        if self.is_hidden { charge.hidden() } else { charge }
    }
}
