//! The ports: what others implement, so that the layers can stand on any backend.
//!
//! Every port is object-safe and answers [`Answer`](crate::Answer): at once, or later. A port that fails says
//! [`Unavailable`](crate::Unavailable), and whoever asked decides what that means.

mod entitlements;
mod key_admin;
mod key_store;
mod legacy_keys;
mod limiter;
mod respond;
mod usage;
mod verify;

pub use entitlements::Entitlements;
pub use key_admin::{
    Command, HistoryQuery, KeyAction, KeyAdmin, KeyAdminError, KeyChange, KeyEvent, KeyQuery, KeyUpdate,
    Operator, Page, TenantChange,
};
pub use key_store::{Change, KeyLookUp, KeyRecord, KeyStatus, KeyStore, WatchKeys, Watchers};
pub use legacy_keys::{LegacyKey, LegacyKeys};
pub use limiter::{Charge, Limiter, Take};
pub use respond::Respond;
pub use usage::{HourlyUsage, StoredUsage, Usage, UsageBatch, UsageCount, UsageQuery, UsageSink, UsageStore};
pub use verify::{Presented, Verify};
