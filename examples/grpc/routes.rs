//! The JSON routes.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tollgate_axum::RecordedRouter;

use crate::{keys::Revocation, market};

/// The same call as the RPC `GetPrice`.
pub(crate) const PRICE: &str = "/v1/prices/{symbol}";
/// Revokes one of the keys to try.
pub(crate) const REVOKE: &str = "/_demo/revoke/{name}";

pub(crate) fn router(revocation: Revocation) -> RecordedRouter {
    RecordedRouter::new().route(PRICE, get(price)).route(REVOKE, post(revoke)).with_state(revocation)
}

async fn price(Path(symbol): Path<String>) -> Result<Json<Value>, Problem> {
    let instrument = market::find(&symbol).ok_or(Problem(StatusCode::NOT_FOUND, market::NO_SUCH_SYMBOL))?;
    Ok(Json(json!({ "symbol": instrument.symbol, "price": instrument.price() })))
}

async fn revoke(
    State(revocation): State<Revocation>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    match revocation.revoke(&name).await {
        Ok(true) => Ok(Json(json!({ "revoked": name }))),
        Ok(false) => Err(Problem(StatusCode::NOT_FOUND, "No other key has this name.")),
        Err(_) => Err(Problem(StatusCode::SERVICE_UNAVAILABLE, "The key store does not answer.")),
    }
}

/// An error of these routes, in the format of the gate's refusals (RFC 9457).
struct Problem(StatusCode, &'static str);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(status, detail) = self;
        let body = json!({ "title": status.canonical_reason(), "status": status.as_u16(), "detail": detail });
        (status, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}
