//! What a limiter decided, and the arithmetic it decides by.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use crate::{Window, quota::instant_of};

/// How much of one window is used: what a limiter stores for a subject.
///
/// A window is known by its end, not by its number: that tells without a division whether an instant lies in it, and is
/// what callers are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The second at which the window ends, counted from the Unix epoch: see [`Window::end_after`]. 0 for no window yet.
    pub ends_at: u64,
    /// What has been used of it.
    pub used: u64,
}

impl Counter {
    /// The counter as it stands in `second`, counted from the Unix epoch (see [`Take::second`](crate::Take::second)): itself
    /// within its window, a fresh one in a later window.
    ///
    /// A request that took its instant before a window turned may be counted after; it joins the newer window, or two such
    /// requests could reset the counter in turns. That holds for instants up to a minute old, or one window if that is
    /// longer. A counter from further in the future means that the clock was set back, and starts afresh: that hands out
    /// one extra window, and locks nobody out.
    #[inline]
    pub fn at(self, window: Window, second: u64) -> Self {
        let length = u64::from(window.seconds());
        let is_current = second < self.ends_at && self.ends_at - second <= length;
        if is_current { self } else { self.at_another(window, second) }
    }

    /// The counter after a request of `cost`, if the window has room for it. A cost of 0 is a peek, for which there always is.
    #[inline]
    pub fn taking(self, cost: u64, limit: u64) -> Option<Self> {
        let used = self.used.checked_add(cost).filter(|used| *used <= limit || cost == 0)?;
        Some(Self { used, ..self })
    }

    /// Seldom asked, and the only one to divide.
    #[cold]
    fn at_another(self, window: Window, second: u64) -> Self {
        let ends_at = window.end_after(second);
        let is_late = self.ends_at > ends_at && self.ends_at - ends_at <= window.late_arrivals();
        if is_late { self } else { Self { ends_at, used: 0 } }
    }
}

/// Where one window of one policy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowState {
    /// The policy's name.
    pub policy: &'static str,
    /// The window.
    pub window: Window,
    /// What the window admits.
    pub limit: u64,
    /// Which one it is, and what is used of it, this request included if it was admitted. May exceed `limit` after a
    /// quota was lowered.
    pub counter: Counter,
    /// Whether this window refused the request.
    pub is_violated: bool,
}

impl WindowState {
    /// Has room for anything.
    const NONE: Self = Self {
        policy: "",
        window: Window::SECOND,
        limit: u64::MAX,
        counter: Counter { ends_at: 0, used: 0 },
        is_violated: false,
    };

    /// The state of `counter`, before a request is weighed against it.
    #[inline]
    pub fn new(policy: &'static str, window: Window, limit: u64, counter: Counter) -> Self {
        Self { policy, window, limit, counter, is_violated: false }
    }

    #[inline]
    fn weighed(mut self, cost: u64) -> Self {
        self.is_violated = self.counter.taking(cost, self.limit).is_none();
        self
    }

    /// When the window ends and counting begins anew: a whole second.
    pub fn resets_at(&self) -> SystemTime {
        instant_of(self.counter.ends_at)
    }

    /// How long after `at` the window ends, as `Retry-After` tells it: whole seconds, rounded up, at least one.
    pub fn retry_after(&self, at: SystemTime) -> Duration {
        whole_seconds(self.resets_at().duration_since(at).unwrap_or_default())
    }

    /// What the window still admits; never below zero.
    #[inline]
    pub fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.counter.used)
    }
}

/// Whether a request fits into every window of every policy that it is charged to, and where they stand.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use tollgate_core::{Counter, Decision, Window, WindowState};
///
/// let now = UNIX_EPOCH + Duration::from_secs(1_000_000_030);
/// let minute = Counter { ends_at: Window::MINUTE.end_after(1_000_000_030), used: 60 };
/// let hour = Counter { ends_at: Window::HOUR.end_after(1_000_000_030), used: 100 };
/// let decision = Decision::weigh(now, 1, [
///     WindowState::new("key", Window::MINUTE, 60, minute),
///     WindowState::new("key", Window::HOUR, 1_000, hour),
/// ]);
///
/// assert!(!decision.is_allowed());
/// assert_eq!(decision.retry_after(), Some(Duration::from_secs(50)));
/// assert_eq!(decision.windows()[1].counter.used, 100); // a refusal burns nothing, anywhere
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    at: SystemTime,
    is_allowed: bool,
    windows: Windows,
}

/// How many windows stay off the heap.
const FEW: usize = 3;

#[derive(Clone)]
enum Windows {
    Few { length: usize, windows: [WindowState; FEW] },
    Many(Vec<WindowState>),
}

impl Windows {
    fn as_slice(&self) -> &[WindowState] {
        match self {
            Self::Few { length, windows } => windows.get(..*length).unwrap_or(windows),
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
    /// Weighs a request of `cost` against every window: it is admitted if all of them have room, and then counted in
    /// all of them; otherwise it is counted in none. A cost of 0 is a peek: always admitted, never counted.
    #[inline]
    pub fn weigh(at: SystemTime, cost: u64, windows: impl IntoIterator<Item = WindowState>) -> Self {
        let mut rest = windows.into_iter();
        let mut windows = [WindowState::NONE; FEW];
        let (mut length, mut is_allowed) = (0, true);
        for place in &mut windows {
            let Some(state) = rest.next() else { break };
            *place = state.weighed(cost);
            is_allowed &= !place.is_violated;
            length += 1;
        }
        if length == FEW
            && let Some(next) = rest.next()
        {
            let more = std::iter::once(next).chain(rest).map(|state| state.weighed(cost));
            return Self::of_many(at, cost, windows.into_iter().chain(more).collect());
        }
        // In those that stand for none as well, which nobody sees: this takes fewer instructions than to spare them.
        let counted = if is_allowed { cost } else { 0 };
        for state in &mut windows {
            state.counter.used = state.counter.used.saturating_add(counted);
        }
        Self { at, is_allowed, windows: Windows::Few { length, windows } }
    }

    #[cold]
    fn of_many(at: SystemTime, cost: u64, mut windows: Vec<WindowState>) -> Self {
        let is_allowed = windows.iter().all(|state| !state.is_violated);
        let counted = if is_allowed { cost } else { 0 };
        for state in &mut windows {
            state.counter.used = state.counter.used.saturating_add(counted);
        }
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

    /// The window whose numbers a caller should see: of a refusal the violated one that opens last, otherwise the one
    /// with the least left (of equals, the one that opens last). `None` without any limit.
    #[inline]
    pub fn governing(&self) -> Option<&WindowState> {
        if self.is_allowed {
            self.windows()
                .iter()
                .min_by_key(|state| (state.remaining(), std::cmp::Reverse(state.counter.ends_at)))
        } else {
            self.windows().iter().filter(|state| state.is_violated).max_by_key(|state| state.counter.ends_at)
        }
    }

    /// How long a refused caller has to wait: whole seconds, rounded up, at least one. `None` if it was admitted.
    pub fn retry_after(&self) -> Option<Duration> {
        let violated = self.governing().filter(|_| !self.is_allowed)?;
        Some(violated.retry_after(self.at))
    }

    /// Both decisions as one, for limits that are stacked: allowed if both are.
    pub fn and(mut self, other: &Decision) -> Self {
        self.at = self.at.max(other.at);
        self.is_allowed &= other.is_allowed;
        let both: Vec<_> = self.windows().iter().chain(other.windows()).copied().collect();
        self.windows = Windows::Many(both);
        self
    }
}

/// A wait as `Retry-After` tells it (RFC 9110 section 10.2.3): rounded up, since a caller that comes back a moment too
/// early is refused again, and at least one second.
pub(crate) fn whole_seconds(wait: Duration) -> Duration {
    let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    Duration::from_secs(seconds.max(1))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;
    use crate::quota::second_of;

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    fn minute(used: u64, limit: u64, now: SystemTime) -> WindowState {
        WindowState::new(
            "key",
            Window::MINUTE,
            limit,
            Counter { ends_at: Window::MINUTE.end_after(second_of(now)), used },
        )
    }

    fn hour(used: u64, limit: u64, now: SystemTime) -> WindowState {
        WindowState::new(
            "key",
            Window::HOUR,
            limit,
            Counter { ends_at: Window::HOUR.end_after(second_of(now)), used },
        )
    }

    #[test]
    fn shows_the_tightest_window_when_it_admits() {
        let now = at(30_000);
        let decision = Decision::weigh(now, 1, [minute(10, 60, now), hour(990, 1_000, now)]);
        assert!(decision.is_allowed());
        let governing = decision.governing().unwrap();
        assert_eq!(
            (governing.limit, governing.remaining(), governing.resets_at()),
            (1_000, 9, at(3_600_000))
        );
        assert_eq!(decision.retry_after(), None);
    }

    #[test]
    fn shows_the_violated_window_that_opens_last_when_it_refuses() {
        let now = at(30_500);
        let decision = Decision::weigh(now, 1, [minute(60, 60, now), hour(1_000, 1_000, now)]);
        assert_eq!(decision.governing().unwrap().window, Window::HOUR);
        assert_eq!(decision.retry_after(), Some(Duration::from_secs(3_570)), "rounded up");
    }

    #[test]
    fn waits_at_least_a_second() {
        let now = at(59_999);
        let decision = Decision::weigh(now, 1, [minute(60, 60, now)]);
        assert_eq!(decision.retry_after(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_peek_is_admitted_and_counts_nothing_even_past_a_lowered_limit() {
        let now = at(0);
        let decision = Decision::weigh(now, 0, [minute(61, 60, now)]);
        assert!(decision.is_allowed());
        assert_eq!((decision.windows()[0].counter.used, decision.windows()[0].remaining()), (61, 0));
    }

    #[test]
    fn an_overflowing_cost_is_refused() {
        let now = at(0);
        assert!(!Decision::weigh(now, u64::MAX, [minute(1, u64::MAX, now)]).is_allowed());
    }

    #[test]
    fn without_limits_everything_passes_and_no_numbers_are_shown() {
        let decision = Decision::weigh(at(0), 1, []);
        assert!(decision.is_allowed());
        assert_eq!(decision.governing(), None);
    }

    #[test]
    fn a_late_arrival_joins_the_newer_window_and_a_clock_set_back_starts_afresh() {
        let counter = Counter { ends_at: 102 * 60, used: 7 };
        assert_eq!(counter.at(Window::MINUTE, 101 * 60 - 1), counter, "late");
        assert_eq!(counter.at(Window::MINUTE, 100 * 60), counter, "a whole window late");
        assert_eq!(counter.at(Window::MINUTE, 101 * 60), counter);
        assert_eq!(counter.at(Window::MINUTE, 102 * 60 - 1), counter);
        assert_eq!(counter.at(Window::MINUTE, 102 * 60), Counter { ends_at: 103 * 60, used: 0 });
        assert_eq!(counter.at(Window::MINUTE, 100 * 60 - 1), Counter { ends_at: 100 * 60, used: 0 });

        let counter = Counter { ends_at: 1_001, used: 7 };
        assert_eq!(counter.at(Window::SECOND, 940), counter, "a minute late");
        assert_eq!(counter.at(Window::SECOND, 939), Counter { ends_at: 940, used: 0 });

        let day = Counter { ends_at: 2 * 86_400, used: 7 };
        assert_eq!(day.at(Window::DAY, 0), day, "a day is longer than a minute");
    }

    #[test]
    fn stacked_decisions_refuse_if_either_does() {
        let now = at(0);
        let allowed = Decision::weigh(now, 1, [minute(0, 60, now)]);
        let refused = Decision::weigh(now, 1, [hour(9, 9, now)]);
        let both = allowed.and(&refused);
        assert!(!both.is_allowed());
        assert_eq!(both.windows().len(), 2);
        assert_eq!(both.governing().unwrap().window, Window::HOUR);
    }

    /// The naive model: a list of the times that were admitted, counted anew for every request.
    fn model(admitted: &[u64], millis: u64, limits: &[(u64, u64)]) -> bool {
        limits.iter().all(|&(length, limit)| {
            let window_start = millis - millis % length;
            let used = admitted.iter().filter(|&&time| time >= window_start && time <= millis).count();
            (used as u64) < limit
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_list_of_admitted_times(
            steps in prop::collection::vec(0_u64..40_000, 1..200),
            (per_minute, per_hour) in (0_u64..6, 0_u64..20),
        ) {
            let mut admitted = Vec::new();
            let mut counters = [Counter::default(); 2];
            let mut millis = 0;
            for step in steps {
                millis += step;
                let now = at(millis);
                let second = second_of(now);
                counters = [counters[0].at(Window::MINUTE, second), counters[1].at(Window::HOUR, second)];
                let decision = Decision::weigh(now, 1, [
                    WindowState::new("key", Window::MINUTE, per_minute, counters[0]),
                    WindowState::new("key", Window::HOUR, per_hour, counters[1]),
                ]);
                prop_assert_eq!(
                    decision.is_allowed(),
                    model(&admitted, millis, &[(60_000, per_minute), (3_600_000, per_hour)])
                );
                if decision.is_allowed() {
                    admitted.push(millis);
                }
                for (counter, state) in counters.iter_mut().zip(decision.windows()) {
                    *counter = state.counter;
                }
            }
        }
    }
}
