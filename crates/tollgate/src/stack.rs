//! The whole stack, in the right order.

use std::{convert::Infallible, sync::Arc};

use http::Method;
use tower_layer::Layer;

use crate::{
    AttemptLimitLayer, ConfigurationError, CredentialLayer, CreditsLayer, EntitlementLayer, GuardLayer,
    InFlightLimitLayer, MessageLayer, PlanLayer, RateLimitLayer, RequestIdLayer, ScopeLayer, StreamEndLayer,
    UsageLayer, VerifyLayer,
    engine::{Engine, GateLayer, Settings, Station},
    layers::{Gate, Gated, ReportOnly, credential::CompiledRoutes, in_flight_limit, message, rate_limit},
    oauth::ProtectedResource,
    verify::PublicRoutes,
};

/// The whole stack as one layer: one future, one body, one pass over the request.
///
/// ```
/// use tollgate::{
///     EntitlementLayer, Environment, KeyFormat, KeyVerifier, MemoryKeys, PerWindow, Plan, Principal, Scopes, Tollgate, scope,
/// };
/// use tower::ServiceBuilder;
///
/// let format = KeyFormat::new("sk")?;
/// let keys = MemoryKeys::new();
///
/// let tollgate = Tollgate::builder()
///     .verify(KeyVerifier::new(format, keys))
///     .rate_limit(60.per_minute().and(1_000.per_hour()))
///     .entitlement(EntitlementLayer::new())
///     .scope(scope("jobs:read"))
///     .build()?;
///
/// let service = ServiceBuilder::new().layer(tollgate).service_fn(handle);
/// # async fn handle(_: http::Request<String>) -> Result<http::Response<String>, std::convert::Infallible> { Ok(http::Response::default()) }
/// # let _ = service;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Around an axum `Router` it also guards unknown paths: a request without a key gets 401, not 404.
#[derive(Clone, Debug)]
pub struct Tollgate {
    engine: Arc<Engine>,
}

impl Tollgate {
    /// Starts a stack with request identifiers and the default credential sources.
    pub fn builder() -> TollgateBuilder {
        TollgateBuilder::default()
    }
}

impl<S> Layer<S> for Tollgate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated::new(inner, Arc::clone(&self.engine))
    }
}

/// Builds a [`Tollgate`]. A request passes the layers in this order, whatever the order of the calls: request ID, attempt limit,
/// credential, verify, plan, in-flight limits, rate limit, entitlement, scope, guards, credits, usage, messages, stream end.
///
/// Responder, clock, realm and protected resource are set here for all layers; [`build`](Self::build) refuses a layer that has its own. A layer in
/// report-only mode stays so.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the layers")]
pub struct TollgateBuilder {
    request_id: Slot,
    attempt_limit: Slot,
    credential: Slot,
    verify: Slot,
    plan: Slot,
    in_flight_limits: Slot,
    rate_limit: Slot,
    entitlement: Slot,
    scope: Slot,
    guards: Slot,
    credits: Slot,
    usage: Slot,
    messages: Slot,
    stream_end: Slot,
    settings: Settings,
    public: Option<PublicRoutes>,
    // Those that were given to the credential's layer.
    credential_public: Option<CompiledRoutes>,
    // Those that the map of scopes lists.
    guarded: Vec<(Option<Method>, String)>,
    accepts_anonymous: bool,
    counts_only_principals: bool,
    leaves_anonymous_messages_uncharged: bool,
    // Of all in-flight limits.
    in_flight_counts_anonymous: bool,
    // The first layer that could not be made.
    error: Option<ConfigurationError>,
}

/// The layers that were given for one position. More than one is an error, except where the [gate may repeat](Gate::may_repeat).
type Slot = Vec<(Gate, Settings)>;

impl TollgateBuilder {
    /// How requests are identified. Default: [`RequestIdLayer::new`].
    pub fn request_id(mut self, layer: RequestIdLayer) -> Self {
        self.request_id.push(layer.into_parts());
        self
    }

    /// How often an address may fail to authenticate. Default: no limit.
    pub fn attempt_limit(mut self, layer: AttemptLimitLayer) -> Self {
        self.attempt_limit.push(layer.into_parts());
        self
    }

    /// Where credentials are found. Default: [`CredentialLayer::new`].
    pub fn credential(mut self, layer: CredentialLayer) -> Self {
        self.accepts_anonymous = layer.gate.accepts_anonymous;
        self.credential_public.clone_from(&layer.gate.public);
        self.credential.push(layer.into_parts());
        self
    }

    /// Which routes are open to everyone, past all guards and limits. May be called several times: all these routes are public, except
    /// where the [`ScopeMap`](crate::scope::ScopeMap) lists a more specific one. Default: none.
    pub fn public(mut self, routes: PublicRoutes) -> Self {
        self.public = Some(self.public.take().unwrap_or_default().and(routes));
        self
    }

    /// What verifies credentials: a verifier, or a layer made of one. Required.
    pub fn verify(mut self, layer: impl Into<VerifyLayer>) -> Self {
        self.verify.push(layer.into().into_parts());
        self
    }

    /// Where the caller's plan is looked up, before limits by plan: entitlements, or a layer made of them. Default: the plan is
    /// the principal's.
    pub fn plan(mut self, layer: impl Into<PlanLayer>) -> Self {
        self.plan.push(layer.into().into_parts());
        self
    }

    /// How many requests of a caller may be in flight at the same time. May be called several times, with limits by different
    /// subjects: a request needs a place in each. Default: no limit.
    pub fn in_flight_limit(mut self, layer: InFlightLimitLayer) -> Self {
        self.in_flight_counts_anonymous |= layer.gate.counts_anonymous();
        self.in_flight_limits.push(layer.into_parts());
        self
    }

    /// How often a caller may send requests: a quota for each key, or a layer with policies. Default: no limit.
    pub fn rate_limit(mut self, layer: impl Into<RateLimitLayer>) -> Self {
        let layer = layer.into();
        self.counts_only_principals = !layer.gate.counts_anonymous();
        self.rate_limit.push(layer.into_parts());
        self
    }

    /// Which subscription a caller needs. Default: none.
    pub fn entitlement(mut self, layer: EntitlementLayer) -> Self {
        self.entitlement.push(layer.into_parts());
        self
    }

    /// Which scopes a caller needs: one requirement for all routes, a map of routes, or a layer. Default: none.
    pub fn scope<L>(mut self, layer: L) -> Self
    where
        L: TryInto<ScopeLayer>,
        ConfigurationError: From<L::Error>,
    {
        match layer.try_into() {
            Ok(layer) => {
                let guarded = layer.routes().map(|(method, path)| (method.cloned(), path.to_owned()));
                self.guarded.extend(guarded);
                self.scope.push(layer.into_parts());
            }
            Err(error) => self.error = self.error.or(Some(error.into())),
        }
        self
    }

    /// Your own check: a [guard](crate::guard), or a layer made of one. Several run in the order in which they are added. Default:
    /// none.
    ///
    /// ```
    /// use tollgate::{
    ///     Denial, DenialKind, Tollgate,
    ///     guard::{GuardRequest, guard_sync_fn},
    /// };
    ///
    /// let builder = Tollgate::builder().guard(guard_sync_fn(|request: &GuardRequest<'_>| {
    ///     match request.authenticated()?.tenant() {
    ///         Some("acme") => Ok(()),
    ///         _ => Err(Denial::new(DenialKind::Forbidden)),
    ///     }
    /// }));
    /// # let _ = builder;
    /// ```
    pub fn guard(mut self, layer: impl Into<GuardLayer>) -> Self {
        self.guards.push(layer.into().into_parts());
        self
    }

    /// What requests cost in credits. Default: nothing.
    pub fn credits(mut self, layer: CreditsLayer) -> Self {
        self.credits.push(layer.into_parts());
        self
    }

    /// What records usage: a recorder, another sink, or a layer made of one. Default: nothing.
    pub fn usage(mut self, layer: impl Into<UsageLayer>) -> Self {
        self.usage.push(layer.into().into_parts());
        self
    }

    /// What the messages of streams cost. Default: nothing.
    pub fn messages(mut self, layer: MessageLayer) -> Self {
        self.leaves_anonymous_messages_uncharged = !layer.gate.charges_anonymous();
        self.messages.push(layer.into_parts());
        self
    }

    /// Ends long streams when their caller's key ends. Default: a stream that is open goes on.
    pub fn stream_end(mut self, layer: StreamEndLayer) -> Self {
        self.stream_end.push(layer.into_parts());
        self
    }

    /// Turns refusals into responses. Default: an RFC 9457 problem. For a gRPC service: [`Grpc`](crate::respond::Grpc).
    pub fn responder(mut self, responder: impl tollgate_core::respond::Respond) -> Self {
        self.settings.responder = Some(Arc::new(responder));
        self
    }

    /// Takes the time from `clock`. Default: the machine's clock.
    pub fn clock(mut self, clock: impl tollgate_core::clock::Clock) -> Self {
        self.settings.clock = Some(Arc::new(clock));
        self
    }

    /// Names the protection space in challenges (RFC 9110 section 11.5). Default: `api`.
    pub fn realm(mut self, realm: &'static str) -> Self {
        self.settings.realm = Some(realm);
        self
    }

    /// Names the metadata of an OAuth [protected resource](crate::oauth::ProtectedResource) in Bearer challenges (RFC 9728 section
    /// 5.1). Default: none.
    pub fn protected_resource(mut self, resource: &ProtectedResource) -> Self {
        self.settings.protected_resource = Some(Arc::new(resource.clone()));
        self
    }

    /// Refuses nothing: logs and counts what would have been refused, and lets it pass.
    pub fn report_only(mut self, report: &ReportOnly) -> Self {
        self.settings.report_only = Some(report.clone());
        self
    }

    /// The stack.
    ///
    /// # Errors
    /// If the layers cannot work together. The error says what to change.
    pub fn build(mut self) -> Result<Tollgate, ConfigurationError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.verify.is_empty() {
            return Err(ConfigurationError::new(
                "Tollgate has no verifier: add .verify(KeyVerifier::new(format, store)), or a verifier of your own",
            ));
        }
        if self.accepts_anonymous && self.counts_only_principals {
            return Err(ConfigurationError::new(rate_limit::ANONYMOUS_UNCOUNTED));
        }
        if self.accepts_anonymous && self.leaves_anonymous_messages_uncharged {
            return Err(ConfigurationError::new(message::ANONYMOUS_UNCHARGED));
        }
        let limits_in_flight = !self.in_flight_limits.is_empty();
        if self.accepts_anonymous && limits_in_flight && !self.in_flight_counts_anonymous {
            return Err(ConfigurationError::new(in_flight_limit::ANONYMOUS_UNCOUNTED));
        }
        if self.request_id.is_empty() {
            self.request_id.push(RequestIdLayer::new().into_parts());
        }
        if self.credential.is_empty() {
            self.credential.push(CredentialLayer::new().into_parts());
        }
        let public = match (self.public, self.credential_public) {
            (Some(_), Some(_)) => {
                return Err(ConfigurationError::new(
                    "CredentialLayer has public routes of its own: give all of them to Tollgate's builder, by .public(..)",
                ));
            }
            (Some(routes), None) => routes.compile()?,
            (None, compiled) => compiled,
        };
        // Of a public route and one that the map of scopes lists, the more specific one counts.
        let guarded = self.guarded.iter().map(|(method, path)| (method.as_ref(), path.as_str()));
        let public = public.map(|public| public.except(guarded)).transpose()?.flatten();
        let slots = [
            self.request_id,
            self.attempt_limit,
            self.credential,
            self.verify,
            self.plan,
            self.in_flight_limits,
            self.rate_limit,
            self.entitlement,
            self.scope,
            self.guards,
            self.credits,
            self.usage,
            self.messages,
            self.stream_end,
        ];
        let mut stations = Vec::new();
        for (number, (mut gate, own)) in slots.into_iter().flat_map(|slot| slot.into_iter().enumerate()) {
            let layer = gate.layer();
            if number > 0 && !gate.may_repeat() {
                return Err(ConfigurationError::new(format!(
                    "Tollgate was given two of {layer}, but a stack has one of each layer: remove one"
                )));
            }
            if own.has_shared() {
                return Err(ConfigurationError::new(format!(
                    "{layer} has a responder, a clock, a realm or a protected resource of its own: set them on Tollgate's builder, for all layers"
                )));
            }
            if let Some(public) = &public {
                gate.set_public(public);
            }
            let report_only = own.report_only.or_else(|| self.settings.report_only.clone());
            stations.push(Station::new(gate, report_only));
        }
        Ok(Tollgate { engine: Engine::new(stations, &self.settings) })
    }
}

impl From<Infallible> for ConfigurationError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
