//! The arithmetic of aligned windows.

use crate::limit::{Window, window::NANOS_PER_SECOND};

/// The amount used in an aligned window.
///
/// A window is identified by its end. This shows without a division whether an instant is in the window, and callers are shown
/// the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "backends store it in their own format, and it needs no more fields"
)]
pub struct FixedWindow {
    /// The end of the window in seconds since the Unix epoch: see [`Window::end_after`]. 0: no window yet.
    pub ends_at: u64,
    /// The amount used. It can exceed the limit if the limit was lowered.
    pub used: u64,
}

impl FixedWindow {
    /// The counter at `second`, in seconds since the Unix epoch (see
    /// [`LimitRequest::second`](crate::limit::LimitRequest::second)): unchanged within its window, reset in a later window.
    ///
    /// A request that took its instant before a window ended may be counted after that. It joins the newer window; otherwise two
    /// such requests could alternately reset the counter. This applies to instants up to one minute old, or one window if that
    /// is longer. A counter from further in the future means that the clock was set back. The counter is then reset, which
    /// allows one extra window and blocks no caller.
    #[inline]
    pub fn at(self, window: Window, second: u64) -> Self {
        if window.holds(self.ends_at, second) { self } else { self.at_another(window, second) }
    }

    /// Out of line: rarely called (in the first days of a month, too), and the only function here that divides.
    #[cold]
    fn at_another(self, window: Window, second: u64) -> Self {
        let ends_at = window.end_after(second);
        if window.counts_in(self.ends_at, ends_at) { self } else { Self { ends_at, used: 0 } }
    }

    /// Whether `required` units fit below `limit`. Zero units always fit.
    #[inline]
    pub fn has_room(self, required: u64, limit: u64) -> bool {
        has_room(self.used, required, limit)
    }

    /// The counter plus `cost`.
    #[inline]
    pub fn counting(self, cost: u64) -> Self {
        Self { used: self.used.saturating_add(cost), ..self }
    }

    /// The end of the window in nanoseconds.
    pub(super) fn opens_at(self) -> u64 {
        self.ends_at.saturating_mul(NANOS_PER_SECOND)
    }
}

/// Whether `required` units fit below `limit` if `used` are used, for any algorithm. Zero units always fit.
#[inline]
pub(crate) fn has_room(used: u64, required: u64, limit: u64) -> bool {
    required == 0 || used.checked_add(required).is_some_and(|used| used <= limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_late_arrival_joins_the_newer_window_and_a_clock_set_back_resets_the_counter() {
        let counter = FixedWindow { ends_at: 102 * 60, used: 7 };
        assert_eq!(counter.at(Window::MINUTE, 101 * 60 - 1), counter, "late");
        assert_eq!(counter.at(Window::MINUTE, 100 * 60), counter, "a whole window late");
        assert_eq!(counter.at(Window::MINUTE, 101 * 60), counter);
        assert_eq!(counter.at(Window::MINUTE, 102 * 60 - 1), counter);
        assert_eq!(counter.at(Window::MINUTE, 102 * 60), FixedWindow { ends_at: 103 * 60, used: 0 });
        assert_eq!(counter.at(Window::MINUTE, 100 * 60 - 1), FixedWindow { ends_at: 100 * 60, used: 0 });

        let counter = FixedWindow { ends_at: 1_001, used: 7 };
        assert_eq!(counter.at(Window::SECOND, 940), counter, "a minute late");
        assert_eq!(counter.at(Window::SECOND, 939), FixedWindow { ends_at: 940, used: 0 });

        let day = FixedWindow { ends_at: 2 * 86_400, used: 7 };
        assert_eq!(day.at(Window::DAY, 0), day, "a day is longer than a minute");
    }

    #[test]
    fn has_room_does_not_overflow() {
        let counter = FixedWindow { ends_at: 60, used: 1 };
        assert!(!counter.has_room(u64::MAX, u64::MAX));
        assert!(counter.has_room(u64::MAX - 1, u64::MAX));
        assert!(FixedWindow { used: 9, ..counter }.has_room(0, 5), "zero units always fit");
        assert_eq!(counter.counting(u64::MAX).used, u64::MAX);
    }

    #[test]
    fn a_month_counts_from_its_first_second_to_its_last() {
        const DAY: u64 = 86_400;
        let january = 946_684_800; // 2000-01-01
        let month = Window::MONTH;
        let first = FixedWindow::default().at(month, january).counting(1);
        assert_eq!(first, FixedWindow { ends_at: january + 31 * DAY, used: 1 });
        for second in [january, january + DAY, january + 3 * DAY, january + 31 * DAY - 1] {
            assert_eq!(first.at(month, second), first, "{second}");
        }
        let february = FixedWindow { ends_at: january + 60 * DAY, used: 0 };
        assert_eq!(first.at(month, january + 31 * DAY), february);
        let counted = february.counting(1);
        assert_eq!(counted.at(month, january), counted, "late");
        let december = FixedWindow { ends_at: january, used: 0 };
        assert_eq!(counted.at(month, january - 1), december, "the clock was set back");
    }

    /// Walks through the calendar from day to day, and numbers the months that begin on `first_day`.
    struct MonthWalk {
        first_day: u64,
        // The day since the Unix epoch; its year, month and day of the month; the number of the period.
        today: u64,
        date: (u64, u64, u64),
        period: u64,
    }

    impl MonthWalk {
        fn new(first_day: u8) -> Self {
            Self { first_day: first_day.into(), today: 0, date: (1970, 1, 1), period: 0 }
        }

        fn to(&mut self, day: u64) -> u64 {
            while self.today < day {
                let (year, month, day_of_month) = self.date;
                self.date = if day_of_month < days_in(year, month) {
                    (year, month, day_of_month + 1)
                } else if month < 12 {
                    (year, month + 1, 1)
                } else {
                    (year + 1, 1, 1)
                };
                self.today += 1;
                let (year, month, day_of_month) = self.date;
                self.period += u64::from(day_of_month == self.first_day.min(days_in(year, month)));
            }
            self.period
        }
    }

    fn days_in(year: u64, month: u64) -> u64 {
        match month {
            2 if year.is_multiple_of(400) => 29,
            2 if year.is_multiple_of(4) && !year.is_multiple_of(100) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    proptest! {
        /// The naive model of months: a list of admitted requests, each with the year and month of its day, which are found by
        /// walking from day to day.
        #[test]
        fn months_agree_with_a_list_of_admitted_requests(
            steps in prop::collection::vec((0_u64..10 * 86_400, 0_u64..3), 1..200),
            (first_day, limit) in (1_u8..=31, 0_u64..20),
        ) {
            let window = Window::month_from(first_day);
            let (mut counter, mut second) = (FixedWindow::default(), 0);
            let mut walk = MonthWalk::new(first_day);
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            for (wait, cost) in steps {
                second += wait;
                let period = walk.to(second / 86_400);
                counter = counter.at(window, second);
                let used: u64 = admitted.iter().filter(|(of, _)| *of == period).map(|(_, cost)| cost).sum();
                prop_assert_eq!(counter.used, used);
                if counter.has_room(cost, limit) {
                    counter = counter.counting(cost);
                    admitted.push((period, cost));
                }
            }
        }

        /// The naive model: a list of admitted requests with their times, counted again for each request.
        #[test]
        fn agrees_with_a_list_of_admitted_requests(
            steps in prop::collection::vec((0_u64..40, 0_u64..3), 1..200),
            (length, limit) in (prop::sample::select(vec![1_u32, 7, 60]), 0_u64..6),
        ) {
            let window = Window::lasting(std::time::Duration::from_secs(length.into()));
            let (mut counter, mut second) = (FixedWindow::default(), 0);
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            for (wait, cost) in steps {
                second += wait;
                counter = counter.at(window, second);
                let same_window = |earlier: u64| earlier / u64::from(length) == second / u64::from(length);
                let used: u64 = admitted.iter().filter(|(at, _)| same_window(*at)).map(|(_, cost)| cost).sum();
                prop_assert_eq!(counter.used, used);
                prop_assert_eq!(counter.ends_at, (second / u64::from(length) + 1) * u64::from(length));
                prop_assert_eq!(counter.has_room(cost, limit), cost == 0 || used + cost <= limit);
                if counter.has_room(cost, limit) {
                    counter = counter.counting(cost);
                    admitted.push((second, cost));
                }
            }
        }
    }
}
