//! Composable Tower layers for APIs that sell or guard access by key.
//!
//! Each layer works alone; [`Tollgate::builder`] stacks them in the right order in one line.
//!
//! | layer | reads | gives | refuses with |
//! |---|---|---|---|
//! | [`RequestIdLayer`] | `x-request-id` | the request's identifier, on every response | nothing |
//! | [`AttemptLimitLayer`] | the [client's address](ClientAddress) | | 429 |
//! | [`CredentialLayer`] | headers, in a stated order | the credential | 401, 400 |
//! | [`VerifyLayer`] | the credential | the [`Principal`] | 401, 403 |
//! | [`RateLimitLayer`] | the principal, or what you choose | a [`Decision`], `X-RateLimit-*` | 429 |
//! | [`EntitlementLayer`] | the principal's [`Plan`] | | 403 |
//! | [`ScopeLayer`] | the principal's [`Scopes`], the route | | 403 |
//! | [`UsageLayer`] | the principal | its use, to a [`UsageRecorder`] | nothing |
//!
//! What the layers learn stands in one request extension, the [`Passage`]. A refusal is a [`Denial`]; a
//! [responder](respond) turns it into bytes. A guard that runs without what it reads answers 500, and the log names the
//! layer that is missing. An application's own layers and handlers [refuse](refuse()) alike.
//!
//! # Logs
//!
//! Every refusal is one [tracing](https://docs.rs/tracing) event `refused` of the target `tollgate`, at the level `INFO`; `WARN` where a
//! backend is down, `ERROR` where a stack is put together wrongly. Its fields are stable, and none holds a secret:
//!
//! | field | |
//! |---|---|
//! | `layer` | who refused |
//! | `reason` | the precise reason: [`DenialKind::reason`] |
//! | `code`, `status` | what the caller is told, unless the responder has words of its own |
//! | `detail` | what only the log may know |
//! | `request_id`, `principal`, `tenant` | if they are known |
//! | `report_only` | whether the request was let through all the same |
//!
//! More events of that target tell what refuses nobody: at the level `WARN`, that what a response has cost could not be charged
//! (`detail`), that usage could not be flushed (`detail`), or how many uses were dropped (`uses`); and at `ERROR`, ever more rarely,
//! that a limit by address does not hold, since nobody knows any (`layer`).
//!
//! What is inside a [`RequestIdLayer`] runs in a span `request` with the field `request_id`.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod cached_keys;
mod client_address;
mod configuration_error;
mod engine;
mod key_manager;
mod key_verifier;
pub mod layers;
#[cfg(feature = "legacy")]
mod legacy_hashes;
mod memory;
mod request_id;
pub mod respond;
mod response_head;
mod stack;
mod usage_recorder;

pub use tollgate_core::*;

pub use cached_keys::CachedKeys;
pub use client_address::ClientAddress;
pub use configuration_error::ConfigurationError;
pub use engine::{
    Body, Gated, Passage, RateLimitHeaders, ReportOnly, ResponseFuture, exposed_headers, refuse,
};
pub use key_manager::{IssuedKey, KeyManager, NewKey};
pub use key_verifier::KeyVerifier;
pub use layers::{
    attempt_limit::AttemptLimitLayer,
    credential::CredentialLayer,
    entitlement::EntitlementLayer,
    rate_limit::{Cost, CustomSubject, DEFAULT_POLICY, Policy, RateLimitLayer, Subject},
    request_id::RequestIdLayer,
    scope::{ScopeLayer, ScopeMap},
    usage::UsageLayer,
    verify::VerifyLayer,
};
#[cfg(feature = "legacy")]
pub use legacy_hashes::LegacyHashes;
pub use memory::{MemoryKeys, MemoryLimiter, MemoryUsage};
pub use request_id::RequestId;
pub use response_head::ResponseHead;
pub use stack::{Tollgate, TollgateBuilder};
#[cfg(feature = "tokio")]
pub use usage_recorder::UsageFlushing;
pub use usage_recorder::UsageRecorder;
