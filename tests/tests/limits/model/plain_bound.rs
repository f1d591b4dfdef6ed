//! An upper bound of the requests that may pass between two steps of the clock backwards: what an unused quota admits.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{
    quota::{Algorithm, Limits},
    side_by_side::{Event, KEYS, Plans},
};

/// What each key and each tenant was admitted since the clock last stepped back, while all of them are on the first plan.
pub(crate) struct PlainBound {
    key: Limits,
    tenant: Limits,
    admitted: HashMap<&'static str, Vec<(u64, u64)>>,
}

impl PlainBound {
    pub(crate) fn new(plans: &Plans) -> Self {
        Self { key: plans.key[0].clone(), tenant: plans.tenant[0].clone(), admitted: HashMap::new() }
    }

    pub(crate) fn live_through(&mut self, event: &Event) {
        if let Event::StepBack(_) = event {
            self.admitted.clear();
        }
    }

    pub(crate) fn admit(
        &mut self,
        key: usize,
        key_cost: u64,
        tenant_cost: u64,
        now: u64,
    ) -> Result<(), TestCaseError> {
        let (id, tenant) = KEYS[key];
        for (limits, subject, cost) in [(&self.key, id, key_cost), (&self.tenant, tenant, tenant_cost)] {
            if cost > 0 {
                let admitted = self.admitted.entry(subject).or_default();
                admitted.push((now, cost));
                check(limits, admitted, now)?;
            }
        }
        Ok(())
    }
}

fn check(limits: &Limits, admitted: &[(u64, u64)], now: u64) -> Result<(), TestCaseError> {
    for limit in limits {
        let since = |from: u64| -> u64 {
            admitted.iter().filter(|(instant, _)| *instant >= from).map(|(_, cost)| cost).sum()
        };
        if let Algorithm::Bucket { .. } = limit.algorithm {
            for (from, _) in admitted {
                let filled = (now - from) / limit.interval();
                prop_assert!(since(*from) <= limit.capacity() + filled, "{:?} since {}", limit, from);
            }
        } else {
            let begin = now - now % limit.length();
            prop_assert!(since(begin) <= limit.most, "{:?} since {}", limit, begin);
        }
    }
    Ok(())
}
