//! What other tests stand on: a database server that comes and goes, and a network that fails when it is told to.
#![allow(clippy::unwrap_used, clippy::panic, reason = "whatever goes wrong in a test fails it")]

mod postgres;
mod relay;
