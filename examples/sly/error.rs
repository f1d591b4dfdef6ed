//! The contract's errors: one member `error`, whose text is printed in the contract. Where the contract prints `...`, there is more:
//!
//! ```json
//! {"error":"Missing or invalid authorization header"}
//! {"error":"Insufficient scope","required_scope":"batch"}
//! {"error":"insufficient_credits","balance":3,"required":5}
//! {"error":"rate_limit_exceeded","retry_after":12}
//! ```

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Value, json};
use tollgate::{
    Denial,
    respond::{self, Respond},
};

pub(crate) const INVALID_KEY: &str = "Invalid scanner API key";
/// The contract has no text for this.
pub(crate) const INVALID_SESSION: &str = "Invalid or expired session token";

pub(crate) fn responder() -> impl Respond {
    respond::Json::new(describe).with_status(status)
}

fn describe(denial: &Denial) -> Value {
    match denial.code() {
        // A key or a token has the text of its verifier instead: see main.rs.
        "missing_credential" | "invalid_credential" | "invalid_request" => {
            body("Missing or invalid authorization header")
        }
        "tenant_suspended" => body("Organization is not active"),
        "insufficient_scope" => json!({ "error": "Insufficient scope", "required_scope": denial.scope() }),
        "insufficient_credits" => {
            let (balance, required) = denial.shortage().map(|lack| (lack.available, lack.needed)).unzip();
            json!({ "error": "insufficient_credits", "balance": balance, "required": required })
        }
        "rate_limited" => {
            let seconds = denial.retry_after().map(|wait| wait.as_secs());
            json!({ "error": "rate_limit_exceeded", "retry_after": seconds })
        }
        "invalid_environment" => body("X-Environment must be test or live"),
        _ => body(denial.detail()),
    }
}

/// The contract has one status for every invalid `Authorization`. Tollgate's default for a repeated header is 400.
fn status(denial: &Denial) -> StatusCode {
    match denial.code() {
        "invalid_request" => StatusCode::UNAUTHORIZED,
        _ => denial.status(),
    }
}

pub(crate) fn not_found() -> Response {
    response(StatusCode::NOT_FOUND, "Not found")
}

pub(crate) fn method_not_allowed() -> Response {
    response(StatusCode::METHOD_NOT_ALLOWED, "This path has other methods: see the Allow header")
}

/// An error of the service itself.
pub(crate) fn response(status: StatusCode, message: &str) -> Response {
    (status, Json(body(message))).into_response()
}

fn body(message: &str) -> Value {
    json!({ "error": message })
}
