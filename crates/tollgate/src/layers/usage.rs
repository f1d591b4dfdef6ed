//! Records that a principal has used the API.
//!
//! # What is refused
//!
//! | condition | status |
//! |---|---|
//! | no `VerifyLayer` outside | 500 |
//!
//! Anonymous requests, requests for public routes, and CORS preflights pass, and are not recorded.
//!
//! # Where it stands
//!
//! Innermost, inside `VerifyLayer`: then it records admitted requests only. Further out it also records what inner guards refuse.
//!
//! # Examples
//!
//! ```
//! use tollgate::{
//!     UsageLayer,
//!     usage::{MemoryUsage, UsageRecorder},
//! };
//!
//! let usage = UsageRecorder::new(MemoryUsage::new());
//! let layer = UsageLayer::new(usage.clone()); // flush it now and then: see `UsageRecorder`
//! ```
//!
//! With a sink of your own:
//!
//! ```
//! use std::sync::mpsc::SyncSender;
//!
//! use tollgate::{
//!     UsageLayer,
//!     usage::{Usage, UsageSink},
//! };
//!
//! /// Sends each principal's identifier to another thread.
//! struct Channel(SyncSender<Box<str>>);
//!
//! impl UsageSink for Channel {
//!     fn record(&self, usage: &Usage<'_>) {
//!         // Never waits: a full channel drops the record.
//!         let _ = self.0.try_send(usage.principal.id().into());
//!     }
//! }
//!
//! let (sender, _receiver) = std::sync::mpsc::sync_channel(1024);
//! let layer = UsageLayer::new(Channel(sender));
//! ```
//!
//! # Security
//!
//! Usage shows what a key's owner does: restrict who may read it. It is a count for accounts and operators and limits nothing; that
//! is the task of `RateLimitLayer`.

use std::{fmt, sync::Arc};

use tollgate_core::{
    denial::Denial,
    usage::{Usage, UsageSink},
};

use crate::engine::{Caller, Cx, Flow, Settings, impl_layer};

/// Records that a principal has used the API. See the [module](self).
///
/// ```
/// use tollgate::{
///     UsageLayer,
///     usage::{MemoryUsage, UsageRecorder},
/// };
///
/// let usage = UsageRecorder::new(MemoryUsage::new());
/// let layer = UsageLayer::new(usage.clone()); // keep the recorder, to flush it
/// ```
#[derive(Clone, Debug)]
pub struct UsageLayer {
    pub(crate) gate: UsageGate,
    settings: Settings,
}

impl UsageLayer {
    /// Records each use in `sink`: usually a [`UsageRecorder`](crate::usage::UsageRecorder).
    pub fn new(sink: impl UsageSink) -> Self {
        Self { gate: UsageGate { sink: Arc::new(sink) }, settings: Settings::default() }
    }
}

impl<S: UsageSink> From<S> for UsageLayer {
    fn from(sink: S) -> Self {
        Self::new(sink)
    }
}

impl_layer!(UsageLayer, Usage);

pub(crate) const LAYER: &str = "UsageLayer";

#[derive(Clone)]
pub(crate) struct UsageGate {
    sink: Arc<dyn UsageSink>,
}

impl UsageGate {
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        let context = &*cx.context;
        // A guard decides whether such callers may pass.
        if matches!(context.caller, Caller::Anonymous | Caller::Waived) {
            return Ok(Flow::Continue);
        }
        if let Some(principal) = context.guarded(LAYER)? {
            self.sink.record(&Usage::new(principal, context.instant()));
        }
        Ok(Flow::Continue)
    }
}

impl fmt::Debug for UsageGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageGate").finish_non_exhaustive()
    }
}
