//! A key replaces itself: for an owner whose key has leaked. The old key ends at the moment the new one is issued.
//!
//! ```text
//! > POST /v1/scanner/keys/rotate
//! < 200 {"id":"key_…","key":"psk_live_…"}
//! ```
//!
//! The identifier stays, and with it the scopes, the limits and the history. The new key is shown once: a caller that hangs up before it
//! has read the response needs support.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::header::CACHE_CONTROL;
use serde_json::json;
use tokio::sync::Mutex;
use tollgate::{
    Denial, DenialKind,
    manage::{Actor, KeyAdminError, KeyManager},
};
use tollgate_axum::{Authenticated, Refused};

use crate::users::User;

#[derive(Clone)]
pub(crate) struct Rotations {
    manager: KeyManager,
    /// Taken for each rotation: of concurrent ones with the same key, the first ends the key for the others.
    turn: Arc<Mutex<()>>,
}

impl Rotations {
    pub(crate) fn new(manager: KeyManager) -> Self {
        Self { manager, turn: Arc::default() }
    }
}

pub(crate) async fn rotate(
    caller: Authenticated,
    State(Rotations { manager, turn }): State<Rotations>,
) -> Result<Response, Refused> {
    if caller.extension::<User>().is_some() {
        let detail = "A session has no key to rotate: send the API key itself";
        return Err(Denial::new(DenialKind::Forbidden).with_detail(detail).into());
    }
    let _turn = turn.lock().await;
    if caller.ended(manager.now()).is_some() {
        return Err(DenialKind::KeyRevoked.into());
    }
    let organization = caller.tenant().ok_or(DenialKind::Forbidden)?;
    // The key's history names the key itself.
    let actor = Actor::of_tenant(caller.id(), organization);
    let rotated = manager.rotate(caller.id(), None, &actor).await.map_err(refusal)?;
    let body = json!({ "id": rotated.details.id, "key": rotated.secret.expose_secret() });
    Ok(([(CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

fn refusal(error: KeyAdminError) -> Denial {
    match error {
        // Revoked or deleted while this request waited.
        KeyAdminError::NotFound | KeyAdminError::Revoked => DenialKind::KeyRevoked.into(),
        other => Denial::unavailable(other.to_string()),
    }
}
