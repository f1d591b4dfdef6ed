//! Limits how often a client's address may fail to authenticate.
//!
//! # What is refused
//!
//! | condition | status | headers |
//! |---|---|---|
//! | too many failed attempts from one address | 429 | `Retry-After` |
//! | the counters cannot be reached | 503 | |
//!
//! An attempt has failed if the request was refused for its credential: missing, empty, malformed, repeated or conflicting;
//! unknown, revoked, expired, of another environment, or used from a network that it does not allow. Other refusals do not count, nor
//! does an open gRPC call that a [`StreamEndLayer`](crate::StreamEndLayer) ends with its key: its credential was valid when it came. No
//! response shows how many attempts are left. The log has the address in the refusal's field `detail`.
//!
//! # Where it stands
//!
//! Outside `CredentialLayer`: an address that has failed too often is refused before its credential is read, so that neither the
//! store nor the cache has to look it up. In a built stack, a request for a [public route](crate::verify::PublicRoutes) passes all the
//! same: a health check must not fail because another client behind its address has the wrong key.
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
//! Behind a load balancer, and with a token bucket that tolerates a burst of failures after a wrong deployment:
//!
//! ```
//! # use std::net::IpAddr;
//! # #[derive(Clone)]
//! # struct Peer(IpAddr);
//! use tollgate::{AttemptLimitLayer, ClientAddress, PerWindow};
//!
//! let address = ClientAddress::of_peer(|head| head.extensions.get::<Peer>().map(|peer| peer.0))
//!     .with_trusted_proxies(["10.0.0.0/8"])?
//!     .with_ipv6_prefix(56);
//! let layer = AttemptLimitLayer::new(100.per_minute().with_burst(5_000), address);
//! # Ok::<(), tollgate::ConfigurationError>(())
//! ```
//!
//! # Security
//!
//! Keys of 128 random bits cannot be guessed. This layer bounds the work that attempts cost, and protects weaker keys. Many
//! callers may share an address, so choose a generous quota: an address that fails too often is refused with valid keys, too.
//!
//! Attempts are counted when they have failed. Concurrent attempts therefore all pass if one unit is left. In a [built
//! stack](crate::Tollgate), an attempt that is cut off while its credential is being verified, by its caller or by a timeout, counts
//! as failed: its caller learns nothing, but the verifier has done the work. So a timeout outside the stack must be longer than the
//! verifier's own. A layer that stands alone does not know what layers inside it wait for, and counts no such attempt.
//!
//! A request without a known address passes on to be verified, and the log says at the level `ERROR` what to do: the limit must
//! not refuse all callers because the server was started in another way.

use std::{fmt, sync::Arc};

use tollgate_core::{
    denial::{Denial, DenialKind},
    limit::{Charge, LimitRequest, Limiter, PolicyName, Quota},
};

use crate::{
    ClientAddress,
    engine::{Cx, DeferredCharge, DeferredCost, DeferredItem, Flow, Settings, WasAdmitted, impl_layer},
    layers::credential::CompiledRoutes,
    limit::MemoryLimiter,
    respond::ResponseHead,
};

/// Limits how often a client's address may fail to authenticate. See the [module](self).
///
/// ```
/// use std::net::IpAddr;
///
/// use tollgate::{AttemptLimitLayer, ClientAddress, PerWindow};
///
/// # #[derive(Clone)]
/// # struct Peer(IpAddr);
/// // With axum: ClientAddress::of_peer(tollgate_axum::peer_address)
/// let address = ClientAddress::of_peer(|head| head.extensions.get::<Peer>().map(|peer| peer.0));
/// let layer = AttemptLimitLayer::new(1_000.per_minute(), address);
/// ```
#[derive(Clone, Debug)]
pub struct AttemptLimitLayer {
    gate: AttemptLimitGate,
    settings: Settings,
}

impl AttemptLimitLayer {
    /// Each address may fail this often. Counts in this process.
    pub fn new(quota: Quota, address: ClientAddress) -> Self {
        let cost = DeferredCost::Response(Arc::new(cost_of));
        let limiter = Arc::new(MemoryLimiter::new());
        let gate = AttemptLimitGate { limiter, quota, address, cost, public: None };
        Self { gate, settings: Settings::default() }
    }

    /// Counts in `limiter`, by a policy named `failed-attempts`. Layers that share a limiter count an address's failures together, so
    /// that an address that fails at one of them is refused by all.
    pub fn with_limiter(mut self, limiter: impl Limiter) -> Self {
        self.gate.limiter = Arc::new(limiter);
        self
    }
}

impl_layer!(AttemptLimitLayer, AttemptLimit);

pub(crate) const LAYER: &str = "AttemptLimitLayer";

const POLICY: PolicyName = PolicyName::new("failed-attempts");

#[derive(Clone)]
pub(crate) struct AttemptLimitGate {
    limiter: Arc<dyn Limiter>,
    quota: Quota,
    address: ClientAddress,
    cost: DeferredCost,
    // The public routes of the stack, which this gate decides about before the credential's does.
    pub(crate) public: Option<CompiledRoutes>,
}

impl AttemptLimitGate {
    /// Admits an address that has not failed too often, and defers a charge for the case that it fails now.
    #[cold]
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        let Some(address) = self.address.subject(cx.head(), LAYER) else { return Ok(Flow::Continue) };
        if self.public.as_ref().is_some_and(|routes| routes.contain(cx.head())) {
            return Ok(Flow::Continue);
        }
        let context = &*cx.context;
        let charge = Charge::new(POLICY, &address, &address, &self.quota).with_deferred_cost();
        let item = DeferredItem::new(&charge, self.cost.clone());
        let deferred = DeferredCharge::new(&self.limiter, vec![item], context).hidden();
        let answer = self.limiter.acquire(&LimitRequest::new(&[charge], context.instant()));
        cx.when_answered(answer, move |decided, context| {
            // The decision stays out of the context: headers would show it to a caller that is not authenticated.
            let decision = decided?;
            if !decision.is_allowed() {
                let denial = Denial::new(DenialKind::RateLimited).with_log_detail(address);
                return Err(match decision.retry_after() {
                    Some(wait) => denial.with_retry_after(wait),
                    None => denial,
                });
            }
            context.parts.defer(deferred, None);
            Ok(())
        })
    }
}

/// 1 for a response to a failed attempt.
fn cost_of(response: ResponseHead<'_>) -> u64 {
    let was_admitted = response.extensions.get::<WasAdmitted>().is_some();
    u64::from(!was_admitted && response.denial().is_some_and(|denial| is_for_credential(denial.kind())))
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
            | DenialKind::NetworkNotAllowed
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
