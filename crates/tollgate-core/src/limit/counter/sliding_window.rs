//! The arithmetic of sliding windows.

use crate::limit::{Window, WindowLimit, window::NANOS_PER_SECOND};

/// The amount used in a sliding window, kept as two consecutive aligned windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "backends store it in their own format, and it needs no more fields"
)]
pub struct SlidingWindow {
    /// The end of the current aligned window in seconds since the Unix epoch. 0: no window yet.
    pub ends_at: u64,
    /// The amount used in it.
    pub used: u64,
    /// The amount used in the previous one.
    pub used_before: u64,
}

impl SlidingWindow {
    /// The counter at `second`, in seconds since the Unix epoch. Late arrivals and a clock that was set back are handled as for
    /// [aligned windows](crate::limit::FixedWindow::at).
    pub fn at(self, window: Window, second: u64) -> Self {
        if window.holds(self.ends_at, second) {
            return self;
        }
        let ends_at = window.end_after(second);
        if window.counts_in(self.ends_at, ends_at) {
            return self;
        }
        let is_next = self.ends_at > 0 && window.end_after(self.ends_at) == ends_at;
        Self { ends_at, used: 0, used_before: if is_next { self.used } else { 0 } }
    }

    /// The amount used at `nanos`: the current window, plus the part of the previous one that still overlaps, rounded up.
    pub(super) fn used_at(self, window: Window, nanos: u64) -> u64 {
        let length = window.seconds_until(self.ends_at).saturating_mul(NANOS_PER_SECOND);
        let left = self.end().saturating_sub(nanos).min(length);
        let share = (u128::from(self.used_before) * u128::from(left)).div_ceil(length.into());
        // A part is at most the whole: the conversion cannot fail.
        self.used.saturating_add(u64::try_from(share).unwrap_or(u64::MAX))
    }

    /// The counter plus `cost`.
    pub fn counting(self, cost: u64) -> Self {
        Self { used: self.used.saturating_add(cost), ..self }
    }

    pub(super) fn resets_at(self, window: Window) -> u64 {
        if self.used > 0 { window.end_after(self.ends_at) } else { self.ends_at }
    }

    /// The nanosecond from which `required` units are available.
    pub(super) fn opens_at(self, limit: &WindowLimit, required: u64) -> u64 {
        // From when the previous window overlaps by at most `free` units the window that ends at `ends_at`.
        let from = |ends_at: u64, free: u64, used_before: u64| {
            let length = limit.window.seconds_until(ends_at).saturating_mul(NANOS_PER_SECOND);
            let lead = (u128::from(free) * u128::from(length)).checked_div(used_before.into());
            let lead = lead.and_then(|lead| u64::try_from(lead).ok()).unwrap_or(length).min(length);
            ends_at.saturating_mul(NANOS_PER_SECOND).saturating_sub(lead)
        };
        match limit.limit.checked_sub(required) {
            None => self.resets_at(limit.window).saturating_mul(NANOS_PER_SECOND),
            Some(free) => match free.checked_sub(self.used) {
                Some(left) => from(self.ends_at, left, self.used_before),
                None => from(limit.window.end_after(self.ends_at), free, self.used),
            },
        }
    }

    /// The end of the current window in nanoseconds.
    fn end(self) -> u64 {
        self.ends_at.saturating_mul(NANOS_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limit::{PerWindow as _, Quota};

    const MINUTE: u64 = 60 * NANOS_PER_SECOND;

    fn limit(limit: u64) -> WindowLimit {
        limit.per_minute().sliding().limits()[0]
    }

    #[test]
    fn the_previous_window_slides_out_evenly() {
        let counter = SlidingWindow { ends_at: 60, used: 8, used_before: 0 }.at(Window::MINUTE, 60);
        assert_eq!(counter, SlidingWindow { ends_at: 120, used: 0, used_before: 8 });
        let used = |nanos| counter.used_at(Window::MINUTE, nanos);
        assert_eq!(used(MINUTE), 8);
        assert_eq!(used(MINUTE + 1), 8, "rounded up");
        assert_eq!(used(MINUTE + MINUTE / 8), 7);
        assert_eq!(used(MINUTE + MINUTE / 2), 4);
        assert_eq!(used(2 * MINUTE - 1), 1);
        assert_eq!(used(2 * MINUTE), 0);
        assert_eq!(counter.resets_at(Window::MINUTE), 120);
        assert_eq!(counter.counting(1).resets_at(Window::MINUTE), 180);
    }

    #[test]
    fn two_windows_later_nothing_is_used() {
        let counter = SlidingWindow { ends_at: 60, used: 8, used_before: 8 };
        assert_eq!(counter.at(Window::MINUTE, 120), SlidingWindow { ends_at: 180, used: 0, used_before: 0 });
    }

    #[test]
    fn for_a_request_that_never_fits_it_is_when_the_window_is_empty() {
        let counter = SlidingWindow { ends_at: 60, used: 1, used_before: 0 };
        assert_eq!(counter.opens_at(&limit(5), 6), 2 * MINUTE);
    }

    proptest! {
        /// The naive model: a list of admitted requests with their times. The current window's count in full, the previous
        /// one's by the part that is left of it, in exact fractions.
        #[test]
        fn agrees_with_a_list_of_admitted_requests(
            steps in prop::collection::vec((0_u64..50_000, 0_u64..3), 1..200),
            most in 0_u64..9,
        ) {
            let limit = limit(most);
            let mut counter = SlidingWindow::default();
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            let mut millis = 0;
            for (wait, cost) in steps {
                millis += wait;
                let nanos = millis * 1_000_000;
                counter = counter.at(limit.window, millis / 1_000);
                let of = |window: u64| -> u64 {
                    admitted.iter().filter(|(at, _)| at / 60_000 + 1 == window).map(|(_, cost)| cost).sum()
                };
                let present = millis / 60_000 + 1;
                let left_of_it = 60_000 - millis % 60_000;
                // In units of 1/60,000.
                let used = of(present) * 60_000 + of(present - 1) * left_of_it;
                let fits = cost == 0 || used + cost * 60_000 <= most * 60_000;

                let own = counter.used_at(limit.window, nanos);
                prop_assert_eq!(own, used.div_ceil(60_000));
                prop_assert_eq!(cost == 0 || own + cost <= most, fits);
                if fits {
                    counter = counter.counting(cost);
                    admitted.push((millis, cost));
                } else if cost <= most {
                    // The request fits at `opens_at`, and not one nanosecond earlier.
                    let opens_at = counter.opens_at(&limit, cost);
                    let used_then = |nanos: u64| {
                        counter.at(limit.window, nanos / NANOS_PER_SECOND).used_at(limit.window, nanos)
                    };
                    prop_assert!(opens_at > nanos);
                    prop_assert!(used_then(opens_at) + cost <= most);
                    prop_assert!(used_then(opens_at - 1) + cost > most);
                }
            }
        }

        #[test]
        fn no_numbers_overflow(
            (ends_at, used, used_before) in any::<(u64, u64, u64)>(),
            (second, nanos, room, most, seconds) in any::<(u64, u64, u64, u64, u32)>(),
        ) {
            let window = Window::lasting(std::time::Duration::from_secs(seconds.into()));
            let quota = Quota::new(most, window).sliding();
            let counter = SlidingWindow { ends_at, used, used_before };
            let _ = counter.opens_at(&quota.limits()[0], room);
            let _ = counter.used_at(window, nanos);
            let _ = counter.counting(room).at(window, second).resets_at(window);
        }
    }
}
