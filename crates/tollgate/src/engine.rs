//! One engine, many gates: what every layer of this crate runs on.
//!
//! A [`Gate`] is a decision about a request. It *asks* what it needs to know, which may take a wait, and *judges* the request
//! by it; what the response will carry of it, it *stamps*. The engine walks a request through its gates. A single layer is
//! the engine with one gate; the whole stack is the same engine with all of them, and so costs one future and one body.
//!
//! ```text
//!  request ─► ask ─► judge ─► ask ─► judge ─► … ─► stamp ─► inner service
//!              │        │                                         │
//!              └────────┴──► Denial ─► responder ─► stamp ─► response ◄┘
//! ```
//!
//! The stamp is made before the inner service is called: by then everything is known that a response will carry. So the
//! future that waits for the response holds neither the engine nor what the gates have learned.
#![expect(
    clippy::inline_always,
    reason = "a walk is to be one function: that was seen to save 3 % of all instructions"
)]

mod body;
mod caching;
mod entrant;
mod exposed_headers;
mod future;
mod gate;
mod headers;
mod instant;
mod metered;
mod numbers;
mod rate_limit_headers;
mod refusal;
mod request_context;
mod service;
mod settings;
mod settlement;
mod stamp;
mod walk;

pub use body::Body;
pub use exposed_headers::exposed_headers;
pub use future::ResponseFuture;
pub use rate_limit_headers::RateLimitHeaders;
pub use refusal::refuse;
pub use request_context::RequestContext;
pub use service::Gated;
pub use settings::ReportOnly;

pub(crate) use caching::Caching;
pub(crate) use entrant::Entrant;
pub(crate) use gate::{Asked, Gate, Learned};
pub(crate) use headers::{Repeated, set_header, single, single_mut};
pub(crate) use request_context::Standing;
pub(crate) use settings::{GateLayer, Settings, impl_layer};
pub(crate) use settlement::{DeferredCharge, DeferredCost, DeferredItem};
pub(crate) use stamp::{ResponseParts, X_REQUEST_ID};
pub(crate) use walk::{Engine, Station};
