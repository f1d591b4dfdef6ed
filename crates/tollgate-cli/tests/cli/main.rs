//! The program as its users meet it: started by a command line, on SQLite files.
//!
//! | module | idea |
//! |---|---|
//! | `keys` | what becomes of keys and tenants |
//! | `verify` | which keys are good, and why others are not |
//! | `secrecy` | where a secret is, and where it is not |
//! | `exit_codes` | how each failure ends, and what it says |
//! | `streams` | JSON, closed and full outputs, completions, help |
//! | `terminal` | questions, colours, Ctrl-C |
#![cfg(all(unix, feature = "sqlite"))]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "whatever goes wrong in a test fails it")]

mod exit_codes;
mod keys;
mod secrecy;
mod streams;
mod terminal;
mod verify;
mod world;
