#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assertion panics, and so does a backend that does not work"
)]

mod assert;
#[cfg(feature = "jwt")]
mod authority;
pub mod coverage;
mod keys;
mod request;
pub mod suite;

pub use assert::{assert_allowed, assert_denied};
#[cfg(feature = "jwt")]
pub use authority::{KeySetAnswer, TestAuthority, hs256_token};
pub use keys::{TestKeys, bearer};
pub use request::authenticated;
pub use tollgate::clock::ManualClock;

use std::time::{Duration, SystemTime};

/// Midnight UTC of 2033-05-19: at this instant, every aligned window of up to a day begins.
///
/// ```
/// use tollgate_testing::{ManualClock, midnight};
///
/// let clock = ManualClock::at(midnight());
/// ```
pub fn midnight() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_073_600)
}

/// The instant this many seconds after [`midnight`].
pub(crate) fn at(seconds: u64) -> SystemTime {
    midnight() + Duration::from_secs(seconds)
}
