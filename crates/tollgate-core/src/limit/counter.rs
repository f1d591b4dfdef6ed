//! What a limiter keeps for one limit of one subject, and the arithmetic of each algorithm.

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

/// What a limiter keeps for one limit of one subject: small, and without the limit itself, so that a changed quota keeps the
/// count.
///
/// A limiter brings a counter [up to date](Self::at), has a request [weighed](crate::limit::WindowCheck) against it, and, if all windows
/// have room, [counts](Self::counting) the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Counter {
    /// Of an [aligned window](Algorithm::FixedWindow).
    FixedWindow(FixedWindow),
    /// Of a [sliding window](Algorithm::SlidingWindow).
    SlidingWindow(SlidingWindow),
    /// Of a [token bucket](Algorithm::TokenBucket).
    TokenBucket(TokenBucket),
}

impl Counter {
    /// Nothing is used yet.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::FixedWindow => Self::FixedWindow(FixedWindow::default()),
            Algorithm::SlidingWindow => Self::SlidingWindow(SlidingWindow::default()),
            Algorithm::TokenBucket { .. } => Self::TokenBucket(TokenBucket::default()),
        }
    }

    /// Whether this is how such a limit is counted.
    pub fn counts_by(&self, algorithm: Algorithm) -> bool {
        matches!(
            (self, algorithm),
            (Self::FixedWindow(_), Algorithm::FixedWindow)
                | (Self::SlidingWindow(_), Algorithm::SlidingWindow)
                | (Self::TokenBucket(_), Algorithm::TokenBucket { .. })
        )
    }

    /// The counter as it stands at `now`; a fresh one if the limit is not counted so.
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

    /// The counter, which is up to date, after so much was counted.
    pub fn counting(self, limit: &WindowLimit, cost: u64) -> Self {
        match self {
            Self::FixedWindow(counter) => Self::FixedWindow(counter.counting(cost)),
            Self::SlidingWindow(counter) => Self::SlidingWindow(counter.counting(cost)),
            Self::TokenBucket(bucket) => Self::TokenBucket(bucket.counting(limit, cost)),
        }
    }

    /// How much is used, of a counter that is up to date: what is left over of a unit counts as a whole one.
    pub fn used(self, limit: &WindowLimit, now: SystemTime) -> u64 {
        match self {
            Self::FixedWindow(counter) => counter.used,
            Self::SlidingWindow(counter) => counter.used_at(limit.window, nanos_of(now)),
            Self::TokenBucket(bucket) => bucket.used_at(nanos_of(now)),
        }
    }

    /// The second from which on the whole limit is there, counted from the Unix epoch, if nothing more is counted until then.
    /// From then on the counter need not be kept.
    pub fn resets_at(self, limit: &WindowLimit) -> u64 {
        match self {
            Self::FixedWindow(counter) => counter.ends_at,
            Self::SlidingWindow(counter) => counter.resets_at(limit.window),
            Self::TokenBucket(bucket) => bucket.resets_at(),
        }
    }

    /// The time in which the whole limit comes back.
    pub(crate) fn fills_in(self, limit: &WindowLimit) -> Window {
        match self {
            Self::FixedWindow(_) | Self::SlidingWindow(_) => limit.window,
            Self::TokenBucket(_) => TokenBucket::fills_in(limit),
        }
    }

    /// The nanosecond from which on there is room for so much, counted from the Unix epoch. For more than the limit there never
    /// is: then it is the instant from which on the whole limit is there.
    pub(crate) fn opens_at(self, limit: &WindowLimit, room: u64) -> u64 {
        match self {
            Self::FixedWindow(counter) => counter.opens_at(),
            Self::SlidingWindow(counter) => counter.opens_at(limit, room),
            Self::TokenBucket(bucket) => bucket.opens_at(limit, room),
        }
    }
}
