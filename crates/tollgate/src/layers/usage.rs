//! Notes that a principal has used the API.
//!
//! # What is refused
//!
//! | condition | status |
//! |---|---|
//! | no `VerifyLayer` outside | 500 |
//!
//! Anonymous requests pass, and are not noted; nor are CORS preflights.
//!
//! # Where it stands
//!
//! Innermost, inside `VerifyLayer`: then what is noted is what was let through. Further out it also notes what guards inside it
//! refuse.
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
//! Noted in another way:
//!
//! ```
//! use std::sync::mpsc::SyncSender;
//!
//! use tollgate::{
//!     UsageLayer,
//!     usage::{Usage, UsageSink},
//! };
//!
//! /// Tells another thread who has used the API.
//! struct Told(SyncSender<Box<str>>);
//!
//! impl UsageSink for Told {
//!     fn record(&self, usage: &Usage<'_>) {
//!         // Never waits: what a full channel does not take is not told.
//!         let _ = self.0.try_send(usage.principal.id().into());
//!     }
//! }
//!
//! let (sender, _receiver) = std::sync::mpsc::sync_channel(1024);
//! let layer = UsageLayer::new(Told(sender));
//! ```
//!
//! # Security
//!
//! What is noted is what a caller did, by a key's identifier: whoever may read it may watch the key's owner. It is a count for
//! accounts and operators, and limits nobody: that is what `RateLimitLayer` is for.

use std::{fmt, sync::Arc};

use tollgate_core::{
    denial::Denial,
    usage::{Usage, UsageSink},
    verify::Principal,
};

use crate::{
    RequestContext,
    engine::{Asked, Entrant, Gate, Settings, Standing, impl_layer},
};

/// Notes that a principal has used the API. See the [module](self).
#[derive(Clone, Debug)]
pub struct UsageLayer {
    pub(crate) gate: UsageGate,
    settings: Settings,
}

impl UsageLayer {
    /// Notes each use in `sink`: usually a [`UsageRecorder`](crate::usage::UsageRecorder).
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

#[derive(Clone)]
pub(crate) struct UsageGate {
    sink: Arc<dyn UsageSink>,
}

impl UsageGate {
    /// Who uses the API, if it is anybody.
    fn user<'p>(&self, context: &'p RequestContext) -> Result<Option<&'p Arc<Principal>>, Denial> {
        match context.standing() {
            // Nobody's business here, whatever the guards think of it.
            Standing::Anonymous | Standing::Waived => Ok(None),
            _ => context.guarded(self.layer()),
        }
    }
}

impl Gate for UsageGate {
    fn layer(&self) -> &'static str {
        "UsageLayer"
    }

    #[inline]
    fn ask(&self, entrant: &mut impl Entrant) -> Asked {
        let context = entrant.context();
        let user = self.user(context).map(|user| {
            if let Some(principal) = user {
                self.sink.record(&Usage::new(principal, context.instant()));
            }
        });
        Asked::Answered(user)
    }

    /// All was said when it was asked.
    fn judge(&self, _context: &RequestContext) -> Result<(), Denial> {
        Ok(())
    }
}

impl fmt::Debug for UsageGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageGate").finish_non_exhaustive()
    }
}
