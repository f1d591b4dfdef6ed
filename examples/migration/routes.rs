//! The endpoints: the customers' invoices, and the routes where operators list and revoke tokens.

use axum::{
    Json,
    extract::{Path, State},
    routing::{delete, get},
};
use http::{StatusCode, request::Parts};
use serde_json::{Value, json};
use tollgate::scope::{ScopeMap, scope};
use tollgate_axum::{Authenticated, RecordedRouter, Rejection};

use crate::table::{Token, TokenTable};

pub(crate) fn scopes() -> ScopeMap {
    ScopeMap::new()
        .get("/invoices", scope("invoices:read"))
        .post("/invoices", scope("invoices:write"))
        .get("/admin/tokens", scope("tokens:manage"))
        .delete("/admin/tokens/{id}", scope("tokens:manage"))
}

pub(crate) fn router(table: TokenTable) -> RecordedRouter {
    RecordedRouter::new()
        .route("/invoices", get(invoices).post(async || StatusCode::CREATED))
        .route("/admin/tokens", get(tokens))
        .route("/admin/tokens/{id}", delete(revoke))
        .with_state(table)
}

async fn invoices(Authenticated(caller): Authenticated) -> Json<Value> {
    Json(json!({ "customer": caller.tenant(), "invoices": [] }))
}

async fn tokens(State(table): State<TokenTable>, head: Parts) -> Result<Json<Vec<Token>>, Rejection> {
    table.tokens().await.map(Json).map_err(|error| Rejection::new("tokens", error.into(), &head))
}

async fn revoke(
    State(table): State<TokenTable>,
    Path(id): Path<String>,
    head: Parts,
) -> Result<StatusCode, Rejection> {
    match table.revoke(&id).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Ok(StatusCode::NOT_FOUND),
        Err(error) => Err(Rejection::new("tokens", error.into(), &head)),
    }
}
