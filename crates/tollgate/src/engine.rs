//! One engine, many gates: what every layer of this crate runs on.
//!
//! A [`Gate`] is a decision with three moments: before the inner service it *asks* what it needs to know and *judges* the
//! request by it; afterwards it may *finish* the response. The engine walks a request through its gates. A single layer is
//! the engine with one gate; the whole stack is the same engine with all of them, and so costs one future and one body.
//!
//! ```text
//!  request ─► ask ─► judge ─► ask ─► judge ─► … ─► inner service
//!              │        │                              │
//!              └────────┴──► Denial ─► responder ─► finish ◄┘ ─► response
//! ```

mod body;
mod future;
mod gate;
mod headers;
mod passage;
mod refusal;
mod service;
mod settings;
mod walk;

pub use body::Body;
pub use future::ResponseFuture;
pub use passage::Passage;
pub use refusal::refuse;
pub use service::Gated;
pub use settings::ReportOnly;

pub(crate) use gate::{Gate, Learned};
pub(crate) use headers::{PRIVATE, set_header};
pub(crate) use passage::Standing;
pub(crate) use settings::{GateLayer, Settings, impl_layer};
pub(crate) use walk::{Engine, Station};
