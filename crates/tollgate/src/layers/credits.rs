//! Charges requests in credits, which their callers have bought in advance.
//!
//! # What is refused
//!
//! | condition | status | log reason |
//! |---|---|---|
//! | the account has fewer credits than the request is estimated to cost, or a debt, or [`with_account`](CreditsLayer::with_account) names none | 402 | `credits_exhausted` |
//! | the account has 5,000 open reservations | 429 | `too_many_in_flight` |
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
//! | the key was used with another method, target, estimate or environment | 422 | `idempotency_key_reused` |
//!
//! The problem of a 402 has the members `balance` and `needed`. If the account has a debt, it also has the member `owed`: the next grants pay
//! the debt first, so the account needs both. The problem of a repeated request has the members `reservation` and `charged`. Requests for
//! public routes and CORS preflights are not charged. In report-only mode, a request that would be refused passes without a reservation; all others are charged.
//!
//! # What is charged, and when
//!
//! The estimate is reserved before the inner service is called. The account is the principal's tenant; for a principal without a tenant,
//! it is the principal's identifier. [`with_account`](CreditsLayer::with_account) chooses another one: **by default, test keys and live keys of a
//! tenant spend the same credits**. The reservation is settled once:
//!
//! | what happens | charged |
//! |---|---|
//! | a status below 400, and the body is read to its end | what the handler has reported, else the estimate |
//! | a status below 400, and the body fails, is dropped before its end, or ends with a `grpc-status` other than 0 in its trailers | what the handler has reported so far, else nothing |
//! | a status of 400 or higher, a `grpc-status` other than 0 in the headers, or a refusal by an inner layer | nothing |
//! | the caller hangs up before the response | what the handler has reported so far, else nothing |
//! | the inner service fails or panics | nothing |
//!
//! A response without a body (to `HEAD`, or with the status 204 or 304) is complete with its head, and so is the response to an upgrade,
//! over HTTP/2 too (`CONNECT`): a WebSocket is charged when the handshake is answered. A status that gRPC-Web writes into the body is not
//! seen: such a response has succeeded. A body that says that it has ended, or that has given as many bytes as
//! `Content-Length` says, is complete.
//!
//! Handlers report the actual cost to a [`CreditMeter`], for example the number of tokens while a body streams. **A handler whose
//! work is done before the body begins reports before it returns**: otherwise a caller that hangs up in the body gets the work for nothing.
//! If the actual cost is more than the estimate, [`Excess`] says what is charged.
//!
//! The end of the response waits for the first try to settle, for at most [5 seconds](CreditsLayer::with_deadline): a caller that has read the
//! response, and then its balance, sees what it was charged, and may repeat its request. If the backend does not confirm the settlement,
//! a task repeats it for a minute: the backend charges a repeated settlement once. After that the log has a `WARN`, and the reservation expires
//! [10 minutes](CreditsLayer::with_reservation_time) after it was made. There is one such task for each request whose settlement is not
//! confirmed yet. A runtime that shuts down drops these tasks: call [`wait_until_settled`](CreditsLayer::wait_until_settled) before.
//!
//! A response that takes longer than the reservation time is charged all the same, up to the estimate: what is not available by then
//! becomes a debt, whatever [`Excess`] says. A settlement that comes 24 hours after the expiry or later is not charged. Each amount that
//! a settlement does not charge is one event in the log: `credits not charged`.
//!
//! # Where it stands
//!
//! Inside `VerifyLayer`, and inside all layers that refuse: then nothing is reserved for a request that is refused. In a stack that is put
//! together by hand, have one.
//!
//! # Examples
//!
//! One credit for each request, of a tenant that has bought 1,000:
//!
//! ```
//! use std::time::SystemTime;
//!
//! use tollgate::{
//!     CreditsLayer,
//!     credits::{CreditAdmin, MemoryCredits, NewGrant},
//!     manage::{Actor, Command},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let credits = MemoryCredits::new(); // a clone stays with the code that grants
//! let layer = CreditsLayer::new(credits.clone(), 1);
//! let grant = NewGrant::new("acme", 1_000).with_id("invoice_17");
//! credits.grant(Command::new(grant, Actor::new("billing"), SystemTime::now())).await?;
//! # drop(layer);
//! # Ok(())
//! # }
//! ```
//!
//! By route, where each number is the most that a request of the route usually costs. An account may owe up to 100 credits if requests cost
//! more than that, and callers may repeat requests:
//!
//! ```
//! use std::time::Duration;
//!
//! use tollgate::{
//!     CreditsLayer,
//!     credits::{CreditCosts, Excess, MemoryCredits, RepeatedRequest},
//! };
//!
//! let credits = MemoryCredits::new();
//! let costs = CreditCosts::new().post("/scan", 1).post("/batch", 5).otherwise(0)?;
//! let layer = CreditsLayer::new(credits.clone(), costs)
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
//! has stored: a handler that does the work again gives it away for the price of one request. A response that broke off is charged if its
//! handler had reported a cost, and then its key counts as done: **a handler that has not stored the response must refuse the repetition**.
//! If a request outlives its reservation and its caller repeats it, both are at work, and both are charged. The body is not part of what a
//! key stands for: compare it with the stored request. A request without the header is charged like any other.
//!
//! A route that [`CreditCosts::otherwise`] makes free is free under every spelling that is not listed. A layer around a *nested* axum
//! router sees paths without the prefix of the nest, and so does what an idempotency key stands for: a key that was used in one nest is the
//! same key for the same path in another.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use http::Method;
use tokio::sync::{Semaphore, watch};
use tollgate_core::{
    bounds::{MAX_OPEN_RESERVATIONS, MAX_RESERVATION_TIME},
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
mod idempotency;
mod messages;
mod meter;
mod open_reservation;
mod settle;

pub use cost::{CreditCost, CreditCosts};
pub use idempotency::RepeatedRequest;
pub(crate) use messages::MessageCredits;
pub use meter::CreditMeter;
pub(crate) use open_reservation::{AtHead, OpenReservation, OpenUntilEnd};
pub(crate) use settle::FirstTry;
use settle::{Answered, Backend, PayingAccount};

/// Charges requests in credits. See the [module](self).
///
/// ```
/// use tollgate::{
///     CreditsLayer,
///     credits::{CreditCosts, MemoryCredits},
/// };
///
/// let credits = MemoryCredits::new(); // a clone stays with the code that grants
/// let one_each = CreditsLayer::new(credits.clone(), 1);
/// let by_route = CreditsLayer::new(
///     credits.clone(),
///     CreditCosts::new().post("/scan", 1).post("/batch", 5).otherwise(0)?,
/// )
/// .with_remaining_header();
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
#[derive(Clone, Debug)]
pub struct CreditsLayer {
    pub(crate) gate: CreditsGate,
    pub(crate) settings: Settings,
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
            unconfirmed: Arc::new(watch::Sender::new(0)),
            message_places: Arc::new(Semaphore::new(messages::MAX_WAITING)),
        };
        let gate = CreditsGate {
            backend: Arc::new(backend),
            cost: cost.into(),
            account: None,
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

    /// The account that pays for a principal's requests. `None` refuses with 402, unless the request is free. Default: the principal's
    /// tenant; for a principal without a tenant, its identifier.
    ///
    /// ```
    /// use tollgate::{CreditsLayer, credits::MemoryCredits, key::Environment};
    ///
    /// // Test keys spend credits of their own.
    /// let layer = CreditsLayer::new(MemoryCredits::new(), 1).with_account(|principal| {
    ///     let tenant = principal.tenant()?;
    ///     let is_test = principal.environment() == Some(Environment::Test);
    ///     Some(if is_test { format!("{tenant}/test").into() } else { tenant.into() })
    /// });
    /// ```
    pub fn with_account(
        mut self,
        account: impl Fn(&Principal) -> Option<Cow<'_, str>> + Send + Sync + 'static,
    ) -> Self {
        self.gate.account = Some(Arc::new(account));
        self
    }

    /// How long a reservation lasts if it is not settled: longer than any response takes. A settlement that comes later is charged up to
    /// the estimate, if need be as a debt. 1 second to 7 days: other times are brought into this range. Default: 10 minutes.
    pub fn with_reservation_time(self, time: Duration) -> Self {
        let time = time.clamp(Duration::from_secs(1), MAX_RESERVATION_TIME);
        self.set(|backend| backend.reservation_time = time)
    }

    /// How long one call of a backend that answers later may take. A reservation that takes longer is refused with 503, and released when
    /// it arrives. A settlement that takes longer is repeated. Default: 5 s.
    pub fn with_deadline(self, deadline: Duration) -> Self {
        self.set(|backend| backend.deadline = deadline)
    }

    /// Charges requests of an account with the same `Idempotency-Key` once (draft-ietf-httpapi-idempotency-key-header). If a request
    /// has failed, or broke off before its handler reported a cost, the same request with its key is a first one again. Default: the header
    /// is not read.
    pub fn with_idempotency_key(mut self, repeated: RepeatedRequest) -> Self {
        self.gate.repeated = Some(repeated);
        self
    }

    /// Adds `X-Credits-Remaining` to responses for which credits were reserved, and to 402: what the account has after the reservation.
    /// Free and repeated requests, other refusals of this layer, and refusals by outer layers have no such header. Default: no header.
    pub fn with_remaining_header(mut self) -> Self {
        self.gate.shows_remaining = true;
        self
    }

    /// Waits until no settlement of this layer and its clones waits for the backend: for use after the server has ended, and before the
    /// runtime is shut down. Each settlement is confirmed or given up after about a minute.
    ///
    /// ```
    /// use tollgate::{CreditsLayer, Tollgate, credits::MemoryCredits};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let credits = CreditsLayer::new(MemoryCredits::new(), 1);
    /// let stack = Tollgate::builder().credits(credits.clone());
    /// // The server runs, and ends.
    /// credits.wait_until_settled().await;
    /// # drop(stack);
    /// # }
    /// ```
    pub async fn wait_until_settled(&self) {
        let mut unconfirmed = self.gate.backend.unconfirmed.subscribe();
        // Fails only if the sender is gone, which `self` holds.
        let _ = unconfirmed.wait_for(|count| *count == 0).await;
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
    // `None`: the tenant, else the principal's identifier.
    account: Option<Arc<AccountOf>>,
    shows_remaining: bool,
    // `None`: the header is not read.
    repeated: Option<RepeatedRequest>,
}

type AccountOf = dyn Fn(&Principal) -> Option<Cow<'_, str>> + Send + Sync;

impl CreditsGate {
    // Not inlined: few stacks have one, and all gates run in one loop.
    #[inline(never)]
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        // A handler finds a meter also where nothing is reserved.
        cx.context.credits = Some(CreditMeter::UNCHARGED);
        let (context, head) = (&*cx.context, cx.head());
        let principal = match context.caller {
            // Refused below, unless the request is free.
            Caller::Anonymous | Caller::Waived => None,
            _ => match context.guarded(LAYER)? {
                Some(principal) => Some(principal),
                // An exempt request.
                None => return Ok(Flow::Continue),
            },
        };
        let plan = context.active_plan().map(Arc::as_ref);
        let estimate = self.cost.of(head, principal.map(Arc::as_ref), plan);
        if estimate == 0 {
            return Ok(Flow::Continue);
        }
        let principal = principal.ok_or(DenialKind::CredentialMissing)?;
        let account = self.account_of(principal).ok_or_else(|| no_account(estimate))?;
        let key = if self.repeated.is_some() { idempotency::key(head)? } else { None };
        let idempotency = key.map(|key| {
            Idempotency::new(key, idempotency::fingerprint(head, estimate, principal.environment()))
        });
        let payer = PayingAccount::new(&self.backend, &account, context.clock());
        // A server does not read the body of a response to these methods: RFC 9110 sections 9.3.2 and 9.3.6.
        let ends_with_head = matches!(*head.method, Method::HEAD | Method::CONNECT);
        let answer =
            payer.reserve(estimate, idempotency, ends_with_head, context.instant(), context.parts.places());
        let Self { shows_remaining, repeated, .. } = *self;
        cx.when_answered(answer, move |answered, context| {
            decide(answered?, context, shows_remaining, repeated)
        })
    }

    fn account_of<'p>(&self, principal: &'p Principal) -> Option<Cow<'p, str>> {
        match &self.account {
            Some(account) => account(principal),
            None => Some(principal.tenant().unwrap_or_else(|| principal.id()).into()),
        }
    }
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
        Answered::Held(reservation, available) => {
            context.credits = Some(reservation.meter().clone());
            context.parts.keep_reservation(reservation);
            show(context, available);
            Ok(())
        }
        Answered::Other(Reserved::Repeated(settlement)) => {
            context.credits = Some(CreditMeter::repeated(settlement));
            match repeated {
                Some(RepeatedRequest::PassToHandler) => Ok(()),
                _ => Err(refusal(&Reserved::Repeated(settlement))),
            }
        }
        Answered::Other(reserved) => {
            if let Reserved::Insufficient(shortage) = &reserved {
                show(context, shortage.available);
            }
            Err(refusal(&reserved))
        }
    }
}

/// Why nothing is reserved.
fn refusal(reserved: &Reserved) -> Denial {
    match *reserved {
        Reserved::Insufficient(shortage) => exhausted(shortage),
        Reserved::Repeated(settlement) => Denial::request_repeated(settlement),
        Reserved::InProgress => {
            Denial::new(DenialKind::RequestInProgress).with_retry_after(Duration::from_secs(1))
        }
        Reserved::KeyReused => DenialKind::IdempotencyKeyReused.into(),
        Reserved::TooManyOpen => Denial::new(DenialKind::TooManyInFlight)
            .with_log_detail(format!("the account has {MAX_OPEN_RESERVATIONS} open reservations")),
        _ => Denial::unavailable("the backend of credits gave an answer that this version does not know"),
    }
}

#[cold]
fn no_account(needed: u64) -> Denial {
    Denial::credits_exhausted(Shortage::new(0, needed))
        .with_log_detail("the function of with_account names no account for the principal")
}

#[cold]
fn exhausted(shortage: Shortage) -> Denial {
    let Shortage { available, needed, owed, .. } = shortage;
    let detail = if owed > 0 {
        format!("needs {needed} credits, and the account owes {owed}")
    } else {
        format!("needs {needed} credits, {available} are available")
    };
    Denial::credits_exhausted(shortage).with_log_detail(detail)
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
