//! The layers, one file each, in the order of a request. Each is the engine with one gate.

use tollgate_core::denial::Denial;

use crate::{
    RequestContext,
    engine::{Cx, Flow},
};

pub mod attempt_limit;
pub mod credential;
pub mod credits;
pub mod entitlement;
pub(crate) mod exposed_headers;
pub mod guard;
pub mod in_flight_limit;
pub mod message;
pub mod plan;
pub mod rate_limit;
pub mod request_id;
pub(crate) mod route_map;
pub mod scope;
pub mod stream_end;
pub mod usage;
pub mod verify;

pub use crate::engine::{Body, Gated, ReportOnly, ResponseFuture};
pub use crate::stack::TollgateBuilder;

/// One decision about a request. The set is closed, so that the engine calls no gate by a pointer.
///
/// A gate keeps nothing about a request: what it finds out stands in the request's [context](RequestContext).
#[derive(Clone, Debug)]
pub(crate) enum Gate {
    RequestId(request_id::RequestIdGate),
    AttemptLimit(attempt_limit::AttemptLimitGate),
    Credential(credential::CredentialGate),
    Verify(verify::VerifyGate),
    Plan(plan::PlanGate),
    InFlightLimit(in_flight_limit::InFlightLimitGate),
    RateLimit(rate_limit::RateLimitGate),
    Entitlement(entitlement::EntitlementGate),
    Scope(scope::ScopeGate),
    Guard(guard::GuardGate),
    Credits(credits::CreditsGate),
    Usage(usage::UsageGate),
    Message(message::MessageGate),
    StreamEnd(stream_end::StreamEndGate),
}

impl Gate {
    /// The name of its layer, for logs and errors.
    pub(crate) fn layer(&self) -> &'static str {
        match self {
            Self::RequestId(_) => request_id::LAYER,
            Self::AttemptLimit(_) => attempt_limit::LAYER,
            Self::Credential(_) => credential::LAYER,
            Self::Verify(_) => verify::LAYER,
            Self::Plan(_) => plan::LAYER,
            Self::InFlightLimit(_) => in_flight_limit::LAYER,
            Self::RateLimit(_) => rate_limit::LAYER,
            Self::Entitlement(_) => entitlement::LAYER,
            Self::Scope(_) => scope::LAYER,
            Self::Guard(gate) => gate.name(),
            Self::Credits(_) => credits::LAYER,
            Self::Usage(_) => usage::LAYER,
            Self::Message(_) => message::LAYER,
            Self::StreamEnd(_) => stream_end::LAYER,
        }
    }

    /// Decides about a request.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "in one loop; a call for each gate costs 3 % of all instructions"
    )]
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        match self {
            Self::RequestId(gate) => {
                gate.check(cx);
                Ok(Flow::Continue)
            }
            Self::AttemptLimit(gate) => gate.check(cx),
            Self::Credential(gate) => gate.check(cx),
            Self::Verify(gate) => gate.check(cx),
            Self::Plan(gate) => gate.check(cx),
            Self::InFlightLimit(gate) => gate.check(cx),
            Self::RateLimit(gate) => gate.check(cx),
            Self::Entitlement(gate) => gate.check(cx),
            Self::Scope(gate) => gate.check(cx),
            Self::Guard(gate) => gate.check(cx),
            Self::Credits(gate) => gate.check(cx),
            Self::Usage(gate) => gate.check(cx),
            Self::Message(gate) => gate.check(cx),
            Self::StreamEnd(gate) => gate.check(cx),
        }
    }

    /// Whether a stack may have several gates of this kind.
    pub(crate) fn may_repeat(&self) -> bool {
        matches!(self, Self::InFlightLimit(_) | Self::Guard(_))
    }

    /// Whether it decides who is calling. In report-only mode, a caller that it would have refused is not authenticated.
    pub(crate) fn identifies(&self) -> bool {
        matches!(self, Self::Credential(_) | Self::Verify(_))
    }

    /// Gives the stack's public routes to the gates that decide by them.
    pub(crate) fn set_public(&mut self, routes: &credential::CompiledRoutes) {
        let public = match self {
            Self::Credential(gate) => &mut gate.public,
            Self::AttemptLimit(gate) => &mut gate.public,
            _ => return,
        };
        *public = Some(routes.clone());
    }

    /// The span in which the inner service runs.
    pub(crate) fn span(&self, context: &RequestContext) -> Option<tracing::Span> {
        match self {
            Self::RequestId(_) => context.request_id().map(request_id::span),
            _ => None,
        }
    }
}
