//! The caller's active plan.

use std::{ops::Deref, sync::Arc};

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use tollgate::{Denial, DenialKind, Plan, RequestContext};

use crate::Rejection;

/// The caller's active [`Plan`]: the one that a `PlanLayer` has found, else the principal's own.
///
/// | condition | status |
/// |---|---|
/// | the caller has no plan, or a lapsed one | 403 |
/// | anonymous request | 401 |
/// | no outer `VerifyLayer` | 500 |
///
/// ```
/// use tollgate_axum::ActivePlan;
///
/// async fn export(plan: ActivePlan) -> String {
///     format!("at most {} rows", if plan.tier() == "pro" { 100_000 } else { 1_000 })
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(export));
/// ```
///
/// `Option<ActivePlan>` is `None` for a caller without an active plan and for an anonymous one. [`Context`](crate::Context) shows
/// lapsed plans, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivePlan(pub Arc<Plan>);

impl Deref for ActivePlan {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0
    }
}

/// The plan; `None` if there is no active one; a denial if no layer has verified the request.
fn plan(head: &Parts) -> Result<Option<ActivePlan>, Denial> {
    match RequestContext::of(&head.extensions) {
        Some(context) if context.is_identified() => {
            Ok(context.plan().filter(|plan| plan.is_active()).cloned().map(ActivePlan))
        }
        _ => Err(Denial::misconfigured(
            "the ActivePlan extractor requires a VerifyLayer: \
             put a CredentialLayer and a VerifyLayer, or a Tollgate, around the route",
        )),
    }
}

fn required_plan(head: &Parts) -> Result<ActivePlan, Denial> {
    let is_authenticated =
        RequestContext::of(&head.extensions).is_some_and(|context| context.principal().is_some());
    plan(head)?.ok_or_else(|| {
        Denial::new(if is_authenticated {
            DenialKind::EntitlementInactive
        } else {
            DenialKind::CredentialMissing
        })
    })
}

impl<S: Sync> FromRequestParts<S> for ActivePlan {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, _state: &S) -> Result<Self, Rejection> {
        required_plan(head).map_err(|denial| Rejection::new("ActivePlan", denial, head))
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for ActivePlan {
    type Rejection = Rejection;

    async fn from_request_parts(head: &mut Parts, _state: &S) -> Result<Option<Self>, Rejection> {
        plan(head).map_err(|denial| Rejection::new("ActivePlan", denial, head))
    }
}
