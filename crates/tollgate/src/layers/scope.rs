//! Asks for scopes: one requirement for everything behind the layer, or one for each route.
//!
//! # What is refused
//!
//! | condition | status | challenge |
//! |---|---|---|
//! | the principal lacks a required scope | 403 | `Bearer error="insufficient_scope", scope=".."` |
//! | the route is not in the [map](ScopeMap), and unlisted routes are denied | 403 | |
//! | anonymous, where a scope is required | 401 | `Bearer realm=".."` |
//! | no `VerifyLayer` outside; a requirement that names an invalid scope | 500 | |
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
//! let layer = ScopeLayer::new(scope("jobs:read") & (scope("results:read") | scope("results:list")));
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
//! Fails closed: a route that nobody has listed is denied, unless the map says [otherwise](ScopeMap::dangerous_allow_unlisted). Paths
//! are compared as they were sent, without decoding or normalizing them, as axum's router does; a path written in
//! another way is not listed. A layer around a *nested* axum router sees paths without the prefix of the nest.

use std::sync::Arc;

use tollgate_core::{
    denial::{Denial, DenialKind},
    request::RequestHead,
    scope::{Requirement, Scopes},
};

use crate::{
    ConfigurationError, RequestContext,
    engine::{Asked, Entrant, Gate, Settings, Standing, impl_layer},
};

mod map;

pub use map::ScopeMap;
use map::{CompiledMap, Listed};

/// Asks for scopes. See the [module](self).
#[derive(Clone, Debug)]
pub struct ScopeLayer {
    pub(crate) gate: ScopeGate,
    settings: Settings,
}

impl ScopeLayer {
    /// Asks for `requirement` whatever the route. If it names an invalid scope, every request is answered 500, and the log
    /// says which.
    pub fn new(requirement: impl Into<Requirement>) -> Self {
        Self::with_rule(Rule::One(Required::new(requirement.into())))
    }

    /// Asks for what `map` says of the route.
    ///
    /// # Errors
    /// If a path pattern is malformed or conflicts with another, or a requirement names an invalid scope.
    pub fn per_route(map: ScopeMap) -> Result<Self, ConfigurationError> {
        Ok(Self::with_rule(Rule::PerRoute(map.compile()?)))
    }

    fn with_rule(rule: Rule) -> Self {
        Self { gate: ScopeGate { rule: Arc::new(rule) }, settings: Settings::default() }
    }
}

impl From<Requirement> for ScopeLayer {
    fn from(requirement: Requirement) -> Self {
        Self::new(requirement)
    }
}

impl_layer!(ScopeLayer, Scope);

const LAYER: &str = "ScopeLayer";

#[derive(Clone, Debug)]
pub(crate) struct ScopeGate {
    rule: Arc<Rule>,
}

#[derive(Debug)]
enum Rule {
    One(Required),
    PerRoute(CompiledMap),
}

/// A requirement, and the refusal of those who do not meet it. It says the same to all of them, and is written once: refusals
/// come in floods.
#[derive(Clone, Debug)]
struct Required {
    requirement: Requirement,
    refusal: Denial,
}

impl Required {
    fn new(requirement: Requirement) -> Self {
        let scope = requirement.scopes().collect::<Vec<_>>().join(" ");
        // What nobody can meet names no scope, and the challenge's parameter holds at least one (RFC 6750 section 3).
        let refusal = match scope.as_str() {
            "" => Denial::new(DenialKind::ScopeMissing),
            _ => Denial::scope_missing(scope),
        };
        let refusal = refusal.with_log_detail(format!("requires {requirement}"));
        Self { requirement, refusal }
    }

    fn is_met_by(&self, scopes: &Scopes) -> bool {
        self.requirement.is_met_by(scopes)
    }
}

impl ScopeGate {
    fn rule(&self, head: RequestHead<'_>) -> Listed<'_> {
        match &*self.rule {
            Rule::One(required) => Listed::Requires(required),
            Rule::PerRoute(map) => map.find(head),
        }
    }

    /// Whether the principal may use this route.
    fn decide(&self, head: RequestHead<'_>, context: &RequestContext) -> Result<(), Denial> {
        let required = match self.rule(head) {
            Listed::Requires(required) => required,
            Listed::Allowed => return Ok(()),
            Listed::Denied => {
                // Whether a route exists is not for strangers to find out.
                let Some(_) = context.guarded(LAYER)? else { return Ok(()) };
                let route = format!(
                    "{} {} is not in the ScopeMap; within a nested router the path lacks the prefix",
                    head.method,
                    head.uri.path()
                );
                return Err(Denial::new(DenialKind::RouteUnlisted).with_log_detail(route));
            }
        };
        // Nobody's scopes are none: what asks for nothing is open to the anonymous, too.
        if context.standing() == Standing::Anonymous && required.is_met_by(&Scopes::none()) {
            return Ok(());
        }
        match context.guarded(LAYER)? {
            Some(principal) if !required.is_met_by(principal.scopes()) => Err(required.refusal.clone()),
            _ => Ok(()),
        }
    }
}

impl Gate for ScopeGate {
    fn layer(&self) -> &'static str {
        LAYER
    }

    fn configuration_error(&self) -> Option<ConfigurationError> {
        match &*self.rule {
            Rule::One(required) => {
                let error = required.requirement.validate().err()?;
                Some(ConfigurationError::new(format!("ScopeLayer: {error}")))
            }
            Rule::PerRoute(_) => None, // checked when it was compiled
        }
    }

    #[inline]
    fn ask(&self, entrant: &mut impl Entrant) -> Asked {
        Asked::Answered(self.decide(entrant.head(), entrant.context()))
    }

    /// All was said when it was asked.
    fn judge(&self, _context: &RequestContext) -> Result<(), Denial> {
        Ok(())
    }
}
