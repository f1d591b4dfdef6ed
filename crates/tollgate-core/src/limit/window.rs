//! Windows: lengths of time aligned to UTC, and conversions of instants to seconds and nanoseconds.

use std::{
    cell::Cell,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A repeating length of time, aligned to the Unix epoch: whole seconds, at least one.
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

    /// A window of another length, rounded up to whole seconds: one second to 136 years.
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
        Self { seconds: u32::try_from(seconds).unwrap_or(u32::MAX).max(1) }
    }

    /// The length of the window.
    pub fn length(self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// The length of the window in seconds, at least one.
    pub fn seconds(self) -> u32 {
        self.seconds
    }

    /// The end of the window that contains `second`, which is the start of the next one. Both in seconds since the Unix epoch.
    pub fn end_after(self, second: u64) -> u64 {
        let length = u64::from(self.seconds);
        second.saturating_add(length - second % length)
    }

    /// The length of the window in nanoseconds.
    pub(crate) fn nanos(self) -> u64 {
        u64::from(self.seconds) * NANOS_PER_SECOND
    }

    /// Whether `second` is in the window of this length that ends at `ends_at`.
    #[inline]
    pub(crate) fn holds(self, ends_at: u64, second: u64) -> bool {
        second < ends_at && ends_at - second <= u64::from(self.seconds)
    }

    /// Whether a request whose window ends at `ends_at` is a late arrival for a window that ends at `later`. The tolerance is the
    /// number of whole windows in a minute, at least one.
    pub(crate) fn is_late(self, later: u64, ends_at: u64) -> bool {
        let tolerance = u64::from((60 / self.seconds).max(1)) * u64::from(self.seconds);
        later > ends_at && later - ends_at <= tolerance
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
    fn windows_are_aligned_to_utc() {
        let second = 1_000_000_000; // 2001-09-09T01:46:40Z
        assert_eq!(Window::MINUTE.end_after(second), 1_000_000_020);
        assert_eq!(Window::HOUR.end_after(second), 1_000_000_800);
        assert_eq!(Window::DAY.end_after(second), 1_000_080_000);
        assert_eq!(Window::DAY.end_after(86_399), 86_400);
        assert_eq!(Window::DAY.end_after(86_400), 172_800, "an end belongs to the next window");
    }

    #[test]
    fn extreme_lengths_and_times_are_bounded() {
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
