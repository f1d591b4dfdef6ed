//! The state that a limiter keeps for one limit of one subject, and the arithmetic of each algorithm.

use std::time::SystemTime;

use crate::limit::{
    Algorithm, Window, WindowLimit,
    window::{nanos_of, second_of},
};

mod fixed_window;
mod sliding_window;
mod token_bucket;

pub use fixed_window::FixedWindow;
pub(crate) use fixed_window::has_room;
pub use sliding_window::SlidingWindow;
pub use token_bucket::TokenBucket;

/// The state that a limiter keeps for one limit of one subject. It does not contain the limit, so the count survives a change of
/// the quota.
///
/// A limiter brings the counter [up to date](Self::at), [checks](crate::limit::WindowCheck) the request against it, and
/// [counts](Self::counting) the request if all windows have capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Counter {
    /// For an [aligned window](Algorithm::FixedWindow).
    FixedWindow(FixedWindow),
    /// For a [sliding window](Algorithm::SlidingWindow).
    SlidingWindow(SlidingWindow),
    /// For a [token bucket](Algorithm::TokenBucket).
    TokenBucket(TokenBucket),
}

impl Counter {
    /// A counter with nothing used.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::FixedWindow => Self::FixedWindow(FixedWindow::default()),
            Algorithm::SlidingWindow => Self::SlidingWindow(SlidingWindow::default()),
            Algorithm::TokenBucket { .. } => Self::TokenBucket(TokenBucket::default()),
        }
    }

    /// Whether this counter is of the kind that `algorithm` uses.
    pub fn counts_by(&self, algorithm: Algorithm) -> bool {
        matches!(
            (self, algorithm),
            (Self::FixedWindow(_), Algorithm::FixedWindow)
                | (Self::SlidingWindow(_), Algorithm::SlidingWindow)
                | (Self::TokenBucket(_), Algorithm::TokenBucket { .. })
        )
    }

    /// The counter at `now`. A new one if the limit uses another algorithm.
    pub fn at(self, limit: &WindowLimit, now: SystemTime) -> Self {
        match (self, limit.algorithm) {
            (Self::FixedWindow(counter), Algorithm::FixedWindow) => {
                Self::FixedWindow(counter.at(limit.window, second_of(now)))
            }
            (Self::SlidingWindow(counter), Algorithm::SlidingWindow) => {
                Self::SlidingWindow(counter.at(limit.window, second_of(now)))
            }
            (Self::TokenBucket(bucket), Algorithm::TokenBucket { .. }) => {
                Self::TokenBucket(bucket.at(limit, nanos_of(now)))
            }
            (_, algorithm) => Self::new(algorithm).at(limit, now),
        }
    }

    /// The counter plus `cost`. It must be up to date.
    pub fn counting(self, limit: &WindowLimit, cost: u64) -> Self {
        match self {
            Self::FixedWindow(counter) => Self::FixedWindow(counter.counting(cost)),
            Self::SlidingWindow(counter) => Self::SlidingWindow(counter.counting(cost)),
            Self::TokenBucket(bucket) => Self::TokenBucket(bucket.counting(limit, cost)),
        }
    }

    /// The amount used, rounded up to whole units. The counter must be up to date.
    pub fn used(self, limit: &WindowLimit, now: SystemTime) -> u64 {
        match self {
            Self::FixedWindow(counter) => counter.used,
            Self::SlidingWindow(counter) => counter.used_at(limit.window, nanos_of(now)),
            Self::TokenBucket(bucket) => bucket.used_at(nanos_of(now)),
        }
    }

    /// The second since the Unix epoch from which the whole limit is available, if nothing more is counted until then. A store
    /// can drop the counter from then on.
    pub fn resets_at(self, limit: &WindowLimit) -> u64 {
        match self {
            Self::FixedWindow(counter) => counter.ends_at,
            Self::SlidingWindow(counter) => counter.resets_at(limit.window),
            Self::TokenBucket(bucket) => bucket.resets_at(),
        }
    }

    /// The time after which the whole limit is available again.
    pub(crate) fn fills_in(self, limit: &WindowLimit) -> Window {
        match self {
            Self::FixedWindow(_) | Self::SlidingWindow(_) => limit.window,
            Self::TokenBucket(_) => TokenBucket::fills_in(limit),
        }
    }

    /// The nanosecond since the Unix epoch from which `required` units are available. If that is more than the limit, the instant
    /// from which the whole limit is available.
    pub(crate) fn opens_at(self, limit: &WindowLimit, required: u64) -> u64 {
        match self {
            Self::FixedWindow(counter) => counter.opens_at(),
            Self::SlidingWindow(counter) => counter.opens_at(limit, required),
            Self::TokenBucket(bucket) => bucket.opens_at(limit, required),
        }
    }
}
