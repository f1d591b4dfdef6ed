//! Several processes that share one database.
//!
//! | module | tests |
//! |---|---|
//! | `process` | a helper: a process that holds keys |
//! | `revocation` | how soon a revocation reaches the other processes, also over links that fail |
//! | `crashes` | what is stored after a process or the database is killed |
//! | `credits` | processes that spend the same credits, and are killed |
#![expect(clippy::disallowed_methods, reason = "processes have only the system clock")]

mod crashes;
mod credits;
mod process;
mod revocation;
