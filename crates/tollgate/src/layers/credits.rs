//! Charges requests in credits, which their callers have bought in advance.
//!
//! # What is refused
//!
//! | condition | status | log reason |
//! |---|---|---|
//! | the account has fewer credits than the request is estimated to cost, or a debt | 402 | `credits_exhausted` |
//! | the backend does not answer within 5 s | 503 | `unavailable` |
//! | anonymous, and the request is not free | 401 | `credential_missing` |
//! | no `VerifyLayer` outside | 500 | `misconfigured` |
//!
//! With [`with_idempotency_key`](CreditsLayer::with_idempotency_key) also:
//!
//! | condition | status | log reason |
//! |---|---|---|
//! | `Idempotency-Key` is repeated, empty, longer than 255 bytes or not printable ASCII | 400 | `idempotency_key_invalid` |
//! | a request with this key has not ended yet; `Retry-After` is 1 | 409 | `request_in_progress` |
//! | a request with this key was charged before | 409, or passes uncharged | `request_repeated` |
//! | the key was used with another method, target or estimate | 422 | `idempotency_key_reused` |
//!
//! The problem of a 402 has the members `balance` and `needed`. A CORS preflight is not charged. In report-only mode, a request that
//! would be refused passes without a reservation; all others are charged.
//!
//! # What is charged, and when
//!
//! The estimate is reserved before the inner service is called. The account is the principal's tenant; for a principal without a tenant,
//! it is the principal's identifier. The reservation is settled once:
//!
//! | what happens | charged |
//! |---|---|
//! | a status below 400, and the body is read to its end | what the handler has reported, else the estimate |
//! | a status below 400, and the body fails, is dropped before its end, or ends with a `grpc-status` other than 0 in its trailers | what the handler has reported so far, else nothing |
//! | a status of 400 or higher, a `grpc-status` other than 0 in the headers, or a refusal by an inner layer | nothing |
//! | the inner service fails or panics, or the caller hangs up before the response | nothing |
//!
//! A response without a body (to `HEAD`, or with the status 204 or 304) is complete with its head, and so is the response to an upgrade:
//! a WebSocket is charged when the handshake is answered. A body that says that it has ended, or that has given as many bytes as
//! `Content-Length` says, is complete.
//!
//! Handlers report the actual cost to a [`CreditMeter`], for example the number of tokens while a body streams. **A handler whose
//! work is done before the body begins reports before it returns**: otherwise a caller that hangs up in the body gets the work for nothing.
//! If the actual cost is more than the estimate, [`Excess`] says what is charged.
//!
//! The response does not wait for the settlement. If the backend does not confirm it at once, a task repeats it for a minute: the backend
//! charges a repeated settlement once. After that the log has a `WARN`, and the reservation expires
//! [10 minutes](CreditsLayer::with_reservation_time) after it was made. There is one such task for each request whose settlement is not
//! confirmed yet.
//!
//! # Where it stands
//!
//! Inside `VerifyLayer`, and inside all layers that refuse: then nothing is reserved for a request that is refused. In a stack that is put
//! together by hand, have one.
//!
//! # Examples
//!
//! One credit for each request:
//!
//! ```
//! use tollgate::{CreditsLayer, credits::MemoryCredits};
//!
//! let layer = CreditsLayer::new(MemoryCredits::new(), 1);
//! ```
//!
//! By route, where an account may owe up to 100 credits if requests cost more than their estimates, and callers may repeat requests:
//!
//! ```
//! use std::time::Duration;
//!
//! use tollgate::{
//!     CreditsLayer,
//!     credits::{CreditCosts, Excess, MemoryCredits, RepeatedRequest},
//! };
//!
//! let costs = CreditCosts::new().post("/scan", 1).post("/batch", 5).otherwise(0)?;
//! let layer = CreditsLayer::new(MemoryCredits::new(), costs)
//!     .with_excess(Excess::Owe(100))
//!     .with_reservation_time(Duration::from_secs(120))
//!     .with_idempotency_key(RepeatedRequest::Refuse)
//!     .with_remaining_header();
//! # Ok::<(), tollgate::ConfigurationError>(())
//! ```
//!
//! # Security
//!
//! Of any number of concurrent requests, only those are admitted for which there are enough credits, if the estimate is not below the
//! actual cost. If the estimate is too low, callers get work for nothing with [`Excess::Cap`] and [`Excess::TakeAvailable`].
//!
//! A caller must not be able to choose its tenant or identifier: it would pay from another account. An identifier of a principal without
//! a tenant must not be the name of a tenant.
//!
//! This layer does not store responses. With [`RepeatedRequest::PassToHandler`] the handler must answer a repeated request with what it
//! has stored: a handler that does the work again gives it away for the price of one request. The body is not part of what a key stands
//! for: compare it with the stored request. A request without the header is charged like any other.
//!
//! A route that [`CreditCosts::otherwise`] makes free is free under every spelling that is not listed. A layer around a *nested* axum
//! router sees paths without the prefix of the nest.

use std::{fmt, sync::Arc, time::Duration};

use http::Method;
use tollgate_core::{
    credits::{Credits, Excess, Idempotency, Reserved, Shortage},
    denial::{Denial, DenialKind},
    verify::Principal,
};

use crate::{
    RequestContext,
    engine::{Caller, Cx, Flow, Settings, impl_layer},
    respond::ResponseHead,
};

mod cost;
mod hold;
mod idempotency;
mod meter;
mod settle;

pub use cost::{CreditCost, CreditCosts};
pub(crate) use hold::{HeldUntilEnd, Hold};
pub use idempotency::RepeatedRequest;
pub use meter::CreditMeter;
use settle::{Answered, Backend, Payer};

/// Charges requests in credits. See the [module](self).
///
/// ```
/// use tollgate::{
///     CreditsLayer,
///     credits::{CreditCosts, MemoryCredits},
/// };
///
/// let one_each = CreditsLayer::new(MemoryCredits::new(), 1);
/// let by_route = CreditsLayer::new(
///     MemoryCredits::new(),
///     CreditCosts::new().post("/scan", 1).post("/batch", 5).otherwise(0)?,
/// )
/// .with_remaining_header();
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
#[derive(Clone, Debug)]
pub struct CreditsLayer {
    gate: CreditsGate,
    settings: Settings,
}

impl CreditsLayer {
    /// Each request costs `cost`: a number, [costs by route](CreditCosts), or [a function of the request](CreditCost::by_request).
    pub fn new(credits: impl Credits, cost: impl Into<CreditCost>) -> Self {
        let backend = Backend {
            credits: Arc::new(credits),
            excess: Excess::Cap,
            reservation_time: Duration::from_secs(600),
            deadline: Duration::from_secs(5),
            actual: None,
        };
        let gate = CreditsGate {
            backend: Arc::new(backend),
            cost: cost.into(),
            shows_remaining: false,
            repeated: None,
        };
        Self { gate, settings: Settings::default() }
    }

    /// What is charged if the actual cost is more than the estimate. Default: [`Excess::Cap`], which charges the estimate.
    pub fn with_excess(self, excess: Excess) -> Self {
        self.set(|backend| backend.excess = excess)
    }

    /// Reads the actual cost from the response's head, as if the handler had reported it: for an inner service that knows no
    /// [`CreditMeter`], such as a proxy. `None`: the head does not say it. Default: not read.
    ///
    /// ```
    /// use tollgate::{CreditsLayer, credits::MemoryCredits};
    ///
    /// let layer = CreditsLayer::new(MemoryCredits::new(), 10)
    ///     .with_actual(|response| response.headers.get("x-pages")?.to_str().ok()?.parse().ok());
    /// ```
    pub fn with_actual(
        self,
        actual: impl for<'r> Fn(ResponseHead<'r>) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        self.set(|backend| backend.actual = Some(Arc::new(actual)))
    }

    /// How long a reservation lasts if it is not settled: longer than any response takes. A settlement that comes later charges what is
    /// available then. Default: 10 minutes.
    pub fn with_reservation_time(self, time: Duration) -> Self {
        self.set(|backend| backend.reservation_time = time)
    }

    /// How long one call of a backend that answers later may take. A reservation that takes longer is refused with 503, and released when
    /// it arrives. A settlement that takes longer is repeated. Default: 5 s.
    pub fn with_deadline(self, deadline: Duration) -> Self {
        self.set(|backend| backend.deadline = deadline)
    }

    /// Charges requests of an account with the same `Idempotency-Key` once (draft-ietf-httpapi-idempotency-key-header). The key is free
    /// again if its request was not charged. Default: the header is not read.
    pub fn with_idempotency_key(mut self, repeated: RepeatedRequest) -> Self {
        self.gate.repeated = Some(repeated);
        self
    }

    /// Adds `X-Credits-Remaining` to responses to requests that are not free, and to 402: what the account has after the reservation.
    /// Default: no header.
    pub fn with_remaining_header(mut self) -> Self {
        self.gate.shows_remaining = true;
        self
    }

    fn set(mut self, change: impl FnOnce(&mut Backend)) -> Self {
        change(Arc::make_mut(&mut self.gate.backend));
        self
    }
}

impl_layer!(CreditsLayer, Credits);

pub(crate) const LAYER: &str = "CreditsLayer";

#[derive(Clone)]
pub(crate) struct CreditsGate {
    backend: Arc<Backend>,
    cost: CreditCost,
    shows_remaining: bool,
    // `None`: the header is not read.
    repeated: Option<RepeatedRequest>,
}

impl CreditsGate {
    // Not inlined: few stacks have one, and all gates run in one loop.
    #[inline(never)]
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        // A handler finds a meter also where nothing is reserved.
        cx.context.credits = Some(CreditMeter::UNCHARGED);
        let (context, head) = (&*cx.context, cx.head());
        let principal = match context.caller {
            Caller::Anonymous => None,
            _ => match context.guarded(LAYER)? {
                Some(principal) => Some(principal),
                // A CORS preflight.
                None => return Ok(Flow::Continue),
            },
        };
        let plan = context.active_plan().map(Arc::as_ref);
        let estimate = self.cost.of(head, principal.map(Arc::as_ref), plan);
        if estimate == 0 {
            return Ok(Flow::Continue);
        }
        let principal = principal.ok_or(DenialKind::CredentialMissing)?;
        let key = if self.repeated.is_some() { idempotency::key(head)? } else { None };
        let idempotency = key.map(|key| Idempotency::new(key, idempotency::fingerprint(head, estimate)));
        let payer = Payer::new(&self.backend, account_of(principal), context.clock());
        let answer = payer.reserve(estimate, idempotency, *head.method == Method::HEAD, context.instant());
        let Self { shows_remaining, repeated, .. } = *self;
        cx.when_answered(answer, move |answered, context| {
            decide(answered?, context, shows_remaining, repeated)
        })
    }
}

/// The account that pays for a principal's requests.
fn account_of(principal: &Principal) -> &str {
    principal.tenant().unwrap_or_else(|| principal.id())
}

fn decide(
    answered: Answered,
    context: &mut RequestContext,
    shows_remaining: bool,
    repeated: Option<RepeatedRequest>,
) -> Result<(), Denial> {
    let show = |context: &mut RequestContext, available| {
        if shows_remaining {
            context.parts.show_credits(available);
        }
    };
    match answered {
        Answered::Held(hold, available) => {
            context.credits = Some(hold.meter().clone());
            context.parts.hold_credits(hold);
            show(context, available);
            Ok(())
        }
        Answered::Other(Reserved::Insufficient(shortage)) => {
            show(context, shortage.available);
            Err(exhausted(shortage))
        }
        Answered::Other(Reserved::Repeated(settlement)) => {
            context.credits = Some(CreditMeter::repeated(settlement));
            match repeated {
                Some(RepeatedRequest::PassToHandler) => Ok(()),
                _ => Err(DenialKind::RequestRepeated.into()),
            }
        }
        Answered::Other(Reserved::InProgress) => {
            Err(Denial::new(DenialKind::RequestInProgress).with_retry_after(Duration::from_secs(1)))
        }
        Answered::Other(Reserved::KeyReused) => Err(DenialKind::IdempotencyKeyReused.into()),
        Answered::Other(_) => {
            Err(Denial::unavailable("the backend of credits gave an answer that this version does not know"))
        }
    }
}

#[cold]
fn exhausted(shortage: Shortage) -> Denial {
    let Shortage { available, needed, .. } = shortage;
    Denial::credits_exhausted(shortage)
        .with_log_detail(format!("needs {needed} credits, {available} are available"))
}

impl fmt::Debug for CreditsGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreditsGate")
            .field("cost", &self.cost)
            .field("excess", &self.backend.excess)
            .field("repeated", &self.repeated)
            .finish_non_exhaustive()
    }
}
