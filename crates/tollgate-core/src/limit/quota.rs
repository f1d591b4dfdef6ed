//! Quotas: the number of requests per window.

use std::{error::Error, fmt, str::FromStr, time::Duration};

use smallvec::{SmallVec, smallvec};

use crate::limit::{TokenBucket, Window};

/// Limits per window. All limits apply at the same time.
///
/// ```
/// use tollgate_core::limit::{PerWindow, Quota};
///
/// let quota = 60.per_minute().and(1_000.per_hour()).and(10_000.per_day());
/// assert_eq!(quota.to_string(), "60 per minute, 1000 per hour, 10000 per day");
/// ```
///
/// Windows are aligned to UTC: a minute begins at second 0, a day at midnight, a week on Monday, a month on the first or on
/// [another day](PerWindow::per_month_from). [`sliding`](Self::sliding) and
/// [`with_burst`](Self::with_burst) change the [algorithm](Algorithm) of the limits before them:
///
/// ```
/// use tollgate_core::limit::PerWindow;
///
/// let quota = 10.per_second().with_burst(30).and(1_000.per_hour().sliding()).and(10_000.per_day());
/// assert_eq!(quota.to_string(), "10 per second in bursts of 30, 1000 per sliding hour, 10000 per day");
/// ```
///
/// Of two limits with the same window and algorithm, the smaller one remains. A limit of 0 admits nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    // Sorted by window, shortest first, at most one for each algorithm. Up to four (second, minute, hour, day) need no heap.
    limits: SmallVec<[WindowLimit; 4]>,
}

impl Quota {
    /// No limit: every request is admitted, and no rate-limit headers are written for it.
    pub fn unlimited() -> Self {
        Self { limits: SmallVec::new() }
    }

    /// `limit` requests in each `window`.
    pub fn new(limit: u64, window: Window) -> Self {
        Self { limits: smallvec![WindowLimit { window, limit, algorithm: Algorithm::FixedWindow }] }
    }

    /// Combines two quotas: the limits of both apply.
    pub fn and(mut self, other: Quota) -> Self {
        for added in other.limits {
            match self.limits.binary_search_by_key(&added.key(), WindowLimit::key) {
                Ok(at) => {
                    if let Some(own) = self.limits.get_mut(at) {
                        own.tighten(added);
                    }
                }
                Err(at) => self.limits.insert(at, added),
            }
        }
        self
    }

    /// Changes all limits so far to [sliding windows](Algorithm::SlidingWindow).
    pub fn sliding(self) -> Self {
        self.by(Algorithm::SlidingWindow)
    }

    /// Changes all limits so far to [token buckets](Algorithm::TokenBucket) of this size.
    pub fn with_burst(self, burst: u64) -> Self {
        self.by(Algorithm::TokenBucket { burst })
    }

    fn by(self, algorithm: Algorithm) -> Self {
        let limits = self.limits.into_iter().map(|limit| WindowLimit { algorithm, ..limit });
        // Merged again: limits that differed only by algorithm can now be the same limit.
        let single = limits.map(|limit| Self { limits: smallvec![limit] });
        single.fold(Self::unlimited(), Self::and)
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
        for (at, limit) in self.limits.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{limit}")?;
        }
        Ok(())
    }
}

impl FromStr for Quota {
    type Err = InvalidQuota;

    /// Parses the output of `Display`. Also accepts `60/minute` for `60 per minute`.
    ///
    /// # Errors
    /// [`InvalidQuota`] for any other text.
    fn from_str(text: &str) -> Result<Self, InvalidQuota> {
        if text.trim() == "unlimited" {
            return Ok(Self::unlimited());
        }
        let limits =
            text.split(',').map(|limit| read_limit(limit).ok_or_else(|| InvalidQuota(limit.trim().into())));
        limits.into_iter().try_fold(Self::unlimited(), |quota, limit| Ok(quota.and(limit?)))
    }
}

/// Parses one limit, as `Display` writes it.
fn read_limit(text: &str) -> Option<Quota> {
    let (limit, rest) = text.split_once(" per ").or_else(|| text.split_once('/'))?;
    let (rest, burst) = match rest.split_once(" in bursts of ") {
        Some((rest, burst)) => (rest, Some(burst.trim().parse().ok()?)),
        None => (rest, None),
    };
    let (window, is_sliding) = match rest.trim().strip_prefix("sliding ") {
        Some(window) => (window, true),
        None => (rest.trim(), false),
    };
    let window = match window {
        "second" => Window::SECOND,
        "minute" => Window::MINUTE,
        "hour" => Window::HOUR,
        "day" => Window::DAY,
        "week" => Window::WEEK,
        "month" => Window::MONTH,
        other if other.starts_with("month from day ") => {
            let day = other.rsplit_once(' ')?.1.parse().ok().filter(|day| (1..=31).contains(day))?;
            Window::month_from(day)
        }
        other => match other.strip_suffix('s')?.trim().parse::<u32>().ok()? {
            0 => return None,
            seconds => Window::lasting(Duration::from_secs(seconds.into())),
        },
    };
    let quota = Quota::new(limit.trim().parse().ok()?, window);
    match (is_sliding, burst) {
        (false, None) => Some(quota),
        (true, None) => Some(quota.sliding()),
        (false, Some(burst)) => Some(quota.with_burst(burst)),
        (true, Some(_)) => None,
    }
}

/// The text is not a [`Quota`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidQuota(Box<str>);

impl fmt::Display for InvalidQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a limit: write `60/minute` or `60 per minute`, `1000 per sliding hour`, `10 per second in bursts of 30`, \
             `15 per 900 s`, `20000 per month`, `20000 per month from day 17`, several limits separated by commas, or `unlimited`",
            self.0.escape_debug()
        )
    }
}

impl Error for InvalidQuota {}

/// The limit of one window in a [`Quota`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WindowLimit {
    /// The window.
    pub window: Window,
    /// The number of requests, or units of cost, per window.
    pub limit: u64,
    /// The algorithm that counts them.
    pub algorithm: Algorithm,
}

impl WindowLimit {
    /// The number of requests, or units of cost, that can be admitted at once: the window's limit, or the size of the bucket.
    pub fn capacity(&self) -> u64 {
        match self.algorithm {
            Algorithm::TokenBucket { burst } => TokenBucket::capacity(self, burst),
            _ => self.limit,
        }
    }

    fn key(&self) -> (Window, u8) {
        (self.window, self.algorithm.number())
    }

    /// Keeps the smaller of two limits with the same window and algorithm.
    fn tighten(&mut self, other: Self) {
        self.limit = self.limit.min(other.limit);
        if let (Algorithm::TokenBucket { burst }, Algorithm::TokenBucket { burst: other }) =
            (&mut self.algorithm, other.algorithm)
        {
            *burst = other.min(*burst);
        }
    }
}

impl fmt::Display for WindowLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { window, limit, algorithm } = self;
        match algorithm {
            Algorithm::FixedWindow => write!(f, "{limit} per {window}"),
            Algorithm::SlidingWindow => write!(f, "{limit} per sliding {window}"),
            Algorithm::TokenBucket { burst } => write!(f, "{limit} per {window} in bursts of {burst}"),
        }
    }
}

/// The algorithm of a limit.
///
/// The *reset* shown to callers is the instant at which the whole limit is available again, if no more requests are counted.
/// `Retry-After` is the time until the refused request would fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// Windows aligned to UTC, each starting at zero. The default, and the usual meaning of "resets every minute". A caller that
    /// uses one window at its end and the next one at its start can send twice the limit in a short time.
    ///
    /// Reset: the end of the window. `Retry-After`: the same.
    #[default]
    FixedWindow,
    /// The last window's length at every instant: the count of the current aligned window, plus the part of the previous one
    /// that still overlaps, as if its requests were evenly spread. Callers cannot burst at a window boundary.
    ///
    /// Reset: the end of the current window if only the previous one has counts, otherwise the end of the next one.
    /// `Retry-After`: when enough requests have left the window, which is earlier.
    SlidingWindow,
    /// A bucket that refills at a constant rate, the limit per window, and holds at most `burst` tokens. Implemented as the
    /// generic cell rate algorithm. A month has its mean length, 30.436875 days. Callers see the bucket's size as the limit,
    /// and the tokens in it as the remaining quota.
    ///
    /// Reset: when the bucket is full. `Retry-After`: when it holds enough tokens, which is earlier.
    TokenBucket {
        /// The number of tokens the bucket holds. At most the tokens of 100 years. 0 admits nothing.
        burst: u64,
    },
}

impl Algorithm {
    /// Identifies the algorithm, without its parameters.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::FixedWindow => 0,
            Self::SlidingWindow => 1,
            Self::TokenBucket { .. } => 2,
        }
    }
}

/// Creates quotas from numbers: `60.per_minute()`.
pub trait PerWindow {
    /// This many per second.
    fn per_second(self) -> Quota;
    /// This many per minute, from second 0.
    fn per_minute(self) -> Quota;
    /// This many per hour, from minute 0.
    fn per_hour(self) -> Quota;
    /// This many per day, from midnight UTC.
    fn per_day(self) -> Quota;
    /// This many per week, from Monday, midnight UTC.
    fn per_week(self) -> Quota;
    /// This many per calendar month, from the first, midnight UTC.
    fn per_month(self) -> Quota;
    /// This many per month from the given day on, such as a tenant's billing day: see [`Window::month_from`]. Quotas by tenant come
    /// from a function of the policy, or from the key. Another day is another window, which starts at zero.
    fn per_month_from(self, day: u8) -> Quota;
    /// This many per window of any length.
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

    fn per_week(self) -> Quota {
        self.per(Window::WEEK)
    }

    fn per_month(self) -> Quota {
        self.per(Window::MONTH)
    }

    fn per_month_from(self, day: u8) -> Quota {
        self.per(Window::month_from(day))
    }

    fn per(self, window: Window) -> Quota {
        Quota::new(self, window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for quota in [
            Quota::unlimited(),
            60.per_minute(),
            0.per_day(),
            60.per_minute().and(1_000.per_hour().sliding()).and(10.per_second().with_burst(30)),
            15.per(Window::lasting(Duration::from_secs(900))).sliding().and(u64::MAX.per_day()),
            1.per_week().and(2.per_month()).and(3.per_month_from(31)).sliding(),
            4.per_month_from(2).with_burst(5),
        ] {
            assert_eq!(quota.to_string().parse(), Ok(quota));
        }
        assert_eq!("60/minute,5/second".parse(), Ok(60.per_minute().and(5.per_second())));
        assert_eq!("1000/month from day 17".parse(), Ok(1_000.per_month_from(17)));
        assert_eq!("5 per 604800 s".parse(), Ok(5.per_week()));
    }

    #[test]
    fn errors_show_how_to_write_a_limit() {
        for text in [
            "",
            "60",
            "60 per",
            "60 per year",
            "60 per month from",
            "60 per month from day 0",
            "60 per month from day 32",
            "60 per month from day -1",
            "-1/minute",
            "1/0 s",
            "1/minute,",
            "1 per sliding hour in bursts of 2",
            "x/day",
        ] {
            let error = text.parse::<Quota>().unwrap_err().to_string();
            assert!(error.contains("60 per minute"), "{text}: {error}");
        }
    }

    #[test]
    fn displays_as_text_with_its_windows_sorted() {
        let quota = 10_000.per_day().and(60.per_minute()).and(1_000.per_hour());
        assert_eq!(quota.to_string(), "60 per minute, 1000 per hour, 10000 per day");
        assert_eq!(Quota::unlimited().to_string(), "unlimited");
    }

    #[test]
    fn repeating_a_window_keeps_the_smaller_limit() {
        assert_eq!(60.per_minute().and(30.per_minute()), 30.per_minute());
        assert_eq!(30.per_minute().and(60.per_minute()), 30.per_minute());
        let buckets = 60.per_minute().with_burst(5).and(30.per_minute().with_burst(9));
        assert_eq!(buckets, 30.per_minute().with_burst(5));
    }

    #[test]
    fn one_window_with_two_algorithms_is_two_limits_until_the_algorithms_match() {
        let both = 60.per_minute().and(30.per_minute().sliding());
        assert_eq!(both.to_string(), "60 per minute, 30 per sliding minute");
        assert_eq!(both.sliding(), 30.per_minute().sliding());
    }

    #[test]
    fn a_bucket_admits_its_size_at_once() {
        let capacity = |quota: Quota| quota.limits()[0].capacity();
        assert_eq!(capacity(60.per_minute()), 60);
        assert_eq!(capacity(60.per_minute().sliding()), 60);
        assert_eq!(capacity(60.per_minute().with_burst(7)), 7);
        assert_eq!(capacity(0.per_minute().with_burst(7)), 0, "never filled");
    }
}
