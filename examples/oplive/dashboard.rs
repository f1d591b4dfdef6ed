//! The dashboard, where an organization manages its keys:
//!
//! | route | |
//! |---|---|
//! | `GET /dashboard/api-keys` | the organization's keys |
//! | `POST /dashboard/api-keys` | creates a key: `{"name": …, "scopes": […]}`; the answer shows the full key once, as `secret` |
//! | `POST /dashboard/api-keys/{id}/rotate` | replaces a key's secret at once |
//! | `POST /dashboard/api-keys/{id}/revoke` | revokes a key and keeps its record |
//! | `DELETE /dashboard/api-keys/{id}` | deletes a key |
//!
//! ```sh
//! curl "$url/dashboard/api-keys" -H "Authorization: Bearer $dashboard" \
//!     -H 'Content-Type: application/json' -d '{"name": "ci", "scopes": ["scan:create", "jobs:read"]}'
//! ```
//!
//! These routes are outside the gate of the API: a key cannot manage keys, and a session is no key.

use std::error::Error;

use axum::http::request::Parts;
use support::clock::ServiceClock;
use tollgate::{
    AttemptLimitLayer, ConfigurationError, CredentialLayer, Denial, Environment, KeyFormat, KeyVerifier,
    MemoryKeys, Principal, RequestContext, Tollgate,
    key::ApiKey,
    manage::{Actor, KeyManager},
    verify::CredentialSource,
};
use tollgate_axum::{
    RecordedRouter,
    management::{Action, KeyRouter},
};

use crate::{error, keys};

pub(crate) fn router(
    manager: KeyManager,
    sessions: KeyVerifier,
    attempts: AttemptLimitLayer,
    clock: ServiceClock,
) -> Result<RecordedRouter, ConfigurationError> {
    let tollgate = Tollgate::builder()
        .attempt_limit(attempts)
        .credential(CredentialLayer::from_sources([CredentialSource::Bearer])?)
        .verify(sessions)
        .responder(error::dashboard_responder())
        .clock(clock)
        .realm("oplive dashboard")
        .build()?;
    let keys = KeyRouter::new(manager, authorize).into_recorded_router();
    let pages =
        RecordedRouter::new().nest("/api-keys", keys).fallback(async || error::not_found()).layer(tollgate);
    Ok(RecordedRouter::new().nest("/dashboard", pages))
}

/// A session may manage the keys of its organization.
async fn authorize(head: Parts, _action: Action) -> Result<Actor, Denial> {
    let session = RequestContext::of(&head.extensions).and_then(RequestContext::principal);
    let Some(organization) = session.and_then(|session| session.tenant()) else {
        return Err(Denial::misconfigured(
            "the dashboard needs the session layers: add them before the router",
        ));
    };
    Ok(Actor::of_tenant("dashboard", organization))
}

/// Signs a member of acme in. Returns the verifier of sessions, and the session.
///
/// A real service has sessions already, with a password and a cookie. Here a session is a bearer credential that is valid while
/// the service runs.
pub(crate) fn sign_in() -> Result<(KeyVerifier, ApiKey), Box<dyn Error>> {
    // A separate format and store: no key is a session, and no session is a key.
    let (format, sessions) = (KeyFormat::new("session")?, MemoryKeys::new());
    let member = Principal::new("dashboard").with_tenant(keys::ACME);
    let session = sessions.issue(&format, Environment::Live, member)?;
    Ok((KeyVerifier::new(format, sessions), session))
}
