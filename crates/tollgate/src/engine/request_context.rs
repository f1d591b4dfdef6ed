//! What the layers learn about one request on its way in.

use std::{fmt, sync::Arc, time::SystemTime};

use http::Extensions;
use tollgate_core::{
    denial::{Denial, DenialKind},
    limit::{Decision, Limiter},
    respond::Respond,
    store::EndReason,
    verify::{Credential, Plan, Principal},
};

use super::{
    Learned, RateLimitHeaders,
    settings::Inherited,
    settlement::{DeferredCharge, DeferredItem},
};
use crate::request::RequestId;

/// What the layers have learned about a request: one request extension, filled layer by layer.
///
/// ```
/// use tollgate::RequestContext;
///
/// fn handle(request: http::Request<()>) -> String {
///     let principal = RequestContext::of(request.extensions()).and_then(RequestContext::principal);
///     match principal {
///         Some(principal) => format!("Hello, {}!", principal.id()),
///         None => "Hello, stranger!".to_owned(),
///     }
/// }
/// assert_eq!(handle(http::Request::new(())), "Hello, stranger!");
/// ```
#[derive(Clone)]
pub struct RequestContext {
    now: Option<SystemTime>,
    pub(super) inherited: Option<Arc<Inherited>>,
    pub(super) is_waived: bool,
    standing: Standing,
    request_id: Option<RequestId>,
    credential: Option<Credential>,
    principal: Option<Arc<Principal>>,
    plan: PlanSource,
    limits: Limits,
    // What only the response will tell the cost of. Shared, so that request contexts are cheap to copy: hardly any has such.
    owed: Option<Arc<Owed>>,
}

/// What is to be charged when the response is there.
#[derive(Clone, Default)]
pub(super) struct Owed(pub(super) Vec<DeferredCharge>);

/// What limits have said.
#[derive(Clone)]
struct Limits {
    decision: Option<Decision>,
    // Whether the decision is that of several limits, and whether the last of them refused.
    is_stacked: bool,
    is_used_up: bool,
    // How those further out want to be told of, and whether one of them may have to be told anew when the response is there.
    headers: RateLimitHeaders,
    may_be_told_anew: bool,
}

/// Where the caller's plan is known from.
#[derive(Clone)]
enum PlanSource {
    Principal,
    /// Whom an `EntitlementLayer` has asked; perhaps there is none.
    Asked(Option<Arc<Plan>>),
}

/// How far the question of who is calling has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody has asked.
    #[default]
    Unasked,
    /// A credential was presented, and is not verified yet.
    Presented,
    /// A credential was verified.
    Proven,
    /// No credential was presented, and none is required.
    Anonymous,
    /// A CORS preflight: carries no credential and is asked for none.
    Preflight,
    /// Refused by a layer in report-only mode, and let through as nobody.
    Waived,
}

impl RequestContext {
    /// The request context of a request, from its extensions; `None` if no layer of Tollgate's has seen it.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        // Asked first: the usual extensions of a request that no layer has seen are none.
        if extensions.is_empty() { None } else { extensions.get() }
    }

    /// The request's identifier, if a `RequestIdLayer` has run.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.request_id.as_ref()
    }

    /// What the caller presented, if a `CredentialLayer` has run and found something.
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// Who the caller proved to be, if a `VerifyLayer` has run and the caller is not anonymous.
    pub fn principal(&self) -> Option<&Arc<Principal>> {
        self.principal.as_ref()
    }

    /// Whether the question of who is calling was asked and answered: the caller is proven, anonymous by permission, or would
    /// have been refused by a layer in report-only mode.
    pub fn is_identified(&self) -> bool {
        !matches!(self.standing, Standing::Unasked | Standing::Presented)
    }

    /// The caller's plan: what an `EntitlementLayer` has asked for, or else the principal's own.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        match &self.plan {
            PlanSource::Asked(plan) => plan.as_ref(),
            PlanSource::Principal => self.principal.as_ref()?.plan(),
        }
    }

    /// Where the caller's limits stand, if a `RateLimitLayer` has run: of stacked limits, all together.
    pub fn decision(&self) -> Option<&Decision> {
        self.limits.decision.as_ref()
    }

    /// The instant of the request: of the innermost layer that has seen it, taken anew after each wait.
    pub fn now(&self) -> Option<SystemTime> {
        self.now
    }

    /// The responder that the layers outside have set for those inside.
    pub fn responder(&self) -> Option<&Arc<dyn Respond>> {
        self.inherited.as_ref()?.responder.as_ref()
    }

    /// The protection space that challenges name.
    pub(super) fn realm(&self) -> &'static str {
        self.inherited.as_ref().and_then(|inherited| inherited.realm).unwrap_or("api")
    }

    /// Nothing learned yet.
    #[inline]
    pub(super) const fn new() -> Self {
        Self {
            now: None,
            inherited: None,
            is_waived: false,
            standing: Standing::Unasked,
            request_id: None,
            credential: None,
            principal: None,
            plan: PlanSource::Principal,
            limits: Limits {
                decision: None,
                is_stacked: false,
                is_used_up: false,
                headers: RateLimitHeaders::none(),
                may_be_told_anew: false,
            },
            owed: None,
        }
    }

    /// Vouches for a request: from here on it is this principal's, as if layers had verified a credential. For applications
    /// that know their callers in another way, by a session or a client's certificate, and want to guard them alike.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use tollgate::{RequestContext, Principal};
    ///
    /// let mut request = http::Request::new(());
    /// RequestContext::identify(request.extensions_mut(), Arc::new(Principal::new("session_17")));
    /// ```
    pub fn identify(extensions: &mut Extensions, principal: Arc<Principal>) {
        let context: &mut Self = extensions.get_or_insert_default();
        context.begin(Standing::Proven, None);
        context.principal = Some(principal);
    }

    /// Has `responder` make the responses to refusals from here on, as a layer's own does for what is inside it. For routers
    /// and layers of an application's own, which [refuse](crate::respond::refuse()).
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use tollgate::{RequestContext, respond::Problem};
    ///
    /// let mut request = http::Request::new(());
    /// let responder = Problem::new().with_type_base("https://docs.example.com/errors/");
    /// RequestContext::respond_by(request.extensions_mut(), Arc::new(responder));
    /// ```
    pub fn respond_by(extensions: &mut Extensions, responder: Arc<dyn Respond>) {
        let context: &mut Self = extensions.get_or_insert_default();
        let inherited = Inherited { responder: Some(responder), clock: None, realm: None };
        Arc::new(inherited).hand_to(context);
    }

    /// That of a request of this principal's of which nothing else is known.
    pub(crate) fn proven(principal: Arc<Principal>) -> Self {
        Self { standing: Standing::Proven, principal: Some(principal), ..Self::new() }
    }

    pub(super) fn read_clock(&mut self) {
        self.now = Some(Inherited::now(self.inherited.as_deref()));
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    /// The request's instant, for gates: they run only after the engine has set it.
    pub(crate) fn instant(&self) -> SystemTime {
        self.now.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// The request's identifier, to be handed to its response.
    pub(crate) fn request_id_mut(&mut self) -> Option<&mut RequestId> {
        self.request_id.as_mut()
    }

    /// Whether a limit further out has decided, too: then only the inner of the two writes the numbers.
    pub(crate) fn is_decision_stacked(&self) -> bool {
        self.limits.is_stacked
    }

    /// How the limits are told of: as this one asks for, and as those further out do.
    #[inline]
    pub(crate) fn tell_by(&mut self, headers: RateLimitHeaders) -> RateLimitHeaders {
        if self.limits.headers != headers {
            self.limits.headers = headers.and_outer(self.limits.headers);
        }
        self.limits.headers
    }

    /// What is to be charged to this limiter when the response is there.
    pub(crate) fn settlement(
        &self,
        limiter: &Arc<dyn Limiter>,
        charges: Vec<DeferredItem>,
    ) -> DeferredCharge {
        DeferredCharge::new(limiter, charges, self.inherited.clone())
    }

    /// Takes what is to be charged when the response is there, to hand it to the response.
    #[inline]
    pub(super) fn take_owed(&mut self) -> Option<Owed> {
        self.owed.take().map(Arc::unwrap_or_clone)
    }

    /// Whether where the limits stand may have to be told anew then: by this one, or by one further out.
    #[inline]
    pub(crate) fn may_be_told_anew(&self) -> bool {
        self.limits.may_be_told_anew
    }

    fn owe(&mut self, settlement: DeferredCharge) {
        self.limits.may_be_told_anew |= settlement.is_told();
        Arc::make_mut(self.owed.get_or_insert_default()).0.push(settlement);
    }

    /// What all limits have decided, if the last of them refused.
    pub(crate) fn used_up(&self) -> Option<&Decision> {
        self.limits.decision.as_ref().filter(|_| self.limits.is_used_up)
    }

    /// Refuses a principal that has ended or expired as of this request's instant.
    #[inline]
    pub(crate) fn check_end(&self) -> Result<(), Denial> {
        let ended = self.principal.as_ref().and_then(|principal| principal.ended(self.instant()));
        let Some(reason) = ended else { return Ok(()) };
        Err(Denial::new(match reason {
            EndReason::Expired => DenialKind::KeyExpired,
            EndReason::TenantSuspended => DenialKind::TenantSuspended,
            _ => DenialKind::KeyRevoked,
        }))
    }

    /// The principal that `layer` guards by. `None` for a request that is exempt from guards.
    #[inline]
    pub(crate) fn guarded(&self, layer: &'static str) -> Result<Option<&Arc<Principal>>, Denial> {
        match (self.standing, &self.principal) {
            (Standing::Proven, Some(principal)) => Ok(Some(principal)),
            (Standing::Preflight, _) => Ok(None),
            _ => Err(self.unguarded(layer)),
        }
    }

    #[cold]
    fn unguarded(&self, layer: &'static str) -> Denial {
        match self.standing {
            Standing::Anonymous | Standing::Waived => Denial::new(DenialKind::CredentialMissing),
            _ => Denial::misconfigured(format!(
                "{layer} ran before any VerifyLayer: put a CredentialLayer and a VerifyLayer outside it \
                 (with axum's Router::layer the last one added is the outermost), or call RequestContext::identify"
            )),
        }
    }

    #[inline(always)]
    pub(crate) fn learn(&mut self, learned: Learned) {
        match learned {
            Learned::RequestId(request_id) => self.request_id = Some(request_id),
            Learned::Credential(credential) => self.begin(Standing::Presented, Some(credential)),
            Learned::Anonymous => self.begin(Standing::Anonymous, None),
            Learned::Preflight => self.begin(Standing::Preflight, None),
            Learned::Principal(principal) => {
                self.standing = Standing::Proven;
                self.principal = Some(principal);
            }
            Learned::Plan(plan) => self.plan = PlanSource::Asked(plan),
            Learned::Decision(decision) => self.take_up(decision),
            Learned::Charged(charged) => {
                let (decision, settlement) = *charged;
                if decision.is_allowed() {
                    self.owe(settlement);
                }
                self.take_up(decision);
            }
            Learned::Owes(settlement) => self.owe(*settlement),
        }
    }

    #[inline(always)]
    fn take_up(&mut self, decision: Decision) {
        self.limits.is_stacked = self.limits.decision.is_some();
        self.limits.is_used_up = !decision.is_allowed();
        if self.limits.is_stacked {
            self.stack(&decision);
        } else {
            self.limits.decision = Some(decision);
        }
    }

    #[cold]
    fn stack(&mut self, decision: &Decision) {
        self.limits.decision = self.limits.decision.take().map(|outer| outer.and(decision));
    }

    /// Asks anew who is calling: what a stack further out has proven counts no more.
    fn begin(&mut self, standing: Standing, credential: Option<Credential>) {
        self.standing = standing;
        self.credential = credential;
        self.principal = None;
        self.plan = PlanSource::Principal;
    }

    /// Lets a request go on that was refused in report-only mode. If it was refused for who is calling, it goes on as it was
    /// `before` that gate, and as nobody.
    pub(super) fn waive(&mut self, before: Option<Box<Self>>) {
        if let Some(before) = before {
            *self = *before;
            if self.standing != Standing::Proven {
                self.standing = Standing::Waived;
            }
        }
        self.is_waived = true;
        // A limit further in judges by its own decision.
        self.limits.is_used_up = false;
    }
}

impl Default for RequestContext {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestContext")
            .field("request_id", &self.request_id)
            .field("credential", &self.credential)
            .field("principal", &self.principal)
            .field("decision", &self.limits.decision)
            .finish_non_exhaustive()
    }
}
