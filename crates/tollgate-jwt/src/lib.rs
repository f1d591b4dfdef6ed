#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod algorithm;
mod circuit_breaker;
mod claims;
mod digest;
mod fetch_keys;
#[cfg(feature = "http")]
mod http_keys;
mod issuer;
mod json;
mod key;
mod key_ring;
mod key_set;
mod profiles;
mod recent_events;
mod revocations;
mod shared_tasks;
mod token;
mod token_cache;
mod verifier;

pub use algorithm::Algorithm;
pub use claims::Claims;
pub use fetch_keys::{FetchKeys, FetchKeysFn, fetch_keys_fn};
#[cfg(feature = "http")]
pub use http_keys::{HttpKeys, InvalidKeysUrl, InvalidRootCertificate};
pub use issuer::{Issuer, WeakSecret};
pub use key_set::{InvalidKeySet, KeySet};
pub use profiles::{Profiles, ProfilesFn, profiles_fn};
pub use revocations::{Revocations, RevocationsFull};
pub use verifier::{ConnectError, DuplicateIssuer, JwtVerifier};
