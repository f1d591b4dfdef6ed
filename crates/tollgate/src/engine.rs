//! The engine: what every layer of this crate runs on.
//!
//! A [`Gate`](crate::layers::Gate) is one decision about a request. The engine runs gates in order around an inner service. A layer
//! is the engine with one gate; the built stack is the same engine with all of them, so it costs one future and one body.
//!
//! ```text
//! Gated::call ─► Engine::start ─► Gate::check, gate by gate ─► inner service ─► ResponseFuture::poll ─► Body
//!                                   │                                             └─ ResponseParts::apply
//!                                   ├─ Err(Denial):    Refusal::new ─► ResponseFuture::poll ─► Body
//!                                   └─ Ok(Flow::Wait): ResponseFuture::poll waits ─► Engine::resume ─► the next gates
//! ```
//!
//! Gates note what the response will carry in [`ResponseParts`], which are complete before the inner service is called. From
//! then on the future holds neither the engine nor the request's context; a [`Watch`](watch::Watch) keeps what the refusal of an open
//! request needs of the context.

mod body;
mod caching;
mod context;
mod deferred;
mod future;
mod gate;
mod headers;
mod instant;
mod kept_charge;
mod known_caller;
mod last_frame;
mod metered;
mod refusal;
mod response_parts;
mod run;
mod service;
mod settings;
mod stream_caller;
mod watch;
mod watched;

pub use body::Body;
pub use context::RequestContext;
pub use future::ResponseFuture;
pub use refusal::refuse;
pub use service::Gated;
pub use settings::ReportOnly;

pub(crate) use caching::Caching;
pub(crate) use context::Caller;
pub(crate) use deferred::{DeferredCharge, DeferredCost, DeferredItem};
pub(crate) use gate::{Cx, Flow};
pub(crate) use headers::{Repeated, set_header, single, single_mut};
pub(crate) use kept_charge::KeptCharge;
pub(crate) use known_caller::KnownCaller;
pub(crate) use refusal::{Schemes, WasAdmitted};
pub(crate) use response_parts::{ResponseParts, X_REQUEST_ID};
pub(crate) use run::{Engine, Station};
pub(crate) use settings::{GateLayer, RequestClock, Settings, impl_layer};
pub(crate) use stream_caller::StreamCaller;
