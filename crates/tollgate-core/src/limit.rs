//! How much a caller may do: quotas, the counters held against them, and the decision.
//!
//! A [`Quota`] holds limits, a [`Counter`] counts what is used of one of them, and a [`Decision`] evaluates a request against
//! all counters at once. A [`Limiter`] keeps the counters.

mod counter;
mod counter_place;
pub(crate) mod decision;
mod limiter;
mod policy_name;
mod quota;
pub(crate) mod window;

pub use counter::{Counter, FixedWindow, SlidingWindow, TokenBucket};
pub use counter_place::CounterPlace;
pub use decision::{Decision, WindowCheck, WindowState};
pub use limiter::{Charge, LimitRequest, Limiter};
pub use policy_name::PolicyName;
pub use quota::{Algorithm, InvalidQuota, PerWindow, Quota, WindowLimit};
pub use window::Window;
