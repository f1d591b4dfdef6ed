//! The words, the decisions and the ports of the Tollgate middleware family.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod key;
mod scope;

pub use key::{
    ApiKey, Digest, Environment, InvalidKeyFormat, KeyFormat, MalformedKey, ParsedKey, Pepper, Peppers, PepperId,
    RandomnessUnavailable,
};
pub use scope::{InvalidScope, Requirement, Scope, Scopes, scope};
