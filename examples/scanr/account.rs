//! The account routes, where subscribers manage their tokens:
//!
//! | route | |
//! |---|---|
//! | `GET /account/api-tokens` | the account's tokens |
//! | `POST /account/api-tokens` | issues a token: `{"name": …, "scopes": […], "expires_at": …}`; only `name` is required |
//! | `PATCH /account/api-tokens/{id}` | renames a token |
//! | `POST /account/api-tokens/{id}/revoke` | revokes a token and keeps its record |
//! | `DELETE /account/api-tokens/{id}` | deletes a token |
//! | `GET /account/api-usage` | the usage of each token, and what remains of its limits |
//!
//! ```sh
//! curl "$url/account/api-tokens" -H "Authorization: Bearer $account" \
//!     -H 'Content-Type: application/json' -d '{"name": "my-backtest-notebook"}'
//! ```
//!
//! These routes are outside the gate of the API: they accept no token, and they do not count against a token's limits.

use std::error::Error;

use axum::{
    extract::{Request, State},
    http::request::Parts,
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::get,
};
use support::clock::ServiceClock;
use tollgate::{
    AttemptLimitLayer, ConfigurationError, CredentialLayer, Denial, DenialKind, Environment, KeyFormat,
    KeyVerifier, MemoryKeys, Principal, RequestContext, Tollgate, manage::Actor, verify::CredentialSource,
};
use tollgate_axum::{
    RecordedRouter,
    management::{Action, KeyRouter},
};

use crate::{
    Credentials,
    api_usage::{self, ApiUsage},
    error, tiers,
};

pub(crate) fn router(
    api_usage: ApiUsage,
    sessions: KeyVerifier,
    attempts: AttemptLimitLayer,
    clock: ServiceClock,
) -> Result<RecordedRouter, ConfigurationError> {
    let tollgate = Tollgate::builder()
        .attempt_limit(attempts)
        .credential(CredentialLayer::from_sources([CredentialSource::Bearer])?)
        .verify(sessions)
        .responder(error::responder())
        .clock(clock)
        .realm("scanr account")
        .build()?;
    let tokens = KeyRouter::new(api_usage.manager.clone(), authorize).into_recorded_router();
    let pages = RecordedRouter::new()
        .nest("/api-tokens", tokens)
        .route("/api-usage", get(api_usage::show))
        .fallback(async || error::not_found())
        .method_not_allowed_fallback(async || error::method_not_allowed())
        .layer(from_fn_with_state(api_usage.clone(), flush_first))
        .layer(tollgate)
        .with_state(api_usage);
    Ok(RecordedRouter::new().nest("/account", pages))
}

/// Writes pending usage first, so that the response shows the latest use of each token. That costs one write a request, and
/// these requests are rare.
async fn flush_first(
    State(ApiUsage { usage, .. }): State<ApiUsage>,
    request: Request,
    next: Next,
) -> Response {
    if let Err(error) = usage.flush().await {
        tracing::warn!(%error, "cannot flush usage: the account page shows usage that is some seconds old");
    }
    next.run(request).await
}

/// A session may manage the tokens of its account.
async fn authorize(head: Parts, action: Action) -> Result<Actor, Denial> {
    let session = RequestContext::of(&head.extensions).and_then(RequestContext::principal);
    let Some((account, plan)) = session.and_then(|session| Some((session.tenant()?, session.plan()?))) else {
        return Err(Denial::misconfigured(
            "the account routes need the session layers: add them before the router",
        ));
    };
    if action == Action::Create && !plan.is_active() {
        return Err(DenialKind::EntitlementInactive.into());
    }
    Ok(Actor::of_tenant(account, account))
}

/// Signs in `ada`, whose subscription is active, and `edsger`, whose subscription has lapsed. Returns the verifier of sessions
/// and the two credentials.
///
/// A real service has sessions already, with a password and a cookie. Here a session is a bearer credential that is valid while
/// the service runs. It is found by its digest, so that timing does not reveal how much of a guess is right.
pub(crate) fn sign_in() -> Result<(KeyVerifier, Credentials), Box<dyn Error>> {
    // A separate format and store: no token is a session, and no session is a token.
    let (format, sessions) = (KeyFormat::new("session")?, MemoryKeys::new());
    let mut credentials = Credentials::new();
    for (name, account) in [("account", "ada"), ("account_lapsed", "edsger")] {
        let session = Principal::new(name).with_tenant(account).with_plan(tiers::plan_of(account));
        credentials.push((name.to_owned(), sessions.issue(&format, Environment::Live, session)?));
    }
    Ok((KeyVerifier::new(format, sessions), credentials))
}
