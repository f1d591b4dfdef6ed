//! The arithmetic of sliding windows.

use crate::limit::{Window, WindowLimit, window::NANOS_PER_SECOND};

/// How much of a sliding window is used: two aligned windows in a row, over which the window slides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "backends keep it in a form of their own, and there is no more to it"
)]
pub struct SlidingWindow {
    /// The second at which the present aligned window ends, counted from the Unix epoch. 0 for no window yet.
    pub ends_at: u64,
    /// What has been used of it.
    pub used: u64,
    /// What was used of the one before it.
    pub used_before: u64,
}

impl SlidingWindow {
    /// The counter as it stands in `second`, counted from the Unix epoch. Late arrivals join the newer window, and a clock that
    /// was set back starts afresh, as for [aligned windows](crate::limit::FixedWindow::at).
    pub fn at(self, window: Window, second: u64) -> Self {
        if window.holds(self.ends_at, second) {
            return self;
        }
        let ends_at = window.end_after(second);
        if window.is_late(self.ends_at, ends_at) {
            return self;
        }
        let is_next = self.ends_at > 0 && ends_at.checked_sub(self.ends_at) == Some(window.seconds().into());
        Self { ends_at, used: 0, used_before: if is_next { self.used } else { 0 } }
    }

    /// How much is used at `nanos`: of what was used before, the share that has not slid out, rounded up.
    pub(super) fn used_at(self, window: Window, nanos: u64) -> u64 {
        let left = self.end().saturating_sub(nanos).min(window.nanos());
        let share = (u128::from(self.used_before) * u128::from(left)).div_ceil(window.nanos().into());
        // A share is no more than the whole.
        self.used.saturating_add(u64::try_from(share).unwrap_or(u64::MAX))
    }

    /// The counter after so much was counted.
    pub fn counting(self, cost: u64) -> Self {
        Self { used: self.used.saturating_add(cost), ..self }
    }

    pub(super) fn resets_at(self, window: Window) -> u64 {
        let after = if self.used > 0 { window.seconds().into() } else { 0 };
        self.ends_at.saturating_add(after)
    }

    /// When there is room for so much.
    pub(super) fn opens_at(self, limit: &WindowLimit, room: u64) -> u64 {
        let length = limit.window.nanos();
        // How long before the end of a window so much of the one before it has slid out that `free` is left.
        let lead = |free: u64, used_before: u64| {
            let lead = (u128::from(free) * u128::from(length)).checked_div(used_before.into());
            lead.and_then(|lead| u64::try_from(lead).ok()).unwrap_or(length).min(length)
        };
        match limit.limit.checked_sub(room) {
            None => self.resets_at(limit.window).saturating_mul(NANOS_PER_SECOND),
            Some(free) => match free.checked_sub(self.used) {
                Some(free) => self.end().saturating_sub(lead(free, self.used_before)),
                None => self.end().saturating_add(length).saturating_sub(lead(free, self.used)),
            },
        }
    }

    /// The nanosecond at which the present window ends.
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
    fn what_was_used_before_slides_out_evenly() {
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
    fn two_windows_later_nothing_is_left() {
        let counter = SlidingWindow { ends_at: 60, used: 8, used_before: 8 };
        assert_eq!(counter.at(Window::MINUTE, 120), SlidingWindow { ends_at: 180, used: 0, used_before: 0 });
    }

    #[test]
    fn a_request_that_never_fits_is_told_when_the_window_is_empty() {
        let counter = SlidingWindow { ends_at: 60, used: 1, used_before: 0 };
        assert_eq!(counter.opens_at(&limit(5), 6), 2 * MINUTE);
    }

    proptest! {
        /// The naive model: a list of what was admitted and when, of which the present window's count in full, the one
        /// before's by the share that is left of it: in fractions, not in numbers that were rounded.
        #[test]
        fn agrees_with_a_list_of_what_was_admitted(
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
                // In sixty-thousandths.
                let used = of(present) * 60_000 + of(present - 1) * left_of_it;
                let fits = cost == 0 || used + cost * 60_000 <= most * 60_000;

                let own = counter.used_at(limit.window, nanos);
                prop_assert_eq!(own, used.div_ceil(60_000));
                prop_assert_eq!(cost == 0 || own + cost <= most, fits);
                if fits {
                    counter = counter.counting(cost);
                    admitted.push((millis, cost));
                } else if cost <= most {
                    // Then it fits, and a moment before it does not.
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
