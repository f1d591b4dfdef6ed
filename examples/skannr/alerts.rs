//! Alerts: open, acknowledged or resolved.

use axum::{Json, extract::State};
use serde_json::{Value, json};
use tollgate_axum::Authenticated;

use crate::{
    App,
    body::Id,
    error::{Error, NOT_FOUND},
    inventory::Alert,
};

pub(crate) async fn list(caller: Authenticated, State(app): State<App>) -> Json<Value> {
    let alerts: Vec<_> = app.owned(&caller, |owned| owned.alerts.iter().map(Alert::describe).collect());
    Json(json!({ "alerts": alerts }))
}

pub(crate) async fn acknowledge(
    caller: Authenticated,
    State(app): State<App>,
    id: Id,
) -> Result<Json<Value>, Error> {
    mark(&app, &caller, &id, "acknowledged")
}

pub(crate) async fn resolve(
    caller: Authenticated,
    State(app): State<App>,
    id: Id,
) -> Result<Json<Value>, Error> {
    mark(&app, &caller, &id, "resolved")
}

fn mark(app: &App, caller: &Authenticated, Id(id): &Id, status: &'static str) -> Result<Json<Value>, Error> {
    let marked = app.owned(caller, |owned| {
        let alert = owned.alerts.iter_mut().find(|alert| alert.id == *id)?;
        alert.status = status;
        Some(alert.describe())
    });
    marked.map(Json).ok_or(NOT_FOUND)
}
