//! What happens while Redis is down.

use tollgate::limit::MemoryLimiter;
use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    limit::{Charge, Decision, LimitRequest, Limiter as _, PolicyName},
};

use super::charges::Charges;

/// What happens to a request whose limits Redis does not decide in time. Each policy can choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outage {
    /// This process counts, from zero: it admits at most the quota in each window. All processes together admit at most the quota, and
    /// once more the quota for each process. The default.
    #[default]
    CountLocally,
    /// The request is refused with 503.
    Refuse,
    /// The request is admitted and not counted. The response has no rate-limit headers for this policy.
    Allow,
}

#[derive(Debug, Default)]
pub(crate) struct Outages {
    pub(crate) usual: Outage,
    pub(crate) by_policy: Vec<(PolicyName, Outage)>,
    local: MemoryLimiter,
}

impl Outages {
    fn of(&self, policy: PolicyName) -> Outage {
        let own = self.by_policy.iter().find(|(name, _)| *name == policy);
        own.map_or(self.usual, |(_, outage)| *outage)
    }

    /// Decides without Redis.
    ///
    /// # Errors
    /// The given error, if a policy refuses.
    pub(crate) fn decide(&self, charges: &Charges, error: Unavailable) -> Result<Decision, Unavailable> {
        let mut counted: Vec<Charge<'_>> = Vec::with_capacity(charges.all.len());
        for charge in &charges.all {
            match self.of(charge.policy) {
                Outage::CountLocally => counted.push(charge.borrowed()),
                Outage::Refuse if charge.required > 0 => return Err(error),
                Outage::Refuse | Outage::Allow => {}
            }
        }
        match self.local.acquire(&LimitRequest::new(&counted, charges.now)) {
            Answer::Now(decision) => decision,
            // Not reached: it counts in this process.
            Answer::Later(_) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use tollgate_core::limit::{PerWindow as _, Quota};

    use super::*;

    fn decide(outages: &Outages, charges: &[Charge<'_>]) -> Result<Decision, Unavailable> {
        let now = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        outages.decide(&Charges::new("test", &LimitRequest::new(charges, now)), Unavailable::new("down"))
    }

    #[test]
    fn each_policy_chooses() {
        let quota = 1.per_minute();
        let charge = |policy: &'static str| [Charge::new(policy, "ada", "acme", &quota)];
        let outages = Outages {
            by_policy: vec![("strict".into(), Outage::Refuse), ("open".into(), Outage::Allow)],
            ..Outages::default()
        };
        assert!(decide(&outages, &charge("usual")).unwrap().is_allowed());
        assert!(!decide(&outages, &charge("usual")).unwrap().is_allowed(), "counted in this process");
        assert!(decide(&outages, &charge("strict")).is_err());
        for _ in 0..3 {
            let decision = decide(&outages, &charge("open")).unwrap();
            assert!(decision.is_allowed() && decision.windows().is_empty());
        }
    }

    #[test]
    fn one_policy_that_refuses_is_enough_and_then_nothing_is_counted() {
        let quota: Quota = 1.per_minute();
        let charges = ["usual", "strict"].map(|policy| Charge::new(policy, "ada", "acme", &quota));
        let outages = Outages { by_policy: vec![("strict".into(), Outage::Refuse)], ..Outages::default() };
        assert!(decide(&outages, &charges).is_err());
        assert!(decide(&outages, &charges[..1]).unwrap().is_allowed());
    }

    #[test]
    fn a_settlement_and_a_peek_are_not_refused() {
        let quota: Quota = 1.per_minute();
        let charge = Charge::new("strict", "ada", "acme", &quota);
        let outages = Outages { usual: Outage::Refuse, ..Outages::default() };
        for charge in [charge.settled(3), charge.with_cost(0)] {
            assert!(decide(&outages, &[charge]).unwrap().is_allowed());
        }
    }
}
