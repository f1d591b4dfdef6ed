//! Nobody spends what they do not have.

use futures_util::FutureExt as _;
use tests::suite::at;
use tollgate::{
    PerWindow as _,
    limit::{Charge, LimitRequest, Limiter as _, MemoryLimiter},
};

/// A bucket that takes longer than five centuries to be filled never says that it is empty.
#[test]
fn a_bucket_of_any_size_is_empty_at_last() {
    let limiter = MemoryLimiter::new();
    let quota = 1.per_day().with_burst(300_000);
    let charge = [Charge::new("key", "ada", "ada", &quota).with_cost(1_000)];
    let ask = || {
        limiter
            .acquire(&LimitRequest::new(&charge, at(0)))
            .wait()
            .now_or_never()
            .unwrap()
            .unwrap()
            .is_allowed()
    };
    assert!((0..400).filter(|_| ask()).count() <= 300);
}
