//! Which headers tell callers where their limits stand, and their text.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue};
use tollgate_core::limit::{Decision, Window, WindowState};

use super::{
    numbers::format_number,
    stamp::{Numbers, ResponseParts},
};

/// Which headers tell callers where their limits stand. By default `X-RateLimit-Limit`, `-Remaining` and `-Reset`, the last as
/// a second since the Unix epoch.
///
/// ```
/// use tollgate::{PerWindow, RateLimitLayer, limit::RateLimitHeaders};
///
/// let layer = RateLimitLayer::new(60.per_minute().and(1_000.per_hour()))
///     .with_headers(RateLimitHeaders::new().with_seconds_to_reset().with_each_window());
/// ```
///
/// Of stacked limits each adds the headers that it asks for, and all of them tell of all limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitHeaders {
    has_usual: bool,
    has_each_window: bool,
    has_draft_10: bool,
    reset: Reset,
}

/// How `X-RateLimit-Reset` tells the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    Second,
    SecondsToGo,
}

impl Reset {
    #[inline]
    fn number(self, window: &WindowState, decision: &Decision) -> u64 {
        match self {
            Self::Second => window.reset_second,
            Self::SecondsToGo => window.seconds_to_reset(decision.at()),
        }
    }
}

impl RateLimitHeaders {
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, all three of the tightest window.
    pub const fn new() -> Self {
        Self { has_usual: true, ..Self::none() }
    }

    /// No headers. A refusal still tells how long to wait.
    pub const fn none() -> Self {
        Self { has_usual: false, has_each_window: false, has_draft_10: false, reset: Reset::Second }
    }

    /// `X-RateLimit-Reset`, and that of each window, in seconds from the request's instant on, rounded up, in place of a second
    /// since the Unix epoch.
    pub const fn with_seconds_to_reset(mut self) -> Self {
        self.reset = Reset::SecondsToGo;
        self
    }

    /// Three headers more for each window, named after it: `X-RateLimit-Remaining-Minute`, or `-900s` for one that has no name.
    /// Where several policies have one window, it is the tighter one. A token bucket's window is the time in which it is filled.
    pub const fn with_each_window(mut self) -> Self {
        self.has_each_window = true;
        self
    }

    /// `RateLimit-Policy` and `RateLimit` by draft-ietf-httpapi-ratelimit-headers-10, with an entry for every window of every
    /// policy: named after the window, and after the policy if that has a name of its own. Their form may change with a
    /// later draft, which will be another option.
    pub const fn with_ietf_draft_10(mut self) -> Self {
        self.has_draft_10 = true;
        self
    }

    /// What both ask for; where they differ, it is as the inner one says.
    pub(super) fn and_outer(self, outer: Self) -> Self {
        Self {
            has_usual: self.has_usual || outer.has_usual,
            has_each_window: self.has_each_window || outer.has_each_window,
            has_draft_10: self.has_draft_10 || outer.has_draft_10,
            // One that writes no reset has no say in how it is told.
            reset: if self.has_usual || self.has_each_window { self.reset } else { outer.reset },
        }
    }

    /// Has a response tell where the limits stand.
    #[inline]
    pub(crate) fn tell(self, decision: &Decision, stamp: &mut ResponseParts) {
        if self.has_usual
            && let Some(window) = decision.tightest()
        {
            stamp.numbers = Some(Numbers {
                limit: window.limit,
                remaining: window.remaining(),
                reset: self.reset.number(window, decision),
            });
        }
        if self.has_each_window || self.has_draft_10 {
            stamp.more_mut().headers = self.more(decision);
        }
    }

    #[cold]
    fn more(self, decision: &Decision) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        if self.has_each_window {
            each_window(self.reset, decision, &mut headers);
        }
        if self.has_draft_10 {
            draft_10(decision, &mut headers);
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
    let mut windows: Vec<&WindowState> = Vec::new();
    for state in decision.windows() {
        match windows.iter_mut().find(|other| other.window == state.window) {
            Some(other) if state.remaining() < other.remaining() => *other = state,
            Some(_) => {}
            None => windows.push(state),
        }
    }
    for state in windows {
        let numbers = [
            ("limit", state.limit),
            ("remaining", state.remaining()),
            ("reset", reset.number(state, decision)),
        ];
        for (kind, number) in numbers {
            let name = format!("x-ratelimit-{kind}-{}", name_of(state.window));
            if let Ok(name) = HeaderName::try_from(name) {
                headers.push((name, format_number(number)));
            }
        }
    }
}

/// Structured fields (RFC 9651): lists of strings, each with parameters that are integers.
fn draft_10(decision: &Decision, headers: &mut Vec<(HeaderName, HeaderValue)>) {
    let (mut policies, mut limits) = (String::new(), String::new());
    let mut names = Vec::new();
    for state in decision.windows() {
        let comma = if policies.is_empty() { "" } else { ", " };
        let name = distinct(entry_name(state), &mut names);
        // A refused caller is told when to come again, which may be before all of the limit is there.
        let to_go = if state.is_violated {
            state.retry_after(decision.at()).as_secs()
        } else {
            state.seconds_to_reset(decision.at())
        };
        let [limit, remaining] = [state.limit, state.remaining()].map(|number| number.min(LARGEST_INTEGER));
        // Writing to a string never fails.
        let _ = write!(policies, "{comma}\"{name}\";q={limit};w={}", state.window.seconds());
        let _ = write!(limits, "{comma}\"{name}\";r={remaining};t={to_go}");
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

/// `minute`, or `organization-minute` under a policy that has a name of its own: what a string of a structured field may not hold
/// is left out.
fn entry_name(state: &WindowState) -> String {
    let policy =
        state.policy.chars().filter(|letter| matches!(letter, ' '..='~') && !matches!(letter, '"' | '\\'));
    let mut name: String = policy.collect();
    if name == crate::limit::DEFAULT_POLICY {
        name.clear();
    } else {
        name.push('-');
    }
    name + &name_of(state.window)
}

/// Two limits may share a name, as a window by two algorithms does: the second one is told by its number.
fn distinct(name: String, names: &mut Vec<String>) -> String {
    let before = names.iter().filter(|other| **other == name).count();
    let own = if before == 0 { name.clone() } else { format!("{name}-{}", before + 1) };
    names.push(name);
    own
}

fn name_of(window: Window) -> String {
    match window {
        Window::SECOND | Window::MINUTE | Window::HOUR | Window::DAY => window.to_string(),
        other => format!("{}s", other.seconds()),
    }
}
