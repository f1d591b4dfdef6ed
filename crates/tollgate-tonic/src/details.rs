//! The details of a status, as messages of `google.rpc`.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tollgate::{
    Denial, DenialKind,
    credits::{Settlement, Shortage},
    limit::{Decision, WindowState},
    respond::{Grpc, StatusDetails},
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, QuotaViolation, StatusExt as _};

use crate::status;

/// The details of refusals: a `google.rpc.Status` with the standard messages, which clients of every language decode.
///
/// | message | where | content |
/// |---|---|---|
/// | `ErrorInfo` | always | `reason`: the [code](Denial::code) of the refusal; `domain`; `metadata`, see below |
/// | `RetryInfo` | where waiting helps | `retry_delay`: [`Denial::retry_after`] |
/// | `QuotaFailure` | rate limits, requests in flight | a violation for each window that is used up; for requests in flight one |
/// | `PreconditionFailure` | credits, subscription | a violation of the type `credits` or `subscription` |
/// | `BadRequest` | `Idempotency-Key` | a violation of the field `idempotency-key` |
///
/// The metadata of `ErrorInfo` are the members of a [`Problem`](tollgate::respond::Problem), and what headers show to callers by HTTP:
///
/// | refusal | metadata |
/// |---|---|
/// | missing scope | `scope`: the scopes that are required, separated by spaces |
/// | rate limit | `limit`, `remaining`, `reset` (in seconds since the Unix epoch): as `X-RateLimit-*` |
/// | credits | `balance`, `needed`, and `owed` if there is a debt |
/// | repeated request | `charged`, `reservation` |
///
/// ```
/// use tollgate::{RateLimitLayer, PerWindow, respond::Grpc};
/// use tollgate_tonic::Details;
///
/// let responder = Grpc::new().with_details(Details::new("market.example.com"));
/// let layer = RateLimitLayer::new(60.per_minute()).with_responder(responder);
/// ```
///
/// # The reason
///
/// It is the same word as the `code` of an HTTP refusal, such as `insufficient_scope`: one word to search for in logs, clients and
/// documentation. Google's own APIs write reasons in upper case ([AIP-193](https://google.aip.dev/193));
/// [`with_upper_case_reasons`](Self::with_upper_case_reasons) does, too.
///
/// # Size
///
/// Details that are too long for the status are sent without metadata and violations. The reason and the domain stay.
///
/// # Security
///
/// The details have neither the precise reason nor the sentence for the log. They are the same for an unknown, a revoked and an expired key.
///
/// A refusal by a rate limit shows each window that is used up, with the name of its policy. Headers show the tightest window only, and with
/// [`RateLimitHeaders::none`](tollgate::limit::RateLimitHeaders::none) nothing: where callers must not see the limits, use
/// [`without_limits`](Self::without_limits). A limit that is [hidden](WindowState::is_hidden), such as one by address, shows only how long to
/// wait.
#[derive(Clone, Debug)]
pub struct Details {
    domain: Arc<str>,
    is_upper_case: bool,
    shows_limits: bool,
}

impl Details {
    /// Details for the service named `domain`, by which clients distinguish the reasons of several services: usually its host name.
    pub fn new(domain: impl Into<Arc<str>>) -> Self {
        Self { domain: domain.into(), is_upper_case: false, shows_limits: true }
    }

    /// Writes reasons in upper case, such as `INSUFFICIENT_SCOPE` (AIP-193).
    pub fn with_upper_case_reasons(mut self) -> Self {
        self.is_upper_case = true;
        self
    }

    /// Shows neither the numbers of rate limits nor the names of their policies: only how long to wait.
    pub fn without_limits(mut self) -> Self {
        self.shows_limits = false;
        self
    }

    /// A status that refuses with `denial`: code, message, details and `grpc-retry-pushback-ms`, as [`Grpc`] with these details answers.
    /// The denial is its source.
    ///
    /// Nothing is logged. For a request, use [`RequestExt::refuse`](crate::RequestExt::refuse).
    ///
    /// ```
    /// use tollgate::Denial;
    /// use tollgate_tonic::Details;
    /// use tonic_types::StatusExt;
    ///
    /// let status = Details::new("market.example.com").status(&Denial::scope_missing("prices:read"));
    /// assert_eq!(status.code(), tonic::Code::PermissionDenied);
    /// let info = status.get_details_error_info().unwrap();
    /// assert_eq!((info.reason.as_str(), info.metadata["scope"].as_str()), ("insufficient_scope", "prices:read"));
    /// ```
    pub fn status(&self, denial: &Denial) -> Status {
        status::answer(&Grpc::new().with_details(self.clone()), denial)
    }

    fn encoded(&self, denial: &Denial, is_short: bool) -> Bytes {
        let code = Code::from_i32(denial.grpc_code().into());
        let details = self.error_details(denial, is_short);
        let status = Status::with_error_details(code, Grpc::message(denial), details);
        Bytes::copy_from_slice(status.details())
    }

    /// `is_short`: without what may be of any length, or any number.
    fn error_details(&self, denial: &Denial, is_short: bool) -> ErrorDetails {
        let mut reason = denial.code().to_owned();
        if self.is_upper_case {
            reason.make_ascii_uppercase();
        }
        let mut details = ErrorDetails::new();
        let hides_limits = denial.kind() == DenialKind::RateLimited && !self.shows_limits;
        let is_bare = is_short || hides_limits;
        let metadata = if is_bare { HashMap::new() } else { metadata(denial) };
        details.set_error_info(reason, &*self.domain, metadata);
        if let Some(wait) = denial.retry_after() {
            details.set_retry_info(Some(wait));
        }
        if !is_bare {
            add_violations(&mut details, denial);
        }
        details
    }
}

impl StatusDetails for Details {
    fn encode(&self, denial: &Denial, room: usize) -> Option<Bytes> {
        let whole = self.encoded(denial, false);
        Some(if whole.len() <= room { whole } else { self.encoded(denial, true) })
    }
}

/// What programs may read about a refusal, beside its reason.
fn metadata(denial: &Denial) -> HashMap<String, String> {
    let mut metadata = HashMap::new();
    let mut add = |name: &str, value: String| metadata.insert(name.to_owned(), value);
    if let Some(scope) = denial.scope() {
        add("scope", scope.to_owned());
    }
    if let Some(window) = denial.decision().and_then(Decision::tightest) {
        add("limit", window.limit.to_string());
        add("remaining", window.remaining().to_string());
        add("reset", seconds_of(window.resets_at()).to_string());
    }
    if let Some(Shortage { available, needed, owed, .. }) = denial.shortage() {
        add("balance", available.to_string());
        add("needed", needed.to_string());
        if owed > 0 {
            add("owed", owed.to_string());
        }
    }
    if let Some(Settlement { id, charged, .. }) = denial.settlement() {
        add("charged", charged.to_string());
        add("reservation", id.to_string());
    }
    metadata
}

fn seconds_of(instant: SystemTime) -> u64 {
    instant.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What exactly a request violates, by the kind of its refusal.
fn add_violations(details: &mut ErrorDetails, denial: &Denial) {
    // The kind is not shown: all kinds with one code have the same violations.
    match denial.kind() {
        DenialKind::RateLimited => {
            let windows = denial.decision().map(Decision::windows).unwrap_or_default();
            let shown = windows.iter().filter(|window| window.is_violated && !window.is_hidden);
            let violations: Vec<_> = shown.map(quota_violation).collect();
            if !violations.is_empty() {
                details.set_quota_failure(violations);
            }
        }
        DenialKind::TooManyInFlight => {
            details.add_quota_failure_violation("requests_in_flight", denial.detail());
        }
        DenialKind::CreditsExhausted => {
            details.add_precondition_failure_violation("credits", "balance", shortage(denial));
        }
        DenialKind::EntitlementInactive => {
            details.add_precondition_failure_violation("subscription", "active", denial.detail());
        }
        DenialKind::TierTooLow => {
            details.add_precondition_failure_violation("subscription", "tier", denial.detail());
        }
        DenialKind::IdempotencyKeyInvalid | DenialKind::IdempotencyKeyReused => {
            details.add_bad_request_violation("idempotency-key", denial.detail());
        }
        _ => {}
    }
}

/// A window that is used up. Its policy is named, its subject is not: the caller knows who it is.
fn quota_violation(window: &WindowState) -> QuotaViolation {
    let WindowState { policy, window: length, limit, .. } = window;
    let mut violation = QuotaViolation::new(policy.as_str(), format!("{limit} per {length}"));
    violation.quota_id = format!("{policy}-{length}");
    violation.quota_value = i64::try_from(*limit).unwrap_or(i64::MAX);
    violation
}

fn shortage(denial: &Denial) -> String {
    match denial.shortage() {
        Some(Shortage { available, needed, owed: 0, .. }) => {
            format!("The request needs {needed} credits, and the balance is {available}.")
        }
        Some(Shortage { available, needed, owed, .. }) => {
            format!("The request needs {needed} credits, the balance is {available}, and {owed} are owed.")
        }
        None => denial.detail().to_owned(),
    }
}
