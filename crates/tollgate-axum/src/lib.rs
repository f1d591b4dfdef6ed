//! Tollgate for axum: extractors for what the layers have learned, and WebSocket refusals that browsers can read.
//!
//! The layers themselves are [`tollgate`]'s: they are Tower layers, and axum takes them as they are.
//!
//! ```
//! use axum::{Router, routing::get};
//! use tollgate::{KeyFormat, KeyVerifier, MemoryKeys, PerWindow, Tollgate, scope};
//! use tollgate_axum::{Authenticated, RateLimit, RequestId};
//!
//! async fn list_jobs(Authenticated(caller): Authenticated, RequestId(request): RequestId) -> String {
//!     format!("the jobs of {}, asked for by {request}", caller.tenant().unwrap_or("nobody"))
//! }
//!
//! async fn usage(RateLimit(decision): RateLimit) -> String {
//!     decision.windows().iter().map(|window| format!("{} left\n", window.remaining())).collect()
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
//!     .route("/health", get(|| async { "ok" })); // added after the layer, so open to everybody
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | extractor | needs | gives |
//! |---|---|---|
//! | [`Authenticated`] | `VerifyLayer` | the [`Principal`](tollgate::Principal); 401 to the anonymous |
//! | `Option<Authenticated>` | `VerifyLayer` | the same, or `None` for the anonymous |
//! | [`RequestId`] | `RequestIdLayer` | the request's identifier |
//! | [`RateLimit`] | `RateLimitLayer` | where the caller's limits stand |
//!
//! Where the layer is missing, the answer is 500, and the log names the layer: a mistake in the wiring must not look like
//! an anonymous caller.
#![cfg_attr(
    feature = "connect-info",
    doc = r"
# Limits by address

Layers that count by the client's address learn from [`peer_address`] whom the server is connected with."
)]
#![cfg_attr(
    feature = "management",
    doc = r"
# Keys that their owners manage

[`management`] has the operations of a [`KeyManager`](tollgate::manage::KeyManager) as JSON routes, to be mounted behind the
application's own session."
)]
#![cfg_attr(
    feature = "ws",
    doc = r#"
# When a WebSocket is refused

A browser shows a page nothing of a refused WebSocket but the code 1006. [`WebSocketClose`] accepts it and closes it at
once, with a code that says why:

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

Route a WebSocket with `any`: over HTTP/2 its method is CONNECT, which a route for GET misses. A handler that refuses by
an extractor takes it *before* `WebSocketUpgrade`, which leaves no upgrade for a refusal to close."#
)]
//!
//! # Which layer is outside
//!
//! A request meets the layers from the outside in, a response from the inside out:
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
//! Of layers added one by one with `Router::layer`, the **last** is the outermost; in a `tower::ServiceBuilder` it is the
//! **first** ([axum#394]). [`Tollgate`](tollgate::Tollgate) has the order in itself. Layers that stand alone are best put into
//! a `ServiceBuilder`, where they read in the order of a request:
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
//! # What a layer covers
//!
//! - `Router::layer` covers the routes and the fallback that were added **before** it, and nothing that comes after.
//! - So an unknown path under it is answered 401 to strangers, not 404. axum itself adds `Allow` to the answer where a path
//!   exists and the method does not; where even that must not show, put the layer around the router, as around any service:
//!   `tollgate.layer(router)`.
//! - `Router::route_layer` covers routes only. Unknown paths stay 404, and so does a **fallback, unguarded**, whatever it serves
//!   ([axum#474]): no place for a guard, if the fallback has anything to hide.
//! - A router merged or nested later is covered by its own layers only.
//!
//! [axum#394]: https://github.com/tokio-rs/axum/issues/394
//! [axum#474]: https://github.com/tokio-rs/axum/issues/474
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod authenticated;
#[cfg(feature = "connect-info")]
mod connect_info;
#[cfg(feature = "management")]
pub mod management;
mod rate_limit;
mod rejection;
mod request_id;

pub use authenticated::Authenticated;
#[cfg(feature = "connect-info")]
pub use connect_info::peer_address;
pub use rate_limit::RateLimit;
pub use rejection::Rejection;
pub use request_id::RequestId;

#[cfg(feature = "ws")]
pub use tollgate::respond::{WebSocketClose, is_websocket};
