//! Time, as ratios.
//!
//! All stacks run in one process and take turns in random order, with a small batch each. A temporary slowdown of the machine (its
//! clock, other work) then affects all of them alike, and cancels out in ratios within a round. The figure is the median of all
//! rounds.

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
    /// The scenario of its requests.
    pub scenario: Scenario,
    /// Whether the requests have an ID.
    pub has_id: bool,
}

impl Case {
    /// An allowed request with an ID.
    pub fn allowed(stack: &'static str) -> Self {
        Self { stack, scenario: Scenario::Allowed, has_id: true }
    }

    /// The same without an ID.
    pub fn without_id(self) -> Self {
        Self { has_id: false, ..self }
    }

    /// The same in another scenario.
    pub fn when(self, scenario: Scenario) -> Self {
        Self { scenario, ..self }
    }

    /// The base that is subtracted to get the stack's own cost: the same request to the base. From a refusal, which does not call the
    /// inner service, an allowed request is subtracted: both drop a request, read a response to its end, and box its body. This subtracts
    /// the making of a two-byte body that a refusal does not make, which is less than 1 % of its cost.
    pub fn base(self) -> Self {
        let base = stacks::named(self.stack).unwrap().base;
        let scenario = if self.scenario.is_allowed() { self.scenario } else { Scenario::Allowed };
        Self { stack: base, scenario, ..self }
    }

    /// The floor for comparison: the same request, with as many windows and the same handler.
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

/// Few enough that the requests of a batch stay in the cache, and enough that the stack's code is cached for most of them.
const BATCH: usize = 32;

/// The time of each case in each round, in nanoseconds per request.
#[derive(Debug)]
pub struct Times(HashMap<Case, Vec<f64>>);

impl Times {
    /// Measures `cases` and their bases.
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

    /// The stack's own time in nanoseconds per request.
    pub fn own(&self, case: Case) -> f64 {
        median(self.own_by_round(case).collect())
    }

    /// The ratio of two stacks' own times.
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
        #[expect(clippy::disallowed_methods, reason = "measures elapsed time")]
        let start = Instant::now();
        self.stack.serve(&mut batch, self.case.scenario.status());
        start.elapsed().as_nanos() as f64 / BATCH as f64
    }
}
