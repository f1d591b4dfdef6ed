//! The backends that live in this process: the reference for all others.

mod keys;
mod limiter;

pub use keys::MemoryKeys;
pub use limiter::MemoryLimiter;
