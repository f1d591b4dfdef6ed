//! Billing. A real service asks its payment provider; here a plan is paid for when it is chosen.

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_axum::Authenticated;

use crate::{
    App,
    body::Object,
    error::Error,
    limits::{FREE, PRO},
    random,
};

#[derive(Deserialize)]
pub(crate) struct Choice {
    #[serde(alias = "plan_id")]
    plan: String,
}

pub(crate) async fn status(
    Authenticated(caller): Authenticated,
    State(app): State<App>,
) -> Result<Json<Value>, Error> {
    let plan = app.account(&caller).await?.plan;
    let status = if plan.is_active() { "active" } else { "lapsed" };
    Ok(Json(json!({ "plan": plan.tier(), "status": status })))
}

pub(crate) async fn checkout() -> Json<Value> {
    Json(json!({ "url": format!("https://billing.example.com/checkout/{}", random::text()) }))
}

pub(crate) async fn portal() -> Json<Value> {
    Json(json!({ "url": format!("https://billing.example.com/portal/{}", random::text()) }))
}

/// The new limit applies from the next request on, and what was counted in the current window stays counted.
pub(crate) async fn change_plan(
    Authenticated(caller): Authenticated,
    State(app): State<App>,
    Object(Choice { plan }): Object<Choice>,
) -> Result<Json<Value>, Error> {
    if ![FREE, PRO].contains(&&*plan) {
        return Err(Error::bad_request("`plan` must be `free` or `pro`."));
    }
    app.accounts.set_plan(&app.account(&caller).await?.id, &plan).await?;
    Ok(Json(json!({ "plan": plan, "status": "active" })))
}
