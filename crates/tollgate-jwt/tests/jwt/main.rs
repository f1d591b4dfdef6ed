//! Tests of the verifier with a real issuer: its keys come over HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod attacks;
mod caching;
mod claims;
mod environments;
mod fetches;
mod issuers;
mod key_sets;
mod key_urls;
mod openssl;
mod profiles;
mod provider;
mod revocations;
mod stack;
mod support;
