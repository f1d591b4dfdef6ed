//! The allocations and bytes of a stack per request. A vector that grows counts as one more allocation.

use benches::{cast::CALLERS, drive, measure::time::Case, stacks};
use serde_json::{Value, json};

/// Own allocations and bytes a request, by the case's name.
pub(crate) fn figures() -> Value {
    let mut figures = serde_json::Map::new();
    for known in stacks::ALL {
        for &scenario in known.scenarios {
            for has_id in [true, false] {
                let case = Case { stack: known.name, scenario, has_id };
                let (count, bytes) = of(case);
                let (base_count, base_bytes) = if case.base() == case { (0.0, 0.0) } else { of(case.base()) };
                let own = json!({ "count": count - base_count, "bytes": bytes - base_bytes });
                figures.insert(case.to_string(), own);
            }
        }
    }
    figures.into()
}

fn of(case: Case) -> (f64, f64) {
    const REQUESTS: usize = 16 * CALLERS;
    let mut stack = stacks::named(case.stack).unwrap().build(case.scenario);
    drive::warm_up(&mut *stack, case.scenario, case.has_id);
    let mut requests = drive::requests(case.scenario, case.has_id, REQUESTS);
    let counted = allocation_counter::measure(|| stack.serve(&mut requests, case.scenario.status()));
    (counted.count_total as f64 / REQUESTS as f64, counted.bytes_total as f64 / REQUESTS as f64)
}
