//! Several processes that share one database.
//!
//! | module | tests |
//! |---|---|
//! | `process` | a helper: a process that holds keys |
//! | `revocation` | how soon a revocation reaches the other processes, also over links that fail |
//! | `crashes` | what is stored after a process or the database is killed |
#![expect(clippy::disallowed_methods, reason = "processes have only the system clock")]

mod crashes;
mod process;
mod revocation;
