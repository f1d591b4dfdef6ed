//! What the tests share.

pub mod hosts;
pub mod suite;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
