//! The words, the decisions and the ports of the Tollgate middleware family.
//!
//! This crate has no runtime, no framework, no I/O but the operating system's randomness, and decides by no clock but the one
//! passed in. Applications use it through `tollgate`, which re-exports it; backends depend on it alone.
//!
//! | to learn about | read |
//! |---|---|
//! | issued secrets | [`KeyFormat`], [`ApiKey`], [`Digest`], [`Peppers`] |
//! | who a caller is | [`Head`], [`Credential`], [`Principal`], [`Plan`], [`EndSignal`] |
//! | what they may do | [`Scopes`], [`Requirement`], [`scope()`] |
//! | how much | [`Quota`], [`PerWindow`], [`Window`], [`Algorithm`], [`Charge`], [`Counter`], [`Weighing`], [`Decision`] |
//! | why not | [`Denial`], [`DenialKind`] |
//! | keys that are managed | [`KeyDetails`], [`KeyChange`], [`KeyQuery`], [`KeyEvent`], [`Operator`], [`Metadata`] |
//! | the ports | [`Verify`], [`KeyStore`], [`KeyAdmin`], [`LegacyKeys`], [`UsageSink`], [`UsageStore`], [`Limiter`], [`Entitlements`], [`Respond`], [`Clock`], and [`Answer`] |
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod answer;
mod clock;
mod counter;
mod credential;
mod decision;
mod denial;
mod end;
mod end_signals;
mod head;
mod key;
mod key_details;
mod metadata;
mod port;
mod principal;
mod quota;
mod scope;
mod window;

pub use answer::{Answer, Pending};
pub use clock::{Clock, ManualClock, SystemClock};
pub use counter::{Counter, FixedWindow, SlidingWindow, TokenBucket};
pub use credential::{Credential, CredentialSource};
pub use decision::{Decision, Weighing, WindowState};
pub use denial::{Denial, DenialKind, Outcome, Unavailable};
pub use end::{EndReason, EndSignal};
pub use end_signals::{ChangedMeanwhile, EndSignals, LookUpUnderWay};
pub use head::Head;
pub use key::{
    ApiKey, Digest, Digests, Environment, InvalidEnvironment, InvalidKeyFormat, InvalidPepper, KeyFormat,
    MalformedKey, ParsedKey, Pepper, PepperId, Peppers, RandomnessUnavailable,
};
pub use key_details::{KeyDetails, KeyStanding};
pub use metadata::{InvalidMetadata, Metadata};
pub use port::{
    Change, Charge, Command, Entitlements, HistoryQuery, HourlyUsage, KeyAction, KeyAdmin, KeyAdminError,
    KeyChange, KeyEvent, KeyLookUp, KeyQuery, KeyRecord, KeyStatus, KeyStore, KeyUpdate, LegacyKey,
    LegacyKeys, Limiter, Operator, Page, Presented, Respond, StoredUsage, Take, TenantChange, Usage,
    UsageBatch, UsageCount, UsageQuery, UsageSink, UsageStore, Verify, WatchKeys, Watchers,
};
pub use principal::{Plan, Principal};
pub use quota::{Algorithm, InvalidQuota, PerWindow, Quota, WindowLimit};
pub use scope::{InvalidScope, Requirement, Scope, Scopes, scope};
pub use window::Window;
