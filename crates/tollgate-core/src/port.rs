//! The ports: what others implement, so that the layers can stand on any backend.
//!
//! Every port is object-safe and answers [`Answer`](crate::Answer): at once, or later. A port that fails says
//! [`Unavailable`](crate::Unavailable), and whoever asked decides what that means.

mod entitlements;
mod key_store;
mod limiter;
mod respond;
mod verify;

pub use entitlements::Entitlements;
pub use key_store::{Change, Changes, KeyRecord, KeyStatus, KeyStore};
pub use limiter::{Charge, Limiter, Take};
pub use respond::Respond;
pub use verify::{Presented, Verify};
