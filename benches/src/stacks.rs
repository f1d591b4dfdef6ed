//! The stacks that are measured, one kind a file.

use crate::{cast::Scenario, drive::Stack};

mod built;
mod empty;
mod floor;
mod governor;
mod handwritten;
mod layers;
mod peers;
mod router;
mod separate;

/// A stack that can be built.
#[derive(Debug)]
pub struct Known {
    /// Its name on the command line.
    pub name: &'static str,
    /// The stack whose cost is taken off to get its own.
    pub base: &'static str,
    /// Whether it does the whole job, and so can refuse.
    pub is_whole: bool,
    /// Builds it for a scenario.
    pub build: fn(Scenario) -> Box<dyn Stack>,
}

/// All stacks. A number in a name is the number of windows that are counted; without one it is one.
pub static ALL: &[Known] = &[
    Known { name: "empty", base: "empty", is_whole: false, build: empty::build },
    Known { name: "floor", base: "empty", is_whole: true, build: |scenario| floor::build(scenario, 1) },
    Known { name: "floor-3", base: "empty", is_whole: true, build: |scenario| floor::build(scenario, 3) },
    Known { name: "built", base: "empty", is_whole: true, build: |scenario| built::build(scenario, 1) },
    Known { name: "built-3", base: "empty", is_whole: true, build: |scenario| built::build(scenario, 3) },
    Known { name: "separate", base: "empty", is_whole: true, build: |scenario| separate::build(scenario, 1) },
    Known {
        name: "separate-3",
        base: "empty",
        is_whole: true,
        build: |scenario| separate::build(scenario, 3),
    },
    Known { name: "handwritten", base: "empty", is_whole: true, build: handwritten::build },
    Known { name: "peers", base: "empty", is_whole: true, build: peers::build },
    Known { name: "governor", base: "empty", is_whole: false, build: governor::build },
    Known { name: "router-empty", base: "router-empty", is_whole: false, build: router::empty },
    Known { name: "router-built", base: "router-empty", is_whole: true, build: router::built },
    Known { name: "request-id", base: "empty", is_whole: false, build: layers::request_id },
    Known { name: "credential", base: "empty", is_whole: false, build: layers::credential },
    // These need what the layers before them learn, and so their own cost is what they add to those.
    Known { name: "verify", base: "credential", is_whole: false, build: layers::verify },
    Known { name: "rate-limit", base: "verify", is_whole: false, build: layers::rate_limit },
    Known { name: "entitlement", base: "verify", is_whole: false, build: layers::entitlement },
    Known { name: "scope", base: "verify", is_whole: false, build: layers::scope },
];

/// The stack of this name.
pub fn named(name: &str) -> Option<&'static Known> {
    ALL.iter().find(|known| known.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive;

    /// Serving panics at any other status.
    #[test]
    fn every_stack_answers_as_its_scenario_says() {
        for known in ALL {
            let scenarios = if known.is_whole { &Scenario::ALL[..] } else { &[Scenario::Allowed] };
            for &scenario in scenarios {
                for has_id in [true, false] {
                    drive::warm_up(&mut *(known.build)(scenario), scenario, has_id);
                }
            }
        }
    }
}
