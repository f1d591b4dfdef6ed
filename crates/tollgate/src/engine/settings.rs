//! The settings that all layers share: responder, clock, realm, protected resource and report-only mode.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use tollgate_core::{
    clock::{Clock, SystemClock},
    respond::Respond,
};

use super::RequestContext;
use crate::{layers::Gate, oauth::ProtectedResource};

/// Counts what layers in report-only mode would have refused. Clones share the count.
///
/// ```
/// use tollgate::{RateLimitLayer, layers::ReportOnly, limit::PerWindow};
///
/// let report = ReportOnly::new();
/// let layer = RateLimitLayer::new(60.per_minute()).with_report_only(&report);
/// assert_eq!(report.refusals(), 0);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ReportOnly(Arc<AtomicU64>);

impl ReportOnly {
    /// A count of zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many requests would have been refused.
    pub fn refusals(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts a refusal. The layers do this themselves: it is for code of an application that only reports what it would refuse.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The settings that all layers share. Each is absent unless it was set.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) responder: Option<Arc<dyn Respond>>,
    // Default: the machine's clock.
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) realm: Option<&'static str>,
    pub(crate) protected_resource: Option<Arc<ProtectedResource>>,
    pub(crate) report_only: Option<ReportOnly>,
}

impl Settings {
    /// Whether there are settings that hold for a whole stack, not for one gate.
    pub(crate) fn has_shared(&self) -> bool {
        self.responder.is_some()
            || self.clock.is_some()
            || self.realm.is_some()
            || self.protected_resource.is_some()
    }

    /// What the layers inside this one inherit.
    pub(super) fn inherited(&self) -> Option<Arc<Inherited>> {
        self.has_shared().then(|| {
            Arc::new(Inherited {
                responder: self.responder.clone(),
                clock: self.clock.clone(),
                realm: self.realm,
                protected_resource: self.protected_resource.clone(),
            })
        })
    }
}

/// What a layer sets for the layers inside it. Shared, because every request's context carries it.
#[derive(Default)]
pub(super) struct Inherited {
    pub(super) responder: Option<Arc<dyn Respond>>,
    pub(super) clock: Option<Arc<dyn Clock>>,
    pub(super) realm: Option<&'static str>,
    pub(super) protected_resource: Option<Arc<ProtectedResource>>,
}

impl Inherited {
    /// The present instant, by the inherited clock or by the machine's.
    pub(super) fn now(inherited: Option<&Self>) -> SystemTime {
        let clock = inherited.and_then(|inherited| inherited.clock.as_ref());
        clock.map_or_else(|| SystemClock.now(), Clock::now)
    }

    /// Adds these settings to a request's context, for this layer and for those inside it.
    pub(super) fn add_to(self: &Arc<Self>, context: &mut RequestContext) {
        context.inherited = Some(match context.inherited.take() {
            None => Arc::clone(self),
            Some(outer) => Arc::new(self.or(&outer)),
        });
    }

    /// These settings, and an outer layer's where there are none.
    fn or(&self, outer: &Self) -> Self {
        Self {
            responder: self.responder.clone().or_else(|| outer.responder.clone()),
            clock: self.clock.clone().or_else(|| outer.clock.clone()),
            realm: self.realm.or(outer.realm),
            protected_resource: self.protected_resource.clone().or_else(|| outer.protected_resource.clone()),
        }
    }
}

/// The clock of a request, for what outlasts the request.
#[derive(Clone)]
pub(crate) struct RequestClock(pub(super) Option<Arc<Inherited>>);

impl RequestClock {
    pub(crate) fn now(&self) -> SystemTime {
        Inherited::now(self.0.as_deref())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("realm", &self.realm)
            .field("report_only", &self.report_only)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inherited").field("realm", &self.realm).finish_non_exhaustive()
    }
}

/// A layer that is one gate with settings.
pub(crate) trait GateLayer {
    fn into_parts(self) -> (Gate, Settings);
}

/// Makes `$layer`, a struct of `gate` and `settings`, a Tower layer with the settings that all layers share. `$gate` is the
/// gate's variant of [`Gate`].
macro_rules! impl_layer {
    ($layer:ident, $gate:ident) => {
        impl $layer {
            /// Turns refusals into responses, for this layer and for those inside it that set no responder of their own.
            /// Default: an RFC 9457 problem. For a gRPC service: [`Grpc`]($crate::respond::Grpc).
            pub fn with_responder(mut self, responder: impl tollgate_core::respond::Respond) -> Self {
                self.settings.responder = Some(std::sync::Arc::new(responder));
                self
            }

            /// Takes the time from `clock`, for this layer and for those inside it that set no clock of their own: once for
            /// each request, and again after each wait. Default: the machine's clock.
            pub fn with_clock(mut self, clock: impl tollgate_core::clock::Clock) -> Self {
                self.settings.clock = Some(std::sync::Arc::new(clock));
                self
            }

            /// Names the protection space in challenges (RFC 9110 section 11.5), for this layer and those inside it.
            /// Default: `api`.
            pub fn with_realm(mut self, realm: &'static str) -> Self {
                self.settings.realm = Some(realm);
                self
            }

            /// Names the metadata of an OAuth [protected resource](crate::oauth::ProtectedResource) in Bearer challenges (RFC 9728
            /// section 5.1), for this layer and those inside it. Default: none.
            pub fn with_protected_resource(mut self, resource: &$crate::oauth::ProtectedResource) -> Self {
                self.settings.protected_resource = Some(std::sync::Arc::new(resource.clone()));
                self
            }

            /// Refuses nothing: logs and counts what it would have refused, and lets it pass. A stack that is put together
            /// wrongly still answers 500.
            pub fn with_report_only(mut self, report: &$crate::layers::ReportOnly) -> Self {
                self.settings.report_only = Some(report.clone());
                self
            }
        }

        impl $crate::engine::GateLayer for $layer {
            fn into_parts(self) -> ($crate::layers::Gate, $crate::engine::Settings) {
                ($crate::layers::Gate::$gate(self.gate), self.settings)
            }
        }

        impl<S> tower_layer::Layer<S> for $layer {
            type Service = $crate::layers::Gated<S>;

            fn layer(&self, inner: S) -> Self::Service {
                $crate::layers::Gated::new(inner, $crate::engine::Engine::of(self.clone()))
            }
        }
    };
}

pub(crate) use impl_layer;
