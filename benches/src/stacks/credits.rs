//! The built stack with credits in process: each request costs one credit.

use tollgate::{
    Answer, CreditsLayer,
    clock::{Clock as _, SystemClock},
    credits::{CreditAdmin, MemoryCredits, NewGrant},
    manage::{Actor, Command},
};
use tower::Layer;

use super::{built, verifiers};
use crate::{
    cast::{self, Scenario},
    drive::{Bare, Driven, Handler, Stack},
};

/// More than a measurement spends.
const GRANTED: u64 = 1_000_000_000;

pub(super) fn build(scenario: Scenario) -> Box<dyn Stack> {
    on(scenario, granted())
}

fn on(scenario: Scenario, credits: MemoryCredits) -> Box<dyn Stack> {
    let tollgate =
        built::builder(verifiers::of(scenario), scenario, 1).credits(CreditsLayer::new(credits, 1));
    Box::new(Driven(tollgate.build().unwrap().layer(Handler::<Bare>::new())))
}

/// Credits of every caller.
fn granted() -> MemoryCredits {
    let credits = MemoryCredits::new();
    for number in 0..cast::CALLERS {
        let grant = NewGrant::new(cast::tenant(number), GRANTED);
        let command = Command::new(grant, Actor::new("benches"), SystemClock.now());
        let Answer::Now(Ok(_)) = credits.grant(command) else { panic!("credits were not granted") };
    }
    credits
}

#[cfg(test)]
mod tests {
    use tollgate::credits::Credits;

    use super::*;
    use crate::drive;

    #[test]
    fn each_request_is_charged_when_its_body_has_ended() {
        let credits = granted();
        let mut stack = on(Scenario::Allowed, credits.clone());
        for _ in 0..3 {
            stack.serve(&mut drive::requests(Scenario::Allowed, true, cast::CALLERS), http::StatusCode::OK);
        }
        for number in 0..cast::CALLERS {
            let Answer::Now(Ok(balance)) = credits.balance(&cast::tenant(number), SystemClock.now()) else {
                panic!("no balance")
            };
            assert_eq!((balance.available, balance.reserved), (GRANTED - 3, 0));
        }
    }
}
