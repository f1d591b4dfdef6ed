//! The arithmetic of token buckets: the generic cell rate algorithm.

use std::time::Duration;

use crate::{Window, WindowLimit, window::NANOS_PER_SECOND};

/// How empty a token bucket is, told by when it will be full again (the "theoretical arrival time" of the generic cell rate
/// algorithm).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "backends keep it in a form of their own, and there is no more to it"
)]
pub struct TokenBucket {
    /// The nanosecond at which the bucket is full, counted from the Unix epoch: of a full one, the present.
    pub full_at: u64,
    /// How many nanoseconds lie between two tokens; 0 for a bucket that nobody has taken from. Kept so that a changed quota keeps
    /// the count.
    pub interval: u64,
}

impl TokenBucket {
    /// The bucket under this limit, at `nanos`. If the limit has changed, as many tokens are missing as before, and they
    /// come at the new rate.
    ///
    /// A bucket that misses more than it can hold, by more than one window, was left by a clock that was set back: what it
    /// misses counts no further.
    pub(super) fn at(self, limit: &WindowLimit, nanos: u64) -> Self {
        let interval = interval(limit);
        let full_at = if self.interval == interval || self.interval == 0 {
            self.full_at
        } else {
            nanos.saturating_add(self.used_at(nanos).saturating_mul(interval))
        };
        let most = limit.capacity().saturating_mul(interval).saturating_add(limit.window.nanos());
        Self { full_at: full_at.clamp(nanos, nanos.saturating_add(most)), interval }
    }

    /// How many tokens are missing at `nanos`; one that is half there is missing.
    pub(super) fn used_at(self, nanos: u64) -> u64 {
        self.full_at.saturating_sub(nanos).div_ceil(self.interval.max(1))
    }

    /// The bucket after so many tokens were taken from it: perhaps more than it holds, which then are owed.
    pub(super) fn counting(self, limit: &WindowLimit, cost: u64) -> Self {
        let interval = interval(limit);
        Self { full_at: self.full_at.saturating_add(cost.saturating_mul(interval)), interval }
    }

    /// The first second in which the bucket is full.
    pub(super) fn resets_at(self) -> u64 {
        self.full_at.div_ceil(NANOS_PER_SECOND)
    }

    /// How long an empty bucket takes to be full.
    pub(super) fn fills_in(limit: &WindowLimit) -> Window {
        Window::lasting(Duration::from_nanos(limit.capacity().saturating_mul(interval(limit))))
    }

    /// When the bucket holds so many tokens.
    pub(super) fn opens_at(self, limit: &WindowLimit, room: u64) -> u64 {
        let spare = limit.capacity().saturating_sub(room);
        self.full_at.saturating_sub(spare.saturating_mul(interval(limit)))
    }
}

/// How many nanoseconds lie between two tokens: whole ones, so that the arithmetic is exact. A limit that does not divide its
/// window is therefore lower by less than a billionth of a second for each token.
fn interval(limit: &WindowLimit) -> u64 {
    limit.window.nanos().div_ceil(limit.limit.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{PerWindow as _, Quota};

    const SECOND: u64 = NANOS_PER_SECOND;

    fn limit(quota: &Quota) -> WindowLimit {
        quota.limits()[0]
    }

    #[test]
    fn is_filled_evenly_and_holds_no_more_than_its_size() {
        let limit = limit(&2.per_second().with_burst(3));
        let bucket = TokenBucket::default().at(&limit, 100 * SECOND).counting(&limit, 3);
        assert_eq!(bucket.used_at(100 * SECOND), 3);
        assert_eq!(bucket.used_at(100 * SECOND + SECOND / 2 - 1), 3, "one that is half there is missing");
        assert_eq!(bucket.used_at(100 * SECOND + SECOND / 2), 2);
        assert_eq!((bucket.resets_at(), bucket.opens_at(&limit, 1)), (102, 100 * SECOND + SECOND / 2));
        assert_eq!(bucket.used_at(500 * SECOND), 0);
    }

    #[test]
    fn a_changed_rate_keeps_the_count() {
        let (basic, pro) = (limit(&1.per_second().with_burst(9)), limit(&10.per_second().with_burst(90)));
        let bucket = TokenBucket::default().at(&basic, 0).counting(&basic, 5);
        let upgraded = bucket.at(&pro, SECOND);
        assert_eq!((upgraded.used_at(SECOND), upgraded.resets_at()), (4, 2));
        assert_eq!(upgraded.at(&basic, SECOND), TokenBucket { full_at: 5 * SECOND, interval: SECOND });
    }

    #[test]
    fn a_clock_that_was_set_back_locks_out_for_no_longer_than_an_empty_bucket_and_one_window() {
        let limit = limit(&1.per_second().with_burst(9));
        let bucket = TokenBucket::default().at(&limit, 3_600 * SECOND).counting(&limit, 9);
        let set_back = bucket.at(&limit, 100 * SECOND);
        assert_eq!(set_back.opens_at(&limit, 1), (100 + 9 + 1 - 8) * SECOND);
    }

    #[test]
    fn what_was_taken_beyond_its_size_is_owed() {
        let limit = limit(&1.per_minute().with_burst(2));
        let bucket = TokenBucket::default().at(&limit, 0).counting(&limit, 3);
        assert_eq!(bucket.used_at(0), 3);
        assert_eq!(bucket.opens_at(&limit, 1), 120 * SECOND);
    }

    #[test]
    fn a_limit_of_zero_never_fills() {
        let limit = limit(&0.per_minute().with_burst(5));
        assert_eq!(limit.capacity(), 0);
        let bucket = TokenBucket::default().at(&limit, 0);
        assert_eq!(bucket.used_at(0), 0);
    }

    proptest! {
        /// The naive model: every token that was ever taken, and when it was put back: one after the other.
        #[test]
        fn agrees_with_a_list_of_all_tokens(
            steps in prop::collection::vec((0_u64..5_000, 0_u64..4), 1..200),
            (rate, burst) in (1_u64..9, 0_u64..7),
        ) {
            let limit = limit(&rate.per(Window::lasting(Duration::from_secs(7))).with_burst(burst));
            let interval = (7 * SECOND).div_ceil(rate);
            let mut bucket = TokenBucket::default();
            let mut put_back: Vec<u64> = Vec::new();
            let mut now = SECOND;
            for (wait, cost) in steps {
                now += wait * 1_000_000;
                bucket = bucket.at(&limit, now);
                let missing = put_back.iter().filter(|at| **at > now).count() as u64;
                prop_assert_eq!(bucket.used_at(now), missing);
                if missing + cost <= burst {
                    bucket = bucket.counting(&limit, cost);
                    for _ in 0..cost {
                        put_back.push(put_back.last().copied().unwrap_or(0).max(now) + interval);
                    }
                } else if cost <= burst {
                    let opens_at = bucket.opens_at(&limit, cost);
                    let missing_then = |then: u64| put_back.iter().filter(|at| **at > then).count() as u64;
                    prop_assert!(missing_then(opens_at) + cost <= burst);
                    prop_assert!(missing_then(opens_at - 1) + cost > burst);
                }
                let last = put_back.last().copied().unwrap_or(0);
                prop_assert_eq!(bucket.full_at, last.max(now));
            }
        }

        #[test]
        fn no_numbers_overflow(
            (full_at, interval, nanos, cost) in any::<(u64, u64, u64, u64)>(),
            (most, burst, seconds) in any::<(u64, u64, u32)>(),
        ) {
            let window = Window::lasting(Duration::from_secs(seconds.into()));
            let limit = limit(&Quota::new(most, window).with_burst(burst));
            let bucket = TokenBucket { full_at, interval };
            let bucket = bucket.at(&limit, nanos).counting(&limit, cost);
            let _ = (bucket.used_at(nanos), bucket.resets_at(), bucket.opens_at(&limit, cost));
        }
    }
}
