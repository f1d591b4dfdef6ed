//! Charges whose cost depends on the response: made when its head has arrived, or when its body has ended.

use std::{
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Response;
use smallvec::SmallVec;
use tollgate_core::{
    answer::{Answer, Pending},
    denial::{Denial, DenialKind, Unavailable},
    limit::{Charge, Decision, LimitRequest, Limiter},
};

use super::{KeptCharge, RequestContext, ResponseParts, metered::UntilEnd, settings::RequestClock};
use crate::{
    layers::credits::{AtHead, FirstTry, OpenUntilEnd},
    respond::ResponseHead,
};

/// What one layer still has to charge a request for.
#[derive(Clone)]
pub(crate) struct DeferredCharge {
    limiter: Arc<dyn Limiter>,
    items: Vec<DeferredItem>,
    clock: RequestClock,
    // Whether rate-limit headers show these counters.
    is_shown: bool,
}

/// A charge, and its cost.
#[derive(Clone)]
pub(crate) struct DeferredItem {
    charge: KeptCharge,
    cost: DeferredCost,
}

/// A cost that depends on the response.
#[derive(Clone)]
pub(crate) enum DeferredCost {
    /// By the response's head.
    Response(Arc<CostOfResponse>),
    /// By the number of bytes in its body.
    Body(Arc<CostOfBody>),
}

type CostOfResponse = dyn for<'r> Fn(ResponseHead<'r>) -> u64 + Send + Sync;
type CostOfBody = dyn Fn(u64) -> u64 + Send + Sync;

/// A limiter's answer to a deferred charge.
pub(super) type Charged = Result<Decision, Unavailable>;

impl DeferredItem {
    pub(crate) fn new(charge: &Charge<'_>, cost: DeferredCost) -> Self {
        Self { charge: KeptCharge::new(charge), cost }
    }
}

impl DeferredCharge {
    /// Charges `limiter` for a request with this context. Rate-limit headers show it.
    pub(crate) fn new(
        limiter: &Arc<dyn Limiter>,
        items: Vec<DeferredItem>,
        context: &RequestContext,
    ) -> Self {
        Self { limiter: Arc::clone(limiter), items, clock: context.clock(), is_shown: true }
    }

    /// The same, but no header shows it.
    pub(crate) fn hidden(self) -> Self {
        Self { is_shown: false, ..self }
    }

    fn has_cost_by_body(&self) -> bool {
        self.items.iter().any(|item| matches!(item.cost, DeferredCost::Body(_)))
    }

    /// Charges the costs that depend on the response's head. `None` if they are all 0.
    fn charge_head(&self, response: ResponseHead<'_>) -> Option<Answer<Charged>> {
        self.charge(|cost| match cost {
            DeferredCost::Response(cost) => cost(response),
            DeferredCost::Body(_) => 0,
        })
    }

    /// Charges the costs that depend on the number of bytes in the body. `None` if they are all 0.
    pub(super) fn charge_body(&self, bytes: u64) -> Option<Answer<Charged>> {
        self.charge(|cost| match cost {
            DeferredCost::Body(cost) => cost(bytes),
            DeferredCost::Response(_) => 0,
        })
    }

    fn charge(&self, cost_of: impl Fn(&DeferredCost) -> u64) -> Option<Answer<Charged>> {
        let mut charges = SmallVec::<[Charge<'_>; 2]>::new();
        for item in &self.items {
            let cost = cost_of(&item.cost);
            if cost > 0 {
                charges.push(item.charge.charge().settled(cost));
            }
        }
        (!charges.is_empty()).then(|| self.limiter.acquire(&LimitRequest::new(&charges, self.clock.now())))
    }
}

/// A response whose deferred charges are being made.
pub(super) struct Charging {
    parts: ResponseParts,
    pending: Option<Pending<Vec<(bool, Charged)>>>,
    // Credits that the head has settled, until the backend has answered.
    settling: Option<FirstTry>,
    // Credits that wait for the end of the body.
    credits: Option<OpenUntilEnd>,
}

impl Charging {
    /// Makes the charges that depend on the response's head, and settles the credits that it decides.
    pub(super) fn start(mut parts: ResponseParts, response: ResponseHead<'_>) -> Self {
        let mut pending = Vec::new();
        for deferred in parts.take_deferred() {
            match deferred.charge_head(response) {
                None => {}
                Some(Answer::Now(charged)) => parts.update(deferred.is_shown, charged),
                Some(Answer::Later(charged)) => pending.push((deferred.is_shown, charged)),
            }
            if deferred.has_cost_by_body() {
                parts.keep_deferred(deferred);
            }
        }
        let (settling, credits) = match parts.take_reservation().map(|open| open.at_head(response)) {
            None => (None, None),
            Some(AtHead::Settled(settling)) => (settling, None),
            Some(AtHead::Open(credits)) => (None, Some(credits)),
        };
        Self { parts, pending: (!pending.is_empty()).then(|| all(pending)), settling, credits }
    }

    /// Waits for limiters that answer later, and for the first try to settle credits.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(settling) = &mut self.settling {
            ready!(Pin::new(settling).poll(cx));
            self.settling = None;
        }
        if let Some(pending) = &mut self.pending {
            let charged = ready!(pending.as_mut().poll(cx));
            self.pending = None;
            for (is_shown, charged) in charged {
                self.parts.update(is_shown, charged);
            }
        }
        Poll::Ready(())
    }

    /// Completes the response, and gives what waits for the end of its body.
    pub(super) fn finish<B>(&mut self, response: &mut Response<B>) -> UntilEnd {
        let mut until_end = self.parts.take_until_end(self.credits.take());
        until_end.watch = self.parts.take_watch(response);
        self.parts.apply(response);
        until_end
    }
}

/// Makes the charges of a request that was dropped while its credential was being verified, as if the credential were unknown.
/// Limiters that answer later are asked, and their answers are dropped.
pub(super) fn charge_abandoned(parts: ResponseParts) {
    if parts.has_deferred() {
        let mut refused = Response::new(());
        refused.extensions_mut().insert(Denial::new(DenialKind::KeyUnknown));
        drop(Charging::start(parts, ResponseHead::of(&refused)));
    }
}

/// All answers, in their order.
fn all(pending: Vec<(bool, Pending<Charged>)>) -> Pending<Vec<(bool, Charged)>> {
    Box::pin(async {
        let mut charged = Vec::new();
        for (is_shown, answer) in pending {
            charged.push((is_shown, answer.await));
        }
        charged
    })
}

/// Logs that a cost could not be charged. The response is given out all the same.
pub(super) fn log_failure(error: &Unavailable) {
    tracing::warn!(target: "tollgate", detail = %format_args!("{error:#}"), "deferred charge failed");
}
