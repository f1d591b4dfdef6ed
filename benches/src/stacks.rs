//! The measured stacks, one kind per file.

use crate::{
    cast::Scenario,
    drive::{Bare, Json, Stack},
};

mod built;
mod credits;
mod empty;
mod floor;
mod governor;
mod handwritten;
mod layers;
mod peers;
mod router;
#[cfg(feature = "rpc")]
mod rpc;
mod separate;
mod verifiers;

pub use router::{SERVED, served};

/// A stack that can be built.
#[derive(Debug)]
pub struct Known {
    /// Its name on the command line.
    pub name: &'static str,
    /// The stack whose cost is subtracted to get its own.
    pub base: &'static str,
    /// The floor for comparison: it counts as many windows, in front of the same handler.
    pub floor: &'static str,
    /// The number of windows.
    pub windows: usize,
    /// The scenarios that it can be in.
    pub scenarios: &'static [Scenario],
    make: fn(Scenario, usize) -> Box<dyn Stack>,
}

impl Known {
    /// Builds it for a scenario.
    pub fn build(&self, scenario: Scenario) -> Box<dyn Stack> {
        (self.make)(scenario, self.windows)
    }
}

/// What most of those have in common that do the whole job.
const WHOLE: Known = Known {
    name: "",
    base: "empty",
    floor: "floor",
    windows: 1,
    scenarios: &Scenario::WHOLE,
    make: empty::build::<Bare>,
};

/// And those with three windows.
const THREE: Known = Known { floor: "floor-3", windows: 3, ..WHOLE };

/// And those before a handler whose responses have headers already.
const JSON: Known = Known { base: "json-empty", floor: "json-floor", ..WHOLE };

/// And those on axum's `Router`.
const ROUTER: Known = Known { base: "router-empty", floor: "router-floor", ..WHOLE };

/// And those that do a part of the job.
const PART: Known = Known { scenarios: ADMITS, ..WHOLE };

/// The scenario of a stack that does not refuse.
const ADMITS: &[Scenario] = &[Scenario::Allowed];

/// The two kinds of credential.
const CREDENTIALS: &[Scenario] = &[Scenario::CachedKey, Scenario::CachedToken];

/// All stacks. A number in a name is the number of windows. Default: one.
pub static ALL: &[Known] = &[
    Known { name: "empty", ..PART },
    Known { name: "floor", make: floor::build::<Bare>, ..WHOLE },
    Known { name: "floor-3", make: floor::build::<Bare>, ..THREE },
    Known { name: "built", scenarios: &Scenario::ALL, make: built::build::<Bare>, ..WHOLE },
    Known { name: "built-3", make: built::build::<Bare>, ..THREE },
    Known {
        name: "dispatch",
        scenarios: CREDENTIALS,
        make: |scenario, _| built::dispatch(scenario),
        ..WHOLE
    },
    Known { name: "credits", scenarios: ADMITS, make: |scenario, _| credits::build(scenario), ..WHOLE },
    Known { name: "separate", make: separate::build::<Bare>, ..WHOLE },
    Known { name: "separate-3", make: separate::build::<Bare>, ..THREE },
    Known { name: "handwritten", make: |scenario, _| handwritten::build(scenario), ..WHOLE },
    Known { name: "peers", make: |scenario, _| peers::build(scenario), ..WHOLE },
    Known { name: "governor", make: |scenario, _| governor::build(scenario), ..PART },
    Known { name: "json-empty", scenarios: ADMITS, make: empty::build::<Json>, ..JSON },
    Known { name: "json-floor", make: floor::build::<Json>, ..JSON },
    Known { name: "json-built", make: built::build::<Json>, ..JSON },
    Known { name: "json-separate", make: separate::build::<Json>, ..JSON },
    Known { name: "router-empty", scenarios: ADMITS, make: |_, _| router::empty(), ..ROUTER },
    Known { name: "router-floor", make: |scenario, _| router::build(floor::on, scenario), ..ROUTER },
    Known { name: "router-built", make: |scenario, _| router::build(built::on, scenario), ..ROUTER },
    Known { name: "router-separate", make: |scenario, _| router::build(separate::on, scenario), ..ROUTER },
    Known {
        name: "router-handwritten",
        make: |scenario, _| router::build(handwritten::on, scenario),
        ..ROUTER
    },
    Known { name: "router-peers", make: |scenario, _| router::build(peers::on, scenario), ..ROUTER },
    #[cfg(feature = "rpc")]
    Known { name: "rpc-empty", base: "rpc-empty", make: |_, _| rpc::empty(), ..PART },
    #[cfg(feature = "rpc")]
    Known { name: "rpc-by-hand", base: "rpc-empty", make: |scenario, _| rpc::by_hand(scenario), ..PART },
    #[cfg(feature = "rpc")]
    Known {
        name: "rpc-from-proto",
        base: "rpc-empty",
        make: |scenario, _| rpc::from_proto(scenario),
        ..PART
    },
    Known { name: "request-id", make: |scenario, _| layers::request_id(scenario), ..PART },
    Known { name: "credential", make: |scenario, _| layers::credential(scenario), ..PART },
    // These need what the layers before them learn, and so their own cost is what they add to those.
    Known {
        name: "verify",
        base: "credential",
        scenarios: &[Scenario::Allowed, Scenario::CachedKey, Scenario::CachedToken],
        make: |scenario, _| layers::verify(scenario),
        ..PART
    },
    Known { name: "rate-limit", base: "verify", make: |scenario, _| layers::rate_limit(scenario), ..PART },
    Known { name: "entitlement", base: "verify", make: |scenario, _| layers::entitlement(scenario), ..PART },
    Known { name: "scope", base: "verify", make: |scenario, _| layers::scope(scenario), ..PART },
];

/// The stack of this name.
pub fn named(name: &str) -> Option<&'static Known> {
    ALL.iter().find(|known| known.name == name)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::drive;

    /// Serving panics at another status.
    #[test]
    fn every_stack_answers_as_its_scenario_says() {
        for known in ALL {
            for &scenario in known.scenarios {
                for has_id in [true, false] {
                    drive::warm_up(&mut *known.build(scenario), scenario, has_id);
                }
            }
        }
    }

    /// Three windows must not be compared with one, nor a full header map with an empty one.
    #[test]
    fn every_stack_is_compared_with_a_floor_that_does_as_much() {
        for known in ALL {
            let floor = named(known.floor).unwrap();
            assert_eq!(floor.windows, known.windows, "{}", known.name);
            let [own, of_floor] = [known, floor].map(|known| named(known.base).unwrap().name);
            assert_eq!(own.starts_with("json"), of_floor.starts_with("json"), "{}", known.name);
        }
    }

    /// A shorter refusal would be cheaper than Tollgate's.
    #[test]
    fn every_whole_stack_refuses_with_a_full_problem() {
        for known in ALL {
            for &scenario in known.scenarios.iter().filter(|scenario| !scenario.is_allowed()) {
                let mut stack = known.build(scenario);
                drive::warm_up(&mut *stack, scenario, true);
                let response = stack.answer(drive::requests(scenario, true, 1).remove(0));
                let said = format!("{}, {}: {response:?}", known.name, scenario.name());

                let headers = response.headers();
                assert_eq!(response.status(), scenario.status(), "{said}");
                assert_eq!(headers["content-type"], "application/problem+json", "{said}");
                assert!(headers.contains_key("x-request-id"), "{said}");
                let more: &[_] = match scenario {
                    Scenario::UnknownKey => &["www-authenticate"],
                    Scenario::OverLimit => &["retry-after", "x-ratelimit-limit", "x-ratelimit-remaining"],
                    _ => &[],
                };
                for name in more {
                    assert!(headers.contains_key(*name), "{name}: {said}");
                }

                let problem: Value = serde_json::from_slice(response.body()).unwrap();
                assert_eq!(problem["status"], scenario.status().as_u16(), "{said}");
                for member in ["type", "title", "detail", "code"] {
                    assert!(problem[member].is_string(), "{member}: {said}");
                }
                // `tower_governor` does not show its handler the request.
                let knows_the_request = !(known.name.ends_with("peers") && scenario == Scenario::OverLimit);
                assert_eq!(problem["request_id"].is_string(), knows_the_request, "{said}");
            }
        }
    }

    /// The headers of the handler must not be lost when a stack adds its own.
    #[test]
    fn every_whole_stack_adds_its_headers_to_those_of_the_handler() {
        for known in ALL.iter().filter(|known| known.base == "json-empty" && known.name != known.base) {
            let mut stack = known.build(Scenario::Allowed);
            let response = stack.answer(drive::requests(Scenario::Allowed, true, 1).remove(0));
            let headers = response.headers();
            assert_eq!(response.body(), b"[]", "{}", known.name);
            assert_eq!(headers["content-type"], "application/json", "{}", known.name);
            assert_eq!(headers["content-length"], "2", "{}", known.name);
            assert_eq!(headers["x-request-id"], "0192a3b4-c5d6-7e8f-9012-3456789abcde", "{}", known.name);
            assert_eq!(headers["x-ratelimit-limit"], "9999", "{}", known.name);
            assert_eq!(headers["x-ratelimit-remaining"], "9998", "{}", known.name);
            assert!(headers.contains_key("x-ratelimit-reset"), "{}", known.name);
        }
    }
}
