//! Windows: where they begin and end, and conversions of instants to seconds and nanoseconds.

mod months;

use std::{
    cell::Cell,
    cmp::Ordering,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A repeating length of time: a number of seconds, or a calendar month. All windows begin and end in UTC.
///
/// | window | begins |
/// |---|---|
/// | [`MONTH`](Self::MONTH), [`month_from`](Self::month_from) | on its first day, at midnight |
/// | [`WEEK`](Self::WEEK), and any number of whole weeks | on a Monday, at midnight |
/// | any other | a whole number of lengths after the Unix epoch: a minute at second 0, a day at midnight |
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    // The seconds, or `LONGEST` plus the first day of a month. One number, because each request compares windows.
    code: u32,
}

/// What a window's number stands for.
enum Kind {
    Seconds(u32),
    Month { first_day: u8 },
}

/// The longest window in seconds: 136 years.
const LONGEST: u32 = u32::MAX - 31;

const SECONDS_PER_WEEK: u64 = 7 * 86_400;
/// Monday, 1970-01-05.
const FIRST_MONDAY: u64 = 4 * 86_400;
const SECONDS_OF_SHORTEST_MONTH: u32 = 28 * 86_400;
/// The mean over the 400 years after which the calendar repeats: 146,097 days in 4,800 months.
const SECONDS_OF_MEAN_MONTH: u32 = 2_629_746;

impl Window {
    /// Every second.
    pub const SECOND: Self = Self { code: 1 };
    /// Every minute.
    pub const MINUTE: Self = Self { code: 60 };
    /// Every hour.
    pub const HOUR: Self = Self { code: 3_600 };
    /// Every day, from midnight UTC.
    pub const DAY: Self = Self { code: 86_400 };
    /// Every seven days, from Monday, midnight UTC.
    pub const WEEK: Self = Self { code: 7 * 86_400 };
    /// Every calendar month, from the first, midnight UTC.
    pub const MONTH: Self = Self { code: LONGEST + 1 };

    /// Every month from the given day on, midnight UTC: a billing period. A month without this day begins on its last day, and the
    /// next one on the given day again. With 31, months begin on January 31, February 28 (or 29), March 31 and April 30.
    ///
    /// 0 is taken as 1, and a number above 31 as 31.
    ///
    /// ```
    /// use tollgate_core::limit::{PerWindow, Window};
    ///
    /// let quota = 10_000.per(Window::month_from(17));
    /// assert_eq!(quota.to_string(), "10000 per month from day 17");
    /// ```
    pub const fn month_from(day: u8) -> Self {
        let day = match day {
            0 => 1,
            1..=31 => day,
            _ => 31,
        };
        Self { code: LONGEST + day as u32 }
    }

    /// A window of another length, rounded up to whole seconds: one second to 136 years. Whole weeks begin on a Monday, all other
    /// lengths are aligned to the Unix epoch.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate_core::limit::{PerWindow, Window};
    ///
    /// let quota = 15.per(Window::lasting(Duration::from_secs(900)));
    /// assert_eq!(quota.to_string(), "15 per 900 s");
    /// ```
    pub fn lasting(length: Duration) -> Self {
        let seconds = length.as_secs().saturating_add(u64::from(length.subsec_nanos() > 0));
        Self { code: u32::try_from(seconds).unwrap_or(LONGEST).clamp(1, LONGEST) }
    }

    /// The length of the window. Months differ: theirs is the mean, 30.436875 days.
    pub fn length(self) -> Duration {
        Duration::from_secs(self.seconds().into())
    }

    /// The [length](Self::length) of the window in seconds, at least one.
    pub fn seconds(self) -> u32 {
        match self.kind() {
            Kind::Seconds(seconds) => seconds,
            Kind::Month { .. } => SECONDS_OF_MEAN_MONTH,
        }
    }

    /// The end of the window that contains `second`, which is the start of the next one. Both in seconds since the Unix epoch.
    pub fn end_after(self, second: u64) -> u64 {
        match self.kind() {
            Kind::Seconds(length) => second.saturating_add(u64::from(length) - passed(length, second)),
            Kind::Month { first_day } => months::end_after(first_day, second),
        }
    }

    /// The start of the window that contains `second`, in seconds since the Unix epoch; 0 if the window began before it.
    pub fn start_of(self, second: u64) -> u64 {
        match self.kind() {
            Kind::Seconds(length) => second.saturating_sub(passed(length, second)),
            Kind::Month { first_day } => months::start_of(first_day, second),
        }
    }

    /// The length in seconds of the window that ends at `ends_at`: at least one.
    pub fn seconds_until(self, ends_at: u64) -> u64 {
        match self.kind() {
            Kind::Seconds(length) => length.into(),
            Kind::Month { .. } => ends_at.saturating_sub(self.start_of(ends_at.saturating_sub(1))).max(1),
        }
    }

    /// The [length](Self::length) of the window in nanoseconds.
    pub(crate) fn nanos(self) -> u64 {
        u64::from(self.seconds()) * NANOS_PER_SECOND
    }

    /// Whether `second` is in the window that ends at `ends_at`. Not exact for a month: `false` before its last 28 days, which no
    /// month is shorter than. [`counts_in`](Self::counts_in) is exact.
    #[inline]
    pub(crate) fn holds(self, ends_at: u64, second: u64) -> bool {
        let length = if self.code <= LONGEST { self.code } else { SECONDS_OF_SHORTEST_MONTH };
        second < ends_at && ends_at - second <= u64::from(length)
    }

    /// Whether a request whose window ends at `ends_at` counts in the window that ends at `counted`: the same one, or a later one if
    /// the request is late. The tolerance is the number of whole windows in a minute, at least one.
    pub(crate) fn counts_in(self, counted: u64, ends_at: u64) -> bool {
        let latest = match self.kind() {
            Kind::Seconds(length) => {
                ends_at.saturating_add(u64::from((60 / length).max(1)) * u64::from(length))
            }
            Kind::Month { .. } => self.end_after(ends_at),
        };
        (ends_at..=latest).contains(&counted)
    }

    /// The day on which a month begins; `None` for other windows.
    pub fn first_day(self) -> Option<u8> {
        match self.kind() {
            Kind::Seconds(_) => None,
            Kind::Month { first_day } => Some(first_day),
        }
    }

    fn kind(self) -> Kind {
        match self.code.checked_sub(LONGEST) {
            None | Some(0) => Kind::Seconds(self.code),
            // Cannot fail: it is at most 31.
            Some(day) => Kind::Month { first_day: u8::try_from(day).unwrap_or(31) },
        }
    }
}

/// How many seconds of a window of this length have passed at `second`.
fn passed(length: u32, second: u64) -> u64 {
    let length = u64::from(length);
    let since_monday = if length.is_multiple_of(SECONDS_PER_WEEK) { length - FIRST_MONDAY } else { 0 };
    (second % length + since_monday) % length
}

/// By length, and then by the first day.
impl Ord for Window {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.seconds(), self.code).cmp(&(other.seconds(), other.code))
    }
}

impl PartialOrd for Window {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Nanoseconds per second.
pub(crate) const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds since the Unix epoch: 0 for any time before it, the maximum for any time after the year 2554.
pub(crate) fn nanos_of(instant: SystemTime) -> u64 {
    let since_epoch = instant.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}

/// Whole seconds since the Unix epoch; 0 for any time before it.
#[inline]
pub(crate) fn second_of(instant: SystemTime) -> u64 {
    thread_local! {
        // Start, end and number of the last second used. The subtraction takes longer than the rest of a window's arithmetic,
        // and many requests arrive in the same second.
        static LAST: Cell<(SystemTime, SystemTime, u64)> = const { Cell::new((UNIX_EPOCH, UNIX_EPOCH, 0)) };
    }
    #[cold]
    fn subtract(instant: SystemTime) -> u64 {
        let second = instant.duration_since(UNIX_EPOCH).map_or(0, |since_epoch| since_epoch.as_secs());
        let begins = instant_of(second);
        if let Some(ends) = begins.checked_add(Duration::from_secs(1))
            && begins <= instant
        {
            LAST.set((begins, ends, second));
        }
        second
    }

    let (begins, ends, second) = LAST.get();
    if begins <= instant && instant < ends { second } else { subtract(instant) }
}

/// The instant of a second since the Unix epoch. The epoch itself if `SystemTime` cannot represent the second.
pub(crate) fn instant_of(second: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(second)).unwrap_or(UNIX_EPOCH)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SECOND => f.write_str("second"),
            Self::MINUTE => f.write_str("minute"),
            Self::HOUR => f.write_str("hour"),
            Self::DAY => f.write_str("day"),
            Self::WEEK => f.write_str("week"),
            Self::MONTH => f.write_str("month"),
            other => match other.kind() {
                Kind::Seconds(seconds) => write!(f, "{seconds} s"),
                Kind::Month { first_day } => write!(f, "month from day {first_day}"),
            },
        }
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Window({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_to_utc() {
        let second = 1_000_000_000; // 2001-09-09T01:46:40Z
        assert_eq!(Window::MINUTE.end_after(second), 1_000_000_020);
        assert_eq!(Window::HOUR.end_after(second), 1_000_000_800);
        assert_eq!(Window::DAY.end_after(second), 1_000_080_000);
        assert_eq!(Window::DAY.end_after(86_399), 86_400);
        assert_eq!(Window::DAY.end_after(86_400), 172_800, "an end belongs to the next window");
        assert_eq!((Window::HOUR.start_of(second), Window::HOUR.start_of(3_600)), (999_997_200, 3_600));
    }

    /// Seconds of days, as `date -u` writes them.
    const SATURDAY_2000_01_01: u64 = 946_684_800;
    const MONDAY_2001_09_10: u64 = 1_000_080_000;
    const DAY: u64 = 86_400;

    #[test]
    fn whole_weeks_begin_on_a_monday() {
        let second = 1_000_000_000; // Sunday, 2001-09-09
        assert_eq!(Window::WEEK.end_after(second), MONDAY_2001_09_10);
        assert_eq!(Window::WEEK.start_of(MONDAY_2001_09_10 - 1), MONDAY_2001_09_10 - 7 * DAY);
        assert_eq!(Window::WEEK.start_of(MONDAY_2001_09_10), MONDAY_2001_09_10);
        assert_eq!((Window::WEEK.start_of(0), Window::WEEK.end_after(0)), (0, 4 * DAY), "a Thursday");
        let fortnight = Window::lasting(Duration::from_secs(14 * DAY));
        assert_eq!((fortnight.end_after(second) - MONDAY_2001_09_10) % (7 * DAY), 0);
        assert_eq!(Window::lasting(Duration::from_secs(7 * DAY)), Window::WEEK);
    }

    #[test]
    fn months_begin_on_their_first_day_or_on_their_last_one_if_they_are_shorter() {
        let ends = |window: Window| {
            let mut end = SATURDAY_2000_01_01;
            std::array::from_fn(|_| {
                end = window.end_after(end);
                (end - SATURDAY_2000_01_01) / DAY
            })
        };
        assert_eq!(ends(Window::MONTH), [31, 60, 91, 121], "2000 is a leap year");
        assert_eq!(ends(Window::month_from(17)), [16, 47, 76, 107]);
        let of_31st = [30, 31 + 28, 60 + 30, 91 + 29];
        assert_eq!(ends(Window::month_from(31)), of_31st, "it does not drift");
        assert_eq!((Window::month_from(0), Window::month_from(1)), (Window::MONTH, Window::MONTH));
        assert_eq!(Window::month_from(200), Window::month_from(31));
        assert_eq!(Window::MONTH.seconds_until(SATURDAY_2000_01_01 + 60 * DAY), 29 * DAY);
    }

    #[test]
    fn windows_are_ordered_by_length() {
        let seconds = |seconds| Window::lasting(Duration::from_secs(seconds));
        let sorted = [
            Window::SECOND,
            Window::WEEK,
            seconds(30 * DAY),
            Window::MONTH,
            Window::month_from(2),
            seconds(31 * DAY),
        ];
        assert!(sorted.is_sorted());
    }

    #[test]
    fn a_second_is_found_in_its_month_exactly() {
        let end = Window::MONTH.end_after(SATURDAY_2000_01_01);
        for (second, is_quick) in [
            (SATURDAY_2000_01_01 - 1, false),
            (SATURDAY_2000_01_01, false),
            (end - 28 * DAY - 1, false),
            (end - 28 * DAY, true),
            (end - 1, true),
            (end, false),
        ] {
            assert_eq!(Window::MONTH.holds(end, second), is_quick, "{second}");
        }
        let next = Window::MONTH.end_after(end);
        let counts_in = |counted, second| Window::MONTH.counts_in(counted, Window::MONTH.end_after(second));
        assert!(
            counts_in(end, SATURDAY_2000_01_01) && counts_in(next, end - 1),
            "its own month, or the next"
        );
        assert!(!counts_in(end, end) && !counts_in(Window::MONTH.end_after(next), end - 1));
    }

    #[test]
    fn extreme_lengths_and_times_are_bounded() {
        assert_eq!(Window::lasting(Duration::ZERO), Window::SECOND);
        assert_eq!(Window::lasting(Duration::from_millis(1_500)).length(), Duration::from_secs(2));
        assert_eq!(Window::lasting(Duration::MAX).length(), Duration::from_secs(LONGEST.into()));
        assert_eq!(second_of(UNIX_EPOCH - Duration::from_secs(5)), 0);
        for nanos in
            [0, 1, 999_999_999, 1_000_000_000, 1_000_000_001, 999_999_999, 1_999_999_999, 2_000_000_000]
        {
            let instant = UNIX_EPOCH + Duration::from_nanos(nanos);
            assert_eq!(second_of(instant), nanos / 1_000_000_000, "{nanos}");
        }
        assert_eq!(Window::DAY.end_after(u64::MAX), u64::MAX);
        assert_eq!(instant_of(u64::MAX), UNIX_EPOCH);
    }
}
