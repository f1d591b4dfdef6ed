//! The saved scans of an account. Only the tokens of the account see them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tollgate::Principal;
use tollgate_axum::Authenticated;

use crate::{body::JsonObject, error};

/// Limit per account. Saving another scan removes the oldest one.
const MAX_SCANS: usize = 100;

pub(crate) async fn list(
    Authenticated(caller): Authenticated,
    State(accounts): State<Accounts>,
) -> Json<Value> {
    let scans: Vec<_> = accounts.of(&caller, |account| account.scans.iter().map(Scan::describe).collect());
    Json(json!({ "scans": scans }))
}

pub(crate) async fn save(
    Authenticated(caller): Authenticated,
    State(accounts): State<Accounts>,
    JsonObject(definition): JsonObject,
) -> Response {
    let saved = accounts.of(&caller, |account| account.save(definition).describe());
    (StatusCode::CREATED, Json(saved)).into_response()
}

pub(crate) async fn remove(
    Authenticated(caller): Authenticated,
    State(accounts): State<Accounts>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    match id {
        Ok(Path(id)) if accounts.of(&caller, |account| account.remove(&id)) => {
            StatusCode::NO_CONTENT.into_response()
        }
        _ => error::not_found(),
    }
}

#[derive(Clone, Default)]
pub(crate) struct Accounts(Arc<Mutex<HashMap<String, Account>>>);

impl Accounts {
    fn of<T>(&self, caller: &Principal, act: impl FnOnce(&mut Account) -> T) -> T {
        let name = caller.tenant().unwrap_or_else(|| caller.id());
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(accounts.entry(name.to_owned()).or_default())
    }
}

#[derive(Default)]
struct Account {
    scans: VecDeque<Scan>,
    ever_saved: u64,
}

impl Account {
    fn save(&mut self, definition: Map<String, Value>) -> Scan {
        if self.scans.len() == MAX_SCANS {
            self.scans.pop_front();
        }
        self.ever_saved += 1;
        let scan = Scan { id: format!("scan_{}", self.ever_saved), definition };
        self.scans.push_back(scan.clone());
        scan
    }

    /// Returns whether the scan existed.
    fn remove(&mut self, id: &str) -> bool {
        let before = self.scans.len();
        self.scans.retain(|scan| scan.id != id);
        self.scans.len() < before
    }
}

#[derive(Clone)]
struct Scan {
    id: String,
    definition: Map<String, Value>,
}

impl Scan {
    fn describe(&self) -> Value {
        json!({ "id": self.id, "scan": self.definition })
    }
}
