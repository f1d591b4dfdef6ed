//! What the messages of a stream are counted by: found out once, and charged message by message.

use std::{sync::Arc, time::SystemTime};

use smallvec::SmallVec;
use tollgate_core::{
    answer::Answer,
    denial::Unavailable,
    limit::{Charge, CounterPlace, Decision, LimitRequest, Limiter},
    request::RequestHead,
};

use super::{Policy, RateLimitGate};
use crate::{RequestContext, engine::KeptCharge};

/// The charges of each message of a stream.
pub(crate) struct MessageLimits {
    limiter: Arc<dyn Limiter>,
    charges: Box<[MessageCharge]>,
}

/// What a message is charged to by one policy.
struct MessageCharge {
    charge: KeptCharge,
    // `None`: the cost depends on a response, and a message has none.
    cost: Option<u64>,
    place: CounterPlace,
}

impl RateLimitGate {
    /// The charges of each message, by the request that opened the stream; `None` if no policy applies to it.
    pub(crate) fn message_limits(
        &self,
        head: RequestHead<'_>,
        context: &RequestContext,
        layer: &'static str,
    ) -> Option<MessageLimits> {
        let charges = self.policies.iter().filter_map(|policy| message_charge(policy, head, context, layer));
        let charges: Box<[_]> = charges.collect();
        (!charges.is_empty()).then(|| MessageLimits { limiter: Arc::clone(&self.limiter), charges })
    }
}

fn message_charge(
    policy: &Policy,
    head: RequestHead<'_>,
    context: &RequestContext,
    layer: &'static str,
) -> Option<MessageCharge> {
    let subject = policy.subject(head, context, layer)?;
    let quota = policy.quota_for(head, context);
    let (charge, deferred) = policy.cost(policy.charge(&subject, &quota, context), head, context);
    let cost = deferred.is_none().then_some(charge.cost);
    Some(MessageCharge { charge: KeptCharge::new(&charge), cost, place: CounterPlace::new() })
}

impl MessageLimits {
    #[cfg(test)]
    pub(crate) const SIZE_FOR_EACH_POLICY: usize = size_of::<MessageCharge>();

    /// Charges so many messages to all policies, or none.
    pub(crate) fn acquire(&self, count: u64, now: SystemTime) -> Answer<Result<Decision, Unavailable>> {
        let charges: SmallVec<[_; 2]> = self.charges.iter().map(|charge| charge.of(count)).collect();
        self.limiter.acquire(&LimitRequest::new(&charges, now))
    }
}

impl MessageCharge {
    /// The charge of so many messages.
    fn of(&self, count: u64) -> Charge<'_> {
        let charge = self.charge.charge().with_place(&self.place);
        match self.cost {
            Some(cost) => charge.with_cost(cost.saturating_mul(count)),
            None => charge.with_deferred_cost(),
        }
    }
}
