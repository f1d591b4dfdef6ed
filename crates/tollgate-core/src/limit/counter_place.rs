//! The place of a principal's counters, computed once.

use std::sync::OnceLock;

use crate::limit::PolicyName;

/// Where a limiter keeps the counters of one principal under one policy. It is kept with the principal, so that the limiter computes
/// it once and not at each request.
///
/// It keeps one place: that of the first limiter and policy that ask. For others the place is computed each time. It takes 56 bytes.
///
/// ```
/// use tollgate_core::limit::{CounterPlace, PolicyName};
///
/// let (limiter, policy) = (1, PolicyName::new("key"));
/// let place = CounterPlace::new();
/// assert_eq!(place.get_or_compute(limiter, policy, || [7, 8, 9]), [7, 8, 9]);
/// assert_eq!(place.get_or_compute(limiter, policy, || unreachable!()), [7, 8, 9]);
/// assert_eq!(place.get_or_compute(2, policy, || [4, 5, 6]), [4, 5, 6]); // another limiter's place
/// ```
#[derive(Clone, Debug, Default)]
pub struct CounterPlace(OnceLock<Known>);

#[derive(Clone, Copy, Debug)]
struct Known {
    limiter: u64,
    policy: PolicyName,
    place: [u64; 3],
}

impl CounterPlace {
    /// A place that is not known yet.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The place for this limiter, whose number is unique in the process, and this policy.
    #[inline]
    pub fn get_or_compute(
        &self,
        limiter: u64,
        policy: PolicyName,
        work_out: impl FnOnce() -> [u64; 3],
    ) -> [u64; 3] {
        match self.0.get() {
            Some(known) if known.limiter == limiter && known.policy.is_same_text(policy) => known.place,
            Some(_) => work_out(),
            None => {
                let place = work_out();
                let _ = self.0.set(Known { limiter, policy, place });
                place
            }
        }
    }
}
