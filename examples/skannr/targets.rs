//! Targets: what an account scans.
//!
//! ```text
//! > POST /api/v1/targets {"target": "192.0.2.0/28", "label": "office", "scan_profile": "standard", "interval": 60}
//! < {"id": "target_4", "target": "192.0.2.0/28", "label": "office", "scan_profile": "standard", "interval": 60}
//! ```
//!
//! Any JSON object is a target. `target` must be an IP address, a domain or a CIDR range if it is sent. `"enabled": false` excludes a
//! target from `POST /api/v1/scans/trigger-all`.

use std::net::IpAddr;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tollgate_axum::Authenticated;

use crate::{
    App,
    body::{Id, Object},
    error::{Error, NOT_FOUND},
    inventory::Target,
    routes::MAX_BODY_BYTES,
};

pub(crate) async fn list(caller: Authenticated, State(app): State<App>) -> Json<Value> {
    let targets: Vec<_> = app.owned(&caller, |owned| owned.targets.iter().map(Target::describe).collect());
    Json(json!({ "targets": targets }))
}

pub(crate) async fn add(
    caller: Authenticated,
    State(app): State<App>,
    Object(settings): Object,
) -> Result<Response, Error> {
    check(&settings)?;
    let added = app.owned(&caller, |owned| owned.add(settings).map(Target::describe));
    let Some(added) = added else {
        return Err(Error::forbidden("An account has at most 100 targets: delete one first."));
    };
    Ok((StatusCode::CREATED, Json(added)).into_response())
}

pub(crate) async fn show(
    caller: Authenticated,
    State(app): State<App>,
    Id(id): Id,
) -> Result<Json<Value>, Error> {
    app.owned(&caller, |owned| owned.target(&id).map(|target| target.describe())).map(Json).ok_or(NOT_FOUND)
}

/// Changes the fields that are sent. `null` removes one.
pub(crate) async fn update(
    caller: Authenticated,
    State(app): State<App>,
    Id(id): Id,
    Object(changes): Object,
) -> Result<Json<Value>, Error> {
    check(&changes)?;
    app.owned(&caller, |owned| {
        let target = owned.target(&id).ok_or(NOT_FOUND)?;
        let mut settings = target.settings.clone();
        settings.extend(changes);
        settings.retain(|_, value| !value.is_null());
        // Otherwise a target could grow with each update.
        if json!(settings).to_string().len() > MAX_BODY_BYTES {
            return Err(Error::bad_request("A target has at most 16 KiB."));
        }
        target.settings = settings;
        Ok(Json(target.describe()))
    })
}

pub(crate) async fn remove(
    caller: Authenticated,
    State(app): State<App>,
    Id(id): Id,
) -> Result<StatusCode, Error> {
    if app.owned(&caller, |owned| owned.remove(&id)) { Ok(StatusCode::NO_CONTENT) } else { Err(NOT_FOUND) }
}

fn check(settings: &Map<String, Value>) -> Result<(), Error> {
    match settings.get("target") {
        None => Ok(()),
        Some(Value::String(target)) if is_target(target) => Ok(()),
        Some(_) => Err(Error::bad_request("`target` must be an IP address, a domain or a CIDR range.")),
    }
}

fn is_target(text: &str) -> bool {
    let is_range = text.split_once('/').is_some_and(|(address, bits)| {
        let max = address.parse().map(|address: IpAddr| if address.is_ipv4() { 32 } else { 128 });
        max.is_ok_and(|max| bits.parse::<u8>().is_ok_and(|bits| bits <= max))
    });
    is_range || text.parse::<IpAddr>().is_ok() || is_domain(text)
}

/// Labels of letters, digits and hyphens (RFC 1123 section 2.1), the last one not a number.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}
