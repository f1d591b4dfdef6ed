//! Limits how often a client's address may fail to prove who it is.
//!
//! # What is refused
//!
//! | condition | status | headers |
//! |---|---|---|
//! | too many failed attempts from one address | 429 | `Retry-After` |
//! | the counters cannot be reached | 503 | |
//!
//! An attempt has failed if the request was refused for its credential: missing, empty, malformed, repeated or conflicting;
//! unknown, revoked, expired, or of another environment. Nothing else counts, and no response tells how many attempts are left.
//! The log tells the address as the refusal's `detail`.
//!
//! # Where it stands
//!
//! Outside `CredentialLayer`: an address that has failed too often is refused before its credential is looked at, so that
//! neither a store nor a cache is asked.
//!
//! # Examples
//!
//! ```
//! use std::net::IpAddr;
//!
//! use tollgate::{AttemptLimitLayer, ClientAddress, PerWindow};
//!
//! /// What the server attaches to each request. With axum it is `ClientAddress::of_peer(tollgate_axum::peer_address)`.
//! #[derive(Clone)]
//! struct Peer(IpAddr);
//!
//! let address = ClientAddress::of_peer(|head| head.extensions.get::<Peer>().map(|peer| peer.0));
//! let layer = AttemptLimitLayer::new(1_000.per_minute(), address);
//! ```
//!
//! Behind a load balancer, and with a bucket that forgives a burst of failures after a wrong deployment:
//!
//! ```
//! # use std::net::IpAddr;
//! # #[derive(Clone)]
//! # struct Peer(IpAddr);
//! use tollgate::{AttemptLimitLayer, ClientAddress, PerWindow};
//!
//! let address = ClientAddress::of_peer(|head| head.extensions.get::<Peer>().map(|peer| peer.0))
//!     .behind(["10.0.0.0/8"])?
//!     .with_ipv6_prefix(56);
//! let layer = AttemptLimitLayer::new(100.per_minute().with_burst(5_000), address);
//! # Ok::<(), tollgate::ConfigurationError>(())
//! ```
//!
//! # Security
//!
//! Keys of 128 random bits cannot be guessed. What this layer guards is the work that attempts cost, and keys that are
//! weaker than that. An address may stand for many callers, so be generous: whoever shares one with somebody who fails too often
//! is refused together with them, good keys included.
//!
//! Attempts that are under way at once are all let through if there was room for one: they are counted when they have failed. One
//! whose caller hangs up before that, or that a timeout ends, is not counted. Nobody learns anything by it, but a store that takes its
//! time was asked: where that is dear, have a layer outside run requests to their end in a task of their own.
//!
//! A request whose address nobody knows is let through to be verified, and the log says at the level `ERROR` what to do: a guard
//! against load must not turn everybody away because the server was started in another way.

use std::{fmt, sync::Arc};

use tollgate_core::{
    answer::Answer,
    denial::{Denial, DenialKind, Unavailable},
    limit::{Charge, Decision, LimitRequest, Limiter, Quota},
};

use crate::{
    ClientAddress, RequestContext,
    engine::{
        Asked, DeferredCharge, DeferredCost, DeferredItem, Entrant, Gate, Learned, Settings, impl_layer,
    },
    limit::MemoryLimiter,
    respond::ResponseHead,
};

/// Limits how often a client's address may fail to prove who it is. See the [module](self).
#[derive(Clone, Debug)]
pub struct AttemptLimitLayer {
    gate: AttemptLimitGate,
    settings: Settings,
}

impl AttemptLimitLayer {
    /// Each address may fail this often. Counts in this process.
    pub fn new(quota: Quota, address: ClientAddress) -> Self {
        let cost = DeferredCost::Response(Arc::new(cost_of));
        let gate = AttemptLimitGate { limiter: Arc::new(MemoryLimiter::new()), quota, address, cost };
        Self { gate, settings: Settings::default() }
    }

    /// Counts in `limiter`, which other layers may share, by a policy named `failed-attempts`.
    pub fn with_limiter(mut self, limiter: impl Limiter) -> Self {
        self.gate.limiter = Arc::new(limiter);
        self
    }
}

impl_layer!(AttemptLimitLayer, AttemptLimit);

const POLICY: &str = "failed-attempts";

#[derive(Clone)]
pub(crate) struct AttemptLimitGate {
    limiter: Arc<dyn Limiter>,
    quota: Quota,
    address: ClientAddress,
    cost: DeferredCost,
}

impl AttemptLimitGate {
    /// Admits an address that has not failed too often, and then knows what to charge it for if it fails now.
    fn decide(
        decided: Result<Decision, Unavailable>,
        settlement: DeferredCharge,
        address: String,
    ) -> Result<Box<DeferredCharge>, Denial> {
        let Some(wait) = decided?.retry_after() else { return Ok(Box::new(settlement)) };
        // Without the numbers, which are nobody's that has proven who they are.
        Err(Denial::new(DenialKind::RateLimited).with_retry_after(wait).with_log_detail(address))
    }
}

impl Gate for AttemptLimitGate {
    fn layer(&self) -> &'static str {
        "AttemptLimitLayer"
    }

    #[inline(never)]
    fn ask(&self, entrant: &mut impl Entrant) -> Asked {
        let Some(subject) = self.address.subject(entrant.head(), self.layer()) else {
            return Asked::Answered(Ok(()));
        };
        let context = entrant.context();
        let charge = Charge::new(POLICY, &subject, &subject, &self.quota).with_deferred_cost();
        let owed = vec![DeferredItem::new(&charge, self.cost.clone())];
        let settlement = context.settlement(&self.limiter, owed).untold();
        let answer = self.limiter.acquire(&LimitRequest::new(&[charge], context.instant()));
        let answer: Answer<_> = answer.map(|decided| Self::decide(decided, settlement, subject));
        self.take_up(entrant, answer, Learned::Owes)
    }

    /// It judged by the answer itself: in the request context the decision would be shown to the caller as one of its own.
    fn judge(&self, _context: &RequestContext) -> Result<(), Denial> {
        Ok(())
    }

    // Nothing but what is owed.
    fn stamps(&self) -> bool {
        true
    }
}

/// 1 for a response to a failed attempt.
fn cost_of(response: ResponseHead<'_>) -> u64 {
    u64::from(response.denial().is_some_and(|denial| is_for_credential(denial.kind())))
}

fn is_for_credential(kind: DenialKind) -> bool {
    matches!(
        kind,
        DenialKind::CredentialMissing
            | DenialKind::CredentialEmpty
            | DenialKind::CredentialMalformed
            | DenialKind::CredentialRepeated
            | DenialKind::CredentialConflicting
            | DenialKind::KeyUnknown
            | DenialKind::KeyRevoked
            | DenialKind::KeyExpired
            | DenialKind::WrongEnvironment
    )
}

impl fmt::Debug for AttemptLimitGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptLimitGate")
            .field("quota", &self.quota)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
