//! Limits how many requests of a caller are in flight at the same time.
//!
//! # What is refused
//!
//! | condition | status | log reason |
//! |---|---|---|
//! | the subject has as many requests in flight as it may | 429 | `too_many_in_flight` |
//! | the places cannot be counted, because a shared backend does not answer | 503 | `unavailable` |
//! | counted by key or tenant, and no `VerifyLayer` outside | 500 | `misconfigured` |
//!
//! The refusal has no `Retry-After`, because nothing tells when one of the caller's requests ends. In report-only mode, a request
//! that would be refused takes no place. Anonymous requests are not counted by key or tenant; a built stack that accepts them needs a
//! limit by address or by a function. Public routes and CORS preflights are
//! not counted.
//!
//! # When a place is free again
//!
//! A request takes a place when this layer admits it, and keeps it
//!
//! - until the body of its response has ended or was dropped, for example because the caller hung up,
//! - or until the future of its response is dropped, or the handler fails or panics,
//! - or until a layer inside refuses it.
//!
//! A response that streams, such as server-sent events, holds its place as long as it streams. The response to an upgrade has no
//! body: a WebSocket holds its place until the handshake is answered, and **is not counted while it is open**.
//!
//! A body frees the place before it says that it has ended, so a caller that waits for the end of a response finds the place free. A
//! body that does not know its end, such as a stream whose length is only in the header `Content-Length`, frees the place when the
//! server drops it. That may be a moment after the last byte.
//!
//! # Where it stands
//!
//! Inside `VerifyLayer`, and outside `RateLimitLayer`: a refused request is counted in no quota. A limit by address may stand outside
//! `CredentialLayer`, where it also limits the lookups that unknown callers cause. A stack may have several.
//!
//! # Examples
//!
//! ```
//! use tollgate::InFlightLimitLayer;
//!
//! let layer = InFlightLimitLayer::new(10); // for each key
//! ```
//!
//! By tenant, with more for a tier:
//!
//! ```
//! use tollgate::{InFlightLimitLayer, limit::Subject};
//!
//! let layer = InFlightLimitLayer::new(20).with_subject(Subject::Tenant).with_tier("pro", 100);
//! ```
//!
//! # Security
//!
//! A place is never given twice, and none is lost: it is freed when the future or the body that holds it is dropped. A caller that reads a
//! response slowly holds only places of its own subject, until the server has taken the whole body: give the server a time limit for
//! writing, because it keeps what a caller does not read.
//!
//! Without [`with_places`](InFlightLimitLayer::with_places) places are counted in this process: each process admits the whole number. The
//! documentation of a backend for several processes says how long it holds the places of a process that has died.

use std::{borrow::Cow, fmt, sync::Arc};

use tollgate_core::{
    denial::{Denial, DenialKind},
    in_flight::{PlaceRequest, Places},
};

use crate::{
    RequestContext,
    engine::{Caller, Cx, Flow, Settings, impl_layer},
    in_flight::MemoryPlaces,
    limit::Subject,
};

/// Limits how many requests of a caller are in flight at the same time. See the [module](self).
///
/// ```
/// use tollgate::{InFlightLimitLayer, limit::Subject};
///
/// let by_key = InFlightLimitLayer::new(10);
/// let by_tenant = InFlightLimitLayer::new(20).with_subject(Subject::Tenant).with_tier("pro", 100);
/// ```
///
/// Clones count together.
#[derive(Clone, Debug)]
pub struct InFlightLimitLayer {
    pub(crate) gate: InFlightLimitGate,
    settings: Settings,
}

impl InFlightLimitLayer {
    /// Each key may have this many requests in flight. 0 admits none. Counts in this process.
    pub fn new(limit: u32) -> Self {
        let gate = InFlightLimitGate {
            places: Arc::new(MemoryPlaces::new()),
            name: Box::default(),
            subject: Subject::Key,
            limit,
            tiers: Vec::new(),
        };
        Self { gate, settings: Settings::default() }
    }

    /// Counts by another subject than the key. A function that returns `None` leaves the request uncounted.
    pub fn with_subject(mut self, subject: Subject) -> Self {
        self.gate.subject = subject;
        self
    }

    /// Principals with an active plan of this tier may have this many requests in flight instead. The plan is the principal's, or
    /// what an outer layer has found.
    pub fn with_tier(mut self, tier: impl Into<Box<str>>, limit: u32) -> Self {
        self.gate.tiers.push((tier.into(), limit));
        self
    }

    /// Counts in `places`, which other layers and other processes may share. Layers that share it, and have the same name, count together:
    /// give limits by different subjects different names. A backend that does not answer refuses the request with 503.
    ///
    /// ```
    /// use tollgate::{InFlightLimitLayer, in_flight::MemoryPlaces, limit::Subject};
    ///
    /// let places = MemoryPlaces::new();
    /// let by_key = InFlightLimitLayer::new(10).with_places("key", places.clone());
    /// let by_tenant = InFlightLimitLayer::new(20).with_subject(Subject::Tenant).with_places("tenant", places);
    /// ```
    pub fn with_places(mut self, name: impl Into<Box<str>>, places: impl Places) -> Self {
        self.gate.name = name.into();
        self.gate.places = Arc::new(places);
        self
    }
}

impl_layer!(InFlightLimitLayer, InFlightLimit);

pub(crate) const LAYER: &str = "InFlightLimitLayer";

#[derive(Clone)]
pub(crate) struct InFlightLimitGate {
    places: Arc<dyn Places>,
    // Empty if no other layer shares the places.
    name: Box<str>,
    subject: Subject,
    limit: u32,
    tiers: Vec<(Box<str>, u32)>,
}

impl InFlightLimitGate {
    // Not inlined: few stacks have one, and all gates run in one loop.
    #[inline(never)]
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        let context = &*cx.context;
        if !self.counts(context)? {
            return Ok(Flow::Continue);
        }
        let Some(subject) = self.subject.name(cx.head(), context, LAYER) else { return Ok(Flow::Continue) };
        let limit = self.limit(context);
        let group = self.subject.group(&subject, context);
        let answer =
            self.places.take(&PlaceRequest::new(&self.name, &subject, group, limit, context.instant()));
        let of = self.log_name(subject);
        cx.when_answered(answer, move |taken, context| match taken? {
            Some(place) => {
                context.parts.hold(place);
                Ok(())
            }
            None => Err(refusal(limit, &of)),
        })
    }

    /// Whether a request by this caller is counted.
    fn counts(&self, context: &RequestContext) -> Result<bool, Denial> {
        match context.caller {
            Caller::Exempt => Ok(false),
            Caller::Anonymous => Ok(self.counts_anonymous()),
            _ if self.counts_anonymous() => Ok(true),
            _ => context.guarded(LAYER).map(|principal| principal.is_some()),
        }
    }

    pub(crate) fn counts_anonymous(&self) -> bool {
        !self.subject.is_of_principal()
    }

    fn limit(&self, context: &RequestContext) -> u32 {
        let tier = context.active_plan().map(|plan| plan.tier());
        let of_tier = self.tiers.iter().find(|(name, _)| Some(&**name) == tier);
        of_tier.map_or(self.limit, |(_, limit)| *limit)
    }

    /// What the log calls the subject. It has the principal and the tenant in fields of their own.
    fn log_name(&self, subject: Cow<'_, str>) -> Cow<'static, str> {
        match &self.subject {
            Subject::Key => "the key".into(),
            Subject::Tenant => "the tenant".into(),
            Subject::Address(_) => subject.into_owned().into(),
            Subject::Custom(_) => "the subject".into(),
        }
    }
}

#[cold]
fn refusal(limit: u32, of: &str) -> Denial {
    Denial::new(DenialKind::TooManyInFlight)
        .with_log_detail(format!("{limit} requests of {of} are in flight"))
}

/// The error of a stack that accepts anonymous callers and counts only principals.
pub(crate) const ANONYMOUS_UNCOUNTED: &str = "no InFlightLimitLayer counts anonymous requests, which \
    CredentialLayer::with_anonymous accepts: add one by Subject::Address or Subject::custom";

impl fmt::Debug for InFlightLimitGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlightLimitGate")
            .field("subject", &self.subject)
            .field("limit", &self.limit)
            .field("tiers", &self.tiers)
            .finish_non_exhaustive()
    }
}
