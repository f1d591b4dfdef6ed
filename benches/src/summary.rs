//! The main figures as one line of JSON.

use std::fmt::{self, Write};

use benches::{
    cast::Scenario,
    measure::{
        instructions,
        lines::Lines,
        threads::Checkpoint,
        time::{Case, Times},
    },
};

use crate::heap::{self, Allocations};

/// Figures in the order of their measurement.
#[derive(Default)]
pub(crate) struct Figures(Vec<(String, f64)>);

impl Figures {
    fn add(&mut self, name: impl Into<String>, figure: f64) {
        self.0.push((name.into(), figure));
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, figure)) in self.0.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            write!(f, "{before}\"{name}\":{}", (figure * 1_000.0).round() / 1_000.0)?;
        }
        f.write_char('}')
    }
}

pub(crate) fn line() -> Figures {
    let mut figures = Figures::default();
    time(&mut figures);
    time_of_credits_and_tokens(&mut figures);
    threads(&mut figures);
    allocations(&mut figures);
    if instructions::is_available() {
        count_instructions(&mut figures);
        count_lines(&mut figures);
    }
    for (name, figure) in heap::memory() {
        figures.add(name, figure.as_f64().unwrap());
    }
    figures
}

/// Tollgate's stacks, and the suffixes of their figures.
const OURS: [(&str, &str); 2] = [("built", ""), ("separate", "_separate")];

/// With an ID and without, and the suffixes of the figures.
const IDS: [(bool, &str); 2] = [(true, ""), (false, "_no_id")];

/// A key and a token, both seen before.
const CREDENTIALS: [Scenario; 2] = [Scenario::CachedKey, Scenario::CachedToken];

/// Credits and the kinds of credential, and the suffixes of their figures.
fn credits_and_tokens() -> [(Case, &'static str); 5] {
    let [built, dispatch] = ["built", "dispatch"].map(Case::allowed);
    let [key, token] = CREDENTIALS;
    [
        (Case::allowed("credits"), "_credits"),
        (built.when(key), "_cached_key"),
        (built.when(token), "_cached_token"),
        (dispatch.when(key), "_dispatched_key"),
        (dispatch.when(token), "_dispatched_token"),
    ]
}

const ROUNDS: usize = 3_000;

/// In small groups, so that the stacks of a group do not evict each other from the CPU caches.
fn time(figures: &mut Figures) {
    let others = ["floor", "peers", "handwritten"];
    for (has_id, no_id) in IDS {
        let case = |stack| Case { has_id, ..Case::allowed(stack) };
        let stacks = OURS.map(|(stack, _)| stack).into_iter().chain(others);
        let times = Times::measure(&stacks.map(case).collect::<Vec<_>>(), ROUNDS);
        figures.add(format!("floor_own_nanoseconds{no_id}"), times.own(case("floor")));
        for (stack, suffix) in OURS {
            for other in others {
                let ratio = times.ratio(case(stack), case(other));
                figures.add(format!("own_over_{other}{no_id}{suffix}"), ratio);
            }
        }
    }

    // Their floors also count three windows, in front of the same handler.
    let others = [(["built-3", "separate-3"], "three_windows"), (["json-built", "json-separate"], "json")];
    for (stacks, what) in others {
        let [built, separate] = stacks.map(Case::allowed);
        let times = Times::measure(&[built.floor(), built, separate], ROUNDS);
        figures.add(format!("own_over_floor_{what}"), times.ratio(built, built.floor()));
        figures.add(format!("own_over_floor_{what}_separate"), times.ratio(separate, separate.floor()));
    }

    // Each refusal is a full problem with its headers, as the tests of the stacks check. `Case::base` says what is subtracted.
    let refused = [
        (Scenario::UnknownKey, "unknown"),
        (Scenario::OverLimit, "limited"),
        (Scenario::MissingScope, "unscoped"),
    ];
    let allowed = Case::allowed("built");
    let cases = refused.map(|(scenario, _)| allowed.when(scenario));
    let times = Times::measure(&[&cases[..], &[allowed]].concat(), ROUNDS);
    for (scenario, name) in refused {
        figures.add(format!("{name}_over_allowed"), times.ratio(allowed.when(scenario), allowed));
    }
}

/// The built stack with credits, with a token in place of a key, and with both kinds of credential. The names say over what.
fn time_of_credits_and_tokens(figures: &mut Figures) {
    let [built, credits] = ["built", "credits"].map(Case::allowed);
    let times = Times::measure(&[built, credits], ROUNDS);
    figures.add("credits_over_built", times.ratio(credits, built));

    let [key, token] = CREDENTIALS.map(|scenario| built.when(scenario));
    let [dispatched_key, dispatched_token] =
        CREDENTIALS.map(|scenario| Case::allowed("dispatch").when(scenario));
    let times = Times::measure(&[key, token, dispatched_key, dispatched_token], ROUNDS);
    figures.add("token_over_key", times.ratio(token, key));
    figures.add("dispatched_key_over_key", times.ratio(dispatched_key, key));
    figures.add("dispatched_token_over_token", times.ratio(dispatched_token, token));

    let [key, token] = CREDENTIALS.map(|scenario| Case::allowed("verify").when(scenario));
    let times = Times::measure(&[key, token], ROUNDS);
    figures.add("verify_token_over_key", times.ratio(token, key));
}

fn threads(figures: &mut Figures) {
    for (name, ratio) in two_threads_over_one() {
        figures.add(format!("{name}_2_threads_over_1"), ratio);
    }
}

/// The throughput of two threads compared with one, on one subject and on a million.
pub(crate) fn two_threads_over_one() -> [(&'static str, f64); 2] {
    // A round takes about 0.1 s, because the kernel takes some milliseconds to give two new threads a core each.
    const CHECKS: usize = 400_000;
    const ROUNDS: usize = 21;
    [("hot", 1), ("distinct", 1_000_000)]
        .map(|(name, subjects)| (name, Checkpoint::new(subjects).two_threads_over_one(CHECKS, ROUNDS)))
}

fn allocations(figures: &mut Figures) {
    let allocations = Allocations::count();
    let stacks =
        OURS.into_iter().chain([("floor", "_floor"), ("peers", "_peers"), ("handwritten", "_handwritten")]);
    for (stack, suffix) in stacks {
        for (has_id, no_id) in IDS {
            let count = allocations.of(Case { has_id, ..Case::allowed(stack) });
            figures.add(format!("allocations{no_id}{suffix}"), count);
        }
    }
    for (case, suffix) in credits_and_tokens() {
        figures.add(format!("allocations{suffix}"), allocations.of(case));
    }
}

fn count_instructions(figures: &mut Figures) {
    let stacks = OURS.into_iter().chain([
        ("floor", "_floor"),
        ("floor-3", "_floor_three_windows"),
        ("json-floor", "_floor_json"),
        ("json-built", "_json"),
        ("peers", "_peers"),
        ("handwritten", "_handwritten"),
    ]);
    for (stack, suffix) in stacks {
        figures.add(format!("instructions{suffix}"), instructions::own(Case::allowed(stack)));
    }
    for (case, suffix) in credits_and_tokens() {
        figures.add(format!("instructions{suffix}"), instructions::own(case));
    }
}

/// In our stacks, over an empty service and on a router.
fn count_lines(figures: &mut Figures) {
    let stacks = [
        ("built", ""),
        ("separate", "_separate"),
        ("router-built", "_router"),
        ("router-separate", "_router_separate"),
    ];
    let lines = Lines::measure(&stacks.map(|(stack, _)| Case::allowed(stack)));
    for (stack, suffix) in stacks {
        let own = lines.own(Case::allowed(stack));
        figures.add(format!("code_lines{suffix}"), own.code);
        figures.add(format!("data_lines{suffix}"), own.data);
        figures.add(format!("instructions_with_allocator{suffix}"), own.instructions);
    }
}
