//! The arithmetic of token buckets: the generic cell rate algorithm.

use std::time::Duration;

use crate::limit::{Window, WindowLimit, window::NANOS_PER_SECOND};

/// The state of a token bucket, kept as the time at which it is full again: the "theoretical arrival time" of the generic cell
/// rate algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "backends store it in their own format, and it needs no more fields"
)]
pub struct TokenBucket {
    /// The nanosecond since the Unix epoch at which the bucket is full. For a full bucket: the current time.
    pub full_at: u64,
    /// The nanosecond since the Unix epoch for which `full_at` was computed: when tokens were last taken.
    pub as_of: u64,
    /// The nanoseconds between two tokens at that time; 0 for an unused bucket.
    pub interval: u64,
}

/// How much older than the latest counted instant a request's instant may be.
const LATE_ARRIVALS: u64 = 60 * NANOS_PER_SECOND;

/// 100 years.
const LONGEST_TO_FILL: u64 = 36_525 * 86_400 * NANOS_PER_SECOND;

impl TokenBucket {
    /// The bucket under this limit, at `nanos`. If the rate has changed, the missing tokens refill at the new rate, counted from
    /// the last time tokens were taken.
    ///
    /// A request whose instant is up to a minute older than the latest one uses the bucket unchanged. An older instant means
    /// that the clock was set back. The bucket is then reset, which allows one extra full bucket and blocks no caller.
    pub(super) fn at(self, limit: &WindowLimit, nanos: u64) -> Self {
        let interval = interval(limit);
        let was_set_back = self.as_of > nanos.saturating_add(LATE_ARRIVALS);
        // A bucket that was full is full at any rate, so its history does not matter.
        if self.full_at <= nanos || was_set_back {
            return Self { full_at: nanos, as_of: nanos, interval };
        }
        let missing = self.full_at.saturating_sub(self.as_of);
        // Converts from `as_of`, not from now: a refusal stores nothing, so repeated refusals must give the same result.
        let missing = match self.interval {
            same if same == interval => missing,
            before => {
                let missing = (u128::from(missing) * u128::from(interval)).div_ceil(before.max(1).into());
                u64::try_from(missing).unwrap_or(u64::MAX)
            }
        };
        let full_at = self.as_of.saturating_add(missing).max(nanos);
        Self { full_at, as_of: self.as_of.max(nanos), interval }
    }

    /// The number of tokens that a bucket of this size holds under this limit.
    pub(crate) fn capacity(limit: &WindowLimit, burst: u64) -> u64 {
        // Instants end in the year 2554, and `full_at` must be representable.
        if limit.limit == 0 { 0 } else { burst.min(LONGEST_TO_FILL / interval(limit)) }
    }

    /// The number of missing tokens at `nanos`. A partly refilled token counts as missing.
    pub(super) fn used_at(self, nanos: u64) -> u64 {
        self.full_at.saturating_sub(nanos).div_ceil(self.interval.max(1))
    }

    /// The bucket minus `cost` tokens. If it holds fewer, the difference refills first.
    pub(super) fn counting(self, limit: &WindowLimit, cost: u64) -> Self {
        let interval = interval(limit);
        Self { full_at: self.full_at.saturating_add(cost.saturating_mul(interval)), interval, ..self }
    }

    /// The first second at which the bucket is full.
    pub(super) fn resets_at(self) -> u64 {
        self.full_at.div_ceil(NANOS_PER_SECOND)
    }

    /// The time in which an empty bucket becomes full.
    pub(super) fn fills_in(limit: &WindowLimit) -> Window {
        Window::lasting(Duration::from_nanos(limit.capacity().saturating_mul(interval(limit))))
    }

    /// The nanosecond from which the bucket holds `required` tokens.
    pub(super) fn opens_at(self, limit: &WindowLimit, required: u64) -> u64 {
        let spare = limit.capacity().saturating_sub(required);
        self.full_at.saturating_sub(spare.saturating_mul(interval(limit)))
    }
}

/// The nanoseconds between two tokens, rounded up to a whole number so that the arithmetic is exact. If the limit does not divide
/// the window, each token takes less than one nanosecond longer.
fn interval(limit: &WindowLimit) -> u64 {
    limit.window.nanos().div_ceil(limit.limit.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limit::{PerWindow as _, Quota};

    const SECOND: u64 = NANOS_PER_SECOND;

    fn limit(quota: &Quota) -> WindowLimit {
        quota.limits()[0]
    }

    #[test]
    fn refills_evenly_up_to_its_size() {
        let limit = limit(&2.per_second().with_burst(3));
        let bucket = TokenBucket::default().at(&limit, 100 * SECOND).counting(&limit, 3);
        assert_eq!(bucket.used_at(100 * SECOND), 3);
        assert_eq!(bucket.used_at(100 * SECOND + SECOND / 2 - 1), 3, "a partly refilled token is missing");
        assert_eq!(bucket.used_at(100 * SECOND + SECOND / 2), 2);
        assert_eq!((bucket.resets_at(), bucket.opens_at(&limit, 1)), (102, 100 * SECOND + SECOND / 2));
        assert_eq!(bucket.used_at(500 * SECOND), 0);
    }

    #[test]
    fn a_changed_rate_keeps_the_count_and_repeated_checks_agree() {
        let (basic, pro) = (limit(&1.per_second().with_burst(9)), limit(&10.per_second().with_burst(90)));
        let bucket = TokenBucket::default().at(&basic, 100 * SECOND).counting(&basic, 5);
        let upgraded = bucket.at(&pro, 100 * SECOND);
        assert_eq!(
            (upgraded.used_at(100 * SECOND), upgraded.opens_at(&pro, 86)),
            (5, 100 * SECOND + SECOND / 10)
        );
        assert_eq!(bucket.at(&pro, 100 * SECOND + SECOND / 10).used_at(100 * SECOND + SECOND / 10), 4);
        assert_eq!(upgraded.at(&basic, 100 * SECOND), bucket, "and back again");
        assert_eq!(bucket.at(&basic, 103 * SECOND).used_at(103 * SECOND), 2);
    }

    #[test]
    fn a_late_arrival_uses_the_bucket_unchanged_and_a_clock_set_back_resets_it() {
        let limit = limit(&1.per_second().with_burst(9));
        let bucket = TokenBucket::default().at(&limit, 3_600 * SECOND).counting(&limit, 9);
        assert_eq!(
            bucket.at(&limit, 3_599 * SECOND).used_at(3_599 * SECOND),
            10,
            "one more token is missing at the earlier instant"
        );
        assert_eq!(bucket.at(&limit, 3_540 * SECOND).full_at, bucket.full_at, "a minute late");
        assert_eq!(bucket.at(&limit, 3_540 * SECOND - 1).used_at(3_540 * SECOND - 1), 0);
    }

    #[test]
    fn tokens_taken_beyond_its_size_refill_first() {
        let limit = limit(&1.per_minute().with_burst(2));
        let bucket = TokenBucket::default().at(&limit, 0).counting(&limit, 3);
        assert_eq!(bucket.used_at(0), 3);
        assert_eq!(bucket.opens_at(&limit, 1), 120 * SECOND);
    }

    #[test]
    fn a_limit_of_zero_never_refills() {
        let limit = limit(&0.per_minute().with_burst(5));
        assert_eq!(limit.capacity(), 0);
        let bucket = TokenBucket::default().at(&limit, 0);
        assert_eq!(bucket.used_at(0), 0);
        assert_eq!(bucket.counting(&limit, 0), bucket, "nothing was taken");
    }

    proptest! {
        /// The naive model: every token ever taken, and when it was put back, one after the other.
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
            (full_at, as_of, interval) in any::<(u64, u64, u64)>(),
            (nanos, cost) in any::<(u64, u64)>(),
            (most, burst, seconds) in any::<(u64, u64, u32)>(),
        ) {
            let window = Window::lasting(Duration::from_secs(seconds.into()));
            let limit = limit(&Quota::new(most, window).with_burst(burst));
            let bucket = TokenBucket { full_at, as_of, interval };
            let bucket = bucket.at(&limit, nanos).counting(&limit, cost);
            let _ = (bucket.used_at(nanos), bucket.resets_at(), bucket.opens_at(&limit, cost));
        }
    }
}
