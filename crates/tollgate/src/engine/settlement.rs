//! What a request has cost, where only its response tells: charged when the response is there, or when its body has ended.

use std::{sync::Arc, time::SystemTime};

use smallvec::SmallVec;
use tollgate_core::{Answer, Charge, Decision, Limiter, Quota, Take, Unavailable};

use super::settings::HandedDown;
use crate::ResponseHead;

/// What one layer still has to charge a request for.
#[derive(Clone)]
pub(crate) struct Settlement {
    limiter: Arc<dyn Limiter>,
    charges: Vec<OwedCharge>,
    // Tells the time.
    handed_down: Option<Arc<HandedDown>>,
    // Whether callers may know where these counters stand.
    is_told: bool,
}

/// A charge that outlives its request.
#[derive(Clone)]
pub(crate) struct OwedCharge {
    policy: &'static str,
    subject: Box<str>,
    group: Box<str>,
    quota: Quota,
    cost: LaterCost,
}

/// A cost that only the response tells.
#[derive(Clone)]
pub(crate) enum LaterCost {
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

impl OwedCharge {
    pub(crate) fn new(charge: &Charge<'_>, cost: LaterCost) -> Self {
        Self {
            policy: charge.policy,
            subject: charge.subject.into(),
            group: charge.group.into(),
            quota: charge.quota.clone(),
            cost,
        }
    }
}

impl Settlement {
    pub(super) fn new(
        limiter: &Arc<dyn Limiter>,
        charges: Vec<OwedCharge>,
        handed_down: Option<Arc<HandedDown>>,
    ) -> Self {
        Self { limiter: Arc::clone(limiter), charges, handed_down, is_told: true }
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
            LaterCost::Peek => Some(0),
            LaterCost::Response(cost) => Some(cost(response)).filter(|cost| *cost > 0),
            LaterCost::Body(_) => None,
        })
    }

    /// Whether the body tells of a cost.
    pub(super) fn waits_for_body(&self) -> bool {
        self.charges.iter().any(|charge| matches!(charge.cost, LaterCost::Body(_)))
    }

    /// Charges what a body of so many bytes tells.
    pub(super) fn settle_body(&self, bytes: u64) -> Option<Settled> {
        self.settle(|cost| match cost {
            LaterCost::Body(cost) => Some(cost(bytes)).filter(|cost| *cost > 0),
            _ => None,
        })
    }

    fn settle(&self, cost: impl Fn(&LaterCost) -> Option<u64>) -> Option<Settled> {
        let mut charges = SmallVec::<[Charge<'_>; 2]>::new();
        for owed in &self.charges {
            if let Some(cost) = cost(&owed.cost) {
                let charge = Charge::new(owed.policy, &owed.subject, &owed.group, &owed.quota);
                charges.push(charge.settling(cost));
            }
        }
        if charges.is_empty() {
            return None;
        }
        let is_told = self.is_told;
        let settled = self.limiter.take(&Take::new(&charges, self.now()));
        Some(settled.map(move |settled| settled.map(|decision| is_told.then_some(decision))))
    }

    fn now(&self) -> SystemTime {
        HandedDown::now(self.handed_down.as_deref())
    }
}

/// Says in the log that a cost could not be charged: the response is there, and is given out all the same.
pub(super) fn report(error: &Unavailable) {
    tracing::warn!(target: "tollgate", detail = %error, "what a response has cost could not be charged");
}
