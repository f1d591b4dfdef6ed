//! Why a request is refused: what the caller sees, and what only the log shows.

use std::{borrow::Cow, error::Error, fmt, sync::Arc, time::Duration};

use http::StatusCode;

use crate::{
    credits::{Settlement, Shortage},
    limit::{Decision, decision::whole_seconds},
};

mod kind;
mod unavailable;

pub use kind::{DenialKind, Outcome};
pub use unavailable::Unavailable;

/// Why a request is refused.
///
/// A layer makes one, a [`Respond`](crate::respond::Respond) turns it into a response, and it stays in that response's
/// extensions, where outer layers find it. An application's own layers may refuse requests with one, too.
///
/// Callers see [`status`](Self::status), [`code`](Self::code) and [`detail`](Self::detail), which are the same for an unknown, a
/// revoked and an expired key. The precise reason, [`kind`](Self::kind) and [`log_detail`](Self::log_detail), is for the log.
///
/// ```
/// use http::StatusCode;
/// use tollgate_core::denial::{Denial, DenialKind};
///
/// let denial = Denial::new(DenialKind::KeyRevoked).with_log_detail("revoked on 2026-03-01 by ada");
///
/// assert_eq!(denial.kind(), DenialKind::KeyRevoked);
/// assert_eq!(denial.status(), StatusCode::UNAUTHORIZED);
/// assert_eq!(denial.code(), "invalid_credential"); // the same as for an unknown key
/// ```
#[derive(Clone)]
pub struct Denial {
    kind: DenialKind,
    // What differs from the kind's defaults. Usually nothing, so that most denials of a flood allocate nothing.
    more: Option<Arc<More>>,
}

/// What a denial adds to its kind, or replaces.
#[derive(Clone, Default)]
struct More {
    status: Option<StatusCode>,
    grpc_code: Option<u8>,
    code: Option<Cow<'static, str>>,
    detail: Option<Cow<'static, str>>,
    log_detail: Cow<'static, str>,
    scope: Option<Cow<'static, str>>,
    allowed_methods: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    decision: Option<Decision>,
    shortage: Option<Shortage>,
    settlement: Option<Settlement>,
}

impl Denial {
    /// A denial with the status, code and detail of its kind.
    pub fn new(kind: DenialKind) -> Self {
        Self { kind, more: None }
    }

    /// A rate limit is used up. The denial has the decision, and the time until the request may be admitted. For a request that is
    /// never admitted, it has a sentence for the log instead of the time.
    pub fn rate_limited(decision: Decision) -> Self {
        let (retry_after, log_detail) = (decision.retry_after(), decision.why_never().into());
        Self::with_more(
            DenialKind::RateLimited,
            More { retry_after, log_detail, decision: Some(decision), ..More::default() },
        )
    }

    /// Required scopes are missing. `scope` lists them, separated by spaces, for the challenge (RFC 6750 section 3).
    pub fn scope_missing(scope: impl Into<Cow<'static, str>>) -> Self {
        Self::with_more(DenialKind::ScopeMissing, More { scope: Some(scope.into()), ..More::default() })
    }

    /// The account has too few credits. The caller may see how many it has, and how many the request needs.
    pub fn credits_exhausted(shortage: Shortage) -> Self {
        let more = More { shortage: Some(shortage), ..More::default() };
        Self::with_more(DenialKind::CreditsExhausted, more)
    }

    /// A request with the same idempotency key was charged before. The caller may see how.
    pub fn request_repeated(settlement: Settlement) -> Self {
        let more = More { settlement: Some(settlement), ..More::default() };
        Self::with_more(DenialKind::RequestRepeated, more)
    }

    /// The path exists, but not for this method: 405. `allowed_methods` lists the methods that it has, separated by commas, for the
    /// header `Allow` (RFC 9110 section 15.5.6). The reason in the log is `route_unlisted`.
    ///
    /// ```
    /// use tollgate_core::denial::{Denial, DenialKind};
    ///
    /// let denial = Denial::method_not_allowed("GET, HEAD");
    /// assert_eq!((denial.status().as_u16(), denial.code()), (405, "method_not_allowed"));
    /// assert_eq!(denial.kind(), DenialKind::RouteUnlisted);
    /// ```
    pub fn method_not_allowed(allowed_methods: impl Into<Cow<'static, str>>) -> Self {
        let more = More {
            status: Some(StatusCode::METHOD_NOT_ALLOWED),
            code: Some(Cow::Borrowed("method_not_allowed")),
            detail: Some(Cow::Borrowed("This path does not support the method: see the Allow header.")),
            allowed_methods: Some(allowed_methods.into()),
            ..More::default()
        };
        Self::with_more(DenialKind::RouteUnlisted, more)
    }

    /// A backend that the decision needs did not answer. `log_detail` says which one, and what to do.
    pub fn unavailable(log_detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(DenialKind::Unavailable).with_log_detail(log_detail)
    }

    /// The service is configured wrongly. `log_detail` says what to change.
    pub fn misconfigured(log_detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(DenialKind::Misconfigured).with_log_detail(log_detail)
    }

    /// Replaces the kind's status: 400 to 599. Any other is ignored, since a proxy or a cache would take it for a success.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        if status.is_client_error() || status.is_server_error() {
            self.more_mut().status = Some(status);
        }
        self
    }

    /// Replaces the kind's gRPC status code: 1 to 16. Any other is ignored, since 0 would be a success.
    pub fn with_grpc_code(mut self, grpc_code: u8) -> Self {
        if (1..=16).contains(&grpc_code) {
            self.more_mut().grpc_code = Some(grpc_code);
        }
        self
    }

    /// Replaces the kind's code.
    pub fn with_code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.more_mut().code = Some(code.into());
        self
    }

    /// Replaces the kind's sentence for the caller.
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.more_mut().detail = Some(detail.into());
        self
    }

    /// A sentence for the log only. It must not hold a secret.
    pub fn with_log_detail(mut self, log_detail: impl Into<Cow<'static, str>>) -> Self {
        self.more_mut().log_detail = log_detail.into();
        self
    }

    /// How long the caller should wait before the next try: rounded up to whole seconds, at least one.
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.more_mut().retry_after = Some(whole_seconds(retry_after));
        self
    }

    /// The precise reason: for the log, and for responders that choose to show it.
    pub fn kind(&self) -> DenialKind {
        self.kind
    }

    /// Whether the caller is refused, a backend is down, or the service is configured wrongly.
    pub fn outcome(&self) -> Outcome {
        self.kind.outcome()
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.more().and_then(|more| more.status).unwrap_or_else(|| self.kind.status())
    }

    /// The gRPC status code.
    pub fn grpc_code(&self) -> u8 {
        self.more().and_then(|more| more.grpc_code).unwrap_or_else(|| self.kind.grpc_code())
    }

    /// A stable word for programs. The same for keys that are unknown, revoked or expired.
    pub fn code(&self) -> &str {
        self.more().and_then(|more| more.code.as_deref()).unwrap_or_else(|| self.kind.code())
    }

    /// A sentence for people. The same wherever the code is the same.
    pub fn detail(&self) -> &str {
        self.more().and_then(|more| more.detail.as_deref()).unwrap_or_else(|| self.kind.detail())
    }

    /// A sentence for the log only; empty if there is none.
    pub fn log_detail(&self) -> &str {
        self.more().map_or("", |more| &more.log_detail)
    }

    /// The scopes that are missing, separated by spaces.
    pub fn scope(&self) -> Option<&str> {
        self.more()?.scope.as_deref()
    }

    /// The methods that the path has, separated by commas, if the request's method is not one of them.
    pub fn allowed_methods(&self) -> Option<&str> {
        self.more()?.allowed_methods.as_deref()
    }

    /// How long the caller should wait before the next try, in whole seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        self.more()?.retry_after
    }

    /// The limiter's decision, if a rate limit is used up.
    pub fn decision(&self) -> Option<&Decision> {
        self.more()?.decision.as_ref()
    }

    /// What the account has and what the request needs, if the credits are used up.
    pub fn shortage(&self) -> Option<Shortage> {
        self.more()?.shortage
    }

    /// How the earlier request was settled, if the request is repeated.
    pub fn settlement(&self) -> Option<Settlement> {
        self.more()?.settlement
    }

    fn with_more(kind: DenialKind, more: More) -> Self {
        Self { kind, more: Some(Arc::new(more)) }
    }

    fn more(&self) -> Option<&More> {
        self.more.as_deref()
    }

    fn more_mut(&mut self) -> &mut More {
        Arc::make_mut(self.more.get_or_insert_default())
    }
}

impl fmt::Display for Denial {
    /// For the log: the precise reason, then the sentence for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.reason())?;
        match self.log_detail() {
            "" => Ok(()),
            log_detail => write!(f, ": {log_detail}"),
        }
    }
}

impl fmt::Debug for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Denial")
            .field("kind", &self.kind)
            .field("status", &self.status())
            .field("code", &self.code())
            .field("log_detail", &self.log_detail())
            .finish_non_exhaustive()
    }
}

impl Error for Denial {}

impl From<DenialKind> for Denial {
    fn from(kind: DenialKind) -> Self {
        Self::new(kind)
    }
}

impl From<Unavailable> for Denial {
    /// The sentence for the log has the error and its sources.
    fn from(error: Unavailable) -> Self {
        Self::unavailable(format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_revoked_and_expired_look_the_same_to_the_caller() {
        let kinds = [
            DenialKind::KeyUnknown,
            DenialKind::KeyRevoked,
            DenialKind::KeyExpired,
            DenialKind::TokenInvalid,
            DenialKind::WrongEnvironment,
            DenialKind::NetworkNotAllowed,
        ];
        let visible = kinds.map(|kind| {
            let denial = Denial::new(kind);
            (denial.status(), denial.code().to_owned(), denial.detail().to_owned(), denial.grpc_code())
        });
        assert!(visible.iter().all(|one| *one == visible[0]));
        let reasons = kinds.map(DenialKind::reason);
        assert!(
            reasons.iter().enumerate().all(|(at, reason)| !reasons[..at].contains(reason)),
            "the log distinguishes them"
        );
    }

    #[test]
    fn changing_a_clone_does_not_change_the_original() {
        let original = Denial::new(DenialKind::KeyUnknown);
        let changed = original.clone().with_code("nope");
        assert_eq!((original.code(), changed.code()), ("invalid_credential", "nope"));
    }

    #[test]
    fn an_unavailable_backend_is_logged_with_its_sources() {
        let source = std::io::Error::other("connection reset by peer");
        let denial = Denial::from(Unavailable::new("the key store does not answer").with_source(source));
        assert_eq!(denial.kind(), DenialKind::Unavailable);
        assert_eq!(denial.log_detail(), "the key store does not answer: connection reset by peer");
        assert!(!denial.detail().contains("connection"), "the caller does not see it");
    }
}
