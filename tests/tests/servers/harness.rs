//! The tools of other tests: a database server that can be stopped, killed and restarted, and a relay that fails on command.

mod postgres;
mod relay;
