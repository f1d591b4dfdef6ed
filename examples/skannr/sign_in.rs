//! The open routes, which need no access token:
//!
//! ```text
//! > POST /api/v1/auth/register {"name": …, "email": …, "password": …}
//! > POST /api/v1/auth/login {"email": …, "password": …, "code": …}      code: only if MFA is enabled
//! > POST /api/v1/auth/token/refresh {"refresh_token": …}
//! < {"access_token": …, "refresh_token": …, "token_type": "Bearer", "expires_in": 900}
//! ```
//!
//! A wrong password and an e-mail without an account get the same answer after the same work. Registration says if an e-mail is
//! taken: to hide it, a service has to confirm e-mails, which this one does not. The limit by address slows such questions down.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header::CACHE_CONTROL};
use serde::Deserialize;
use serde_json::json;
use tollgate::{Plan, clock::Clock as _, denial::Unavailable};

use crate::{
    App,
    accounts::{Account, NotCreated},
    body::Object,
    error::{Error, NOT_FOUND},
    limits,
    mfa::{self, Code},
    passwords::MIN_LENGTH,
    random,
    sessions::{Refusal, TokenPair},
    tokens::ACCESS_TOKEN_LIFETIME,
};

/// In bytes, of a name and of an e-mail (RFC 5321 section 4.5.3.1.3).
const MAX_LENGTH: usize = 254;

// Without `Debug`, so that no log shows a password. The same holds for the other bodies.
#[derive(Deserialize)]
pub(crate) struct Registration {
    name: String,
    email: String,
    password: String,
}

#[derive(Deserialize)]
pub(crate) struct Login {
    email: String,
    password: String,
    #[serde(flatten)]
    code: Code,
}

#[derive(Deserialize)]
pub(crate) struct Refresh {
    refresh_token: String,
}

pub(crate) async fn register(
    State(app): State<App>,
    Object(registration): Object<Registration>,
) -> Result<Response, Error> {
    let Registration { name, email, password } = registration;
    let (name, email) = (name.trim(), normalized(&email));
    if name.is_empty() || name.len() > MAX_LENGTH {
        return Err(Error::bad_request("`name` must have 1 to 254 bytes."));
    }
    if !is_email(&email) {
        return Err(Error::bad_request("`email` must be an e-mail address."));
    }
    if password.chars().count() < MIN_LENGTH {
        return Err(Error::bad_request("`password` must have 8 characters or more."));
    }
    if app.accounts.find_by_email(&email).await?.is_some() {
        return Err(email_taken());
    }
    let account = Account {
        id: random::text(),
        name: name.to_owned(),
        email,
        password: Some(app.passwords.hash(password).await?),
        plan: Plan::active(limits::FREE),
        totp_secret: None,
        is_mfa_enabled: false,
    };
    match app.accounts.create(&account).await {
        Ok(()) => {}
        Err(NotCreated::EmailTaken) => return Err(email_taken()),
        Err(NotCreated::TooMany) => return Err(Unavailable::new("there are too many accounts").into()),
        Err(NotCreated::Database(error)) => return Err(error.into()),
    }
    let headers = limits::headers(&app.limits, &account.id, account.plan, app.clock.now()).await?;
    let created = json!({ "id": account.id, "name": account.name, "email": account.email });
    Ok((StatusCode::CREATED, headers, Json(created)).into_response())
}

pub(crate) async fn login(State(app): State<App>, Object(login): Object<Login>) -> Result<Response, Error> {
    let account = app.accounts.find_by_email(&normalized(&login.email)).await?;
    let hash = account.as_ref().and_then(|account| account.password.as_deref());
    // Also without an account: see `Passwords::verify`.
    let is_right = app.passwords.verify(login.password, hash).await?;
    let Some(account) = account.filter(|_| is_right) else {
        return Err(Error::unauthorized("The e-mail or the password is wrong.", "wrong e-mail or password"));
    };
    if account.is_mfa_enabled {
        mfa::require_code(&app, &account, login.code.0.as_deref()).await?;
    }
    let pair = app.sessions.begin(&account.id).await?;
    answer(&app, pair, account.plan).await
}

pub(crate) async fn refresh(
    State(app): State<App>,
    Object(Refresh { refresh_token }): Object<Refresh>,
) -> Result<Response, Error> {
    let pair = app.sessions.refresh(&refresh_token).await?.map_err(|refusal| {
        let reason = match refusal {
            Refusal::Unknown => "unknown refresh token",
            Refusal::Expired => "expired refresh token",
            Refusal::UsedBefore => "refresh token used again: the session was ended",
        };
        Error::unauthorized("The refresh token is not valid.", reason)
    })?;
    let account = app.accounts.find(&pair.account).await?.ok_or(NOT_FOUND)?;
    answer(&app, pair, account.plan).await
}

async fn answer(app: &App, pair: TokenPair, plan: Plan) -> Result<Response, Error> {
    let headers = limits::headers(&app.limits, &pair.account, plan, app.clock.now()).await?;
    let body = json!({
        "access_token": pair.access_token,
        "refresh_token": pair.refresh_token,
        "token_type": "Bearer",
        "expires_in": ACCESS_TOKEN_LIFETIME.as_secs(),
    });
    Ok(([(CACHE_CONTROL, "no-store")], headers, Json(body)).into_response())
}

fn email_taken() -> Error {
    Error::bad_request("There is an account with this e-mail already.")
}

fn normalized(email: &str) -> String {
    email.trim().to_lowercase()
}

/// Only a confirmation shows whether an address exists, so this finds only mistakes.
fn is_email(text: &str) -> bool {
    let parts = text.split_once('@');
    let is_clean = !text.contains(|character: char| character.is_whitespace() || character.is_control());
    is_clean
        && text.len() <= MAX_LENGTH
        && parts.is_some_and(|(name, domain)| !name.is_empty() && !domain.is_empty() && !domain.contains('@'))
}
