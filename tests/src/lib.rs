//! What the tests share.

pub mod hosts;
pub mod postgres;
pub mod relay;
pub mod suite;

/// How many cases a test runs that is worth more with more of them: `long` if `TOLLGATE_LONG` is set, as `./test --long`
/// does.
pub fn cases(short: u32, long: u32) -> u32 {
    if std::env::var_os("TOLLGATE_LONG").is_some() { long } else { short }
}

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
