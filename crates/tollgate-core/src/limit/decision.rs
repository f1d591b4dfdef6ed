//! A limiter's decision, and its arithmetic.

use std::{
    cmp::Ordering,
    fmt,
    time::{Duration, SystemTime},
};

use smallvec::SmallVec;

use crate::limit::{
    Charge, Counter, FixedWindow, PolicyName, Window, WindowLimit,
    counter::has_room,
    window::{NANOS_PER_SECOND, instant_of, nanos_of},
};

/// Where one window of one policy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowState {
    /// The policy's name.
    pub policy: PolicyName,
    /// The window; of a token bucket the time it takes to fill.
    pub window: Window,
    /// What the window admits, or the bucket holds.
    pub limit: u64,
    /// What is used of it, this request included if it was admitted. May exceed `limit` after a quota was lowered, or after
    /// a deferred charge of more than was left.
    pub used: u64,
    /// When the whole limit is available again, in seconds since the Unix epoch: see [`Algorithm`](crate::limit::Algorithm).
    pub reset_second: u64,
    /// Whether this window refused the request.
    pub is_violated: bool,
    /// Whether callers must not see where this window stands: see [`Charge::hidden`].
    pub is_hidden: bool,
    // When a refused request would be admitted, in nanoseconds since the Unix epoch; 0 if that is the reset.
    opens_at: u64,
}

/// For a request that costs more than the limit, and for a limit of 0. No window opens then: it would be in the year 2554.
const NEVER: u64 = u64::MAX;

impl WindowState {
    /// When the whole limit is available again if no request is sent until then: a whole second.
    pub fn resets_at(&self) -> SystemTime {
        instant_of(self.reset_second)
    }

    /// How many seconds after `at` that is, rounded up.
    pub fn seconds_to_reset(&self, at: SystemTime) -> u64 {
        self.reset_second
            .saturating_mul(NANOS_PER_SECOND)
            .saturating_sub(nanos_of(at))
            .div_ceil(NANOS_PER_SECOND)
    }

    /// How long after `at` a refused request would be admitted, as in `Retry-After`: whole seconds, rounded up, at least one.
    /// `None` if it is never admitted, because it costs more than the limit, or the limit is 0.
    pub fn retry_after(&self, at: SystemTime) -> Option<Duration> {
        let wait = || Duration::from_nanos(self.opens_at().saturating_sub(nanos_of(at)));
        (self.opens_at != NEVER).then(|| whole_seconds(wait()))
    }

    fn opens_at(&self) -> u64 {
        if self.opens_at > 0 { self.opens_at } else { self.reset_second.saturating_mul(NANOS_PER_SECOND) }
    }

    /// What the window still admits, in units of cost; never below zero.
    ///
    /// 0 if it refused the request, even if cheaper requests would still fit: a caller that sends requests until nothing remains
    /// must not repeat one that is refused.
    #[inline]
    pub fn remaining(&self) -> u64 {
        if self.is_violated { 0 } else { self.limit.saturating_sub(self.used) }
    }

    /// Orders windows by the share of the limit that [remains](Self::remaining), the smallest first, and of equals the one that resets
    /// last. So windows with different units can be compared, such as requests and kilobytes.
    pub fn cmp_tightness(&self, other: &Self) -> Ordering {
        // Multiplied crosswise, the shares are compared exactly.
        let product = |own: &Self, other: &Self| u128::from(own.remaining()) * u128::from(other.limit.max(1));
        let by_share = product(self, other).cmp(&product(other, self));
        by_share.then(other.reset_second.cmp(&self.reset_second))
    }
}

/// A charge against one window, before the decision.
#[derive(Clone, Copy, Debug)]
pub struct WindowCheck {
    // As it stands before.
    state: WindowState,
    required: u64,
    cost: u64,
    // The second of its reset, once the cost is counted.
    reset_second_after: u64,
}

impl WindowCheck {
    /// A charge, one of its quota's limits, and the counter for it, which is [up to date](Counter::at).
    pub fn new(charge: &Charge<'_>, limit: &WindowLimit, counter: Counter, now: SystemTime) -> Self {
        if let Counter::FixedWindow(counter) = counter {
            return Self::of_fixed_window(charge, limit, counter);
        }
        let state = WindowState {
            policy: charge.policy,
            window: counter.fills_in(limit),
            limit: limit.capacity(),
            used: counter.used(limit, now),
            reset_second: counter.resets_at(limit),
            is_violated: false,
            is_hidden: charge.is_hidden,
            opens_at: counter.opens_at(limit, charge.required).min(NEVER - 1),
        };
        let after = if charge.cost > 0 { counter.counting(limit, charge.cost) } else { counter };
        Self {
            state,
            required: charge.required,
            cost: charge.cost,
            reset_second_after: after.resets_at(limit),
        }
    }

    /// The same for an [aligned window](crate::limit::Algorithm::FixedWindow), which is cheaper.
    #[inline]
    pub fn of_fixed_window(charge: &Charge<'_>, limit: &WindowLimit, counter: FixedWindow) -> Self {
        let state = WindowState {
            policy: charge.policy,
            window: limit.window,
            limit: limit.limit,
            used: counter.used,
            reset_second: counter.ends_at,
            is_violated: false,
            is_hidden: charge.is_hidden,
            opens_at: 0,
        };
        Self { state, required: charge.required, cost: charge.cost, reset_second_after: counter.ends_at }
    }

    #[inline]
    fn has_room(&self) -> bool {
        has_room(self.state.used, self.required, self.state.limit)
    }

    /// How the window stands after the decision.
    #[inline]
    fn after(&self, is_allowed: bool) -> WindowState {
        let mut state = self.state;
        if is_allowed {
            state.used = state.used.saturating_add(self.cost);
            state.reset_second = self.reset_second_after;
        } else {
            state.is_violated = !self.has_room();
            if self.required > state.limit {
                state.opens_at = NEVER;
            }
        }
        state
    }
}

/// Whether a request is admitted by every window of every policy that it is charged to, and where they stand.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use tollgate_core::limit::{Algorithm, Charge, Counter, Decision, PerWindow, WindowCheck};
///
/// let now = UNIX_EPOCH + Duration::from_secs(1_000_000_030);
/// let quota = 2.per_minute().and(1_000.per_hour());
/// let charge = Charge::new("key", "ada", "acme", &quota);
///
/// // What a limiter keeps for this subject: a counter for each of the quota's limits.
/// let mut counters = [Counter::new(Algorithm::FixedWindow); 2];
/// let mut ask = || {
///     for (limit, counter) in quota.limits().iter().zip(&mut counters) {
///         *counter = counter.at(limit, now);
///     }
///     let pairs = quota.limits().iter().zip(&counters);
///     let decision = Decision::evaluate(now, pairs.map(|(limit, counter)| WindowCheck::new(&charge, limit, *counter, now)));
///     if decision.is_allowed() {
///         for (limit, counter) in quota.limits().iter().zip(&mut counters) {
///             *counter = counter.counting(limit, charge.cost);
///         }
///     }
///     decision
/// };
///
/// assert!(ask().is_allowed() && ask().is_allowed());
/// let refused = ask();
/// assert!(!refused.is_allowed());
/// assert_eq!(refused.retry_after(), Some(Duration::from_secs(50)));
/// assert_eq!(refused.windows()[1].used, 2); // a refused request is counted in no window
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    at: SystemTime,
    is_allowed: bool,
    windows: Windows,
}

/// One window, as most decisions have, takes no allocation.
#[derive(Clone)]
enum Windows {
    One(WindowState),
    Many(Box<[WindowState]>),
}

impl Windows {
    #[inline]
    fn as_slice(&self) -> &[WindowState] {
        match self {
            Self::One(window) => std::slice::from_ref(window),
            Self::Many(windows) => windows,
        }
    }
}

impl PartialEq for Windows {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Windows {}

impl fmt::Debug for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl Decision {
    /// Evaluates a request: it is admitted if every window has room, and then counted in all of them; otherwise it is counted
    /// in none.
    #[inline]
    pub fn evaluate(at: SystemTime, windows: impl IntoIterator<Item = WindowCheck>) -> Self {
        let mut checks = windows.into_iter();
        match (checks.next(), checks.next()) {
            (Some(only), None) => {
                let is_allowed = only.has_room();
                Self { at, is_allowed, windows: Windows::One(only.after(is_allowed)) }
            }
            (first, second) => Self::of_many(
                at,
                &first.into_iter().chain(second).chain(checks).collect::<SmallVec<[_; 4]>>(),
            ),
        }
    }

    #[inline(never)]
    fn of_many(at: SystemTime, checks: &[WindowCheck]) -> Self {
        let is_allowed = checks.iter().all(WindowCheck::has_room);
        let windows = checks.iter().map(|check| check.after(is_allowed)).collect();
        Self { at, is_allowed, windows: Windows::Many(windows) }
    }

    /// Whether the request may pass.
    #[inline]
    pub fn is_allowed(&self) -> bool {
        self.is_allowed
    }

    /// The instant at which this was decided, by the limiter's clock.
    pub fn at(&self) -> SystemTime {
        self.at
    }

    /// Every window of every policy, in the order in which they were charged.
    #[inline]
    pub fn windows(&self) -> &[WindowState] {
        self.windows.as_slice()
    }

    /// The window whose values a caller should see: of a refusal the violated one that opens last, otherwise the
    /// [tightest](WindowState::cmp_tightness). `None` without any limit, and if that is
    /// a [hidden](WindowState::is_hidden) window.
    #[inline]
    pub fn tightest(&self) -> Option<&WindowState> {
        match &self.windows {
            Windows::One(window) => (!window.is_hidden).then_some(window),
            Windows::Many(windows) if self.is_allowed => Self::tightest_of(windows),
            Windows::Many(_) => self.refused_by().filter(|state| !state.is_hidden),
        }
    }

    #[inline(never)]
    fn tightest_of(windows: &[WindowState]) -> Option<&WindowState> {
        let shown = windows.iter().filter(|state| !state.is_hidden);
        shown.rev().min_by(|one, other| one.cmp_tightness(other))
    }

    /// The violated window that opens last.
    fn refused_by(&self) -> Option<&WindowState> {
        self.windows().iter().filter(|state| state.is_violated).max_by_key(|state| state.opens_at())
    }

    /// How long a refused caller has to wait: whole seconds, rounded up, at least one. `None` if the request was admitted, and if it
    /// is never admitted: see [`WindowState::retry_after`].
    pub fn retry_after(&self) -> Option<Duration> {
        self.refused_by()?.retry_after(self.at)
    }

    /// Why a refused request is never admitted, for the log; empty if it may be admitted later.
    pub(crate) fn why_never(&self) -> String {
        match self.refused_by().filter(|state| state.opens_at == NEVER) {
            Some(WindowState { policy, limit: 0, window, .. }) => {
                format!("the policy {policy:?} admits no request: its limit is 0 per {window}")
            }
            Some(WindowState { policy, limit, window, .. }) => format!(
                "the request costs more than the policy {policy:?} ever admits, {limit} per {window}: raise the limit, or \
                 lower the cost"
            ),
            None => String::new(),
        }
    }

    /// The same decision, with the values of `newer` for the windows that it has.
    pub fn refreshed_by(mut self, newer: &Decision) -> Self {
        let mut windows: Vec<_> = self.windows().iter().map(|own| (*own, false)).collect();
        for state in newer.windows() {
            // If a quota has one window by two algorithms, both decisions list both in the same order.
            let is_same = |(own, is_new): &&mut (WindowState, bool)| {
                let is_its = own.policy == state.policy && own.window == state.window;
                !*is_new && is_its && own.limit == state.limit
            };
            match windows.iter_mut().find(is_same) {
                Some(own) => *own = (*state, true),
                None => windows.push((*state, true)),
            }
        }
        self.windows = Windows::Many(windows.into_iter().map(|(state, _)| state).collect());
        self
    }
}

/// A wait as in `Retry-After` (RFC 9110 section 10.2.3): rounded up, because a caller that comes back a moment too
/// early is refused again, and at least one second.
pub(crate) fn whole_seconds(wait: Duration) -> Duration {
    let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    Duration::from_secs(seconds.max(1))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::limit::{PerWindow as _, Quota};

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    /// A request that costs so much, at a counter of which so much is used.
    fn check(quota: &Quota, used: u64, cost: u64, now: SystemTime) -> WindowCheck {
        let limit = &quota.limits()[0];
        let counter = Counter::new(limit.algorithm).at(limit, now).counting(limit, used);
        WindowCheck::new(&Charge::new("key", "ada", "ada", quota).with_cost(cost), limit, counter, now)
    }

    fn minute(used: u64, limit: u64, now: SystemTime) -> WindowCheck {
        check(&limit.per_minute(), used, 1, now)
    }

    fn hour(used: u64, limit: u64, now: SystemTime) -> WindowCheck {
        check(&limit.per_hour(), used, 1, now)
    }

    #[test]
    fn shows_the_tightest_window_when_it_admits() {
        let now = at(30_000);
        let decision = Decision::evaluate(now, [minute(10, 60, now), hour(990, 1_000, now)]);
        assert!(decision.is_allowed());
        let tightest = decision.tightest().unwrap();
        assert_eq!((tightest.limit, tightest.remaining(), tightest.resets_at()), (1_000, 9, at(3_600_000)));
        assert_eq!(decision.retry_after(), None);
    }

    /// 500 of 1,048,576 kilobytes are less than 40 of 60 requests.
    #[test]
    fn the_tightest_window_has_the_smallest_remaining_share() {
        let now = at(0);
        let kilobytes = check(&1_048_576.per_day(), 1_048_075, 1, now);
        let decision = Decision::evaluate(now, [minute(19, 60, now), kilobytes]);
        assert_eq!(decision.tightest().unwrap().remaining(), 500);
        assert_eq!(decision.windows().iter().map(WindowState::remaining).collect::<Vec<_>>(), [40, 500]);
        let equal = Decision::evaluate(now, [hour(1, 4, now), minute(0, 2, now)]);
        assert_eq!(
            equal.tightest().unwrap().window,
            Window::HOUR,
            "of equal shares, the one that resets last"
        );
        let used_up = Decision::evaluate(now, [hour(0, 1, now), check(&0.per_minute(), 0, 0, now)]);
        assert_eq!(used_up.tightest().unwrap().window, Window::HOUR, "0 of 0 is nothing, too");
    }

    #[test]
    fn nothing_remains_in_the_window_that_refuses() {
        let now = at(0);
        let decision = Decision::evaluate(now, [check(&60.per_minute(), 40, 40, now), hour(1, 9, now)]);
        assert_eq!(decision.windows().iter().map(WindowState::remaining).collect::<Vec<_>>(), [0, 8]);
        assert_eq!((decision.windows()[0].used, decision.retry_after()), (40, Some(Duration::from_secs(60))));
    }

    #[test]
    fn a_request_that_never_fits_has_no_time_to_retry() {
        let now = at(0);
        for quota in [60.per_minute(), 60.per_minute().sliding(), 60.per_minute().with_burst(60)] {
            let refused = Decision::evaluate(now, [hour(3, 3, now), check(&quota, 0, 100, now)]);
            assert_eq!((refused.retry_after(), refused.tightest().unwrap().limit), (None, 60), "{quota}");
            assert!(refused.why_never().contains("costs more"), "{}", refused.why_never());
            let none = check(&0.per_minute(), 0, 1, now);
            let refused = Decision::evaluate(now, [none]);
            assert_eq!(refused.retry_after(), None);
            assert!(refused.why_never().contains("0 per minute"), "{}", refused.why_never());
            assert_eq!(Decision::evaluate(now, [check(&quota, 60, 60, now)]).why_never(), "");
        }
    }

    #[test]
    fn a_hidden_window_is_not_shown_but_decides() {
        let (now, key, address) = (at(0), 9.per_minute(), 2.per_hour());
        let by_key = WindowCheck::of_fixed_window(
            &Charge::new("key", "ada", "ada", &key),
            &key.limits()[0],
            FixedWindow { ends_at: 60, used: 0 },
        );
        let by_address = |used| {
            let charge = Charge::new("address", "192.0.2.1", "192.0.2.1", &address).hidden();
            WindowCheck::new(
                &charge,
                &address.limits()[0],
                Counter::FixedWindow(FixedWindow { ends_at: 3_600, used }),
                now,
            )
        };
        let both = Decision::evaluate(now, [by_key, by_address(1)]);
        assert_eq!(both.tightest().unwrap().policy, "key");
        assert_eq!(Decision::evaluate(now, [by_address(0)]).tightest(), None);
        for refused in [[by_address(2)].to_vec(), [by_key, by_address(2)].to_vec()] {
            let refused = Decision::evaluate(now, refused);
            assert_eq!((refused.tightest(), refused.retry_after()), (None, Some(Duration::from_secs(3_600))));
        }
    }

    #[test]
    fn shows_the_violated_window_that_opens_last_when_it_refuses() {
        let now = at(30_500);
        let decision = Decision::evaluate(now, [minute(60, 60, now), hour(1_000, 1_000, now)]);
        assert_eq!(decision.tightest().unwrap().window, Window::HOUR);
        assert_eq!(decision.retry_after(), Some(Duration::from_secs(3_570)), "rounded up");
    }

    #[test]
    fn waits_at_least_a_second() {
        let now = at(59_999);
        let decision = Decision::evaluate(now, [minute(60, 60, now)]);
        assert_eq!(decision.retry_after(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_peek_is_admitted_and_counts_nothing_even_past_a_lowered_limit() {
        let now = at(0);
        let decision = Decision::evaluate(now, [check(&60.per_minute(), 61, 0, now)]);
        assert!(decision.is_allowed());
        assert_eq!((decision.windows()[0].used, decision.windows()[0].remaining()), (61, 0));
    }

    #[test]
    fn an_overflowing_cost_is_refused() {
        let now = at(0);
        assert!(!Decision::evaluate(now, [check(&u64::MAX.per_minute(), 1, u64::MAX, now)]).is_allowed());
    }

    #[test]
    fn without_limits_everything_passes_and_no_numbers_are_shown() {
        let decision = Decision::evaluate(at(0), []);
        assert!(decision.is_allowed());
        assert_eq!(decision.tightest(), None);
    }

    #[test]
    fn room_may_be_asked_for_without_being_taken_and_taken_without_being_asked_for() {
        let (now, quota) = (at(0), 2.per_minute());
        let charge = Charge::new("key", "ada", "ada", &quota);
        let evaluate = |charge: &Charge<'_>, used: u64| {
            let counter = FixedWindow { ends_at: 60, used };
            Decision::evaluate(now, [WindowCheck::of_fixed_window(charge, &quota.limits()[0], counter)])
        };
        let checked = evaluate(&charge.with_deferred_cost(), 1);
        assert_eq!((checked.is_allowed(), checked.windows()[0].used), (true, 1));
        assert!(!evaluate(&charge.with_deferred_cost(), 2).is_allowed());
        let settled = evaluate(&charge.settled(5), 2);
        assert_eq!((settled.is_allowed(), settled.windows()[0].used), (true, 7));
    }

    #[test]
    fn a_refusal_waits_for_the_window_that_opens_last_whatever_resets_last() {
        let now = at(0);
        // A sliding window resets long after it has room again.
        let sliding = check(&60.per_minute().sliding(), 60, 1, now);
        let fixed = check(&60.per(Window::lasting(Duration::from_secs(70))), 60, 1, now);
        let decision = Decision::evaluate(now, [sliding, fixed]);
        assert_eq!(decision.retry_after(), Some(Duration::from_secs(70)));
        assert_eq!(decision.tightest().unwrap().reset_second, 70);
        assert_eq!(Decision::evaluate(now, [sliding]).retry_after(), Some(Duration::from_secs(61)));
    }

    #[test]
    fn newer_numbers_take_the_place_of_older_ones() {
        let now = at(0);
        let older = Decision::evaluate(now, [minute(0, 60, now), hour(0, 1_000, now)]);
        let newer = Decision::evaluate(now, [minute(41, 60, now)]);
        let used = |decision: Decision| decision.windows().iter().map(|state| state.used).collect::<Vec<_>>();
        assert_eq!(used(older.refreshed_by(&newer)), [42, 1]);

        let both = |fixed, sliding| {
            let sliding = check(&9.per_minute().sliding(), sliding, 1, now);
            Decision::evaluate(now, [minute(fixed, 60, now), sliding])
        };
        assert_eq!(used(both(0, 0).refreshed_by(&both(41, 6))), [42, 7], "one window by two algorithms");
    }

    #[test]
    fn newer_numbers_of_one_window_by_two_algorithms_are_not_mixed_up() {
        let now = at(0);
        let both = |used| {
            let sliding = check(&100.per_minute().sliding(), used, 1, now);
            Decision::evaluate(now, [minute(used, 2, now), sliding])
        };
        assert_eq!(both(0).refreshed_by(&both(1)), both(1));
    }
}
