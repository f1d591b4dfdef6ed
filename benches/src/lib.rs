//! Measurements of Tollgate: time, instructions and scaling of each stack.
//!
//! | to learn about | read |
//! |---|---|
//! | the requests and the services | [`drive`], [`cast`], [`tokens`] |
//! | the stacks | [`stacks`] |
//! | the measurements | [`measure`] |
//!
//! Allocations and memory are measured by a separate program, `src/bin/heap`: its counting allocator makes every allocation slower,
//! which would favour the stacks that allocate least.

pub mod cast;
pub mod drive;
pub mod measure;
pub mod random;
pub mod stacks;
pub mod tokens;
