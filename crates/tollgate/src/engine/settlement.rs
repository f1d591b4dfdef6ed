//! What a request has cost, where only its response tells: charged when the response is there, or when its body has ended.

use std::{sync::Arc, time::SystemTime};

use smallvec::SmallVec;
use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    limit::{Charge, Decision, LimitRequest, Limiter, Quota},
};

use super::settings::Inherited;
use crate::respond::ResponseHead;

/// What one layer still has to charge a request for.
#[derive(Clone)]
pub(crate) struct DeferredCharge {
    limiter: Arc<dyn Limiter>,
    charges: Vec<DeferredItem>,
    // Tells the time.
    inherited: Option<Arc<Inherited>>,
    // Whether callers may know where these counters stand.
    is_told: bool,
}

/// A charge that outlives its request.
#[derive(Clone)]
pub(crate) struct DeferredItem {
    policy: &'static str,
    subject: Box<str>,
    group: Box<str>,
    quota: Quota,
    cost: DeferredCost,
}

/// A cost that only the response tells.
#[derive(Clone)]
pub(crate) enum DeferredCost {
    /// Nothing: it is only to be shown where the limits stand.
    Peek,
    /// By the response's head.
    Response(Arc<OfResponse>),
    /// By how many bytes its body had.
    Body(Arc<OfBody>),
}

type OfResponse = dyn for<'r> Fn(ResponseHead<'r>) -> u64 + Send + Sync;
type OfBody = dyn Fn(u64) -> u64 + Send + Sync;

/// What a limiter says of a settlement: where the limits stand by then, if callers may know.
pub(super) type Settled = Answer<Result<Option<Decision>, Unavailable>>;

impl DeferredItem {
    pub(crate) fn new(charge: &Charge<'_>, cost: DeferredCost) -> Self {
        Self {
            policy: charge.policy,
            subject: charge.subject.into(),
            group: charge.group.into(),
            quota: charge.quota.clone(),
            cost,
        }
    }
}

impl DeferredCharge {
    pub(super) fn new(
        limiter: &Arc<dyn Limiter>,
        charges: Vec<DeferredItem>,
        inherited: Option<Arc<Inherited>>,
    ) -> Self {
        Self { limiter: Arc::clone(limiter), charges, inherited, is_told: true }
    }

    /// The same, but no response tells of it.
    pub(crate) fn untold(self) -> Self {
        Self { is_told: false, ..self }
    }

    pub(super) fn is_told(&self) -> bool {
        self.is_told
    }

    /// Charges what the response's head tells. `None` if that is nothing.
    pub(super) fn settle_head(&self, response: ResponseHead<'_>) -> Option<Settled> {
        self.settle(|cost| match cost {
            DeferredCost::Peek => Some(0),
            DeferredCost::Response(cost) => Some(cost(response)).filter(|cost| *cost > 0),
            DeferredCost::Body(_) => None,
        })
    }

    /// Whether the body tells of a cost.
    pub(super) fn waits_for_body(&self) -> bool {
        self.charges.iter().any(|charge| matches!(charge.cost, DeferredCost::Body(_)))
    }

    /// Charges what a body of so many bytes tells.
    pub(super) fn settle_body(&self, bytes: u64) -> Option<Settled> {
        self.settle(|cost| match cost {
            DeferredCost::Body(cost) => Some(cost(bytes)).filter(|cost| *cost > 0),
            _ => None,
        })
    }

    fn settle(&self, cost: impl Fn(&DeferredCost) -> Option<u64>) -> Option<Settled> {
        let mut charges = SmallVec::<[Charge<'_>; 2]>::new();
        for owed in &self.charges {
            if let Some(cost) = cost(&owed.cost) {
                let charge = Charge::new(owed.policy, &owed.subject, &owed.group, &owed.quota);
                charges.push(charge.settled(cost));
            }
        }
        if charges.is_empty() {
            return None;
        }
        let is_told = self.is_told;
        let settled = self.limiter.acquire(&LimitRequest::new(&charges, self.now()));
        Some(settled.map(move |settled| settled.map(|decision| is_told.then_some(decision))))
    }

    fn now(&self) -> SystemTime {
        Inherited::now(self.inherited.as_deref())
    }
}

/// Says in the log that a cost could not be charged: the response is there, and is given out all the same.
pub(super) fn report(error: &Unavailable) {
    tracing::warn!(target: "tollgate", detail = %error, "what a response has cost could not be charged");
}
