//! Memory and time with very many subjects or keys.
//!
//! | module | tests |
//! |---|---|
//! | `flood` | a flood of invented subjects |
//! | `million_keys` | finding and listing keys among a million |
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod flood;
mod million_keys;
