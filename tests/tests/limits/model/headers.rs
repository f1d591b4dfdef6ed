//! The rate-limit headers of a response, compared with those that the model expects.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use http::HeaderMap;
use proptest::prelude::*;
use tests::suite::Reply;
use tollgate::limit::RateLimitHeaders;

use super::{
    history::SECOND,
    ledger::{Shown, Verdict},
};

/// Which headers the layers are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The three usual ones.
    Usual,
    /// All there are, with seconds to go.
    Every,
}

impl Form {
    pub(crate) fn headers(self) -> RateLimitHeaders {
        match self {
            Self::Usual => RateLimitHeaders::new(),
            Self::Every => {
                RateLimitHeaders::new().with_seconds_to_reset().with_each_window().with_ietf_draft_10()
            }
        }
    }

    /// A reset in the form of `X-RateLimit-Reset`.
    fn reset(self, window: &Shown, now: u64) -> u64 {
        match self {
            Self::Usual => window.standing.resets_at,
            Self::Every => seconds_to_reset(window, now),
        }
    }

    fn numbers(self, window: &Shown, now: u64) -> [u64; 3] {
        [window.limit.capacity(), window.remaining(), self.reset(window, now)]
    }
}

fn seconds_to_reset(window: &Shown, now: u64) -> u64 {
    (window.standing.resets_at * SECOND).saturating_sub(now).div_ceil(SECOND)
}

fn retry_after(window: &Shown, now: u64) -> Option<u64> {
    (!window.never_fits).then(|| window.standing.opens_at.saturating_sub(now).div_ceil(SECOND).max(1))
}

/// Compares every rate-limit header, including those that must be absent.
/// `layers` are the verdicts of stacked layers, the outermost first.
pub(crate) fn check(reply: &Reply, layers: &[Verdict], form: Form, now: u64) -> Result<(), TestCaseError> {
    let passes = layers.iter().all(Verdict::passes);
    prop_assert_eq!(reply.status(), if passes { 200 } else { 429 });
    let (verdict, others) = shown(layers);
    let tightest = verdict.tightest();
    let wait = tightest.first().filter(|_| !passes).and_then(|window| retry_after(window, now));
    prop_assert_eq!(number(reply, "retry-after"), wait);

    let (mut triples, mut lists) = (0, 0);
    if !tightest.is_empty() {
        check_triple(reply, "", &tightest, form, now)?;
        triples += 1;
        if form == Form::Every {
            // Another layer's headers stay where the shown layer has no window of this name.
            let mut named: BTreeMap<_, _> = others.iter().flat_map(|verdict| by_name(verdict)).collect();
            named.extend(by_name(verdict));
            for (name, windows) in named {
                check_triple(reply, &format!("-{name}"), &windows, form, now)?;
                triples += 1;
            }
            check_draft_10(reply, verdict, now)?;
            lists += 2;
        }
    }
    prop_assert_eq!(count(reply.headers(), "x-ratelimit-"), 3 * triples);
    prop_assert_eq!(count(reply.headers(), "ratelimit"), lists);
    Ok(())
}

/// The verdict of the layer whose window is the tightest, and the other verdicts. Of equal ones the innermost is shown.
fn shown(layers: &[Verdict]) -> (&Verdict, Vec<&Verdict>) {
    let rank = |verdict: &Verdict| {
        let window = verdict.tightest().first().copied();
        window.map_or((2, 0, Reverse(0)), |window| {
            (i32::from(verdict.passes()), window.shares_left(), Reverse(window.standing.resets_at))
        })
    };
    let at = (0..layers.len()).rev().min_by_key(|at| rank(&layers[*at])).unwrap();
    // On a refusal, no other layer shows anything.
    let others = (0..layers.len()).filter(|other| *other != at && layers[at].passes());
    (&layers[at], others.map(|other| &layers[other]).collect())
}

/// `X-RateLimit-Limit`, `-Remaining` and `-Reset`, of one of these windows.
fn check_triple(
    reply: &Reply,
    suffix: &str,
    windows: &[Shown],
    form: Form,
    now: u64,
) -> Result<(), TestCaseError> {
    let shown_entries =
        ["limit", "remaining", "reset"].map(|kind| number(reply, &format!("x-ratelimit-{kind}{suffix}")));
    let is_one = windows.iter().any(|window| form.numbers(window, now).map(Some) == shown_entries);
    prop_assert!(is_one, "{suffix} {shown_entries:?} is none of {windows:?}");
    Ok(())
}

/// The tightest windows of each length.
fn by_name(verdict: &Verdict) -> BTreeMap<String, Vec<Shown>> {
    let mut named: BTreeMap<String, Vec<Shown>> = BTreeMap::new();
    for window in &verdict.windows {
        let same = named.entry(name(window)).or_default();
        same.push(*window);
        let least = same.iter().map(Shown::shares_left).min();
        same.retain(|window| Some(window.shares_left()) == least);
    }
    named
}

fn name(window: &Shown) -> String {
    match window.limit.shown_seconds() {
        1 => "second".to_owned(),
        60 => "minute".to_owned(),
        3_600 => "hour".to_owned(),
        86_400 => "day".to_owned(),
        604_800 => "week".to_owned(),
        seconds => format!("{seconds}s"),
    }
}

/// One entry for every window of every policy, in both lists.
fn check_draft_10(reply: &Reply, verdict: &Verdict, now: u64) -> Result<(), TestCaseError> {
    let (mut policies, mut limits) = (Vec::new(), Vec::new());
    for window in &verdict.windows {
        let policy = if window.policy == tollgate::limit::DEFAULT_POLICY {
            ""
        } else {
            &format!("{}-", window.policy)
        };
        let name = format!("\"{policy}{}\"", name(window));
        let wait = retry_after(window, now).filter(|_| window.is_violated);
        let to_go = wait.unwrap_or_else(|| seconds_to_reset(window, now));
        policies.push((name.clone(), ("q", window.limit.capacity()), ("w", window.limit.shown_seconds())));
        limits.push((name, ("r", window.remaining()), ("t", to_go)));
    }
    for (header, mut expected) in [("ratelimit-policy", policies), ("ratelimit", limits)] {
        let text = reply.header(header);
        let mut shown_entries = entries(&text);
        let distinct: BTreeSet<_> = shown_entries.iter().map(|(name, _)| *name).collect();
        prop_assert_eq!(distinct.len(), shown_entries.len(), "two of one name: {}", text);
        // The order of two limits for one window, and which of them has a number, are not specified.
        let names: Vec<_> = shown_entries.iter().map(|(name, _)| without_number(name)).collect();
        for ((name, _), plain) in shown_entries.iter_mut().zip(&names) {
            *name = plain;
        }
        expected.sort();
        shown_entries.sort();
        let expected: Vec<_> =
            expected.iter().map(|(name, first, second)| (name.as_str(), vec![*first, *second])).collect();
        prop_assert_eq!(shown_entries, expected, "{}: {}", header, text);
    }
    Ok(())
}

/// `"minute"` of `"minute-2"`.
fn without_number(name: &str) -> String {
    match name.trim_matches('"').rsplit_once('-') {
        Some((name, number)) if number.parse::<u8>().is_ok() => format!("\"{name}\""),
        _ => name.to_owned(),
    }
}

/// A list of names, each with parameters that are numbers.
pub(crate) fn entries(text: &str) -> Vec<(&str, Vec<(&str, u64)>)> {
    text.split(", ").map(entry).collect()
}

fn entry<'t>(text: &'t str) -> (&'t str, Vec<(&'t str, u64)>) {
    let (name, parameters) = text.split_once(';').unwrap();
    let parameter = |text: &'t str| {
        let (name, value) = text.split_once('=').unwrap();
        (name, value.parse().unwrap())
    };
    (name, parameters.split(';').map(parameter).collect())
}

/// A header's number; `None` if it is not there.
pub(crate) fn number(reply: &Reply, name: &str) -> Option<u64> {
    Some(reply.header(name)).filter(|text| !text.is_empty()).map(|text| text.parse().unwrap())
}

fn count(headers: &HeaderMap, prefix: &str) -> usize {
    headers.keys().filter(|name| name.as_str().starts_with(prefix)).count()
}
