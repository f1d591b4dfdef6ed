//! A gate: one decision about a request.

use std::{fmt, sync::Arc};

use tollgate_core::{
    answer::{Answer, Pending},
    denial::Denial,
    limit::Decision,
    request::RequestHead,
    verify::{Credential, Plan, Principal},
};

use super::{DeferredCharge, Entrant, RateLimitHeaders, RequestContext, ResponseParts};
use crate::{ConfigurationError, request::RequestId};

/// One decision about a request.
///
/// A gate keeps nothing about a request: what it learns stands in the [`RequestContext`], and whatever comes later, this gate's own
/// judgement included, reads it there.
pub(crate) trait Gate: fmt::Debug {
    /// The name of its layer, for logs and errors.
    fn layer(&self) -> &'static str;

    /// Why the gate cannot work as it was built: an error at start-up in a built stack, a 500 at every request in a layer that
    /// stands alone.
    fn configuration_error(&self) -> Option<ConfigurationError> {
        None
    }

    /// Whether this gate finds out who is calling. Refused by one, a request in report-only mode goes on as nobody.
    fn identifies(&self) -> bool {
        false
    }

    /// Finds out what there is to know, and judges the request by it if it is there at once.
    fn ask(&self, entrant: &mut impl Entrant) -> Asked;

    /// Judges a request by what the request context now holds. After a wait the request context's instant is a new one.
    fn judge(&self, context: &RequestContext) -> Result<(), Denial>;

    /// The span in which the inner service shall run. Asked for only where somebody listens.
    fn span(&self, _context: &RequestContext) -> Option<tracing::Span> {
        None
    }

    /// Whether responses carry anything of this gate, or are charged for by it.
    fn stamps(&self) -> bool {
        false
    }

    /// What the response carries of this gate, whether it comes from inside or is a refusal of this gate or of a later one.
    fn stamp(&self, _context: &mut RequestContext, _stamp: &mut ResponseParts) {}

    /// What the refusal of a principal that has expired, by a gate further out, shall tell all the same.
    fn tell_expired(
        &self,
        _head: RequestHead<'_>,
        _context: &RequestContext,
    ) -> Option<(DeferredCharge, RateLimitHeaders)> {
        None
    }

    /// Takes up an answer: one that is there is learned and judged at once, for the other the engine waits, and does the same.
    #[inline(always)]
    fn take_up<T, E>(
        &self,
        entrant: &mut impl Entrant,
        answer: Answer<Result<T, E>>,
        learned: fn(T) -> Learned,
    ) -> Asked
    where
        T: 'static,
        E: Into<Denial> + 'static,
    {
        match answer {
            Answer::Now(Ok(answer)) => {
                let context = entrant.context_mut();
                context.learn(learned(answer));
                Asked::Answered(self.judge(context))
            }
            Answer::Now(Err(error)) => Asked::Answered(Err(error.into())),
            Answer::Later(pending) => {
                Asked::Later(Box::pin(async move { pending.await.map(learned).map_err(E::into) }))
            }
        }
    }
}

/// What a gate says when it is asked.
pub(crate) enum Asked {
    /// Whether the request is admitted.
    Answered(Result<(), Denial>),
    /// It has to wait. What it then learns it is to judge by.
    Later(Pending<Result<Learned, Denial>>),
}

/// What a gate found out.
pub(crate) enum Learned {
    /// The request's identifier.
    RequestId(RequestId),
    /// The caller presented a credential.
    Credential(Credential),
    /// The caller presented none, and need not.
    Anonymous,
    /// The request is a CORS preflight, which cannot carry a credential.
    Preflight,
    /// The credential proved who the caller is.
    Principal(Arc<Principal>),
    /// What the caller has bought.
    Plan(Option<Arc<Plan>>),
    /// Where the caller's limits stand.
    Decision(Decision),
    /// The same, and what is still to be charged if that was an admission. Boxed, as what follows: no other gate shall pay for it.
    Charged(Box<(Decision, DeferredCharge)>),
    /// What is still to be charged.
    Owes(Box<DeferredCharge>),
}
