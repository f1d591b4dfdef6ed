//! Tollgate measured: what is served and by which stacks, and how much time, how many instructions and how many cores it
//! takes.
//!
//! | to learn about | read |
//! |---|---|
//! | the requests, and who serves them | [`drive`], [`cast`] |
//! | the stacks, and what each one does | [`stacks`] |
//! | the measurements | [`measure`] |
//!
//! What needs a counting allocator (allocations, memory) is a program of its own, `src/bin/heap`, because a counting allocator
//! makes every allocation slower and would favour the stacks that allocate least.

pub mod cast;
pub mod drive;
pub mod measure;
pub mod random;
pub mod stacks;
