//! Why a request was not let through, what its caller may know of it, and what only the log may know.

use std::{borrow::Cow, error::Error, fmt, sync::Arc, time::Duration};

use http::StatusCode;

use crate::{Decision, decision::whole_seconds};

mod kind;

pub use kind::{DenialKind, Outcome};

/// Why a request was not let through.
///
/// A layer makes one, a [`Respond`](crate::Respond) turns it into a response, and it stays in that response's
/// extensions for outer layers to see. An application's own layers may make one too and refuse alike.
///
/// What callers see is [`status`](Self::status), [`code`](Self::code) and [`detail`](Self::detail); these are the same for
/// an unknown, a revoked and an expired key. What happened in truth, [`kind`](Self::kind) and
/// [`log_detail`](Self::log_detail), is for the operator.
///
/// ```
/// use http::StatusCode;
/// use tollgate_core::{Denial, DenialKind};
///
/// let denial = Denial::new(DenialKind::KeyRevoked).with_log_detail("revoked on 2026-03-01 by ada");
///
/// assert_eq!(denial.kind(), DenialKind::KeyRevoked);
/// assert_eq!(denial.status(), StatusCode::UNAUTHORIZED);
/// assert_eq!(denial.code(), "invalid_credential"); // what an unknown key gets, too
/// ```
#[derive(Clone)]
pub struct Denial(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: DenialKind,
    status: StatusCode,
    grpc_code: u8,
    code: Cow<'static, str>,
    detail: Cow<'static, str>,
    log_detail: Cow<'static, str>,
    scope: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    decision: Option<Decision>,
}

impl Denial {
    /// A denial with what its kind says of status, code and detail.
    pub fn new(kind: DenialKind) -> Self {
        Self(Arc::new(Inner {
            kind,
            status: kind.status(),
            grpc_code: kind.grpc_code(),
            code: Cow::Borrowed(kind.code()),
            detail: Cow::Borrowed(kind.detail()),
            log_detail: Cow::Borrowed(""),
            scope: None,
            retry_after: None,
            decision: None,
        }))
    }

    /// A limit refused: carries the numbers, and how long to wait.
    pub fn rate_limited(decision: Decision) -> Self {
        let mut denial = Self::new(DenialKind::RateLimited);
        let inner = denial.inner_mut();
        inner.retry_after = decision.retry_after();
        inner.decision = Some(decision);
        denial
    }

    /// Required scopes are missing; `scope` is what RFC 6750 section 3 puts into the challenge, space-separated.
    pub fn scope_missing(scope: impl Into<Cow<'static, str>>) -> Self {
        let mut denial = Self::new(DenialKind::ScopeMissing);
        denial.inner_mut().scope = Some(scope.into());
        denial
    }

    /// A backend that the answer hangs on did not give it. `log_detail` says which, and what to do.
    pub fn unavailable(log_detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(DenialKind::Unavailable).with_log_detail(log_detail)
    }

    /// The service is put together wrongly. `log_detail` says what to change.
    pub fn misconfigured(log_detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(DenialKind::Misconfigured).with_log_detail(log_detail)
    }

    /// Another status than the kind's: 400 to 599. Any other is not taken: a proxy or a cache would read it as consent.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        if status.is_client_error() || status.is_server_error() {
            self.inner_mut().status = status;
        }
        self
    }

    /// Another gRPC status code than the kind's: 1 to 16. Any other is not taken, since 0 would be success.
    pub fn with_grpc_code(mut self, grpc_code: u8) -> Self {
        if (1..=16).contains(&grpc_code) {
            self.inner_mut().grpc_code = grpc_code;
        }
        self
    }

    /// Another code than the kind's.
    pub fn with_code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.inner_mut().code = code.into();
        self
    }

    /// Another sentence for the caller than the kind's.
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.inner_mut().detail = detail.into();
        self
    }

    /// A sentence for the log. Never a secret.
    pub fn with_log_detail(mut self, log_detail: impl Into<Cow<'static, str>>) -> Self {
        self.inner_mut().log_detail = log_detail.into();
        self
    }

    /// How long the caller should wait before trying again; rounded up to whole seconds, at least one.
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.inner_mut().retry_after = Some(whole_seconds(retry_after));
        self
    }

    /// The precise reason: for the log, and for responders that choose to tell.
    pub fn kind(&self) -> DenialKind {
        self.0.kind
    }

    /// Whether the caller was refused, a backend is down, or the service is put together wrongly.
    pub fn outcome(&self) -> Outcome {
        self.0.kind.outcome()
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The gRPC status code.
    pub fn grpc_code(&self) -> u8 {
        self.0.grpc_code
    }

    /// A stable word that programs can tell the refusal by. Uniform for keys that are unknown, revoked or expired.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// A sentence that people can read. As uniform as the code.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// A sentence for the log only; empty if the kind says it all.
    pub fn log_detail(&self) -> &str {
        &self.0.log_detail
    }

    /// The scopes that are missing, space-separated.
    pub fn scope(&self) -> Option<&str> {
        self.0.scope.as_deref()
    }

    /// How long the caller should wait before trying again, in whole seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What the limiter decided, if a limit refused.
    pub fn decision(&self) -> Option<&Decision> {
        self.0.decision.as_ref()
    }

    fn inner_mut(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }
}

impl fmt::Display for Denial {
    /// For the log: the precise reason and what the log may know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.kind.reason())?;
        if !self.0.log_detail.is_empty() {
            write!(f, ": {}", self.0.log_detail)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Denial")
            .field("kind", &self.0.kind)
            .field("status", &self.0.status)
            .field("code", &self.0.code)
            .field("log_detail", &self.0.log_detail)
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
    fn from(error: Unavailable) -> Self {
        Self::unavailable(error.to_string())
    }
}

/// A backend did not answer: it is down, too slow, or sent what nobody understands.
#[derive(Clone, Debug)]
pub struct Unavailable(Cow<'static, str>);

impl Unavailable {
    /// `detail` goes to the log, and says which backend and what happened. Never a secret: beware of connection URLs.
    pub fn new(detail: impl Into<Cow<'static, str>>) -> Self {
        Self(detail.into())
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Unavailable {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_revoked_and_expired_look_the_same_to_the_caller() {
        let kinds = [
            DenialKind::KeyUnknown,
            DenialKind::KeyRevoked,
            DenialKind::KeyExpired,
            DenialKind::WrongEnvironment,
        ];
        let faces = kinds.map(|kind| {
            let denial = Denial::new(kind);
            (denial.status(), denial.code().to_owned(), denial.detail().to_owned(), denial.grpc_code())
        });
        assert!(faces.iter().all(|face| *face == faces[0]));
        let reasons = kinds.map(DenialKind::reason);
        assert!(
            reasons.iter().enumerate().all(|(at, reason)| !reasons[..at].contains(reason)),
            "the log tells them apart"
        );
    }

    #[test]
    fn a_clone_in_a_response_does_not_follow_later_changes() {
        let original = Denial::new(DenialKind::KeyUnknown);
        let changed = original.clone().with_code("nope");
        assert_eq!((original.code(), changed.code()), ("invalid_credential", "nope"));
    }
}
