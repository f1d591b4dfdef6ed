//! Tests of the verifier with a real issuer: its keys come over HTTP.

mod attacks;
mod caching;
mod claims;
mod environments;
mod key_sets;
mod openssl;
mod profiles;
mod provider;
mod revocations;
mod support;
