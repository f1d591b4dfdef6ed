//! Which headers show callers where their limits stand, and their text.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};
use tollgate_core::limit::{Decision, Window, WindowState};

use super::DEFAULT_POLICY;
use crate::{
    engine::set_header,
    number_text::{number_text, shared_number_text},
};

/// Which headers show callers where their limits stand. By default `X-RateLimit-Limit`, `-Remaining` and `-Reset`, the last as
/// seconds since the Unix epoch.
///
/// ```
/// use tollgate::{PerWindow, RateLimitLayer, limit::RateLimitHeaders};
///
/// let layer = RateLimitLayer::new(60.per_minute().and(1_000.per_hour()))
///     .with_headers(RateLimitHeaders::new().with_seconds_to_reset().with_each_window());
/// ```
///
/// Of stacked limit layers each writes its own headers where there are none yet, or where its own window is tighter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitHeaders {
    has_usual: bool,
    has_each_window: bool,
    has_draft_10: bool,
    reset: Reset,
}

/// How `X-RateLimit-Reset` expresses the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    EpochSecond,
    SecondsFromNow,
}

impl Reset {
    #[inline]
    fn number(self, window: &WindowState, decision: &Decision) -> u64 {
        match self {
            Self::EpochSecond => window.reset_second,
            Self::SecondsFromNow => window.seconds_to_reset(decision.at()),
        }
    }
}

/// The values of the three usual headers, all of the tightest window.
#[derive(Clone, Copy)]
pub(crate) struct RateLimitValues {
    /// Whether the three usual headers are written.
    pub(crate) is_usual: bool,
    pub(crate) is_refusal: bool,
    limit: u64,
    remaining: u64,
    reset: u64,
    reset_second: u64,
}

impl RateLimitValues {
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        set_header(headers, &X_RATELIMIT_LIMIT, shared_number_text(self.limit));
        set_header(headers, &X_RATELIMIT_REMAINING, number_text(self.remaining));
        set_header(headers, &X_RATELIMIT_RESET, shared_number_text(self.reset));
    }

    /// On a refusal by a window that callers must not see: no headers, also not those of an outer layer, which has admitted the
    /// request.
    const OF_HIDDEN_REFUSAL: Self =
        Self { is_usual: false, is_refusal: true, limit: 0, remaining: 0, reset: 0, reset_second: 0 };

    /// Whether these belong before others: a refusal first, then the smallest share left, then the latest reset.
    pub(crate) fn are_tighter_than(&self, other: &Self) -> bool {
        // Multiplied crosswise, the shares of the limits are compared exactly.
        let share = |own: &Self, other: &Self| u128::from(own.remaining) * u128::from(other.limit.max(1));
        let by_refusal = other.is_refusal.cmp(&self.is_refusal);
        let by_share = share(self, other).cmp(&share(other, self));
        let by_reset = other.reset_second.cmp(&self.reset_second);
        by_refusal.then(by_share).then(by_reset).is_lt()
    }
}

static X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
static X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

impl RateLimitHeaders {
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, all three of the tightest window.
    pub const fn new() -> Self {
        Self { has_usual: true, ..Self::none() }
    }

    /// No headers. A refusal still carries `Retry-After`.
    pub const fn none() -> Self {
        Self { has_usual: false, has_each_window: false, has_draft_10: false, reset: Reset::EpochSecond }
    }

    /// Writes `X-RateLimit-Reset`, and that of each window, as seconds from the request's instant on, rounded up, instead of
    /// seconds since the Unix epoch.
    pub const fn with_seconds_to_reset(mut self) -> Self {
        self.reset = Reset::SecondsFromNow;
        self
    }

    /// Adds three headers for each window, named after it: `X-RateLimit-Remaining-Minute`, or `-900s` for a window without a name.
    /// A month is `-Month`, whatever its first day. If several policies have the same window, the tightest is shown. A token
    /// bucket's window is the time it takes to fill.
    pub const fn with_each_window(mut self) -> Self {
        self.has_each_window = true;
        self
    }

    /// Adds `RateLimit-Policy` and `RateLimit` by draft-ietf-httpapi-ratelimit-headers-10, with an entry for every window of every
    /// policy that callers may see. The length of a month is that of the one that ends at the reset. An entry is named after the
    /// window, and after the policy if its name is not the default. A later draft will be another option.
    pub const fn with_ietf_draft_10(mut self) -> Self {
        self.has_draft_10 = true;
        self
    }

    /// What a decision shows, if there is a limit that callers may see.
    #[inline]
    pub(crate) fn values(self, decision: &Decision) -> Option<RateLimitValues> {
        let Some(window) = decision.tightest() else {
            return (!decision.is_allowed()).then_some(RateLimitValues::OF_HIDDEN_REFUSAL);
        };
        Some(RateLimitValues {
            is_usual: self.has_usual,
            is_refusal: !decision.is_allowed(),
            limit: window.limit,
            remaining: window.remaining(),
            reset: self.reset.number(window, decision),
            reset_second: window.reset_second,
        })
    }

    /// Whether other headers than the three usual ones are asked for.
    #[inline]
    pub(crate) fn has_others(self) -> bool {
        self.has_each_window || self.has_draft_10
    }

    /// The other headers.
    #[cold]
    pub(crate) fn others(self, decision: &Decision) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        // Nothing is shown if a window that callers must not see has refused the request.
        if decision.tightest().is_some() {
            if self.has_each_window {
                each_window(self.reset, decision, &mut headers);
            }
            if self.has_draft_10 {
                draft_10(decision, &mut headers);
            }
        }
        headers
    }
}

impl Default for RateLimitHeaders {
    fn default() -> Self {
        Self::new()
    }
}

fn each_window(reset: Reset, decision: &Decision, headers: &mut Vec<(HeaderName, HeaderValue)>) {
    let mut windows: Vec<(String, &WindowState)> = Vec::new();
    for state in shown(decision) {
        let name = name_of(state.window);
        match windows.iter_mut().find(|(other, _)| *other == name) {
            Some((_, other)) if state.cmp_tightness(other).is_lt() => *other = state,
            Some(_) => {}
            None => windows.push((name, state)),
        }
    }
    for (name, state) in windows {
        let numbers = [
            ("limit", state.limit),
            ("remaining", state.remaining()),
            ("reset", reset.number(state, decision)),
        ];
        for (kind, number) in numbers {
            if let Ok(name) = HeaderName::try_from(format!("x-ratelimit-{kind}-{name}")) {
                headers.push((name, number_text(number)));
            }
        }
    }
}

/// The windows that callers may see.
fn shown(decision: &Decision) -> impl Iterator<Item = &WindowState> {
    decision.windows().iter().filter(|state| !state.is_hidden)
}

/// Structured fields (RFC 9651): lists of strings, each with parameters that are integers.
fn draft_10(decision: &Decision, headers: &mut Vec<(HeaderName, HeaderValue)>) {
    let (mut policies, mut limits) = (String::new(), String::new());
    let mut names = Vec::new();
    for state in shown(decision) {
        let comma = if policies.is_empty() { "" } else { ", " };
        let name = distinct(entry_name(state), &mut names);
        // A refused caller may come again before the whole limit is there.
        let wait = state.retry_after(decision.at()).filter(|_| state.is_violated);
        let seconds = wait.map_or_else(|| state.seconds_to_reset(decision.at()), |wait| wait.as_secs());
        let [limit, remaining] = [state.limit, state.remaining()].map(|number| number.min(LARGEST_INTEGER));
        // Writing to a string never fails.
        let _ = write!(
            policies,
            "{comma}\"{name}\";q={limit};w={}",
            state.window.seconds_until(state.reset_second)
        );
        let _ = write!(limits, "{comma}\"{name}\";r={remaining};t={seconds}");
    }
    for (name, text) in [(&RATE_LIMIT_POLICY, policies), (&RATE_LIMIT, limits)] {
        if let Ok(text) = HeaderValue::try_from(text)
            && !text.is_empty()
        {
            headers.push((name.clone(), text));
        }
    }
}

/// The largest integer of a structured field (RFC 9651 section 3.3.1).
const LARGEST_INTEGER: u64 = 999_999_999_999_999;

static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// `minute`, or `organization-minute` under a policy with a name of its own. Characters that a structured field's string cannot
/// hold are left out.
fn entry_name(state: &WindowState) -> String {
    let policy =
        state.policy.chars().filter(|letter| matches!(letter, ' '..='~') && !matches!(letter, '"' | '\\'));
    let mut name: String = policy.collect();
    if name == DEFAULT_POLICY {
        name.clear();
    } else {
        name.push('-');
    }
    name + &name_of(state.window)
}

/// Makes a name unique. Two limits may share a name, as one window by two algorithms does: the second one gets a number.
fn distinct(name: String, names: &mut Vec<String>) -> String {
    let before = names.iter().filter(|other| **other == name).count();
    let own = if before == 0 { name.clone() } else { format!("{name}-{}", before + 1) };
    names.push(name);
    own
}

fn name_of(window: Window) -> String {
    match window {
        Window::SECOND | Window::MINUTE | Window::HOUR | Window::DAY | Window::WEEK => window.to_string(),
        month if month.first_day().is_some() => "month".to_owned(),
        other => format!("{}s", other.seconds()),
    }
}
