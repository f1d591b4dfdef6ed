//! Tollgate for axum: extractors for the results of the layers, and WebSocket refusals that browsers can read.
//!
//! The layers are [`tollgate`]'s. They are Tower layers, which axum accepts unchanged.
//!
//! ```
//! use axum::{Router, routing::get};
//! use tollgate::{KeyFormat, KeyVerifier, MemoryKeys, PerWindow, Tollgate, scope};
//! use tollgate_axum::{Authenticated, RateLimit, RequestId};
//!
//! async fn list_jobs(Authenticated(caller): Authenticated, RequestId(request): RequestId) -> String {
//!     format!("jobs of {} (request {request})", caller.tenant().unwrap_or("no tenant"))
//! }
//!
//! async fn usage(RateLimit(decision): RateLimit) -> String {
//!     decision.windows().iter().map(|window| format!("{} remaining\n", window.remaining())).collect()
//! }
//!
//! let tollgate = Tollgate::builder()
//!     .verify(KeyVerifier::new(KeyFormat::new("sk")?, MemoryKeys::new()))
//!     .rate_limit(60.per_minute().and(1_000.per_hour()))
//!     .scope(scope("jobs:read"))
//!     .build()?;
//!
//! let app: Router = Router::new()
//!     .route("/jobs", get(list_jobs))
//!     .route("/usage", get(usage))
//!     .layer(tollgate)
//!     .route("/health", get(|| async { "ok" })); // added after the layer, so not protected
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | extractor | requires | returns |
//! |---|---|---|
//! | [`Authenticated`] | `VerifyLayer` | the [`Principal`](tollgate::Principal); 401 for anonymous requests |
//! | `Option<Authenticated>` | `VerifyLayer` | the same; `None` for anonymous requests |
//! | [`ActivePlan`] | `VerifyLayer` | the caller's active [`Plan`](tollgate::Plan); 403 without one |
//! | [`RequestId`] | `RequestIdLayer` | the request's identifier |
//! | [`RateLimit`] | `RateLimitLayer` | the state of the caller's limits |
//! | [`InEnvironment`] | `VerifyLayer`, a state [`ByEnvironment`] | the value for the caller's environment |
//! | [`Credits`] | `CreditsLayer` | the [`CreditMeter`](tollgate::credits::CreditMeter), to which the handler reports what the request has cost |
//! | [`Messages`] | `MessageLayer` | the [`MessageMeter`](tollgate::request::MessageMeter), by which the handler charges each message of a stream |
//! | [`Context`] | any layer | the whole [`RequestContext`](tollgate::RequestContext) |
//!
//! If the layer is missing, the response is 500 and the log names the layer: a configuration error must not look like an
//! anonymous request.
//!
//! # Refusing in a handler
//!
//! A handler that returns `Result<_, `[`Refused`]`>` refuses with `?` on a [`Denial`](tollgate::Denial). Put a [`RefusalLayer`]
//! around the routes: then the response and the log are like those of the layers.
#![cfg_attr(
    feature = "connect-info",
    doc = r"
# Limits by address

Layers that limit by the client's address get the peer's address from [`peer_address`]."
)]
#![cfg_attr(
    feature = "original-uri",
    doc = r"
# Keys in the query

A `CredentialLayer` that removes keys from the query removes them from axum's `OriginalUri`, too, if it is built with
[`original_uri`]."
)]
#![cfg_attr(
    feature = "management",
    doc = r"
# Key management for the owners of keys

[`management`] provides the operations of a [`KeyManager`](tollgate::manage::KeyManager) as JSON routes. Mount them behind your
application's session."
)]
#![cfg_attr(
    feature = "oauth",
    doc = r"
# OAuth

[`protected_resource`] serves the metadata by which clients, such as those of MCP servers, find the authorization server."
)]
#![cfg_attr(
    feature = "ws",
    doc = r#"
# Refusing a WebSocket

If a WebSocket is refused, a browser shows the page only the code 1006. [`WebSocketClose`] accepts the WebSocket and closes it
immediately, with a code that shows the reason:

```
use tollgate::{
    CredentialLayer, KeyFormat, KeyVerifier, MemoryKeys, Tollgate, verify::CredentialSource,
};
use tollgate_axum::WebSocketClose;

// In the browser: `new WebSocket(url, ["chat", "key." + key])`
let tollgate = Tollgate::builder()
    .credential(CredentialLayer::from_sources([
        CredentialSource::Bearer,
        CredentialSource::WebSocketProtocol("key."),
    ])?)
    .verify(KeyVerifier::new(KeyFormat::new("sk")?, MemoryKeys::new()))
    .responder(WebSocketClose::new().with_subprotocols(["chat"]))
    .build()?;
# Ok::<(), Box<dyn std::error::Error>>(())
```

Route a WebSocket with `any`: over HTTP/2 its method is CONNECT, which a GET route does not match. If a handler refuses with
an extractor, place that extractor *before* `WebSocketUpgrade`, which takes the upgrade that the refusal needs.

# Closing an open WebSocket

[`GuardedUpgrade`] in place of axum's `WebSocketUpgrade` closes a WebSocket when the key of its caller is revoked or expires, or its
tenant is suspended, with the same codes. Streams that are responses, such as server-sent events, are ended by
[`StreamEndLayer`](tollgate::StreamEndLayer)."#
)]
//!
//! # Order of layers
//!
//! A request passes the layers from the outermost to the innermost, a response from the innermost to the outermost:
//!
//! ```text
//!        request                 response
//!           │                       ▲
//!  ┌─ RequestIdLayer ───────────────┼─────────┐
//!  │ ┌─ CredentialLayer ────────────┼───────┐ │
//!  │ │ ┌─ VerifyLayer ──────────────┼─────┐ │ │
//!  │ │ │        ▼                   │     │ │ │
//!  │ │ │        extractors, handler ┘     │ │ │
//!  │ │ └──────────────────────────────────┘ │ │
//!  │ └──────────────────────────────────────┘ │
//!  └──────────────────────────────────────────┘
//! ```
//!
//! With `Router::layer`, the layer added **last** is the outermost. In a `tower::ServiceBuilder` it is the **first**
//! ([axum#394]). [`Tollgate`](tollgate::Tollgate) contains the right order. Put separate layers into a `ServiceBuilder`, where
//! they are listed in the order of a request:
//!
//! ```
//! use axum::{Router, routing::get};
//! use tollgate::{CredentialLayer, KeyFormat, KeyVerifier, MemoryKeys, RequestIdLayer, VerifyLayer};
//! use tower::ServiceBuilder;
//!
//! let verifier = KeyVerifier::new(KeyFormat::new("sk")?, MemoryKeys::new());
//! let app: Router = Router::new().route("/jobs", get(|| async { "[]" })).layer(
//!     ServiceBuilder::new()
//!         .layer(RequestIdLayer::new())
//!         .layer(CredentialLayer::new())
//!         .layer(VerifyLayer::new(verifier)),
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which routes a layer covers
//!
//! - `Router::layer` covers the routes and the fallback that were added **before** it, and nothing that is added later.
//! - An unknown path under it therefore answers 401 to unauthenticated requests, not 404. axum adds `Allow` to the response if the
//!   path exists but the method does not. To hide this too, put the layer around the router, like around any service:
//!   `tollgate.layer(router)`.
//! - `Router::route_layer` covers only routes. Unknown paths answer 404, and a **fallback is not protected** ([axum#474]). Do not
//!   use it as a guard if the fallback must be protected.
//! - A router that is merged or nested later is covered only by its own layers.
//!
//! A test can check which routes are open: build the application with a `RecordedRouter` (feature `recorded-router`), and give it to
//! `tollgate_testing::coverage`.
//!
//! [axum#394]: https://github.com/tokio-rs/axum/issues/394
//! [axum#474]: https://github.com/tokio-rs/axum/issues/474
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod active_plan;
mod authenticated;
mod by_environment;
#[cfg(feature = "connect-info")]
mod connect_info;
mod context;
mod credits;
#[cfg(feature = "ws")]
mod guarded_socket;
#[cfg(feature = "ws")]
mod guarded_upgrade;
#[cfg(feature = "management")]
pub mod management;
mod messages;
#[cfg(feature = "original-uri")]
mod original_uri;
#[cfg(feature = "oauth")]
mod protected_resource;
mod rate_limit;
#[cfg(feature = "recorded-router")]
mod recorded_router;
mod refused;
mod rejection;
mod request_id;

pub use active_plan::ActivePlan;
pub use authenticated::Authenticated;
pub use by_environment::{ByEnvironment, ByEnvironmentFuture, InEnvironment};
#[cfg(feature = "connect-info")]
pub use connect_info::peer_address;
pub use context::Context;
pub use credits::Credits;
#[cfg(feature = "ws")]
pub use guarded_socket::GuardedSocket;
#[cfg(feature = "ws")]
pub use guarded_upgrade::{GuardedUpgrade, GuardedUpgradeRejection};
pub use messages::Messages;
#[cfg(feature = "original-uri")]
pub use original_uri::original_uri;
#[cfg(feature = "oauth")]
pub use protected_resource::protected_resource;
pub use rate_limit::RateLimit;
#[cfg(feature = "recorded-router")]
pub use recorded_router::{RecordedRouter, RecordedRoutes};
pub use refused::{RefusalFuture, RefusalLayer, RefusalService, Refused};
pub use rejection::Rejection;
pub use request_id::RequestId;

#[cfg(feature = "ws")]
pub use tollgate::respond::{CloseCodes, WebSocketClose, is_websocket};
