//! The whole layer against a naive model: a list of what was admitted, counted anew for every request. They share no code.

use std::time::Duration;

use proptest::prelude::*;
use tests::suite::{at, send};
use tollgate::{ManualClock, PerWindow as _, Policy, RateLimitLayer, Subject};

use crate::{behind, from, numbers};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    Request { key: usize },
    Wait { millis: u64 },
    ChangeTier { key: usize, tier: usize },
}

const KEYS: [&str; 3] = ["ada@acme", "bob@acme", "cyd@other"];
const TIERS: [&str; 3] = ["basic", "pro", "unranked"];

fn event() -> impl Strategy<Value = Event> {
    let waits = prop_oneof![
        0..2_000_u64,
        0..2 * MINUTE,
        0..2 * HOUR,
        Just(MINUTE),
        Just(HOUR),
        Just(DAY),
        (0..DAY).prop_map(|millis| millis + HOUR),
    ];
    prop_oneof![
        8 => (0..KEYS.len()).prop_map(|key| Event::Request { key }),
        2 => waits.prop_map(|millis| Event::Wait { millis }),
        1 => (0..KEYS.len(), 0..TIERS.len()).prop_map(|(key, tier)| Event::ChangeTier { key, tier }),
    ]
}

/// A request that was admitted: when, in milliseconds after midnight, and whose.
struct Admitted {
    millis: u64,
    key: usize,
}

/// One window as the caller may be shown it.
#[derive(Debug)]
struct Shown {
    limit: u64,
    remaining: u64,
    resets_at_second: u64,
}

#[derive(Default)]
struct Model {
    admitted: Vec<Admitted>,
}

impl Model {
    /// Whether a request passes, and every window whose numbers may be shown for it.
    fn ask(&mut self, key: usize, tier: usize, now: u64) -> (bool, Vec<Shown>) {
        let tenant = |key: usize| KEYS[key].rsplit('@').next();
        let own: [(u64, u64); 3] = match TIERS[tier] {
            "pro" => [(MINUTE, 4), (HOUR, 9), (DAY, 15)],
            _ => [(MINUTE, 2), (HOUR, 6), (DAY, 11)],
        };
        let mut windows = Vec::new();
        for (length, limit) in own {
            windows.push((length, limit, self.count(now, length, |other| other == key)));
        }
        windows.push((HOUR, 8, self.count(now, HOUR, |other| tenant(other) == tenant(key))));

        let passes = windows.iter().all(|(_, limit, used)| used < limit);
        if passes {
            self.admitted.push(Admitted { millis: now, key });
        }
        let cost = u64::from(passes);
        let mut shown: Vec<_> = windows
            .iter()
            .filter(|(_, limit, used)| passes || used >= limit)
            .map(|(length, limit, used)| Shown {
                limit: *limit,
                remaining: limit.saturating_sub(used + cost),
                resets_at_second: (now / length + 1) * length / 1_000,
            })
            .collect();
        // Admitted: the least left. Then, as for a refusal: the one that opens last.
        if passes {
            let least = shown.iter().map(|window| window.remaining).min();
            shown.retain(|window| Some(window.remaining) == least);
        }
        let last = shown.iter().map(|window| window.resets_at_second).max();
        shown.retain(|window| Some(window.resets_at_second) == last);
        (passes, shown)
    }

    fn count(&self, now: u64, length: u64, concerns: impl Fn(usize) -> bool) -> u64 {
        let same_window = |earlier: u64| earlier / length == now / length;
        self.admitted.iter().filter(|one| concerns(one.key) && same_window(one.millis)).count() as u64
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_layer_agrees_with_a_list_of_what_was_admitted(events in prop::collection::vec(event(), 1..150)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let clock = ManualClock::at(at(0));
        let key = Policy::new("key", 2.per_minute().and(6.per_hour()).and(11.per_day()))
            .with_tier("pro", 4.per_minute().and(9.per_hour()).and(15.per_day()));
        let tenant = Policy::new("tenant", 8.per_hour()).by(Subject::Tenant);
        let layer = RateLimitLayer::from_policies([key, tenant]).with_clock(clock.clone());
        let mut stack = behind(&clock, layer);

        let mut model = Model::default();
        let mut tiers = [0; KEYS.len()];
        let mut now = 0;
        for event in events {
            match event {
                Event::Wait { millis } => {
                    now += millis;
                    clock.advance(Duration::from_millis(millis));
                }
                Event::ChangeTier { key, tier } => tiers[key] = tier,
                Event::Request { key } => {
                    let caller = format!("{}.{}", KEYS[key], TIERS[tiers[key]]);
                    let reply = runtime.block_on(send(&mut stack, from(&caller)));
                    let (status, limit, remaining, reset, retry_after) = numbers(&reply);

                    let (passes, shown) = model.ask(key, tiers[key], now);
                    prop_assert_eq!(status, if passes { 200 } else { 429 });
                    let is_shown = shown.iter().any(|window| {
                        (limit, remaining, reset)
                            == (Some(window.limit), Some(window.remaining), Some(window.resets_at_second))
                    });
                    prop_assert!(is_shown, "{:?}, but the model shows {:?}", numbers(&reply), shown);
                    let wait = shown[0].resets_at_second * 1_000 - now;
                    prop_assert_eq!(retry_after, (!passes).then_some(wait.div_ceil(1_000).max(1)));
                }
            }
        }
    }
}
