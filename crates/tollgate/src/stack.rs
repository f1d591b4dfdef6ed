//! The whole stack, in the right order.

use std::sync::Arc;

use tower_layer::Layer;

use crate::{
    ConfigurationError, CredentialLayer, EntitlementLayer, Gated, RateLimitLayer, ReportOnly, RequestIdLayer,
    ScopeLayer, VerifyLayer,
    engine::{Engine, Gate, Settings},
    layers::rate_limit::ANONYMOUS_UNCOUNTED,
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
/// Around an axum `Router` it answers unknown paths, too: with 401 to strangers, who cannot find out what exists.
#[derive(Clone, Debug)]
pub struct Tollgate {
    engine: Arc<Engine>,
}

impl Tollgate {
    /// Begins a stack with request identifiers and the default credential sources.
    pub fn builder() -> TollgateBuilder {
        TollgateBuilder {
            request_id: RequestIdLayer::new(),
            credential: CredentialLayer::new(),
            verify: None,
            rate_limit: None,
            entitlement: None,
            scope: None,
            settings: Settings::default(),
        }
    }
}

impl<S> Layer<S> for Tollgate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated::new(inner, Arc::clone(&self.engine))
    }
}

/// Puts a [`Tollgate`] together. In whatever order the layers are named, a request meets them in this one: request ID,
/// credential, verify, rate limit, entitlement, scope.
///
/// The layers' own settings (responder, clock, realm, report-only) are not used: set them here, for all.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct TollgateBuilder {
    request_id: RequestIdLayer,
    credential: CredentialLayer,
    verify: Option<VerifyLayer>,
    rate_limit: Option<RateLimitLayer>,
    entitlement: Option<EntitlementLayer>,
    scope: Option<ScopeLayer>,
    settings: Settings,
}

impl TollgateBuilder {
    /// Another way to identify requests than the default one.
    pub fn request_id(mut self, layer: RequestIdLayer) -> Self {
        self.request_id = layer;
        self
    }

    /// Another way to find credentials than the default one.
    pub fn credential(mut self, layer: CredentialLayer) -> Self {
        self.credential = layer;
        self
    }

    /// Who a credential belongs to: a verifier, or a layer made of one. Required.
    pub fn verify(mut self, layer: impl Into<VerifyLayer>) -> Self {
        self.verify = Some(layer.into());
        self
    }

    /// How often a caller may ask: a quota for each key, or a layer with policies.
    pub fn rate_limit(mut self, layer: impl Into<RateLimitLayer>) -> Self {
        self.rate_limit = Some(layer.into());
        self
    }

    /// Which subscription a caller needs.
    pub fn entitlement(mut self, layer: EntitlementLayer) -> Self {
        self.entitlement = Some(layer);
        self
    }

    /// Which scopes a caller needs: one requirement for all, or a layer with a map of routes.
    pub fn scope(mut self, layer: impl Into<ScopeLayer>) -> Self {
        self.scope = Some(layer.into());
        self
    }

    /// Turns refusals into responses. By default gRPC requests get a gRPC status, all others an RFC 9457 problem.
    pub fn responder(mut self, responder: impl tollgate_core::Respond) -> Self {
        self.settings.responder = Some(Arc::new(responder));
        self
    }

    /// Takes the time from `clock`.
    pub fn clock(mut self, clock: impl tollgate_core::Clock) -> Self {
        self.settings.clock = Arc::new(clock);
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
    /// If it cannot work: without a verifier, with a scope that no key can have, or with optional credentials and limits that
    /// have no counter for the anonymous.
    pub fn build(self) -> Result<Tollgate, ConfigurationError> {
        let Some(verify) = self.verify else {
            return Err(ConfigurationError::new(
                "Tollgate has no verifier: add .verify(KeyVerifier::new(format, store)), or a verifier of your own",
            ));
        };
        if let Some(invalid) = self.scope.as_ref().and_then(|layer| layer.gate.invalid()) {
            return Err(ConfigurationError::new(invalid.to_string()));
        }
        let leaves_anonymous_uncounted = |limit: &RateLimitLayer| !limit.gate.counts_anonymous();
        if self.credential.gate.is_optional
            && self.rate_limit.as_ref().is_some_and(leaves_anonymous_uncounted)
        {
            return Err(ConfigurationError::new(ANONYMOUS_UNCOUNTED));
        }
        let mut gates: Vec<Box<dyn Gate>> =
            vec![Box::new(self.request_id.gate), Box::new(self.credential.gate), Box::new(verify.gate)];
        gates.extend(self.rate_limit.map(|layer| Box::new(layer.gate) as Box<dyn Gate>));
        gates.extend(self.entitlement.map(|layer| Box::new(layer.gate) as Box<dyn Gate>));
        gates.extend(self.scope.map(|layer| Box::new(layer.gate) as Box<dyn Gate>));
        Ok(Tollgate { engine: Engine::new(gates, self.settings) })
    }
}
