//! Composable Tower layers for APIs that are guarded by keys.
//!
//! [`Tollgate::builder`] stacks the layers in the right order. The stack is a Tower layer, for axum, tonic and every other Tower
//! service:
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tollgate::{
//!     Environment, KeyFormat, KeyVerifier, MemoryKeys, PerWindow, Principal, RequestContext, Scopes, Tollgate, scope,
//! };
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! // Keys in memory. Crate `tollgate-sql` has keys in SQLite and PostgreSQL.
//! let format = KeyFormat::new("sk")?;
//! let keys = MemoryKeys::new();
//! let owner = Principal::new("key_1").with_tenant("acme").with_scopes(Scopes::new(["jobs:read"])?);
//! let key = keys.issue(&format, Environment::Live, owner)?;
//!
//! let tollgate = Tollgate::builder()
//!     .verify(KeyVerifier::new(format, keys))
//!     .rate_limit(60.per_minute().and(1_000.per_hour()))
//!     .scope(scope("jobs:read"))
//!     .build()?;
//!
//! let mut service = ServiceBuilder::new().layer(tollgate).service_fn(async |request: Request<String>| {
//!     let caller = RequestContext::of(request.extensions()).and_then(RequestContext::principal);
//!     let tenant = caller.and_then(|principal| principal.tenant()).unwrap_or("no tenant");
//!     Ok::<_, BoxError>(Response::new(format!("jobs of {tenant}")))
//! });
//!
//! let request = Request::get("/jobs").header("x-api-key", key.expose_secret()).body(String::new())?;
//! let response = service.ready().await?.call(request).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(response.headers()["x-ratelimit-remaining"], "59");
//!
//! let response = service.ready().await?.call(Request::new(String::new())).await?;
//! assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```
//!
//! An axum application with persistent keys is in the [README](https://github.com/tollgate-rs/tollgate#readme), beside guides.
//!
//! # Layers
//!
//! Each layer works alone. A request passes them in this order:
//!
//! | layer | reads | provides | refuses with |
//! |---|---|---|---|
//! | [`RequestIdLayer`] | `x-request-id` | the request ID, on each response | |
//! | [`AttemptLimitLayer`] | the [client's address](ClientAddress) | | 429 |
//! | [`CredentialLayer`] | headers, in a given order | the credential | 400, 401 |
//! | [`VerifyLayer`] | the credential | the [`Principal`] | 401, 403 |
//! | [`PlanLayer`] | the principal | the [`Plan`] | |
//! | [`InFlightLimitLayer`] | the principal and its plan, or what you choose | | 429 |
//! | [`RateLimitLayer`] | the principal and its plan, or what you choose | a [`Decision`](limit::Decision), `X-RateLimit-*` headers | 429 |
//! | [`EntitlementLayer`] | the plan | | 403 |
//! | [`ScopeLayer`] | the principal's [`Scopes`], the route | | 403, 404, 405 |
//! | [`GuardLayer`] | the principal and its plan, the request's head | | what your [`Guard`](guard::Guard) returns |
//! | [`CreditsLayer`] | the principal and its plan, the request's head | a [`CreditMeter`](credits::CreditMeter), `X-Credits-Remaining` | 402 |
//! | [`UsageLayer`] | the principal | usage counts, to a [`UsageRecorder`](usage::UsageRecorder) | |
//! | [`MessageLayer`] | what its limits and credits read | a [`MessageMeter`], by which a handler charges the messages of a stream | |
//! | [`StreamEndLayer`] | the principal | the end of long streams, when the caller's key has [`Ended`] | 401, 403 |
//!
//! The layers keep what they know about a request in one extension, the [`RequestContext`]. A refusal is a [`Denial`]; a
//! [responder](respond) turns it into a response. A backend that does not answer is a 503. A guard that does not find what it reads is
//! a 500, and the log names the missing layer. Layers and handlers of an application can [refuse](respond::refuse()) in the same way.
//!
//! # Backends
//!
//! | trait | implementations | does |
//! |---|---|---|
//! | [`Verify`](verify::Verify) | [`KeyVerifier`]; [`CachedVerifier`](verify::CachedVerifier) in front of one that answers later; [`Dispatch`](verify::Dispatch) to several | turns a credential into a principal |
//! | [`KeyStore`](store::KeyStore) | [`MemoryKeys`], `tollgate_sql::SqlKeys`; [`CachedKeys`] in front of one | finds keys by their digest |
//! | [`KeyAdmin`](manage::KeyAdmin) | [`MemoryKeys`], `tollgate_sql::SqlKeys` | issues and changes keys, for a [`KeyManager`](manage::KeyManager) |
//! | [`Limiter`](limit::Limiter) | [`MemoryLimiter`](limit::MemoryLimiter) | counts requests |
//! | [`Places`](in_flight::Places) | [`MemoryPlaces`](in_flight::MemoryPlaces) | counts requests in flight |
//! | [`Credits`](credits::Credits), [`CreditAdmin`](credits::CreditAdmin), [`CreditLoans`](credits::CreditLoans) | [`MemoryCredits`](credits::MemoryCredits) | reserves and charges credits, grants them, has loans for `tollgate_redis::RedisCredits` |
//! | [`Entitlements`](verify::Entitlements) | | looks plans up |
//! | [`Guard`](guard::Guard) | | admits or refuses by a rule of your own |
//! | [`UsageStore`](usage::UsageStore) | [`MemoryUsage`](usage::MemoryUsage), `tollgate_sql::SqlKeys` | stores usage counts |
//!
//! In-process backends count and store per process: with several processes, each one admits the whole quota.
//!
//! # Logs
//!
//! Each refusal is one [tracing](https://docs.rs/tracing) event `refused` with the target `tollgate`. Its level is `INFO`; `WARN` if a
//! backend does not answer, and `ERROR` if the stack is configured wrongly. The fields are stable and contain no secret:
//!
//! | field | value |
//! |---|---|
//! | `layer` | the layer that refused |
//! | `reason` | the precise reason: [`DenialKind::reason`] |
//! | `code` | the public code of the denial |
//! | `status` | the status that was sent; in report-only mode, the denial's |
//! | `method`, `path` | of the request, without the query; of a refused message, those of the request that opened the stream |
//! | `detail` | details for the log only |
//! | `request_id`, `principal`, `tenant` | if they are known |
//! | `report_only` | `true` if the request was let through in report-only mode |
//!
//! A stream that [`StreamEndLayer`] ends is one event `stream ended` at `INFO` with the same fields. Its `status` was sent with the head.
//!
//! Other events with this target refuse no request. `WARN`: a deferred charge failed (`detail`), usage could not be flushed
//! (`detail`), usage was dropped (`uses`, `unconfirmed`), or a reservation was not settled and expires (`account`, `reservation`,
//! `actual`, which is not charged, and `detail`). `INFO`, `credits not charged`: a settlement did not charge the whole actual cost
//! (`account`, `reservation`, `charged`, `uncharged`). `ERROR`, at growing intervals: a limit by address has no effect, because
//! the client's address is unknown (`layer`).
//!
//! The code inside a [`RequestIdLayer`] runs in a span `request` with the field `request_id`.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod cached_keys;
mod cached_verifier;
mod client_address;
mod configuration_error;
mod dispatch;
mod ended;
mod engine;
mod key_manager;
mod key_verifier;
pub mod layers;
#[cfg(feature = "legacy")]
mod legacy_hashes;
mod lookups;
mod memory;
mod number_text;
pub mod oauth;
mod request_id;
pub mod respond;
mod response_head;
mod stack;
mod usage_recorder;

pub use tollgate_core::{answer, bounds, clock, denial, guard, key, network};

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
        Cost, Costs, CustomSubject, DEFAULT_POLICY, Policy, RateLimitHeaders, Subject,
    };
    pub use crate::memory::MemoryLimiter;
}

/// Requests in flight: the places that they take, and what counts them.
pub mod in_flight {
    pub use tollgate_core::in_flight::*;

    pub use crate::memory::MemoryPlaces;
}

/// Credits: what a tenant has bought in advance, and what its requests cost.
pub mod credits {
    pub use tollgate_core::credits::*;

    pub use crate::layers::credits::{CreditCost, CreditCosts, CreditMeter, RepeatedRequest};
    pub use crate::memory::MemoryCredits;
}

/// Who a caller is: credentials, what verifies them, and principals with their plans.
pub mod verify {
    pub use tollgate_core::verify::*;

    pub use crate::cached_verifier::CachedVerifier;
    pub use crate::dispatch::{Branch, Dispatch};
    pub use crate::key_verifier::KeyVerifier;
    pub use crate::layers::credential::PublicRoutes;
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
    pub use crate::usage_recorder::{UsageFlushing, UsageRecorder};
}

/// A request, and what the layers learn about it.
pub mod request {
    pub use tollgate_core::request::*;

    pub use crate::client_address::ClientAddress;
    pub use crate::engine::RequestContext;
    pub use crate::layers::message::MessageMeter;
    pub use crate::request_id::RequestId;
}

pub use configuration_error::ConfigurationError;
pub use ended::Ended;
pub use stack::Tollgate;

pub use answer::Answer;
pub use denial::{Denial, DenialKind};
pub use key::{Environment, KeyFormat};
pub use layers::{
    attempt_limit::AttemptLimitLayer, credential::CredentialLayer, credits::CreditsLayer,
    entitlement::EntitlementLayer, guard::GuardLayer, in_flight_limit::InFlightLimitLayer,
    message::MessageLayer, plan::PlanLayer, rate_limit::RateLimitLayer, request_id::RequestIdLayer,
    scope::ScopeLayer, stream_end::StreamEndLayer, usage::UsageLayer, verify::VerifyLayer,
};
pub use limit::{PerWindow, Policy, Quota};
pub use request::{ClientAddress, MessageMeter, RequestContext};
pub use scope::{Scopes, scope};
pub use store::{CachedKeys, MemoryKeys};
pub use verify::{KeyVerifier, Plan, Principal};
