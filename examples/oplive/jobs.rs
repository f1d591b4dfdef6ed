//! Jobs: what is paid for. Jobs here are completed when they are created.
//!
//! ```text
//! > POST /v1/scan {"url":"https://example.com"}
//! < 201 {"id":"job_…"}
//! > GET /v1/jobs/job_…
//! < 200 {"id":"job_…","type":"scan","status":"completed","created_at":"…","completed_at":"…","duration_ms":0}
//! > GET /v1/jobs/job_…/results
//! < 200 {"id":"job_…","type":"scan","input":{"url":"https://example.com"},"results":{"findings":[]}}
//! ```

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header::LOCATION};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use support::clock::ServiceClock;
use tollgate::{Denial, DenialKind};
use tollgate_axum::{Credits, Refused};

use crate::{
    body::JsonObject,
    error,
    organization::{OfOrganizations, Organization},
};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Classify,
    Scan,
    DeepScan,
}

#[derive(Clone)]
pub(crate) struct Jobs {
    jobs: OfOrganizations<Job>,
    clock: ServiceClock,
}

#[derive(Clone)]
struct Job {
    kind: Kind,
    input: Map<String, Value>,
    created_at: Timestamp,
}

impl Jobs {
    pub(crate) fn new(clock: ServiceClock) -> Self {
        Self { jobs: OfOrganizations::default(), clock }
    }
}

/// Creates a job that `CreditsLayer` has reserved the credits for. If a response is not a success, the layer charges nothing.
///
/// The job has the number of its reservation. So a request that is repeated with the same `Idempotency-Key` finds the job of the
/// first one, and the ledger names the job of each charge.
pub(crate) fn create(
    kind: Kind,
    organization: &Organization,
    Credits(credits): Credits,
    State(Jobs { jobs, clock }): State<Jobs>,
    JsonObject(input): JsonObject,
) -> Result<Response, Refused> {
    let reservation = credits.settlement().map(|first| first.id).or(credits.reservation());
    let reservation = reservation.ok_or_else(|| Denial::misconfigured("a job has no cost: see costs()"))?;
    let id = reservation.to_string().replacen("res_", "job_", 1);

    if credits.is_repeated() {
        let forgotten = || {
            let repeated = credits.settlement().map(Denial::request_repeated);
            repeated.unwrap_or(DenialKind::RequestRepeated.into())
        };
        let first = jobs.find(organization, &id).ok_or_else(forgotten)?;
        if first.input != input {
            return Err(DenialKind::IdempotencyKeyReused.into());
        }
    } else {
        jobs.add(organization, id.clone(), Job { kind, input, created_at: clock.timestamp() });
        // The work is done, so it is charged even if the caller hangs up before it has read the response.
        credits.set(credits.reserved());
    }
    let location = [(LOCATION, format!("/v1/jobs/{id}"))];
    Ok((StatusCode::CREATED, location, Json(json!({ "id": id }))).into_response())
}

/// The status and the timing of a job.
pub(crate) async fn show(
    organization: Organization,
    State(Jobs { jobs, .. }): State<Jobs>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    view(&jobs, &organization, id, |id, job| {
        let at = job.created_at.to_string();
        json!({
            "id": id,
            "type": job.kind.name(),
            "status": "completed",
            "created_at": at,
            "completed_at": at,
            "duration_ms": 0,
        })
    })
}

/// The results of a job.
pub(crate) async fn results(
    organization: Organization,
    State(Jobs { jobs, .. }): State<Jobs>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    view(
        &jobs,
        &organization,
        id,
        |id, job| json!({ "id": id, "type": job.kind.name(), "input": job.input, "results": job.kind.results() }),
    )
}

/// A job of another organization is answered like one that does not exist, and so is an identifier that cannot be decoded.
fn view(
    jobs: &OfOrganizations<Job>,
    organization: &Organization,
    id: Result<Path<String>, PathRejection>,
    view: fn(&str, &Job) -> Value,
) -> Response {
    let found = id.ok().and_then(|Path(id)| jobs.find(organization, &id).map(|job| view(&id, &job)));
    found.map_or_else(error::not_found, |found| Json(found).into_response())
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Scan => "scan",
            Self::DeepScan => "deep_scan",
        }
    }

    /// Sample data.
    fn results(self) -> Value {
        match self {
            Self::Classify => json!({ "category": "sports", "confidence": "0.97" }),
            Self::Scan => json!({ "findings": [] }),
            Self::DeepScan => {
                json!({ "findings": [{ "severity": "low", "title": "A cookie is not Secure" }] })
            }
        }
    }
}
