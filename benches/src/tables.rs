//! The figures of all stacks, for people.

use benches::{
    cast::Scenario,
    measure::{
        instructions::{self, Profile},
        lines::Lines,
        time::{Case, Times},
    },
    stacks,
};

use crate::heap::Allocations;

/// Every stack in every scenario that it can be in.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for known in stacks::ALL {
        for &scenario in known.scenarios {
            let case = Case::allowed(known.name).when(scenario);
            cases.extend([case, case.without_id()]);
        }
    }
    cases
}

/// Each stack beside its floor, which allows the request, so that others do not push it out of the processor's caches.
pub(crate) fn time() {
    println!("{:<32} {:>8} {:>11}", "stack", "own ns", "over floor");
    for case in cases() {
        let floor = case.floor().when(Scenario::Allowed);
        let times = Times::measure(&[case, floor], 1_000);
        println!("{:<32} {:>8.0} {:>11.2}", case.to_string(), times.own(case), times.ratio(case, floor));
    }
}

pub(crate) fn threads() {
    for (name, ratio) in crate::summary::two_threads_over_one() {
        println!("{name:<32} {ratio:>8.2}");
    }
}

pub(crate) fn allocations() {
    let allocations = Allocations::count();
    println!("{:<32} {:>11} {:>7}", "stack", "allocations", "bytes");
    for case in cases() {
        println!("{:<32} {:>11.2} {:>7.0}", case.to_string(), allocations.of(case), allocations.bytes(case));
    }
}

pub(crate) fn instructions() {
    println!("{:<32} {:>12}", "stack", "instructions");
    for case in cases().into_iter().filter(|case| case.scenario.is_allowed()) {
        println!("{:<32} {:>12.0}", case.to_string(), instructions::own(case));
    }
}

/// What one allowed request with an identifier takes in each stack.
pub(crate) fn lines() {
    const STACKS: [&str; 10] = [
        "floor",
        "peers",
        "handwritten",
        "built",
        "separate",
        "router-floor",
        "router-peers",
        "router-handwritten",
        "router-built",
        "router-separate",
    ];
    let cases = STACKS.map(Case::allowed);
    let (lines, allocations) = (Lines::measure(&cases), Allocations::count());
    println!(
        "{:<20} {:>10} {:>10} {:>12} {:>23} {:>11}",
        "stack", "code lines", "data lines", "instructions", "outside the allocator", "allocations"
    );
    for case in cases {
        let own = lines.own(case);
        println!(
            "{:<20} {:>10.0} {:>10.0} {:>12.0} {:>23.0} {:>11.2}",
            case.to_string(),
            own.code,
            own.data,
            own.instructions,
            instructions::own(case),
            allocations.of(case)
        );
    }
}

/// Where one stack's instructions go.
pub(crate) fn profile(case: Case) {
    let (profile, base) = (Profile::of(case), Profile::of(case.base()));
    println!("{:>8.0}  in all", profile.total() - base.total());
    for (name, cost) in profile.beyond(&base) {
        println!("{cost:>8.0}  {name}");
    }
}
