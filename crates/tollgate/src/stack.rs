//! The whole stack, in the right order.

use std::sync::Arc;

use tower_layer::Layer;

use crate::{
    AttemptLimitLayer, ConfigurationError, CredentialLayer, EntitlementLayer, RateLimitLayer, RequestIdLayer,
    ScopeLayer, UsageLayer, VerifyLayer,
    engine::{Engine, Gate, GateLayer, Settings, Station},
    layers::{AnyGate, Gated, ReportOnly, rate_limit::ANONYMOUS_UNCOUNTED},
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
/// Around an axum `Router` it answers unknown paths, too: with 401 to strangers.
#[derive(Clone, Debug)]
pub struct Tollgate {
    engine: Arc<Engine>,
}

impl Tollgate {
    /// Begins a stack with request identifiers and the default credential sources.
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

/// Puts a [`Tollgate`] together. In whatever order the layers are named, a request meets them in this one: request ID,
/// attempt limit, credential, verify, rate limit, entitlement, scope, usage.
///
/// Responder, clock and realm are set here, for all; [`build`](Self::build) refuses a layer that has its own. A layer in
/// report-only mode stays so.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct TollgateBuilder {
    request_id: Slot,
    attempt_limit: Slot,
    credential: Slot,
    verify: Slot,
    rate_limit: Slot,
    entitlement: Slot,
    scope: Slot,
    usage: Slot,
    settings: Settings,
    is_optional: bool,
    leaves_anonymous_uncounted: bool,
}

/// The layers that were named for one place: exactly one, or there is something to complain about.
type Slot = Vec<(AnyGate, Settings)>;

impl TollgateBuilder {
    /// Another way to identify requests than the default one.
    pub fn request_id(mut self, layer: RequestIdLayer) -> Self {
        self.request_id.push(layer.into_parts());
        self
    }

    /// How often an address may fail to prove who it is.
    pub fn attempt_limit(mut self, layer: AttemptLimitLayer) -> Self {
        self.attempt_limit.push(layer.into_parts());
        self
    }

    /// Another way to find credentials than the default one.
    pub fn credential(mut self, layer: CredentialLayer) -> Self {
        self.is_optional = layer.gate.is_optional;
        self.credential.push(layer.into_parts());
        self
    }

    /// Who a credential belongs to: a verifier, or a layer made of one. Required.
    pub fn verify(mut self, layer: impl Into<VerifyLayer>) -> Self {
        self.verify.push(layer.into().into_parts());
        self
    }

    /// How often a caller may ask: a quota for each key, or a layer with policies.
    pub fn rate_limit(mut self, layer: impl Into<RateLimitLayer>) -> Self {
        let layer = layer.into();
        self.leaves_anonymous_uncounted = !layer.gate.counts_anonymous();
        self.rate_limit.push(layer.into_parts());
        self
    }

    /// Which subscription a caller needs.
    pub fn entitlement(mut self, layer: EntitlementLayer) -> Self {
        self.entitlement.push(layer.into_parts());
        self
    }

    /// Which scopes a caller needs: one requirement for all, or a layer with a map of routes.
    pub fn scope(mut self, layer: impl Into<ScopeLayer>) -> Self {
        self.scope.push(layer.into().into_parts());
        self
    }

    /// Who is told that a caller was let through: a recorder, another sink, or a layer made of one.
    pub fn usage(mut self, layer: impl Into<UsageLayer>) -> Self {
        self.usage.push(layer.into().into_parts());
        self
    }

    /// Turns refusals into responses. By default gRPC requests get a gRPC status, all others an RFC 9457 problem.
    pub fn responder(mut self, responder: impl tollgate_core::respond::Respond) -> Self {
        self.settings.responder = Some(Arc::new(responder));
        self
    }

    /// Takes the time from `clock`.
    pub fn clock(mut self, clock: impl tollgate_core::clock::Clock) -> Self {
        self.settings.clock = Some(Arc::new(clock));
        self
    }

    /// Names the protection space in challenges (RFC 9110 section 11.5). Default: `api`.
    pub fn realm(mut self, realm: &'static str) -> Self {
        self.settings.realm = Some(realm);
        self
    }

    /// Refuses nothing: logs and counts what would have been refused, and lets it through.
    pub fn report_only(mut self, report: &ReportOnly) -> Self {
        self.settings.report_only = Some(report.clone());
        self
    }

    /// The stack.
    ///
    /// # Errors
    /// If it cannot work as it was put together. The error says what to change.
    pub fn build(mut self) -> Result<Tollgate, ConfigurationError> {
        if self.verify.is_empty() {
            return Err(ConfigurationError::new(
                "Tollgate has no verifier: add .verify(KeyVerifier::new(format, store)), or a verifier of your own",
            ));
        }
        if self.is_optional && self.leaves_anonymous_uncounted {
            return Err(ConfigurationError::new(ANONYMOUS_UNCOUNTED));
        }
        if self.request_id.is_empty() {
            self.request_id.push(RequestIdLayer::new().into_parts());
        }
        if self.credential.is_empty() {
            self.credential.push(CredentialLayer::new().into_parts());
        }
        let slots = [
            self.request_id,
            self.attempt_limit,
            self.credential,
            self.verify,
            self.rate_limit,
            self.entitlement,
            self.scope,
            self.usage,
        ];
        let mut stations = Vec::new();
        for mut slot in slots {
            let Some((gate, own)) = slot.pop() else { continue };
            let layer = gate.layer();
            if !slot.is_empty() {
                return Err(ConfigurationError::new(format!(
                    "Tollgate was given two of {layer}, of which only one could hold: make them one"
                )));
            }
            if own.concern_all() {
                return Err(ConfigurationError::new(format!(
                    "{layer} has a responder, a clock or a realm of its own: set them on Tollgate's builder, for all layers"
                )));
            }
            let report_only = own.report_only.or_else(|| self.settings.report_only.clone());
            stations.push(Station::new(gate, report_only));
        }
        let engine = Engine::new(stations, &self.settings);
        match engine.configuration_error() {
            Some(configuration_error) => Err(configuration_error.clone()),
            None => Ok(Tollgate { engine }),
        }
    }
}
