//! Quotas: how many requests a window admits, said the way one speaks.

use std::{
    cell::Cell,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use smallvec::{SmallVec, smallvec};

/// Limits per window, all of which hold at once.
///
/// ```
/// use tollgate_core::{PerWindow, Quota};
///
/// let quota = 60.per_minute().and(1_000.per_hour()).and(10_000.per_day());
/// assert_eq!(quota.to_string(), "60 per minute, 1000 per hour, 10000 per day");
/// ```
///
/// Windows are aligned to UTC: a minute begins at second 0, a day at midnight UTC. Naming a window twice keeps the
/// smaller limit, since both must hold. A limit of 0 admits nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    // Sorted by window, shortest first. Four windows (second, minute, hour, day) stay off the heap.
    limits: SmallVec<[WindowLimit; 4]>,
}

impl Quota {
    /// No limit at all: every request is admitted and no numbers are shown.
    pub fn unlimited() -> Self {
        Self { limits: SmallVec::new() }
    }

    /// `limit` requests in each `window`.
    pub fn new(limit: u64, window: Window) -> Self {
        Self { limits: smallvec![WindowLimit { window, limit }] }
    }

    /// Both quotas at once.
    pub fn and(mut self, other: Quota) -> Self {
        for added in other.limits {
            match self.limits.binary_search_by_key(&added.window, |own| own.window) {
                Ok(at) => {
                    if let Some(own) = self.limits.get_mut(at) {
                        own.limit = own.limit.min(added.limit);
                    }
                }
                Err(at) => self.limits.insert(at, added),
            }
        }
        self
    }

    /// The limits, shortest window first.
    #[inline]
    pub fn limits(&self) -> &[WindowLimit] {
        &self.limits
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.limits.is_empty() {
            return f.write_str("unlimited");
        }
        for (at, WindowLimit { window, limit }) in self.limits.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{limit} per {window}")?;
        }
        Ok(())
    }
}

/// One window's limit within a [`Quota`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WindowLimit {
    /// The window.
    pub window: Window,
    /// How many requests (or units of cost) it admits.
    pub limit: u64,
}

/// Reads as a sentence: `60.per_minute()`.
pub trait PerWindow {
    /// This many in every second.
    fn per_second(self) -> Quota;
    /// This many in every minute, from second 0.
    fn per_minute(self) -> Quota;
    /// This many in every hour, from minute 0.
    fn per_hour(self) -> Quota;
    /// This many in every day, from midnight UTC.
    fn per_day(self) -> Quota;
    /// This many in every window of another length.
    fn per(self, window: Window) -> Quota;
}

impl PerWindow for u64 {
    fn per_second(self) -> Quota {
        self.per(Window::SECOND)
    }

    fn per_minute(self) -> Quota {
        self.per(Window::MINUTE)
    }

    fn per_hour(self) -> Quota {
        self.per(Window::HOUR)
    }

    fn per_day(self) -> Quota {
        self.per(Window::DAY)
    }

    fn per(self, window: Window) -> Quota {
        Quota::new(self, window)
    }
}

/// A length of time that repeats, aligned to the Unix epoch: whole seconds, at least one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    seconds: u32,
}

impl Window {
    /// Every second.
    pub const SECOND: Self = Self { seconds: 1 };
    /// Every minute.
    pub const MINUTE: Self = Self { seconds: 60 };
    /// Every hour.
    pub const HOUR: Self = Self { seconds: 3_600 };
    /// Every day, from midnight UTC.
    pub const DAY: Self = Self { seconds: 86_400 };

    /// A window of another length, rounded up to whole seconds; from one second to 136 years.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate_core::{PerWindow, Window};
    ///
    /// let quota = 15.per(Window::lasting(Duration::from_secs(900)));
    /// assert_eq!(quota.to_string(), "15 per 900 s");
    /// ```
    pub fn lasting(length: Duration) -> Self {
        let seconds = length.as_secs().saturating_add(u64::from(length.subsec_nanos() > 0));
        Self { seconds: u32::try_from(seconds).unwrap_or(u32::MAX).max(1) }
    }

    /// How long the window lasts.
    pub fn length(self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// How many seconds the window lasts; at least one.
    pub fn seconds(self) -> u32 {
        self.seconds
    }

    /// The second at which the window that `second` lies in ends and the next one begins, both counted from the Unix epoch.
    pub fn end_after(self, second: u64) -> u64 {
        let length = u64::from(self.seconds);
        second.saturating_add(length - second % length)
    }

    /// How many seconds before its beginning a request may be dated and still be a late arrival's: whole windows that
    /// fit into a minute, at least one.
    pub(crate) fn late_arrivals(self) -> u64 {
        u64::from((60 / self.seconds).max(1)) * u64::from(self.seconds)
    }
}

/// Whole seconds since the Unix epoch; 0 for any time before it.
#[inline]
pub(crate) fn second_of(instant: SystemTime) -> u64 {
    thread_local! {
        // A second's beginning, its end, and its number. To subtract takes longer than all that a window's arithmetic does,
        // and a second has many requests.
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

/// The instant of a second; the Unix epoch for one that no `SystemTime` holds, and no clock can show.
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
            Self { seconds } => write!(f, "{seconds} s"),
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
    fn reads_as_one_speaks_and_sorts_its_windows() {
        let quota = 10_000.per_day().and(60.per_minute()).and(1_000.per_hour());
        assert_eq!(quota.to_string(), "60 per minute, 1000 per hour, 10000 per day");
        assert_eq!(Quota::unlimited().to_string(), "unlimited");
    }

    #[test]
    fn naming_a_window_twice_keeps_the_smaller_limit() {
        assert_eq!(60.per_minute().and(30.per_minute()), 30.per_minute());
        assert_eq!(30.per_minute().and(60.per_minute()), 30.per_minute());
    }

    #[test]
    fn windows_are_aligned_to_utc() {
        let noon_and_a_bit = 1_000_000_000; // 2001-09-09T01:46:40Z
        assert_eq!(Window::MINUTE.end_after(noon_and_a_bit), 1_000_000_020);
        assert_eq!(Window::HOUR.end_after(noon_and_a_bit), 1_000_000_800);
        assert_eq!(Window::DAY.end_after(noon_and_a_bit), 1_000_080_000);
        assert_eq!(Window::DAY.end_after(86_399), 86_400);
        assert_eq!(Window::DAY.end_after(86_400), 172_800, "an end belongs to the next window");
    }

    #[test]
    fn odd_lengths_and_odd_times_are_bounded() {
        assert_eq!(Window::lasting(Duration::ZERO), Window::SECOND);
        assert_eq!(Window::lasting(Duration::from_millis(1_500)).length(), Duration::from_secs(2));
        assert_eq!(Window::lasting(Duration::MAX).length(), Duration::from_secs(u32::MAX.into()));
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
