//! Quotas as the model knows them: plain numbers, which are made into Tollgate's own for the stack beside it.

use std::time::Duration;

use proptest::prelude::*;
use tollgate::{PerWindow as _, Quota, limit::Window};

/// Every limit of a quota.
pub(crate) type Limits = Vec<Limit>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) most: u64,
    pub(crate) seconds: u64,
    pub(crate) algorithm: Algorithm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Fixed,
    Sliding,
    Bucket { burst: u64 },
}

impl Limit {
    /// What distinguishes its counter from others of the same subject: not the limit itself, so that a changed plan keeps the count.
    pub(crate) fn counter(self) -> (u64, &'static str) {
        let algorithm = match self.algorithm {
            Algorithm::Fixed => "fixed",
            Algorithm::Sliding => "sliding",
            Algorithm::Bucket { .. } => "bucket",
        };
        (self.seconds, algorithm)
    }

    fn quota(self) -> Quota {
        let quota = self.most.per(Window::lasting(Duration::from_secs(self.seconds)));
        match self.algorithm {
            Algorithm::Fixed => quota,
            Algorithm::Sliding => quota.sliding(),
            Algorithm::Bucket { burst } => quota.with_burst(burst),
        }
    }
}

/// The same as Tollgate's own.
pub(crate) fn quota(limits: &[Limit]) -> Quota {
    limits.iter().map(|limit| limit.quota()).fold(Quota::unlimited(), Quota::and)
}

/// Any quota: of one algorithm or several, with limits from `least` on.
pub(crate) fn any_limits(least: u64) -> impl Strategy<Value = Limits> {
    prop_oneof![
        4 => prop::collection::vec(any_limit(least), 1..4).prop_map(one_for_each_counter),
        1 => Just(mixture()),
    ]
}

/// A limit of few, so that it is met often. Windows that divide a minute and some that do not, nor each other.
fn any_limit(least: u64) -> impl Strategy<Value = Limit> {
    let algorithm = prop_oneof![
        Just(Algorithm::Fixed),
        Just(Algorithm::Sliding),
        (least..9).prop_map(|burst| Algorithm::Bucket { burst }),
    ];
    let seconds = prop::sample::select(vec![1, 7, 60, 60, 61, 900, 3_600, 86_400]);
    (least..12, seconds, algorithm).prop_map(|(most, seconds, algorithm)| Limit { most, seconds, algorithm })
}

/// Named twice, a window keeps its smaller limit; the model need not know.
fn one_for_each_counter(mut limits: Limits) -> Limits {
    limits.sort_by_key(|limit| limit.counter());
    limits.dedup_by_key(|limit| limit.counter());
    limits
}

/// All three algorithms in one quota.
fn mixture() -> Limits {
    vec![
        Limit { most: 5, seconds: 1, algorithm: Algorithm::Bucket { burst: 9 } },
        Limit { most: 40, seconds: 60, algorithm: Algorithm::Sliding },
        Limit { most: 100, seconds: 3_600, algorithm: Algorithm::Fixed },
    ]
}

#[test]
fn the_mixture_is_the_one_that_is_meant() {
    let meant = 5.per_second().with_burst(9).and(40.per_minute().sliding()).and(100.per_hour());
    assert_eq!(quota(&mixture()), meant);
}
