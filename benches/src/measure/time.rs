//! Time, as ratios.
//!
//! All stacks live in one process and take turns in random order, a small batch each. What slows the machine down for a while
//! (its clock, other work) then slows down all of them alike, and ratios are taken inside a round, where it cancels out. The
//! median over all rounds is what counts.

use std::{collections::HashMap, fmt, time::Instant};

use super::median;
use crate::{
    cast::Scenario,
    drive::{self, Stack},
    random, stacks,
};

/// A stack that answers one kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Case {
    /// The stack's name.
    pub stack: &'static str,
    /// What happens to its requests.
    pub scenario: Scenario,
    /// Whether they carry an identifier.
    pub has_id: bool,
}

impl Case {
    /// An allowed request with an identifier.
    pub fn allowed(stack: &'static str) -> Self {
        Self { stack, scenario: Scenario::Allowed, has_id: true }
    }

    /// The same without an identifier.
    pub fn without_id(self) -> Self {
        Self { has_id: false, ..self }
    }

    /// The same in another scenario.
    pub fn when(self, scenario: Scenario) -> Self {
        Self { scenario, ..self }
    }

    /// What is taken off to get the stack's own cost: a request that passes its base. It is taken off a refusal, too, which does
    /// not call the inner service: what the two share is that a request is dropped, a response read to its end, and its body
    /// boxed. A refusal thereby gets the making of a body of two bytes for free, which is less than a hundredth of its cost.
    pub fn base(self) -> Self {
        let base = stacks::named(self.stack).unwrap().base;
        Self { stack: base, scenario: Scenario::Allowed, ..self }
    }

    /// What the stack is compared with: the same request to a floor that counts as many windows, before the same handler.
    pub fn floor(self) -> Self {
        Self { stack: stacks::named(self.stack).unwrap().floor, ..self }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.stack)?;
        if self.scenario != Scenario::Allowed {
            write!(f, ", {}", self.scenario.name())?;
        }
        f.write_str(if self.has_id { "" } else { ", no id" })
    }
}

/// So few that the requests of a batch stay in the cache, and so many that the stack's own code is there for most of them.
const BATCH: usize = 32;

/// What each case took in each round, in nanoseconds a request.
#[derive(Debug)]
pub struct Times(HashMap<Case, Vec<f64>>);

impl Times {
    /// Measures `cases`, and those that are taken off them.
    pub fn measure(cases: &[Case], rounds: usize) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for case in cases.iter().flat_map(|case| [*case, case.base()]) {
            if !runs.iter().any(|run| run.case == case) {
                runs.push(Run::new(case));
            }
        }
        let mut times: HashMap<Case, Vec<f64>> = HashMap::new();
        for _ in 0..rounds {
            random::shuffle(&mut runs);
            for run in &mut runs {
                times.entry(run.case).or_default().push(run.batch());
            }
        }
        Self(times)
    }

    /// The stack's own time in nanoseconds a request.
    pub fn own(&self, case: Case) -> f64 {
        median(self.own_by_round(case).collect())
    }

    /// One stack's own time over another's.
    pub fn ratio(&self, case: Case, other: Case) -> f64 {
        let pairs = self.own_by_round(case).zip(self.own_by_round(other));
        median(pairs.map(|(own, other)| own / other).collect())
    }

    fn own_by_round(&self, case: Case) -> impl Iterator<Item = f64> {
        let base = if case.base() == case { None } else { Some(&self.0[&case.base()]) };
        let of_base = move |round: usize| base.map_or(0.0, |times| times[round]);
        self.0[&case].iter().enumerate().map(move |(round, time)| time - of_base(round))
    }
}

struct Run {
    case: Case,
    stack: Box<dyn Stack>,
}

impl Run {
    fn new(case: Case) -> Self {
        let mut stack = stacks::named(case.stack).unwrap().build(case.scenario);
        drive::warm_up(&mut *stack, case.scenario, case.has_id);
        Self { case, stack }
    }

    fn batch(&mut self) -> f64 {
        let mut batch = drive::requests(self.case.scenario, self.case.has_id, BATCH);
        #[expect(clippy::disallowed_methods, reason = "time is what is measured")]
        let start = Instant::now();
        self.stack.serve(&mut batch, self.case.scenario.status());
        start.elapsed().as_nanos() as f64 / BATCH as f64
    }
}
