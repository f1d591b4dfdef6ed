//! Quotas: how many requests a window admits, said the way one speaks.

use std::{error::Error, fmt, str::FromStr, time::Duration};

use smallvec::{SmallVec, smallvec};

use crate::limit::{TokenBucket, Window};

/// Limits per window, all of which hold at once.
///
/// ```
/// use tollgate_core::limit::{PerWindow, Quota};
///
/// let quota = 60.per_minute().and(1_000.per_hour()).and(10_000.per_day());
/// assert_eq!(quota.to_string(), "60 per minute, 1000 per hour, 10000 per day");
/// ```
///
/// Windows are aligned to UTC: a minute begins at second 0, a day at midnight UTC. [`sliding`](Self::sliding) and
/// [`with_burst`](Self::with_burst) choose another [algorithm](Algorithm) for the limits named before them:
///
/// ```
/// use tollgate_core::limit::PerWindow;
///
/// let quota = 10.per_second().with_burst(30).and(1_000.per_hour().sliding()).and(10_000.per_day());
/// assert_eq!(quota.to_string(), "10 per second in bursts of 30, 1000 per sliding hour, 10000 per day");
/// ```
///
/// Naming a window twice keeps the smaller limit, since both must hold. A limit of 0 admits nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    // Sorted by window, shortest first, of each algorithm one at most. Four (second, minute, hour, day) stay off the heap.
    limits: SmallVec<[WindowLimit; 4]>,
}

impl Quota {
    /// No limit at all: every request is admitted and no numbers are shown.
    pub fn unlimited() -> Self {
        Self { limits: SmallVec::new() }
    }

    /// `limit` requests in each `window`.
    pub fn new(limit: u64, window: Window) -> Self {
        Self { limits: smallvec![WindowLimit { window, limit, algorithm: Algorithm::FixedWindow }] }
    }

    /// Both quotas at once.
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

    /// Holds all limits named so far by [sliding windows](Algorithm::SlidingWindow).
    pub fn sliding(self) -> Self {
        self.by(Algorithm::SlidingWindow)
    }

    /// Holds all limits named so far by [token buckets](Algorithm::TokenBucket) of this size.
    pub fn with_burst(self, burst: u64) -> Self {
        self.by(Algorithm::TokenBucket { burst })
    }

    fn by(self, algorithm: Algorithm) -> Self {
        let limits = self.limits.into_iter().map(|limit| WindowLimit { algorithm, ..limit });
        // Put together anew: what was apart by algorithm may be the same limit now.
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

    /// Reads what `Display` writes, and `60/minute` for `60 per minute`.
    ///
    /// # Errors
    /// [`InvalidQuota`] for every other text.
    fn from_str(text: &str) -> Result<Self, InvalidQuota> {
        if text.trim() == "unlimited" {
            return Ok(Self::unlimited());
        }
        let limits =
            text.split(',').map(|limit| read_limit(limit).ok_or_else(|| InvalidQuota(limit.trim().into())));
        limits.into_iter().try_fold(Self::unlimited(), |quota, limit| Ok(quota.and(limit?)))
    }
}

/// One limit of a quota, as `Display` writes it.
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

/// A text that is no [`Quota`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidQuota(Box<str>);

impl fmt::Display for InvalidQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no limit: write `60 per minute`, `1000 per sliding hour`, `10 per second in bursts of 30`, `15 per 900 s`, \
             several with commas between, or `unlimited`",
            self.0.escape_debug()
        )
    }
}

impl Error for InvalidQuota {}

/// One window's limit within a [`Quota`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WindowLimit {
    /// The window.
    pub window: Window,
    /// How many requests (or units of cost) it admits.
    pub limit: u64,
    /// What is counted, and when it is forgotten.
    pub algorithm: Algorithm,
}

impl WindowLimit {
    /// The most that is admitted at once: a window's limit, or what a full bucket holds.
    pub fn capacity(&self) -> u64 {
        match self.algorithm {
            Algorithm::TokenBucket { burst } => TokenBucket::capacity(self, burst),
            _ => self.limit,
        }
    }

    fn key(&self) -> (Window, u8) {
        (self.window, self.algorithm.number())
    }

    /// Keeps the smaller of two limits for one window by one algorithm.
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

/// What is counted for a limit, and when it is forgotten.
///
/// For each of them, the *reset* that callers are shown is the instant from which on the whole limit is there again, if
/// nothing more is sent until then; `Retry-After` is the time until a refused request would have fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// Windows aligned to UTC, each of which begins at zero: the default, and what published limits mean that "reset on the
    /// minute". Whoever spends one window late and the next one early sends twice the limit in a short time.
    ///
    /// Reset: the end of the window. `Retry-After`: the same.
    #[default]
    FixedWindow,
    /// At every instant, the last so many seconds: the present window's count, and of the one before it the share that still
    /// lies within them, as if that had been spread evenly. There is no boundary to crowd at.
    ///
    /// Reset: the end of the window after the present one, when the last of what was sent has slid out. `Retry-After`:
    /// when enough has slid out, which is sooner.
    SlidingWindow,
    /// A bucket that is filled at an even rate, the limit in each window, and holds so many tokens at most: the generic cell
    /// rate algorithm. The bucket's size is the limit that callers are shown, and what they have left is counted of it.
    ///
    /// Reset: when the bucket is full again. `Retry-After`: when it holds enough, which is sooner.
    TokenBucket {
        /// How many tokens the bucket holds: as many as come in a hundred years at most. 0 admits nothing.
        burst: u64,
    },
}

impl Algorithm {
    /// Tells algorithms apart, whatever their parameters.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::FixedWindow => 0,
            Self::SlidingWindow => 1,
            Self::TokenBucket { .. } => 2,
        }
    }
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
        ] {
            assert_eq!(quota.to_string().parse(), Ok(quota));
        }
        assert_eq!("60/minute,5/second".parse(), Ok(60.per_minute().and(5.per_second())));
    }

    #[test]
    fn says_how_a_limit_is_written() {
        for text in [
            "",
            "60",
            "60 per",
            "60 per week",
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
    fn reads_as_one_speaks_and_sorts_its_windows() {
        let quota = 10_000.per_day().and(60.per_minute()).and(1_000.per_hour());
        assert_eq!(quota.to_string(), "60 per minute, 1000 per hour, 10000 per day");
        assert_eq!(Quota::unlimited().to_string(), "unlimited");
    }

    #[test]
    fn naming_a_window_twice_keeps_the_smaller_limit() {
        assert_eq!(60.per_minute().and(30.per_minute()), 30.per_minute());
        assert_eq!(30.per_minute().and(60.per_minute()), 30.per_minute());
        let buckets = 60.per_minute().with_burst(5).and(30.per_minute().with_burst(9));
        assert_eq!(buckets, 30.per_minute().with_burst(5));
    }

    #[test]
    fn one_window_by_two_algorithms_is_two_limits_until_they_are_made_one() {
        let both = 60.per_minute().and(30.per_minute().sliding());
        assert_eq!(both.to_string(), "60 per minute, 30 per sliding minute");
        assert_eq!(both.sliding(), 30.per_minute().sliding());
    }

    #[test]
    fn a_bucket_admits_what_it_holds_at_once() {
        let capacity = |quota: Quota| quota.limits()[0].capacity();
        assert_eq!(capacity(60.per_minute()), 60);
        assert_eq!(capacity(60.per_minute().sliding()), 60);
        assert_eq!(capacity(60.per_minute().with_burst(7)), 7);
        assert_eq!(capacity(0.per_minute().with_burst(7)), 0, "never filled");
    }
}
