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
//! | [`RateLimitLayer`] | the principal, or what you choose | a [`Decision`](limit::Decision), `X-RateLimit-*` | 429 |
//! | [`EntitlementLayer`] | the principal's [`Plan`] | | 403 |
//! | [`ScopeLayer`] | the principal's [`Scopes`], the route | | 403 |
//! | [`UsageLayer`] | the principal | its use, to a [`UsageRecorder`](usage::UsageRecorder) | nothing |
//!
//! What the layers learn stands in one request extension, the [`RequestContext`]. A refusal is a [`Denial`]; a
//! [responder](respond) turns it into bytes. A guard that runs without what it reads answers 500, and the log names the
//! layer that is missing. An application's own layers and handlers [refuse](respond::refuse()) alike.
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
mod number_text;
mod request_id;
pub mod respond;
mod response_head;
mod stack;
mod usage_recorder;

pub use tollgate_core::{answer, clock, denial, key};

/// What a caller may do: scopes, and the requirements that routes have.
pub mod scope {
    pub use tollgate_core::scope::*;

    pub use crate::layers::scope::ScopeMap;
}

/// How much a caller may do: quotas, policies, costs, and the decision of a limiter.
pub mod limit {
    pub use tollgate_core::limit::*;

    pub use crate::layers::exposed_headers::exposed_headers;
    pub use crate::layers::rate_limit::{
        Cost, CustomSubject, DEFAULT_POLICY, Policy, RateLimitHeaders, Subject,
    };
    pub use crate::memory::MemoryLimiter;
}

/// Who a caller is: credentials, what verifies them, and principals with their plans.
pub mod verify {
    pub use tollgate_core::verify::*;

    pub use crate::key_verifier::KeyVerifier;
}

/// Stored keys: how they are found, cached, and how their changes are published.
pub mod store {
    pub use tollgate_core::store::*;

    pub use crate::cached_keys::CachedKeys;
    #[cfg(feature = "legacy")]
    pub use crate::legacy_hashes::LegacyHashes;
    pub use crate::memory::MemoryKeys;
}

/// Managed keys: how they are issued, changed and listed, and what their history holds.
pub mod manage {
    pub use tollgate_core::manage::*;

    pub use crate::key_manager::{IssuedKey, KeyManager, NewKey};
}

/// Usage: how often each key is used, and where that is kept.
pub mod usage {
    pub use tollgate_core::usage::*;

    pub use crate::memory::MemoryUsage;
    #[cfg(feature = "tokio")]
    pub use crate::usage_recorder::UsageFlushing;
    pub use crate::usage_recorder::UsageRecorder;
}

/// A request, and what the layers learn about it.
pub mod request {
    pub use tollgate_core::request::*;

    pub use crate::client_address::ClientAddress;
    pub use crate::engine::RequestContext;
    pub use crate::request_id::RequestId;
}

pub use configuration_error::ConfigurationError;
pub use stack::Tollgate;

pub use answer::Answer;
pub use denial::{Denial, DenialKind};
pub use key::{Environment, KeyFormat};
pub use layers::{
    attempt_limit::AttemptLimitLayer, credential::CredentialLayer, entitlement::EntitlementLayer,
    rate_limit::RateLimitLayer, request_id::RequestIdLayer, scope::ScopeLayer, usage::UsageLayer,
    verify::VerifyLayer,
};
pub use limit::{PerWindow, Policy, Quota};
pub use request::{ClientAddress, RequestContext};
pub use scope::{Scopes, scope};
pub use store::{CachedKeys, MemoryKeys};
pub use verify::{KeyVerifier, Plan, Principal};
