//! Multi-factor authentication (MFA) with time-based one-time passwords (TOTP, RFC 6238): six digits that an authenticator app shows,
//! new ones every 30 seconds.
//!
//! ```text
//! > POST /api/v1/auth/mfa/setup
//! < {"secret": …, "otpauth_url": "otpauth://totp/…", "qr_code": "data:image/svg+xml;base64,…"}
//! > POST /api/v1/auth/mfa/enable {"code": "123456"}
//! > DELETE /api/v1/auth/mfa {"password": …}
//! ```
//!
//! From then on, `login` needs the field `code`, too. The code before and the one after the current one are accepted as well, for clocks
//! that differ. Each code is accepted for one login.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::header::CACHE_CONTROL;
use qrcode::{QrCode, render::svg};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tollgate::{clock::Clock as _, denial::Unavailable};
use tollgate_axum::Authenticated;
use totp_rs::{Builder, Totp};

use crate::{App, accounts::Account, body::Object, error::Error, random, tokens::seconds};

/// In bytes: the length that RFC 4226 section 4 recommends.
const SECRET_LENGTH: usize = 20;

/// The code in a body. The contract does not name the field, so other usual names are accepted, and a number.
#[derive(Deserialize)]
#[serde(from = "Map<String, Value>")]
pub(crate) struct Code(pub(crate) Option<String>);

impl From<Map<String, Value>> for Code {
    fn from(body: Map<String, Value>) -> Self {
        let names = ["code", "totp_code", "token", "otp", "mfa_code"];
        Self(match names.into_iter().find_map(|name| body.get(name)) {
            Some(Value::String(code)) => Some(code.clone()),
            // A number has lost its leading zeros. It ignores a width, so it becomes a string first.
            Some(Value::Number(code)) => Some(format!("{:0>6}", code.to_string())),
            _ => None,
        })
    }
}

#[derive(Deserialize)]
pub(crate) struct Confirmation {
    password: String,
}

/// Makes a new secret. MFA is enabled by [`enable`] only, so that a user whose app has not stored the secret is not locked out.
pub(crate) async fn setup(
    Authenticated(caller): Authenticated,
    State(app): State<App>,
) -> Result<Response, Error> {
    let account = app.account(&caller).await?;
    let secret = random::bytes::<SECRET_LENGTH>();
    let totp = totp(&account, &secret)?;
    let url = totp.to_url().map_err(|_| unusable())?;
    let qr_code = QrCode::new(&url).map_err(|_| unusable())?.render::<svg::Color<'_>>().build();
    if !app.accounts.set_totp_secret(&account.id, &secret).await? {
        return Err(Error::bad_request("MFA is enabled already: disable it first."));
    }
    let body = json!({
        "secret": totp.secret().to_base32(),
        "otpauth_url": url,
        "qr_code": format!("data:image/svg+xml;base64,{}", STANDARD.encode(qr_code)),
    });
    Ok(([(CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

pub(crate) async fn enable(
    Authenticated(caller): Authenticated,
    State(app): State<App>,
    Object(Code(code)): Object<Code>,
) -> Result<Json<Value>, Error> {
    let code = code.ok_or(Error::bad_request("Send the field `code`, with six digits."))?;
    let account = app.account(&caller).await?;
    if account.is_mfa_enabled {
        return Err(Error::bad_request("MFA is enabled already."));
    }
    let Some(secret) = &account.totp_secret else {
        return Err(Error::bad_request("There is no secret yet: call /auth/mfa/setup first."));
    };
    app.guesses.count(&account.id, app.clock.now()).await?;
    // 400, because the access token is valid.
    let Some(step) = step_of(&app, &account, secret, &code)? else {
        return Err(Error::bad_request("The code is not valid."));
    };
    // The same code may be used for one login, since an app shows it for 30 seconds.
    if !app.accounts.enable_mfa(&account.id, secret, step - 1).await? {
        return Err(Error::bad_request("The secret was replaced meanwhile: use the latest one."));
    }
    Ok(Json(json!({ "mfa_enabled": true })))
}

pub(crate) async fn disable(
    Authenticated(caller): Authenticated,
    State(app): State<App>,
    Object(Confirmation { password }): Object<Confirmation>,
) -> Result<Json<Value>, Error> {
    let account = app.account(&caller).await?;
    app.guesses.count(&account.id, app.clock.now()).await?;
    if !app.passwords.verify(password, account.password.as_deref()).await? {
        return Err(Error::forbidden("The password is wrong."));
    }
    if !app.accounts.disable_mfa(&account.id).await? {
        return Err(Error::bad_request("MFA is not enabled."));
    }
    Ok(Json(json!({ "mfa_enabled": false })))
}

/// Accepts the code of a sign-in, once, or refuses it with 401.
pub(crate) async fn require_code(app: &App, account: &Account, code: Option<&str>) -> Result<(), Error> {
    let Some(code) = code else {
        return Err(Error::unauthorized(
            "This account needs the code of its authenticator app, in the field `code`.",
            "missing code",
        ));
    };
    app.guesses.count(&account.id, app.clock.now()).await?;
    let secret = account.totp_secret.as_deref().unwrap_or_default();
    if let Some(step) = step_of(app, account, secret, code)?
        && app.accounts.use_totp_step(&account.id, step).await?
    {
        return Ok(());
    }
    Err(Error::unauthorized("The code is wrong, or was used before.", "wrong or used code"))
}

/// The time step of a valid code.
fn step_of(app: &App, account: &Account, secret: &[u8], code: &str) -> Result<Option<i64>, Error> {
    let now = u64::try_from(seconds(app.clock.now())).unwrap_or_default();
    let step = totp(account, secret)?.check(code, now);
    Ok(step.and_then(|step| i64::try_from(step).ok()))
}

/// Six digits every 30 seconds by HMAC-SHA-1: authenticator apps do not reliably support anything else.
fn totp(account: &Account, secret: &[u8]) -> Result<Totp, Error> {
    // A colon would separate the issuer from the name.
    let name = account.email.replace(':', "");
    let builder = Builder::new().with_secret(secret).with_issuer(Some("Skannr")).with_account_name(name);
    builder.build().map_err(|_| unusable())
}

/// Without the cause, which may quote the secret.
fn unusable() -> Error {
    Unavailable::new("a TOTP secret or its QR code cannot be made").into()
}
