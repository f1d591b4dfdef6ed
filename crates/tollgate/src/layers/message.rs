//! Charges the messages of streams one by one against limits and credits: of gRPC streams, WebSockets and server-sent events.
//!
//! This layer charges nothing itself. It gives the handler a [`MessageMeter`], which the handler asks before each message.
//!
//! # What is refused
//!
//! By [`MessageMeter::charge`], which returns a [`Denial`] with the same status and code as the other layers:
//!
//! | condition | status | log reason |
//! |---|---|---|
//! | the key is revoked, or has expired | 401 | `key_revoked`, `key_expired` |
//! | the tenant is suspended | 403 | `tenant_suspended` |
//! | a window of a policy is used up; the denial has the time to wait | 429 | `rate_limited` |
//! | the account has too few credits, or a debt, or there is no account | 402 | `credits_exhausted` |
//! | the account has 5,000 open reservations | 429 | `too_many_in_flight` |
//! | anonymous, and messages cost credits | 401 | `credential_missing` |
//! | the counters or the credits cannot be reached, or 10,000 charges wait for the credits | 503 | `unavailable` |
//!
//! The handler decides what a refused message means: it may skip the message, wait, or end the stream. Each refused message is logged
//! like a refused request, with the method and the path of the request that opened the stream.
//!
//! By the layer itself, when the stream is opened:
//!
//! | condition | status |
//! |---|---|
//! | a policy counts by principal, or messages cost credits, and no `VerifyLayer` ran outside | 500 |
//! | an anonymous request, where every policy counts by principal, and messages cost no credits | 500 |
//!
//! CORS preflights and [public routes](crate::verify::PublicRoutes) pass, and their messages cost nothing.
//!
//! # What is charged, and when
//!
//! Policies, subjects, quotas and the account are found out once, when the stream is opened: a plan that changes later takes effect on the
//! next stream. The clock is read at each charge. A message costs what the policy says for the request that opened the stream, as often
//! as it is charged; a policy whose cost depends on the response counts no messages, and refuses them when it has nothing left.
//!
//! All limits are charged in one step, then the credits, as in the built stack: a message that is refused for its credits has been
//! counted by the limits. Credits are reserved and charged at once, and each of the two waits for the backend at most as long as
//! [`CreditsLayer::with_deadline`] says. For the counters, a charge waits as long as their limiter does.
//!
//! A charge that is dropped before it is ready, because the caller has hung up, may have been counted by the limits. Credits are then
//! charged once or not at all, and none stay reserved: a task completes what has begun, and tries it for a minute at most. A
//! `CreditsLayer` and its clones wait for at most 10,000 reservations of messages at a time, also where their streams are gone: while
//! a backend hangs, a caller that opens and resets streams uses no more memory than these.
//!
//! The headers `X-RateLimit-*` and `X-Credits-Remaining` show nothing of messages: they are sent before the first one.
//!
//! # Where it stands
//!
//! Innermost, inside `VerifyLayer`, and around the routes that stream: it finds out the above for each request.
//!
//! # Examples
//!
//! Each key may send 60 messages a minute, on all its streams together. They are not counted as requests:
//!
//! ```
//! use tollgate::{MessageLayer, PerWindow};
//!
//! let layer = MessageLayer::from_rate_limit(60.per_minute());
//! ```
//!
//! Messages and requests count together if the layer is given a clone of the stack's `RateLimitLayer`. Here each message also costs two
//! credits, from the same account as requests:
//!
//! ```
//! use tollgate::{
//!     CreditsLayer, KeyFormat, KeyVerifier, MemoryKeys, MessageLayer, PerWindow, RateLimitLayer, Tollgate,
//!     credits::MemoryCredits,
//! };
//!
//! let limits = RateLimitLayer::new(600.per_minute());
//! let credits = CreditsLayer::new(MemoryCredits::new(), 1);
//! let tollgate = Tollgate::builder()
//!     .verify(KeyVerifier::new(KeyFormat::new("sk")?, MemoryKeys::new()))
//!     .rate_limit(limits.clone())
//!     .credits(credits.clone())
//!     .messages(MessageLayer::from_rate_limit(limits).with_credits(credits, 2))
//!     .build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A handler that charges each message: see [`MessageMeter`].
//!
//! # Memory
//!
//! A meter takes about 300 bytes, and 350 for each policy. The handler waits for each charge, so no charges are queued.
//!
//! # Security
//!
//! Counting is exact: of any number of concurrent messages on a quota of N, exactly N are admitted, on however many streams. A message that
//! the handler does not charge costs nothing, so charge before the work is done. A refusal ends nothing by itself: a handler that skips
//! refused messages reads on at the caller's pace, and a refused message costs the caller nothing.

use tollgate_core::{denial::Denial, request::RequestHead};

use crate::{
    CreditsLayer, RateLimitLayer, RequestContext,
    engine::{Caller, Cx, Flow, ReportOnly, Settings, StreamCaller, impl_layer},
    layers::{credits::CreditsGate, rate_limit::RateLimitGate},
};

mod meter;

pub use meter::MessageMeter;
use meter::{Charges, Part};

/// Charges the messages of streams one by one against limits and credits. See the [module](self).
///
/// ```
/// use tollgate::{CreditsLayer, MessageLayer, PerWindow, credits::MemoryCredits};
///
/// let limited = MessageLayer::from_rate_limit(60.per_minute()); // for each key
/// let credits = CreditsLayer::new(MemoryCredits::new(), 1); // usually a clone of the stack's
/// let charged = MessageLayer::from_credits(credits, 2).with_rate_limit(60.per_minute());
/// ```
///
/// Of the settings of a given layer, only its report-only mode holds for messages.
#[derive(Clone, Debug)]
pub struct MessageLayer {
    pub(crate) gate: MessageGate,
    settings: Settings,
}

impl MessageLayer {
    /// Counts messages by the policies of a layer: a quota for each key, or a `RateLimitLayer`. A clone of the stack's counts messages
    /// and requests together.
    pub fn from_rate_limit(limits: impl Into<RateLimitLayer>) -> Self {
        Self::with_gate(MessageGate::default()).with_rate_limit(limits)
    }

    /// Each message costs `cost` credits, from the account and the backend of a layer. What a request costs by that layer does not
    /// matter, and idempotency keys are not read. A cost of 0 charges nothing.
    pub fn from_credits(credits: CreditsLayer, cost: u64) -> Self {
        Self::with_gate(MessageGate::default()).with_credits(credits, cost)
    }

    /// Counts messages by the policies of a layer, too: see [`from_rate_limit`](Self::from_rate_limit).
    pub fn with_rate_limit(mut self, limits: impl Into<RateLimitLayer>) -> Self {
        let RateLimitLayer { gate, settings } = limits.into();
        self.gate.limits = Some(Part::new(gate, settings.report_only));
        self
    }

    /// Charges messages in credits, too: see [`from_credits`](Self::from_credits).
    pub fn with_credits(mut self, credits: CreditsLayer, cost: u64) -> Self {
        let CreditsLayer { gate, settings } = credits;
        self.gate.credits =
            (cost > 0).then(|| Part::new(CreditsOfMessage { gate, cost }, settings.report_only));
        self
    }

    fn with_gate(gate: MessageGate) -> Self {
        Self { gate, settings: Settings::default() }
    }
}

impl_layer!(MessageLayer, Message);

pub(crate) const LAYER: &str = "MessageLayer";

#[derive(Clone, Debug, Default)]
pub(crate) struct MessageGate {
    limits: Option<Part<RateLimitGate>>,
    credits: Option<Part<CreditsOfMessage>>,
    report_only: Option<ReportOnly>,
    // Whether a principal that has ended is only reported.
    admits_ended: bool,
}

/// Who pays for a message, and how many credits.
#[derive(Clone, Debug)]
struct CreditsOfMessage {
    gate: CreditsGate,
    cost: u64,
}

impl MessageGate {
    /// Takes over the mode in which the engine runs this gate: messages outlast the engine. `verify_reports`: whether the layer
    /// that verifies credentials is in report-only mode.
    pub(crate) fn report_to(&mut self, report_only: Option<&ReportOnly>, verify_reports: bool) {
        self.report_only = report_only.cloned();
        self.admits_ended = verify_reports;
    }

    // Not inlined: few stacks have one, and all gates run in one loop.
    #[inline(never)]
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        let (head, context) = (cx.head(), &*cx.context);
        let is_charged = self.is_charged(context);
        // A handler finds a meter also where nothing is charged.
        let charges = self.charges(head, context, matches!(is_charged, Ok(true)));
        cx.context.messages = Some(MessageMeter::new(charges));
        is_charged.map(|_| Flow::Continue)
    }

    /// Whether the caller's messages are charged.
    fn is_charged(&self, context: &RequestContext) -> Result<bool, Denial> {
        match context.caller {
            Caller::Exempt => Ok(false),
            Caller::Anonymous if self.charges_anonymous() => Ok(true),
            Caller::Anonymous => Err(Denial::misconfigured(ANONYMOUS_UNCHARGED)),
            _ if self.charges_principals() => context.guarded(LAYER).map(|principal| principal.is_some()),
            _ => Ok(true),
        }
    }

    /// Whether messages without a principal are counted by a policy, or refused because no account pays for them.
    pub(crate) fn charges_anonymous(&self) -> bool {
        self.credits.is_some() || self.limits.as_ref().is_none_or(|limits| limits.of.counts_anonymous())
    }

    fn charges_principals(&self) -> bool {
        self.credits.is_some() || self.limits.as_ref().is_some_and(|limits| limits.of.counts_principals)
    }

    fn charges(&self, head: RequestHead<'_>, context: &RequestContext, is_charged: bool) -> Charges {
        let limits = self.limits.as_ref().filter(|_| is_charged).and_then(|part| {
            let limits = part.of.message_limits(head, context, LAYER)?;
            Some(part.with(limits, self.report_only.as_ref()))
        });
        let credits = self.credits.as_ref().filter(|_| is_charged).map(|part| {
            let CreditsOfMessage { gate, cost } = &part.of;
            part.with(gate.message_credits(*cost, context), self.report_only.as_ref())
        });
        let ended_report = self.report_only.clone().filter(|_| self.admits_ended);
        Charges { caller: StreamCaller::new(head, context), limits, credits, ended_report }
    }
}

/// The error of a layer that has no policy for anonymous callers.
pub(crate) const ANONYMOUS_UNCHARGED: &str = "MessageLayer has no policy for messages of anonymous callers, which \
    CredentialLayer::with_anonymous accepts: give its RateLimitLayer a policy by Subject::Address or Subject::custom";
