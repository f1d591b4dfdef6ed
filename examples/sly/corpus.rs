//! The two corpora, and the scans in each. A test key reaches the `sandbox` corpus, and a live key `production`; a session names one with
//! `X-Environment`.
//!
//! ```text
//! > POST /v1/scanner/scan {"domain":"shopify.com"}
//! < 200 {"id":"scan_…","type":"scan","corpus":"production","status":"completed","input":{"domain":"shopify.com"},"findings":[]}
//! > GET /v1/scanner/scans/scan_…
//! < 200 the same
//! ```

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json,
    extract::{Path, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use serde_json::{Map, Value, json};
use tollgate_axum::{Authenticated, ByEnvironment, Credits, InEnvironment};
use uuid::Uuid;

use crate::{body::JsonObject, error};

/// Scans that an organization has in a corpus at most. Another one removes the oldest.
const MAX_SCANS: usize = 1_000;

/// A corpus and its scans, in memory. Clones share their state.
#[derive(Clone)]
pub(crate) struct Corpus {
    name: &'static str,
    /// By organization, oldest first.
    scans: Arc<Mutex<HashMap<Box<str>, VecDeque<Value>>>>,
}

/// The corpus of live keys, and that of test keys. A handler gets the one of its caller, and cannot reach the other.
pub(crate) fn by_environment() -> ByEnvironment<Corpus> {
    let corpus = |name| Corpus { name, scans: Arc::default() };
    ByEnvironment::new(corpus("production"), corpus("sandbox"))
}

/// The handler that makes scans of a kind, at once. `CreditsLayer` has reserved what they cost, and charges nothing if the response is
/// an error.
pub(crate) fn create(kind: &'static str) -> MethodRouter<ByEnvironment<Corpus>> {
    post(
        async move |InEnvironment(corpus): InEnvironment<Corpus>,
                    caller: Authenticated,
                    Credits(credits): Credits,
                    JsonObject(input): JsonObject| {
            let scan = corpus.create(kind, &caller, &input);
            // The work is done, so it is charged even if the caller hangs up before it has read the response.
            credits.set(credits.reserved());
            Json(scan)
        },
    )
}

/// A scan of another organization is answered like one that does not exist, and so is one in the other corpus.
pub(crate) async fn show(
    InEnvironment(corpus): InEnvironment<Corpus>,
    caller: Authenticated,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let scan = id.ok().and_then(|Path(id)| corpus.find(&caller, &id));
    scan.map_or_else(error::not_found, |scan| Json(scan).into_response())
}

impl Corpus {
    fn create(&self, kind: &str, caller: &Authenticated, input: &Map<String, Value>) -> Value {
        let scan = json!({
            "id": format!("{kind}_{}", Uuid::new_v4().simple()),
            "type": kind,
            "corpus": self.name,
            "status": "completed",
            "input": input,
            "findings": [],
        });
        self.scans(caller, |scans| {
            if scans.len() == MAX_SCANS {
                scans.pop_front();
            }
            scans.push_back(scan.clone());
        });
        scan
    }

    fn find(&self, caller: &Authenticated, id: &str) -> Option<Value> {
        self.scans(caller, |scans| scans.iter().find(|scan| scan["id"] == id).cloned())
    }

    fn scans<R>(&self, caller: &Authenticated, act: impl FnOnce(&mut VecDeque<Value>) -> R) -> R {
        let organization = caller.tenant().unwrap_or_default();
        let mut scans = self.scans.lock().unwrap_or_else(PoisonError::into_inner);
        act(scans.entry(organization.into()).or_default())
    }
}
