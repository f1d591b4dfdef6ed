//! The charges of a request, which outlive it while Redis decides.

use std::time::SystemTime;

use smallvec::SmallVec;
use tollgate_core::limit::{
    Charge, Counter, Decision, LimitRequest, PolicyName, Quota, WindowCheck, WindowLimit,
};

use super::key_name::key_name;

/// The charges of one request, with the keys of their records.
#[derive(Clone, Debug)]
pub(crate) struct Charges {
    pub(crate) all: SmallVec<[OwnCharge; 2]>,
    pub(crate) now: SystemTime,
}

/// A [`Charge`] without what it borrows.
#[derive(Clone, Debug)]
pub(crate) struct OwnCharge {
    pub(crate) key: String,
    pub(crate) policy: PolicyName,
    pub(crate) quota: Quota,
    pub(crate) required: u64,
    pub(crate) cost: u64,
    pub(crate) is_hidden: bool,
    // The length of the key's beginning, which has the group.
    tag_ends_at: usize,
}

impl Charges {
    pub(crate) fn new(prefix: &str, request: &LimitRequest<'_>) -> Self {
        let own = |charge: &Charge<'_>| {
            let key = key_name(prefix, charge);
            OwnCharge {
                policy: charge.policy,
                quota: charge.quota.clone(),
                required: charge.required,
                cost: charge.cost,
                is_hidden: charge.is_hidden,
                tag_ends_at: key.find('}').unwrap_or(key.len()),
                key,
            }
        };
        Self { all: request.charges.iter().map(own).collect(), now: request.now }
    }

    /// Whether a charge is for a request that was admitted before, and must not be lost.
    pub(crate) fn is_settlement(&self) -> bool {
        self.all.iter().any(|charge| charge.required == 0 && charge.cost > 0)
    }

    /// The charges as a limiter takes them.
    pub(crate) fn borrowed(&self) -> SmallVec<[Charge<'_>; 2]> {
        self.all.iter().map(OwnCharge::borrowed).collect()
    }

    /// The same charges, which count nothing and are not refused.
    pub(crate) fn peek(&self) -> Self {
        let mut peek = self.clone();
        for charge in &mut peek.all {
            (charge.required, charge.cost) = (0, 0);
        }
        peek
    }

    /// The charges of each group.
    pub(crate) fn by_groups(&self) -> Vec<Self> {
        let sorted = self.in_order_of_groups();
        let groups = sorted.all.chunk_by(|one, other| one.group() == other.group());
        groups.map(|group| Self { all: group.iter().cloned().collect(), now: self.now }).collect()
    }

    pub(crate) fn in_order_of_groups(&self) -> Self {
        let mut sorted = self.clone();
        sorted.all.sort_by(|one, other| one.group().cmp(other.group()));
        sorted
    }

    /// All limits of all charges, in order.
    pub(crate) fn limits(&self) -> impl Iterator<Item = (&OwnCharge, &WindowLimit)> {
        self.all.iter().flat_map(|charge| charge.quota.limits().iter().map(move |limit| (charge, limit)))
    }

    /// The decision about these charges with these counters, one for each limit.
    pub(crate) fn decide(&self, counters: &[Counter], now: SystemTime) -> Decision {
        decide(self.all.iter().map(OwnCharge::borrowed), counters, now)
    }
}

/// Whether charges of these groups can be in several slots of a cluster.
pub(crate) fn have_several_groups<'c>(mut groups: impl Iterator<Item = &'c str>) -> bool {
    let first = groups.next();
    groups.any(|group| Some(group) != first)
}

/// The decision about charges with these counters, one for each limit, which are up to date.
pub(crate) fn decide<'c>(
    charges: impl Iterator<Item = Charge<'c>>,
    counters: &[Counter],
    now: SystemTime,
) -> Decision {
    let limits = charges.flat_map(|charge| charge.quota.limits().iter().map(move |limit| (charge, limit)));
    let check = |((charge, limit), counter): ((Charge<'_>, &WindowLimit), &Counter)| {
        WindowCheck::new(&charge, limit, *counter, now)
    };
    Decision::evaluate(now, limits.zip(counters).map(check))
}

impl OwnCharge {
    /// The charge. Its subject and its group are the key, which is their name.
    pub(crate) fn borrowed(&self) -> Charge<'_> {
        let mut charge = Charge::new(self.policy, &self.key, self.group(), &self.quota);
        charge.required = self.required;
        charge.cost = self.cost;
        charge.is_hidden = self.is_hidden;
        charge
    }

    /// What the keys of the group begin with.
    pub(crate) fn group(&self) -> &str {
        self.key.get(..self.tag_ends_at).unwrap_or_default()
    }
}
