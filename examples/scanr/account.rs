//! The account pages, where subscribers manage their tokens:
//!
//! | route | |
//! |---|---|
//! | `GET /account/api-tokens` | the account's tokens |
//! | `POST /account/api-tokens` | issues one: `{"name": …, "scopes": […], "expires_at": …}`, the last two if you like |
//! | `PATCH /account/api-tokens/{id}` | renames one |
//! | `POST /account/api-tokens/{id}/revoke` | revokes one, and keeps its record |
//! | `DELETE /account/api-tokens/{id}` | deletes one |
//! | `GET /account/api-usage` | what each has used, and what its limits leave |
//!
//! ```sh
//! curl "$url/account/api-tokens" -H "Authorization: Bearer $account" \
//!     -H 'Content-Type: application/json' -d '{"name": "my-backtest-notebook"}'
//! ```
//!
//! They stand outside the gate of the API: no token opens them, and nothing here counts against a token's limits.

use std::error::Error;

use axum::{
    Router,
    extract::{Request, State},
    http::request::Parts,
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::get,
};
use tollgate::{
    AttemptLimitLayer, ConfigurationError, CredentialLayer, Denial, DenialKind, Environment, KeyFormat,
    KeyVerifier, MemoryKeys, Principal, RequestContext, Tollgate, manage::Actor, verify::CredentialSource,
};
use tollgate_axum::management::{Action, Grant, KeyRouter};

use crate::{
    Credentials,
    api_usage::{self, ApiUsage},
    clock::ServiceClock,
    error, tiers,
};

pub(crate) fn router(
    api_usage: ApiUsage,
    sessions: KeyVerifier,
    attempts: AttemptLimitLayer,
    clock: ServiceClock,
) -> Result<Router, ConfigurationError> {
    let tollgate = Tollgate::builder()
        .attempt_limit(attempts)
        .credential(CredentialLayer::from_sources([CredentialSource::Bearer])?)
        .verify(sessions)
        .responder(error::responder())
        .clock(clock)
        .realm("scanr account")
        .build()?;
    let tokens = KeyRouter::new(api_usage.manager.clone(), authorize).into_router();
    let pages = Router::new()
        .nest("/api-tokens", tokens)
        .route("/api-usage", get(api_usage::show))
        .fallback(async || error::not_found())
        .method_not_allowed_fallback(async || error::method_not_allowed())
        .layer(from_fn_with_state(api_usage.clone(), flush_first))
        .layer(tollgate)
        .with_state(api_usage);
    Ok(Router::new().nest("/account", pages))
}

/// So that the pages show when each token was last used, up to now. It costs a write for each page, and people look at few.
async fn flush_first(
    State(ApiUsage { usage, .. }): State<ApiUsage>,
    request: Request,
    next: Next,
) -> Response {
    if let Err(error) = usage.flush().await {
        tracing::warn!(%error, "the account page shows when tokens were last used as of some seconds ago");
    }
    next.run(request).await
}

/// Whoever has a session manages the tokens of its account. New ones are worth what the account has bought.
async fn authorize(head: Parts, action: Action) -> Result<Grant, Denial> {
    let session = RequestContext::of(&head.extensions).and_then(RequestContext::principal);
    let Some((account, plan)) = session.and_then(|session| Some((session.tenant()?, session.plan()?))) else {
        return Err(Denial::misconfigured(
            "the account pages stand outside the layers that look at sessions",
        ));
    };
    if action == Action::Create && !plan.is_active() {
        return Err(DenialKind::EntitlementInactive.into());
    }
    let plan = (**plan).clone();
    Ok(Grant::to(Actor::of_tenant(account, account)).with_new_key(|token| Ok(token.with_plan(plan))))
}

/// Signs in `ada`, who has an active subscription, and `edsger`, whose has lapsed; tells who verifies that, and their credentials.
///
/// It stands for the sessions that a service has anyway, behind a password and a cookie: here one is a bearer credential, which
/// lasts for as long as the service runs. Like tokens, they are found by their digests: how long that takes tells nobody how much of
/// a guess was right.
pub(crate) fn sign_in() -> Result<(KeyVerifier, Credentials), Box<dyn Error>> {
    // A format and a store of their own: no token is a session, and no session a token.
    let (format, sessions) = (KeyFormat::new("session")?, MemoryKeys::new());
    let mut credentials = Credentials::new();
    for (name, account) in [("account", "ada"), ("account_lapsed", "edsger")] {
        let session = Principal::new(name).with_tenant(account).with_plan(tiers::plan_of(account));
        credentials.push((name.to_owned(), sessions.issue(&format, Environment::Live, session)?));
    }
    Ok((KeyVerifier::new(format, sessions), credentials))
}
