//! Callers that obey the responses: a caller that waits for `Retry-After` is admitted next, and a caller that obeys the
//! rate-limit values is never refused.

use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tests::suite::{Reply, Stack, at, send};
use tollgate::{
    PerWindow as _, Policy, RateLimitLayer,
    clock::{Clock as _, ManualClock},
    limit::RateLimitHeaders,
};

use crate::{
    behind, from,
    model::{any_limits, entries, number, quota},
};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: tests::cases(60, 10_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_caller_that_waits_for_retry_after_is_admitted(
        limits in any_limits(1),
        pauses in prop::collection::vec(any_pause(), 150),
    ) {
        let mut caller = Caller::new(RateLimitLayer::new(quota(&limits)));
        for pause in pauses {
            caller.clock.advance(pause);
            if let Some(wait) = number(&caller.ask(), "retry-after") {
                caller.wait(wait);
                prop_assert_eq!(caller.ask().status(), 200, "after {} s", wait);
            }
        }
    }

    #[test]
    fn retry_after_is_not_a_second_too_long(
        limits in any_limits(1),
        pauses in prop::collection::vec(any_pause(), 150),
    ) {
        let mut caller = Caller::new(RateLimitLayer::new(quota(&limits)));
        for pause in pauses {
            caller.clock.advance(pause);
            if let Some(wait) = number(&caller.ask(), "retry-after").filter(|wait| *wait > 1) {
                caller.wait(wait - 1);
                let early = caller.ask();
                prop_assert_eq!((early.status().as_u16(), number(&early, "retry-after")), (429, Some(1)));
                caller.wait(1);
                prop_assert_eq!(caller.ask().status(), 200, "a refusal burns nothing");
            }
        }
    }

    #[test]
    fn a_caller_that_waits_for_the_reset_when_nothing_remains_is_never_refused(
        limits in any_limits(1),
        pauses in prop::collection::vec(any_pause(), 250),
    ) {
        let mut caller = Caller::new(RateLimitLayer::new(quota(&limits)));
        for pause in pauses {
            caller.clock.advance(pause);
            let reply = caller.ask();
            prop_assert_eq!(reply.status(), 200);
            if number(&reply, "x-ratelimit-remaining") == Some(0) {
                caller.wait_until(number(&reply, "x-ratelimit-reset").unwrap());
            }
        }
    }

    #[test]
    fn a_caller_that_waits_the_seconds_to_the_reset_when_nothing_remains_is_never_refused(
        limits in any_limits(1),
        pauses in prop::collection::vec(any_pause(), 250),
    ) {
        let headers = RateLimitHeaders::new().with_seconds_to_reset();
        let mut caller = Caller::new(RateLimitLayer::new(quota(&limits)).with_headers(headers));
        for pause in pauses {
            caller.clock.advance(pause);
            let reply = caller.ask();
            prop_assert_eq!(reply.status(), 200);
            if number(&reply, "x-ratelimit-remaining") == Some(0) {
                caller.wait(number(&reply, "x-ratelimit-reset").unwrap());
            }
        }
    }

    #[test]
    fn a_caller_that_waits_for_every_window_that_is_used_up_is_never_refused(
        limits in any_limits(1),
        pauses in prop::collection::vec(any_pause(), 250),
    ) {
        let headers = RateLimitHeaders::none().with_ietf_draft_10();
        let mut caller = Caller::new(RateLimitLayer::new(quota(&limits)).with_headers(headers));
        for pause in pauses {
            caller.clock.advance(pause);
            let reply = caller.ask();
            prop_assert_eq!(reply.status(), 200);
            let shown = reply.header("ratelimit");
            let used_up = entries(&shown).into_iter().filter(|(_, numbers)| numbers[0] == ("r", 0));
            caller.wait(used_up.map(|(_, numbers)| numbers[1].1).max().unwrap_or(0));
        }
    }
}

/// A pause before the next request: usually none.
fn any_pause() -> impl Strategy<Value = Duration> {
    prop_oneof![
        6 => Just(Duration::ZERO),
        2 => (0..1_000_000_000_u64).prop_map(Duration::from_nanos),
        1 => (0..60_000_u64).prop_map(Duration::from_millis),
        1 => (0..4_000_u64).prop_map(Duration::from_secs),
    ]
}

/// Alone on its counters.
struct Caller {
    clock: ManualClock,
    stack: Stack,
}

impl Caller {
    fn new(layer: RateLimitLayer) -> Self {
        let clock = ManualClock::at(at(0));
        let stack = behind(&clock, layer.with_clock(clock.clone()));
        Self { clock, stack }
    }

    fn ask(&mut self) -> Reply {
        send(&mut self.stack, from("ada")).now_or_never().unwrap()
    }

    fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Until a second since the Unix epoch, unless that has passed.
    fn wait_until(&self, second: u64) {
        let instant = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        self.clock.set(instant.max(self.clock.now()));
    }
}

#[test]
fn a_caller_that_waits_for_retry_after_is_admitted_after_an_upgrade_too() {
    let policy = Policy::new("key", 1.per_hour().with_burst(2)).with_tier("pro", 60.per_hour().with_burst(2));
    let mut caller = Caller::new(RateLimitLayer::from_policies([policy]).unwrap());
    let mut ask = |key| send(&mut caller.stack, from(key)).now_or_never().unwrap();
    assert_eq!([ask("ada.basic"), ask("ada.basic")].map(|reply| reply.status().as_u16()), [200, 200]);
    assert_eq!(number(&ask("ada.pro"), "retry-after"), Some(60));
    caller.clock.advance(Duration::from_mins(1));
    assert_eq!(ask("ada.pro").status(), 200);
}
