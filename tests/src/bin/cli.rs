//! The program `tollgate`, for the tests of this crate: cargo builds no other crate's programs for them.

use tollgate_cli::main;
