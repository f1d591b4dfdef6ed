//! The service's clock: the system clock, or with `--now` a stopped clock that moves only by request, forwards or backwards.
//!
//! ```text
//! > POST /_demo/clock {"advance_s":30}
//! < {"now":"2026-03-01T22:59:00Z"}
//! ```

use std::{
    error::Error,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    response::{IntoResponse, Response},
    routing::post,
};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use tollgate::clock::{Clock, ManualClock, SystemClock};
use tollgate_axum::RecordedRouter;

/// The clock of an example. Clones share their state.
#[derive(Clone, Debug)]
pub enum ServiceClock {
    /// The system clock.
    Running,
    /// A clock that moves only by request.
    Stopped(ManualClock),
}

/// Makes the service's response to an error from a status, a code and a message.
pub type ErrorResponse = fn(StatusCode, &str, &str) -> Response;

impl ServiceClock {
    /// Stopped at `now`, or the system clock.
    ///
    /// # Errors
    /// If the instant is out of the range of [`SystemTime`].
    pub fn new(now: Option<Timestamp>) -> Result<Self, Box<dyn Error>> {
        match now {
            Some(now) => Ok(Self::Stopped(ManualClock::at(now.try_into()?))),
            None => Ok(Self::Running),
        }
    }

    /// The current time for display. The Unix epoch if it is out of range.
    pub fn timestamp(&self) -> Timestamp {
        timestamp(self.now())
    }
}

impl Clock for ServiceClock {
    fn now(&self) -> SystemTime {
        match self {
            Self::Running => SystemClock.now(),
            Self::Stopped(clock) => clock.now(),
        }
    }
}

/// Parses an instant from the command line.
///
/// # Errors
/// If it is not an instant, or not one from 1970 to 9999.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    let instant: Result<Timestamp, _> = text.parse();
    instant
        .ok()
        .filter(is_countable)
        .ok_or_else(|| "expected an instant from 1970 to 9999, such as 2026-03-01T22:58:30Z".to_owned())
}

/// The route that moves the clock.
pub fn router(clock: ServiceClock, error: ErrorResponse) -> RecordedRouter {
    let method = post(move_clock).fallback(async move || {
        let message = "This path has other methods: see the Allow header.";
        error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    });
    RecordedRouter::new().route("/_demo/clock", method).with_state((clock, error))
}

async fn move_clock(
    State((clock, error)): State<(ServiceClock, ErrorResponse)>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let ServiceClock::Stopped(clock) = clock else {
        let message = "The machine's clock runs by itself. To have one that can be moved, start the service with \
            --now 2026-03-01T22:58:30Z, or another instant.";
        return error(StatusCode::CONFLICT, "clock_runs", message);
    };
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return error(rejection.status(), "unreadable_body", &rejection.body_text()),
    };
    let Ok(body) = serde_json::from_slice::<Map<String, Value>>(&body) else {
        return error(StatusCode::BAD_REQUEST, "malformed_body", "The body must be a JSON object.");
    };
    let Some(seconds) = body.get("advance_s").and_then(Value::as_i64) else {
        let message = r#"Send {"advance_s": N}, with a whole number of seconds, which may be negative."#;
        return error(StatusCode::BAD_REQUEST, "malformed_body", message);
    };
    let Some(now) = advance(&clock, seconds) else {
        let message = "The clock shows instants from 1970 to 9999. It was left as it is.";
        return error(StatusCode::BAD_REQUEST, "out_of_range", message);
    };
    tracing::info!(%now, "clock moved");
    Json(json!({ "now": now.to_string() })).into_response()
}

/// Moves the clock, forwards or backwards, and returns the new time. `None` if that is out of range: the clock is unchanged.
fn advance(clock: &ManualClock, seconds: i64) -> Option<Timestamp> {
    static MOVING: Mutex<()> = Mutex::new(());

    // Two concurrent steps without a lock could lose one.
    let _moving = MOVING.lock().unwrap_or_else(PoisonError::into_inner);
    let now =
        timestamp(clock.now()).checked_add(SignedDuration::from_secs(seconds)).ok().filter(is_countable)?;
    clock.set(now.try_into().ok()?);
    Some(now)
}

fn timestamp(instant: SystemTime) -> Timestamp {
    instant.try_into().unwrap_or_default()
}

/// Resets are shown in seconds since the Unix epoch, so earlier instants are invalid.
fn is_countable(instant: &Timestamp) -> bool {
    *instant >= Timestamp::UNIX_EPOCH
}
