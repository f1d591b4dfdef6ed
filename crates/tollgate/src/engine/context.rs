//! What the layers know about one request.

use std::{fmt, sync::Arc, time::SystemTime};

use http::{Extensions, request};
use tollgate_core::{
    denial::{Denial, DenialKind},
    limit::Decision,
    respond::Respond,
    verify::{Credential, Plan, Principal, RefusalText},
};

use super::{
    ResponseParts, Schemes,
    known_caller::{denial_of, in_words},
    settings::{Inherited, RequestClock},
};
use crate::{
    layers::{credits::CreditMeter, message::MessageMeter},
    oauth::ProtectedResource,
    request_id::RequestId,
};

/// What the layers know about a request, filled layer by layer. It travels in the request's extensions; read it with
/// [`of`](Self::of), and give it to a sub-request with [`copy`](Self::copy).
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
    // Whether a layer in report-only mode has waived a refusal.
    pub(super) is_waived: bool,
    // The schemes that challenges offer, if they are not the default.
    pub(crate) schemes: Option<Arc<Schemes>>,
    pub(crate) caller: Caller,
    pub(crate) credential: Option<Credential>,
    // The words in which refusals of the credential are written, if the verifier has its own.
    pub(crate) refusal_text: Option<Arc<RefusalText>>,
    pub(crate) request_id: Option<RequestId>,
    plan: FoundPlan,
    pub(crate) decision: Option<Decision>,
    pub(crate) credits: Option<CreditMeter>,
    pub(crate) messages: Option<MessageMeter>,
    /// What the gates of the present layer add to the response.
    pub(crate) parts: ResponseParts,
}

/// What a `PlanLayer` has found.
#[derive(Clone)]
enum FoundPlan {
    NotAsked,
    Found(Option<Arc<Plan>>),
}

/// The extension that holds the context. Empty while gates run, so that they can read the request and change the context at
/// the same time.
#[derive(Clone)]
struct Slot(Option<Box<RequestContext>>);

/// Who is calling.
#[derive(Clone)]
pub(crate) enum Caller {
    /// No layer has asked.
    Unknown,
    /// The caller presented a credential, which is not verified yet.
    Presented,
    /// The caller is this principal.
    Authenticated(Arc<Principal>),
    /// The caller presented no credential, and need not.
    Anonymous,
    /// The request needs no principal, and passes all guards and limits: it is for a public route, or it is a CORS preflight, which
    /// cannot carry a credential.
    Exempt,
    /// A layer in report-only mode would have refused the caller. A waived refusal does not authenticate.
    Waived,
}

impl RequestContext {
    /// The context of a request, from its extensions; `None` if no layer of Tollgate has seen it.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get::<Slot>()?.0.as_deref()
    }

    /// Copies the context of one request to another one, such as a part of a batch. Without a context, nothing is copied.
    pub fn copy(from: &Extensions, to: &mut Extensions) {
        if let Some(context) = Self::of(from) {
            Box::new(context.clone()).put(to);
        }
    }

    /// As [`copy`](Self::copy), but without the credential: for what outlives the request, so that the secret is not kept in memory as
    /// long.
    pub fn copy_without_credential(from: &Extensions, to: &mut Extensions) {
        if let Some(context) = Self::of(from) {
            Box::new(Self { credential: None, ..context.clone() }).put(to);
        }
    }

    /// The request's identifier, if a `RequestIdLayer` has run.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.request_id.as_ref()
    }

    /// What the caller presented, if a `CredentialLayer` has run and found a credential.
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// Who the caller is, if a `VerifyLayer` has run and the caller is not anonymous.
    #[inline]
    pub fn principal(&self) -> Option<&Arc<Principal>> {
        match &self.caller {
            Caller::Authenticated(principal) => Some(principal),
            _ => None,
        }
    }

    /// Whether the layers have decided who is calling: the caller is authenticated, anonymous by permission, need not be known
    /// (for a public route, or as a CORS preflight), or would have been refused by a layer in report-only mode.
    pub fn is_identified(&self) -> bool {
        !matches!(self.caller, Caller::Unknown | Caller::Presented)
    }

    /// The caller's plan: what a `PlanLayer` has found if it has asked, else the principal's.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        match &self.plan {
            FoundPlan::Found(plan) => plan.as_ref(),
            FoundPlan::NotAsked => self.principal()?.plan(),
        }
    }

    /// Where the caller's limits stand, if a `RateLimitLayer` has run; of stacked ones the innermost.
    pub fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    /// By what a handler reports the actual cost of the request, if a `CreditsLayer` has run; of stacked ones the innermost.
    pub fn credits(&self) -> Option<&CreditMeter> {
        self.credits.as_ref()
    }

    /// By what a handler charges the messages of a stream, if a `MessageLayer` has run; of stacked ones the innermost.
    pub fn messages(&self) -> Option<&MessageMeter> {
        self.messages.as_ref()
    }

    /// The instant of the request, as the innermost layer has it. It is read anew after each wait.
    pub fn now(&self) -> Option<SystemTime> {
        self.now
    }

    /// The responder that outer layers have set for inner ones.
    pub fn responder(&self) -> Option<&Arc<dyn Respond>> {
        self.inherited.as_ref()?.responder.as_ref()
    }

    /// Authenticates a request: from here on it is this principal's, as if layers had verified a credential. For applications
    /// that know their callers by other means, such as a session or a client certificate.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use tollgate::{Principal, RequestContext};
    ///
    /// let mut request = http::Request::new(());
    /// RequestContext::authenticate(request.extensions_mut(), Arc::new(Principal::new("session_17")));
    /// ```
    pub fn authenticate(extensions: &mut Extensions, principal: Arc<Principal>) {
        let mut context = Self::take(extensions);
        context.set_caller(Caller::Authenticated(principal), None);
        context.refusal_text = None;
        context.put(extensions);
    }

    /// Sets the responder for refusals from here on, as a layer does for the layers inside it. For routers and layers of an
    /// application's own that [refuse](crate::respond::refuse()).
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use tollgate::{RequestContext, respond::Problem};
    ///
    /// let mut request = http::Request::new(());
    /// let responder = Problem::new().with_type_base("https://docs.example.com/errors/");
    /// RequestContext::set_responder(request.extensions_mut(), Arc::new(responder));
    /// ```
    pub fn set_responder(extensions: &mut Extensions, responder: Arc<dyn Respond>) {
        let inherited = Inherited { responder: Some(responder), ..Inherited::default() };
        let mut context = Self::take(extensions);
        Arc::new(inherited).add_to(&mut context);
        context.put(extensions);
    }

    /// The context of a refused request, which need not have passed a layer.
    pub(crate) fn of_refused(request: &request::Parts) -> &Self {
        static NEW: RequestContext = RequestContext::NEW;

        Self::of(&request.extensions).unwrap_or(&NEW)
    }

    pub(super) const NEW: Self = Self {
        now: None,
        inherited: None,
        is_waived: false,
        schemes: None,
        caller: Caller::Unknown,
        credential: None,
        refusal_text: None,
        request_id: None,
        plan: FoundPlan::NotAsked,
        decision: None,
        credits: None,
        messages: None,
        parts: ResponseParts::NONE,
    };

    /// Takes the context out of a request; a new one if no layer has seen it.
    #[inline]
    pub(crate) fn take(extensions: &mut Extensions) -> Box<Self> {
        extensions.get_mut::<Slot>().and_then(|slot| slot.0.take()).unwrap_or_default()
    }

    /// Puts the context back, for inner layers and handlers.
    #[inline]
    pub(crate) fn put(self: Box<Self>, extensions: &mut Extensions) {
        match extensions.get_mut::<Slot>() {
            Some(slot) => slot.0 = Some(self),
            None => {
                extensions.insert(Slot(Some(self)));
            }
        }
    }

    /// What a refusal that comes later needs.
    pub(super) fn for_later(&self) -> KeptContext {
        KeptContext {
            inherited: self.inherited.clone(),
            is_waived: self.is_waived,
            schemes: self.schemes.clone(),
            caller: self.caller.clone(),
            refusal_text: self.refusal_text.clone(),
            request_id: self.request_id.clone(),
            plan: self.plan.clone(),
        }
    }

    /// The context of a request by this principal of which nothing else is known.
    pub(crate) fn authenticated(principal: Arc<Principal>) -> Self {
        Self { caller: Caller::Authenticated(principal), ..Self::NEW }
    }

    /// The request's instant, for gates.
    #[inline]
    pub(crate) fn instant(&self) -> SystemTime {
        // The engine has read the clock before any gate runs.
        self.now.unwrap_or_else(|| self.clock_time())
    }

    pub(super) fn read_clock(&mut self) {
        self.now = Some(self.clock_time());
    }

    #[inline(never)]
    fn clock_time(&self) -> SystemTime {
        Inherited::now(self.inherited.as_deref())
    }

    /// The clock of the request, for what outlasts it.
    pub(crate) fn clock(&self) -> RequestClock {
        RequestClock(self.inherited.clone())
    }

    /// The protection space that challenges name.
    pub(super) fn realm(&self) -> &'static str {
        self.inherited.as_ref().and_then(|inherited| inherited.realm).unwrap_or("api")
    }

    /// The protected resource whose metadata challenges name.
    pub(super) fn protected_resource(&self) -> Option<&ProtectedResource> {
        self.inherited.as_ref()?.protected_resource.as_deref()
    }

    /// A denial in the words of the verifier, if it refuses the credential.
    pub(super) fn in_verifiers_words(&self, denial: Denial) -> Denial {
        in_words(self.refusal_text.as_deref(), denial)
    }

    /// Decides anew who is calling. What an outer stack has found out about the caller no longer holds.
    #[inline]
    pub(crate) fn set_caller(&mut self, caller: Caller, credential: Option<Credential>) {
        self.caller = caller;
        self.credential = credential;
        self.plan = FoundPlan::NotAsked;
    }

    /// Sets who is calling, by the credential that was presented.
    #[inline]
    pub(crate) fn set_principal(&mut self, principal: Arc<Principal>) {
        self.caller = Caller::Authenticated(principal);
        self.plan = FoundPlan::NotAsked;
    }

    pub(crate) fn set_plan(&mut self, plan: Option<Arc<Plan>>) {
        self.plan = FoundPlan::Found(plan);
    }

    /// The caller's plan, if it is active.
    pub(crate) fn active_plan(&self) -> Option<&Arc<Plan>> {
        self.plan().filter(|plan| plan.is_active())
    }

    /// Refuses a principal that has ended or expired at the request's instant.
    #[inline]
    pub(crate) fn check_not_ended(&self) -> Result<(), Denial> {
        match self.principal().and_then(|principal| principal.ended(self.instant())) {
            None => Ok(()),
            Some(reason) => Err(denial_of(reason)),
        }
    }

    /// The principal that `layer` guards by. `None` for an exempt request, which no guard refuses.
    #[inline]
    pub(crate) fn guarded(&self, layer: &'static str) -> Result<Option<&Arc<Principal>>, Denial> {
        match &self.caller {
            Caller::Authenticated(principal) => Ok(Some(principal)),
            other => other.without_principal(layer).map(|()| None),
        }
    }
}

/// What is kept of a context while a stream is open: nothing secret, and nothing that ends with the request.
#[derive(Clone)]
pub(super) struct KeptContext {
    inherited: Option<Arc<Inherited>>,
    is_waived: bool,
    schemes: Option<Arc<Schemes>>,
    caller: Caller,
    refusal_text: Option<Arc<RefusalText>>,
    request_id: Option<RequestId>,
    plan: FoundPlan,
}

impl KeptContext {
    pub(super) fn request_id(&self) -> Option<&RequestId> {
        self.request_id.as_ref()
    }

    pub(super) fn principal(&self) -> Option<&Arc<Principal>> {
        match &self.caller {
            Caller::Authenticated(principal) => Some(principal),
            _ => None,
        }
    }

    /// A context again, whose response has these parts. Its instant is the present one.
    pub(super) fn restore(self, parts: ResponseParts) -> RequestContext {
        let Self { inherited, is_waived, schemes, caller, refusal_text, request_id, plan } = self;
        RequestContext {
            now: Some(Inherited::now(inherited.as_deref())),
            inherited,
            is_waived,
            schemes,
            caller,
            refusal_text,
            request_id,
            plan,
            parts,
            ..RequestContext::NEW
        }
    }
}

impl Caller {
    /// After a waived refusal: the principal of an outer layer stays, any other caller is not authenticated.
    pub(super) fn waived(self) -> Self {
        match self {
            Self::Authenticated(_) => self,
            _ => Self::Waived,
        }
    }

    /// What a guard answers without a principal.
    #[cold]
    fn without_principal(&self, layer: &'static str) -> Result<(), Denial> {
        match self {
            Self::Exempt => Ok(()),
            Self::Anonymous | Self::Waived => Err(Denial::new(DenialKind::CredentialMissing)),
            _ => Err(Denial::misconfigured(format!(
                "{layer} ran before any VerifyLayer: put a CredentialLayer and a VerifyLayer outside it \
                 (with axum's Router::layer the last one added is the outermost), or call RequestContext::authenticate"
            ))),
        }
    }
}

impl Default for RequestContext {
    fn default() -> Self {
        Self::NEW
    }
}

impl fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestContext")
            .field("request_id", &self.request_id)
            .field("credential", &self.credential())
            .field("principal", &self.principal())
            .field("decision", &self.decision)
            .finish_non_exhaustive()
    }
}
