//! Requires scopes: the same for every route behind the layer, or different ones by route.
//!
//! # What is refused
//!
//! | condition | status | challenge |
//! |---|---|---|
//! | the principal lacks a required scope | 403 | `Bearer error="insufficient_scope", scope=".."` |
//! | the path is not in the [map](ScopeMap), and unlisted routes are denied | 404 | |
//! | the path is in the map, but not for this method; `Allow` lists the methods of the path | 405 | |
//! | anonymous, where a scope or a [principal](Requirement::authenticated) is required, or the route is not in the map | 401 | `Bearer realm=".."` |
//! | no `VerifyLayer` outside | 500 | |
//!
//! # Where it stands
//!
//! Innermost, inside `VerifyLayer`.
//!
//! # Examples
//!
//! ```
//! use tollgate::{ScopeLayer, scope};
//!
//! let layer = ScopeLayer::new(scope("jobs:read") & (scope("results:read") | scope("results:list")))?;
//! # Ok::<(), tollgate::ConfigurationError>(())
//! ```
//!
//! One requirement for each route, in axum's path syntax:
//!
//! ```
//! use tollgate::{
//!     ScopeLayer,
//!     scope::{Requirement, ScopeMap, scope},
//! };
//!
//! let layer = ScopeLayer::per_route(
//!     ScopeMap::new()
//!         .get("/jobs/{id}", scope("jobs:read"))
//!         .post("/jobs", scope("jobs:create"))
//!         .get("/health", Requirement::none()),
//! )?;
//! # Ok::<(), tollgate::ConfigurationError>(())
//! ```
//!
//! # Security
//!
//! Fails closed: a route that is not listed is denied, unless the map [allows it](ScopeMap::dangerous_allow_unlisted). Only an
//! authenticated caller learns which paths exist; all others get 401 for every path and method. Paths are
//! compared as they were sent, without decoding or normalizing them, as axum's router does; a path that is written differently is not
//! listed. A layer around a *nested* axum router sees paths without the prefix of the nest.

use std::sync::Arc;

use http::Method;
use tollgate_core::{
    denial::{Denial, DenialKind},
    request::RequestHead,
    scope::Requirement,
};

use crate::{
    ConfigurationError, RequestContext,
    engine::{Caller, Cx, Flow, Settings, impl_layer},
};

mod map;

pub use map::ScopeMap;
use map::{CompiledMap, Listed};

/// Requires scopes. See the [module](self).
///
/// ```
/// use tollgate::{
///     ScopeLayer,
///     scope::{ScopeMap, scope},
/// };
///
/// let everywhere = ScopeLayer::new(scope("jobs:read"))?;
/// let per_route = ScopeLayer::per_route(
///     ScopeMap::new().get("/jobs/{id}", scope("jobs:read")).post("/jobs", scope("jobs:create")),
/// )?;
/// # Ok::<(), tollgate::ConfigurationError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ScopeLayer {
    pub(crate) gate: ScopeGate,
    // What the gate was made of, for the public routes of a stack.
    map: Option<Box<ScopeMap>>,
    settings: Settings,
}

impl ScopeLayer {
    /// Requires the same for every route.
    ///
    /// # Errors
    /// If the requirement names an invalid scope.
    pub fn new(requirement: impl Into<Requirement>) -> Result<Self, ConfigurationError> {
        let requirement = requirement.into();
        requirement.validate().map_err(|error| ConfigurationError::new(format!("ScopeLayer: {error}")))?;
        Ok(Self::with_rule(Rule::One(Required::new(requirement))))
    }

    /// Requires what `map` lists for the route.
    ///
    /// # Errors
    /// If a path pattern is malformed or conflicts with another, or a requirement names an invalid scope.
    pub fn per_route(map: ScopeMap) -> Result<Self, ConfigurationError> {
        let listed = map.clone();
        let mut layer = Self::with_rule(Rule::PerRoute(map.compile()?));
        layer.map = Some(Box::new(listed));
        Ok(layer)
    }

    fn with_rule(rule: Rule) -> Self {
        Self { gate: ScopeGate { rule: Arc::new(rule) }, map: None, settings: Settings::default() }
    }

    /// The routes that the map lists; none without a map.
    pub(crate) fn routes(&self) -> impl Iterator<Item = (Option<&Method>, &str)> {
        self.map.iter().flat_map(|map| map.routes())
    }
}

impl TryFrom<Requirement> for ScopeLayer {
    type Error = ConfigurationError;

    fn try_from(requirement: Requirement) -> Result<Self, ConfigurationError> {
        Self::new(requirement)
    }
}

impl TryFrom<ScopeMap> for ScopeLayer {
    type Error = ConfigurationError;

    fn try_from(map: ScopeMap) -> Result<Self, ConfigurationError> {
        Self::per_route(map)
    }
}

impl_layer!(ScopeLayer, Scope);

pub(crate) const LAYER: &str = "ScopeLayer";

#[derive(Clone, Debug)]
pub(crate) struct ScopeGate {
    rule: Arc<Rule>,
}

#[derive(Debug)]
enum Rule {
    One(Required),
    PerRoute(CompiledMap),
}

impl ScopeGate {
    #[inline]
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        let context = &*cx.context;
        match &*self.rule {
            Rule::One(required) => required.check(context)?,
            Rule::PerRoute(map) => check_route(map, cx.head(), context)?,
        }
        Ok(Flow::Continue)
    }
}

/// Whether the caller may use this route.
#[inline(never)]
fn check_route(map: &CompiledMap, head: RequestHead<'_>, context: &RequestContext) -> Result<(), Denial> {
    match map.find(head) {
        Listed::Requires(required) => required.check(context),
        Listed::Allowed => Ok(()),
        // A caller that is not authenticated does not learn whether a route exists.
        Listed::Denied(_) if context.guarded(LAYER)?.is_none() => Ok(()),
        Listed::Denied(refusal) => Err(refusal.clone()),
    }
}

/// A requirement, and the refusal of callers that do not meet it. All of them get the same refusal, so it is written once.
#[derive(Clone, Debug)]
struct Required {
    requirement: Requirement,
    refusal: Denial,
}

impl Required {
    fn new(requirement: Requirement) -> Self {
        let scope = requirement.scopes().collect::<Vec<_>>().join(" ");
        // The challenge's parameter holds at least one scope (RFC 6750 section 3), and an empty `any_of` names none.
        let refusal = match scope.as_str() {
            "" => Denial::new(DenialKind::ScopeMissing),
            _ => Denial::scope_missing(scope),
        };
        let refusal = refusal.with_log_detail(format!("requires {requirement}"));
        Self { requirement, refusal }
    }

    #[inline]
    fn check(&self, context: &RequestContext) -> Result<(), Denial> {
        // What requires nothing is open to anonymous callers, too.
        if matches!(context.caller, Caller::Anonymous) && self.requirement.admits_anonymous() {
            return Ok(());
        }
        match context.guarded(LAYER)? {
            Some(principal) if !self.requirement.is_met_by(principal.scopes()) => Err(self.refusal.clone()),
            _ => Ok(()),
        }
    }
}
