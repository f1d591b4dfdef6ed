//! Scans, with sample results. A scan is done at once, and raises one alert.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Value, json};
use tollgate_axum::Authenticated;

use crate::{
    App,
    body::Id,
    error::{Error, NOT_FOUND},
    inventory::{Scan, Target},
};

pub(crate) async fn list(caller: Authenticated, State(app): State<App>) -> Json<Value> {
    let scans: Vec<_> = app.owned(&caller, |owned| owned.scans.iter().map(Scan::describe).collect());
    Json(json!({ "scans": scans }))
}

pub(crate) async fn trigger(
    caller: Authenticated,
    State(app): State<App>,
    Id(target): Id,
) -> Result<Response, Error> {
    let scan = app.owned(&caller, |owned| owned.scan(&target).map(Scan::describe)).ok_or(NOT_FOUND)?;
    Ok((StatusCode::CREATED, Json(scan)).into_response())
}

pub(crate) async fn trigger_all(caller: Authenticated, State(app): State<App>) -> Response {
    let scans: Vec<_> = app.owned(&caller, |owned| {
        let enabled = owned.targets.iter().filter(|target| target.is_enabled());
        let enabled: Vec<String> = enabled.map(|Target { id, .. }| id.clone()).collect();
        enabled.iter().filter_map(|target| owned.scan(target).map(Scan::describe)).collect()
    });
    (StatusCode::CREATED, Json(json!({ "scans": scans }))).into_response()
}

pub(crate) async fn show(
    caller: Authenticated,
    State(app): State<App>,
    id: Id,
) -> Result<Json<Value>, Error> {
    view(&app, &caller, &id, Scan::describe)
}

pub(crate) async fn results(
    caller: Authenticated,
    State(app): State<App>,
    id: Id,
) -> Result<Json<Value>, Error> {
    view(&app, &caller, &id, |scan| {
        let port = |port: u16, state: &str| json!({ "host": scan.host, "port": port, "protocol": "tcp", "state": state });
        let ports = [port(22, "open"), port(8080, "open"), port(443, "filtered"), port(23, "closed")];
        json!({ "scan_id": scan.id, "results": ports })
    })
}

pub(crate) async fn summary(
    caller: Authenticated,
    State(app): State<App>,
    id: Id,
) -> Result<Json<Value>, Error> {
    view(&app, &caller, &id, |scan| {
        let host = json!({ "host": scan.host, "open": 2, "filtered": 1, "closed": 1 });
        json!({ "scan_id": scan.id, "hosts": [host] })
    })
}

fn view(
    app: &App,
    caller: &Authenticated,
    Id(id): &Id,
    view: impl Fn(&Scan) -> Value,
) -> Result<Json<Value>, Error> {
    let found = app.owned(caller, |owned| owned.scans.iter().find(|scan| scan.id == *id).map(view));
    found.map(Json).ok_or(NOT_FOUND)
}
