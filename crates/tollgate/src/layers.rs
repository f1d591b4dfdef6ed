//! The layers, one file each, in the order of a request. Each is the engine with one gate.
#![expect(
    clippy::inline_always,
    reason = "a walk is to be one function: that was seen to save 3 % of all instructions"
)]

use tollgate_core::{denial::Denial, request::RequestHead};

use crate::{
    ConfigurationError, RequestContext,
    engine::{Asked, DeferredCharge, Entrant, Gate, ResponseParts},
    limit::RateLimitHeaders,
};

pub mod attempt_limit;
pub mod credential;
pub mod entitlement;
pub mod rate_limit;
pub mod request_id;
pub mod scope;
pub mod usage;
pub mod verify;

pub use crate::engine::{Body, Gated, ReportOnly, ResponseFuture};
pub use crate::stack::TollgateBuilder;

/// The gates that there are. The engine is made of these and of no others, so that a walk through them is one function, in
/// which nothing is called by a pointer.
#[derive(Clone, Debug)]
pub(crate) enum AnyGate {
    RequestId(request_id::RequestIdGate),
    AttemptLimit(attempt_limit::AttemptLimitGate),
    Credential(credential::CredentialGate),
    Verify(verify::VerifyGate),
    RateLimit(rate_limit::RateLimitGate),
    Entitlement(entitlement::EntitlementGate),
    Scope(scope::ScopeGate),
    Usage(usage::UsageGate),
}

macro_rules! whichever {
    ($any:expr, $gate:ident => $call:expr) => {
        match $any {
            AnyGate::RequestId($gate) => $call,
            AnyGate::AttemptLimit($gate) => $call,
            AnyGate::Credential($gate) => $call,
            AnyGate::Verify($gate) => $call,
            AnyGate::RateLimit($gate) => $call,
            AnyGate::Entitlement($gate) => $call,
            AnyGate::Scope($gate) => $call,
            AnyGate::Usage($gate) => $call,
        }
    };
}

impl Gate for AnyGate {
    fn layer(&self) -> &'static str {
        whichever!(self, gate => gate.layer())
    }

    fn configuration_error(&self) -> Option<ConfigurationError> {
        whichever!(self, gate => gate.configuration_error())
    }

    fn identifies(&self) -> bool {
        whichever!(self, gate => gate.identifies())
    }

    #[inline(always)]
    fn ask(&self, entrant: &mut impl Entrant) -> Asked {
        whichever!(self, gate => gate.ask(entrant))
    }

    #[inline]
    fn judge(&self, context: &RequestContext) -> Result<(), Denial> {
        whichever!(self, gate => gate.judge(context))
    }

    fn span(&self, context: &RequestContext) -> Option<tracing::Span> {
        whichever!(self, gate => gate.span(context))
    }

    fn tell_expired(
        &self,
        head: RequestHead<'_>,
        context: &RequestContext,
    ) -> Option<(DeferredCharge, RateLimitHeaders)> {
        whichever!(self, gate => gate.tell_expired(head, context))
    }

    fn stamps(&self) -> bool {
        whichever!(self, gate => gate.stamps())
    }

    #[inline(always)]
    fn stamp(&self, context: &mut RequestContext, stamp: &mut ResponseParts) {
        whichever!(self, gate => gate.stamp(context, stamp));
    }
}
