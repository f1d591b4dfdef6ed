//! What one counter has admitted, and what follows from that by the definition of each algorithm.
//!
//! Instants are nanoseconds since the Unix epoch.
//!
//! # Plans that change
//!
//! A counter goes by its window and algorithm, whatever the limit: the count stays. The tokens that were missing when something was
//! last taken from a bucket come at the new rate from then on; what is there of the next one stays that share of it. A bucket
//! that was full at the old rate is full.
//!
//! # Clocks that step back
//!
//! - A window that an instant lies before may have been joined by others already: by up to a minute (or one window, if that
//!   is longer) the late arrival joins them, as if it had come at that window's beginning.
//! - Further back the clock was set back: nothing that was admitted before counts. What is admitted then takes the place of it.
//! - A bucket from which something was taken up to a minute later is as it was left: until its tokens are put back one more
//!   is missing for each interval. Further back it is full.

use super::quota::{Algorithm, Limit};

pub(crate) const SECOND: u64 = 1_000_000_000;

/// Everything that one counter has admitted.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Of windows: when, and how much.
    admitted: Vec<(u64, u64)>,
    /// Of buckets: when each token is put back, how long one took when something was last taken, and when that was.
    put_back: Vec<u64>,
    interval: u64,
    taken_at: u64,
}

/// Where a counter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) used: u64,
    /// The second from which on all of the limit is there.
    pub(crate) resets_at: u64,
    /// When there is room for what was asked for.
    pub(crate) opens_at: u64,
}

impl Limit {
    /// What is admitted at once.
    pub(crate) fn capacity(self) -> u64 {
        match self.algorithm {
            Algorithm::Bucket { burst } if self.most > 0 => burst,
            _ => self.most,
        }
    }

    /// The window that callers are shown: of a bucket the time in which it is filled.
    pub(crate) fn shown_seconds(self) -> u64 {
        match self.algorithm {
            Algorithm::Bucket { .. } => (self.capacity() * self.interval()).div_ceil(SECOND).max(1),
            _ => self.seconds,
        }
    }

    pub(crate) fn length(self) -> u64 {
        self.seconds * SECOND
    }

    /// How long a token takes.
    pub(crate) fn interval(self) -> u64 {
        self.length().div_ceil(self.most.max(1))
    }
}

impl History {
    /// Where the counter stands at `now`, for a request of so much.
    pub(crate) fn standing(&self, limit: Limit, cost: u64, now: u64) -> Standing {
        match limit.algorithm {
            Algorithm::Fixed => self.fixed(limit, now),
            Algorithm::Sliding => self.sliding(limit, cost, now),
            Algorithm::Bucket { .. } => self.bucket(limit, cost, now),
        }
    }

    /// Admits so much.
    pub(crate) fn admit(&mut self, limit: Limit, cost: u64, now: u64) {
        if let Algorithm::Bucket { .. } = limit.algorithm {
            let mut missing = self.missing(limit, now);
            for _ in 0..cost {
                missing.push(missing.last().copied().unwrap_or(now) + limit.interval());
            }
            (self.put_back, self.interval) = (missing, limit.interval());
            self.taken_at = if self.was_set_back(now) { now } else { self.taken_at.max(now) };
        } else {
            let (admitted, instant) = self.as_of(limit, now);
            self.admitted = admitted.to_vec();
            self.admitted.push((instant, cost));
        }
    }

    /// In aligned windows: the present one's count.
    fn fixed(&self, limit: Limit, now: u64) -> Standing {
        let (admitted, instant) = self.as_of(limit, now);
        let end = (instant / limit.length() + 1) * limit.length();
        Standing {
            used: in_window(admitted, limit, instant / limit.length()),
            resets_at: end / SECOND,
            opens_at: end,
        }
    }

    /// By a sliding window: also the share of the one before that has not slid out.
    fn sliding(&self, limit: Limit, cost: u64, now: u64) -> Standing {
        let (admitted, instant) = self.as_of(limit, now);
        let length = limit.length();
        // In parts of which a window's length makes one: no fraction is rounded.
        let parts = |instant: u64| {
            let (number, left) = (instant / length, length - instant % length);
            let before = number.checked_sub(1).map_or(0, |before| in_window(admitted, limit, before));
            u128::from(in_window(admitted, limit, number)) * u128::from(length)
                + u128::from(before) * u128::from(left)
        };
        let is_in_present = in_window(admitted, limit, instant / length) > 0;
        let empty_at = (instant / length + 1 + u64::from(is_in_present)) * length;
        let fits =
            |instant: u64| parts(instant) + u128::from(cost * length) <= u128::from(limit.most * length);
        Standing {
            used: u64::try_from(parts(instant).div_ceil(length.into())).unwrap(),
            resets_at: empty_at / SECOND,
            opens_at: first_instant(instant, empty_at, fits),
        }
    }

    /// By a bucket: the tokens that are missing.
    fn bucket(&self, limit: Limit, cost: u64, now: u64) -> Standing {
        let missing = self.missing(limit, now);
        let full_at = missing.last().copied().unwrap_or(now);
        // What never fits waits for a full bucket.
        let is_enough = |instant: u64| {
            let missing = missing.iter().filter(|at| **at > instant).count() as u64;
            missing == 0 || missing + cost <= limit.capacity()
        };
        let opens_at = missing.iter().copied().find(|at| is_enough(*at)).unwrap_or(now);
        Standing { used: missing.len() as u64, resets_at: full_at.div_ceil(SECOND), opens_at }
    }

    /// What counts in windows at `now`, and the instant that stands for it.
    fn as_of(&self, limit: Limit, now: u64) -> (&[(u64, u64)], u64) {
        let newest = self.admitted.last().map_or(0, |(instant, _)| instant / limit.length());
        let Some(late) = newest.checked_sub(now / limit.length()).filter(|late| *late > 0) else {
            return (&self.admitted, now);
        };
        if late <= (60 / limit.seconds).max(1) {
            (&self.admitted, newest * limit.length())
        } else {
            (&[], now)
        }
    }

    /// When each token that is missing at `now` is put back, in order.
    fn missing(&self, limit: Limit, now: u64) -> Vec<u64> {
        let Some(&last) = self.put_back.last().filter(|last| **last > now && !self.was_set_back(now)) else {
            return Vec::new();
        };
        let interval = limit.interval();
        let full_at = match last.checked_sub(self.taken_at) {
            // As many as were missing, whole ones or not, in intervals of another length.
            Some(wait) if self.interval != interval => {
                let wait = u128::from(wait) * u128::from(interval);
                self.taken_at + u64::try_from(wait.div_ceil(self.interval.into())).unwrap()
            }
            _ => last,
        };
        let mut missing = Vec::new();
        let mut put_back = full_at;
        while put_back > now {
            missing.insert(0, put_back);
            let Some(before) = put_back.checked_sub(interval) else { break };
            put_back = before;
        }
        missing
    }

    /// Whether something was taken from a bucket so long after `now` that the clock must have been set back since.
    fn was_set_back(&self, now: u64) -> bool {
        self.taken_at > now + 60 * SECOND
    }
}

/// How much was admitted in the window of this number.
fn in_window(admitted: &[(u64, u64)], limit: Limit, number: u64) -> u64 {
    admitted.iter().filter(|(instant, _)| instant / limit.length() == number).map(|(_, cost)| cost).sum()
}

/// The first instant at which something holds that holds from some instant on; the last one if it never does.
fn first_instant(mut from: u64, mut to: u64, holds: impl Fn(u64) -> bool) -> u64 {
    if holds(from) {
        return from;
    }
    while from < to {
        let middle = from.midpoint(to);
        if holds(middle) {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    to
}
