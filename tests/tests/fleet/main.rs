//! Several processes and one database: how soon a revocation is everywhere, what a cut link costs, and what a kill leaves.
//!
//! | module | idea |
//! |---|---|
//! | `process` | a process of its own that holds keys |
//! | `revocation` | from the process that revokes to the others, over links that fail in every way |
//! | `kills` | killed in the middle of whatever it does |
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "whatever goes wrong in a test fails it"
)]
#![expect(clippy::disallowed_methods, reason = "processes have no clock but the machine's")]

mod kills;
mod process;
mod revocation;
