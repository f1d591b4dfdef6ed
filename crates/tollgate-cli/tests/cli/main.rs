//! Runs the program by its command line, on SQLite files.
//!
//! | module | tests |
//! |---|---|
//! | `keys` | the life of keys and tenants |
//! | `verify` | valid and invalid keys |
//! | `secrecy` | where secrets and passwords must not appear |
//! | `credits` | credits of tenants |
//! | `prune` | the deletion of old entries |
//! | `schema` | migrations |
//! | `exit_codes` | the exit code and message of each failure |
//! | `streams` | JSON, closed pipes, full disks, completions, help |
//! | `terminal` | questions, colours, Ctrl-C |
#![cfg(all(unix, feature = "sqlite"))]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod credits;
mod exit_codes;
mod keys;
mod prune;
mod schema;
mod secrecy;
mod streams;
mod terminal;
mod verify;
mod world;
