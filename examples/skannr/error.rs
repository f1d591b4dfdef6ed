//! Errors: each one is a JSON object with a `message`.
//!
//! | status | when |
//! |---|---|
//! | 400 | the request cannot be understood, or its values are not valid |
//! | 401 | no valid access token; wrong e-mail, password, code or refresh token |
//! | 403 | the subscription has lapsed; too many targets; a password confirmation that is wrong |
//! | 404, 405 | no such path; another account's data; no such method |
//! | 413 | the body is too large |
//! | 429 | the account's limit, or the limit of the client's address, is used up |
//! | 503 | the database does not answer, or too many passwords wait to be checked |

use std::borrow::Cow;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Value, json};
use tollgate::{
    Denial, DenialKind,
    denial::Unavailable,
    respond::{self, Respond},
};
use tollgate_axum::Refused;

/// An error of a handler.
pub(crate) enum Error {
    /// An error of the service itself.
    Status(StatusCode, Cow<'static, str>),
    /// Refused as the layers refuse: with a challenge, an event in the log, and a charge to the limit of failed attempts.
    Refused(Denial),
}

impl Error {
    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::Status(StatusCode::BAD_REQUEST, message.into())
    }

    pub(crate) fn forbidden(message: &'static str) -> Self {
        Self::Status(StatusCode::FORBIDDEN, message.into())
    }

    /// 401 for what was sent in the body. `reason` is for the log only.
    ///
    /// The kind is that of a missing access token, because its challenge has no error code: no access token was presented
    /// (RFC 6750 section 3.1).
    pub(crate) fn unauthorized(message: &'static str, reason: &'static str) -> Self {
        let denial = Denial::new(DenialKind::CredentialMissing).with_detail(message);
        Self::Refused(denial.with_code("invalid_grant").with_log_detail(reason))
    }
}

pub(crate) const NOT_FOUND: Error =
    Error::Status(StatusCode::NOT_FOUND, Cow::Borrowed("There is nothing here."));

pub(crate) const METHOD_NOT_ALLOWED: Error = Error::Status(
    StatusCode::METHOD_NOT_ALLOWED,
    Cow::Borrowed("This path has other methods: see the Allow header."),
);

impl From<Denial> for Error {
    fn from(denial: Denial) -> Self {
        Self::Refused(denial)
    }
}

impl From<Unavailable> for Error {
    fn from(error: Unavailable) -> Self {
        Self::Refused(error.into())
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        unavailable(error).into()
    }
}

/// A database error refuses the request with 503.
pub(crate) fn unavailable(error: sqlx::Error) -> Unavailable {
    Unavailable::new("the database of accounts and sessions does not answer").with_source(error)
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        match self {
            Self::Status(status, message) => (status, Json(body(&message))).into_response(),
            Self::Refused(denial) => Refused(denial).into_response(),
        }
    }
}

/// Answers a denial of the layers.
pub(crate) fn responder() -> impl Respond {
    respond::Json::new(|denial| body(denial.detail()))
}

/// An error of a shared route.
pub(crate) fn response(status: StatusCode, _code: &str, message: &str) -> Response {
    (status, Json(body(message))).into_response()
}

fn body(message: &str) -> Value {
    json!({ "message": message })
}
