//! The backends that live in this process: the reference for all others.

mod credits;
mod keys;
mod limiter;
mod places;
mod usage;

pub use credits::MemoryCredits;
pub use keys::MemoryKeys;
pub use limiter::MemoryLimiter;
pub use places::MemoryPlaces;
pub use usage::MemoryUsage;

use limiter::{Fingerprint, Fingerprinter};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Nothing behind these locks is ever left half changed, so a panic of another thread has left it whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
