//! The model: policies, what each of their counters has admitted, and whether one more request passes.

use std::collections::HashMap;

use super::{
    history::{History, Standing},
    quota::{Limit, Limits},
};

/// A charge of one policy.
#[derive(Clone, Debug)]
pub(crate) struct Charge {
    pub(crate) policy: &'static str,
    pub(crate) subject: &'static str,
    pub(crate) limits: Limits,
    pub(crate) cost: u64,
}

/// One window of one policy as a caller may be shown it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    pub(crate) policy: &'static str,
    pub(crate) limit: Limit,
    pub(crate) standing: Standing,
    pub(crate) is_violated: bool,
    /// Whether it refuses a request like this one at any time.
    pub(crate) never_fits: bool,
}

/// A multiple of every limit of the model.
const SHARES: u64 = 138_600;

impl Shown {
    pub(crate) fn remaining(&self) -> u64 {
        if self.is_violated { 0 } else { self.limit.capacity().saturating_sub(self.standing.used) }
    }

    /// What remains of the limit, as a number of equal shares.
    pub(crate) fn shares_left(&self) -> u64 {
        let limit = self.limit.capacity().max(1);
        assert_eq!(SHARES % limit, 0, "{limit} shares");
        self.remaining() * (SHARES / limit)
    }
}

/// Whether a request passes, and where its windows stand then.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) windows: Vec<Shown>,
}

impl Verdict {
    pub(crate) fn passes(&self) -> bool {
        self.windows.iter().all(|window| !window.is_violated)
    }

    /// The windows that may be shown when there is place for one only: of a refusal the violated one that opens last,
    /// otherwise the one with the smallest share left, and of those the one that resets last. Equal ones may stand for each other.
    pub(crate) fn tightest(&self) -> Vec<Shown> {
        if self.passes() {
            let least_left = greatest(&self.windows, |window| std::cmp::Reverse(window.shares_left()));
            greatest(&least_left, |window| window.standing.resets_at)
        } else {
            let violated: Vec<_> = self.windows.iter().filter(|window| window.is_violated).copied().collect();
            greatest(&violated, |window| {
                (window.never_fits, window.standing.opens_at * u64::from(!window.never_fits))
            })
        }
    }
}

fn greatest<K: Ord + Copy>(windows: &[Shown], key: impl Fn(&Shown) -> K) -> Vec<Shown> {
    let most = windows.iter().map(&key).max();
    windows.iter().filter(|window| Some(key(window)) == most).copied().collect()
}

/// A counter's name: policy, subject, and window by algorithm.
type Counter = (&'static str, &'static str, (u64, &'static str));

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    counters: HashMap<Counter, History>,
}

impl Ledger {
    /// A request that is charged to all of these, or refused and charged to none.
    pub(crate) fn ask(&mut self, charges: &[Charge], now: u64) -> Verdict {
        let verdict = self.evaluate(charges, now);
        if !verdict.passes() {
            return verdict;
        }
        for charge in charges.iter().filter(|charge| charge.cost > 0) {
            for limit in &charge.limits {
                let counter = (charge.policy, charge.subject, limit.counter());
                self.counters.entry(counter).or_default().admit(*limit, charge.cost, now);
            }
        }
        // What was admitted is asked for no more.
        let counted: Vec<_> = charges.iter().map(|charge| Charge { cost: 0, ..charge.clone() }).collect();
        self.evaluate(&counted, now)
    }

    fn evaluate(&self, charges: &[Charge], now: u64) -> Verdict {
        let mut windows = Vec::new();
        for charge in charges {
            for limit in &charge.limits {
                let counter = (charge.policy, charge.subject, limit.counter());
                let none = History::default();
                let history = self.counters.get(&counter).unwrap_or(&none);
                let standing = history.standing(*limit, charge.cost, now);
                let is_violated = charge.cost > 0 && standing.used + charge.cost > limit.capacity();
                let never_fits = charge.cost > limit.capacity();
                windows.push(Shown {
                    policy: charge.policy,
                    limit: *limit,
                    standing,
                    is_violated,
                    never_fits,
                });
            }
        }
        Verdict { windows }
    }
}
