//! Conformance suites: the behaviour that Tollgate expects of a backend, as tests.
//!
//! A suite is one asynchronous function. It takes a function that opens a new, empty backend, and runs all its cases, each on a
//! backend of its own. Call it from one `#[tokio::test]`, with real time and a real database.
//!
//! | suite | for implementations of |
//! |---|---|
//! | [`key_store`] | [`KeyStore`](tollgate::store::KeyStore) |
//! | [`key_admin`] | [`KeyStore`](tollgate::store::KeyStore) and [`KeyAdmin`](tollgate::manage::KeyAdmin) |
//! | [`key_usage`] | these and [`UsageStore`](tollgate::usage::UsageStore) |
//! | [`usage_store`] | [`UsageStore`](tollgate::usage::UsageStore) |
//! | [`credits`] | [`CreditAdmin`](tollgate::credits::CreditAdmin) |
//! | [`credit_loans`] | this and [`CreditLoans`](tollgate::credits::CreditLoans) |
//! | [`lent_credits`] | [`CreditAdmin`](tollgate::credits::CreditAdmin), in front of a [`CreditLoans`](tollgate::credits::CreditLoans) whose credits it lends |
//! | [`limiter`] | [`Limiter`](tollgate::limit::Limiter) |
//! | [`places`] | [`Places`](tollgate::in_flight::Places) |
//!
//! # Failures
//!
//! A suite panics at the first failure. It writes the name of each case to the standard error before it runs it, so the last one
//! is the case that failed. `cargo test` shows the standard error of a failed test.

mod credits;
mod key_admin;
mod key_store;
mod key_usage;
mod limiter;
mod places;
mod random;
mod usage_store;

pub use credits::{credit_loans, credits, lent_credits};
pub use key_admin::key_admin;
pub use key_store::{KeyStoreFixture, key_store};
pub use key_usage::key_usage;
pub use limiter::limiter;
pub use places::places;
pub use usage_store::{KNOWN_KEYS, usage_store};

use std::time::Duration;

/// What happens soon happens within this time, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Awaits what must happen soon.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(PATIENCE, future).await else {
        panic!("not within {} s: {what}", PATIENCE.as_secs())
    };
    value
}

/// The number of random steps: more if the environment variable `TOLLGATE_LONG` is set.
fn steps(short: usize, long: usize) -> usize {
    if std::env::var_os("TOLLGATE_LONG").is_some() { long } else { short }
}

/// Runs each case on a new backend, and writes its name to the standard error first.
macro_rules! run_cases {
    ($suite:literal, $open:expr, [$($($case:ident)::+),* $(,)?]) => {
        $(
            eprintln!("suite {}, case {}", $suite, stringify!($($case)::+));
            let backend = $open.await;
            $($case)::+(&backend).await;
            drop(backend);
        )*
    };
}
use run_cases;
