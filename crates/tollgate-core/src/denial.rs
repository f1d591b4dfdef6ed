//! Why a request was not let through, what its caller may know of it, and what only the log may know.

use std::{borrow::Cow, error::Error, fmt, sync::Arc, time::Duration};

use http::StatusCode;

use crate::limit::{Decision, decision::whole_seconds};

mod kind;

pub use kind::{DenialKind, Outcome};

/// Why a request was not let through.
///
/// A layer makes one, a [`Respond`](crate::respond::Respond) turns it into a response, and it stays in that response's
/// extensions for outer layers to see. An application's own layers may make one too and refuse alike.
///
/// What callers see is [`status`](Self::status), [`code`](Self::code) and [`detail`](Self::detail); these are the same for
/// an unknown, a revoked and an expired key. What happened in truth, [`kind`](Self::kind) and
/// [`log_detail`](Self::log_detail), is for the operator.
///
/// ```
/// use http::StatusCode;
/// use tollgate_core::denial::{Denial, DenialKind};
///
/// let denial = Denial::new(DenialKind::KeyRevoked).with_log_detail("revoked on 2026-03-01 by ada");
///
/// assert_eq!(denial.kind(), DenialKind::KeyRevoked);
/// assert_eq!(denial.status(), StatusCode::UNAUTHORIZED);
/// assert_eq!(denial.code(), "invalid_credential"); // what an unknown key gets, too
/// ```
#[derive(Clone)]
pub struct Denial {
    kind: DenialKind,
    // What it says beyond its kind. Most denials of a flood say nothing, and so cost no allocation.
    more: Option<Arc<More>>,
}

/// What a denial says beyond its kind, or in its kind's place.
#[derive(Clone, Default)]
struct More {
    status: Option<StatusCode>,
    grpc_code: Option<u8>,
    code: Option<Cow<'static, str>>,
    detail: Option<Cow<'static, str>>,
    log_detail: Cow<'static, str>,
    scope: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    decision: Option<Decision>,
}

impl Denial {
    /// A denial with what its kind says of status, code and detail.
    pub fn new(kind: DenialKind) -> Self {
        Self { kind, more: None }
    }

    /// A limit refused: carries the numbers, and how long to wait.
    pub fn rate_limited(decision: Decision) -> Self {
        let retry_after = decision.retry_after();
        Self::saying(
            DenialKind::RateLimited,
            More { retry_after, decision: Some(decision), ..More::default() },
        )
    }

    /// Required scopes are missing; `scope` is what RFC 6750 section 3 puts into the challenge, space-separated.
    pub fn scope_missing(scope: impl Into<Cow<'static, str>>) -> Self {
        Self::saying(DenialKind::ScopeMissing, More { scope: Some(scope.into()), ..More::default() })
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
            self.more_mut().status = Some(status);
        }
        self
    }

    /// Another gRPC status code than the kind's: 1 to 16. Any other is not taken, since 0 would be success.
    pub fn with_grpc_code(mut self, grpc_code: u8) -> Self {
        if (1..=16).contains(&grpc_code) {
            self.more_mut().grpc_code = Some(grpc_code);
        }
        self
    }

    /// Another code than the kind's.
    pub fn with_code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.more_mut().code = Some(code.into());
        self
    }

    /// Another sentence for the caller than the kind's.
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.more_mut().detail = Some(detail.into());
        self
    }

    /// A sentence for the log. Never a secret.
    pub fn with_log_detail(mut self, log_detail: impl Into<Cow<'static, str>>) -> Self {
        self.more_mut().log_detail = log_detail.into();
        self
    }

    /// How long the caller should wait before trying again; rounded up to whole seconds, at least one.
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.more_mut().retry_after = Some(whole_seconds(retry_after));
        self
    }

    /// The precise reason: for the log, and for responders that choose to tell.
    pub fn kind(&self) -> DenialKind {
        self.kind
    }

    /// Whether the caller was refused, a backend is down, or the service is put together wrongly.
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

    /// A stable word that programs can tell the refusal by. Uniform for keys that are unknown, revoked or expired.
    pub fn code(&self) -> &str {
        self.more().and_then(|more| more.code.as_deref()).unwrap_or_else(|| self.kind.code())
    }

    /// A sentence that people can read. As uniform as the code.
    pub fn detail(&self) -> &str {
        self.more().and_then(|more| more.detail.as_deref()).unwrap_or_else(|| self.kind.detail())
    }

    /// A sentence for the log only; empty if the kind says it all.
    pub fn log_detail(&self) -> &str {
        self.more().map_or("", |more| &more.log_detail)
    }

    /// The scopes that are missing, space-separated.
    pub fn scope(&self) -> Option<&str> {
        self.more()?.scope.as_deref()
    }

    /// How long the caller should wait before trying again, in whole seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        self.more()?.retry_after
    }

    /// What the limiter decided, if a limit refused.
    pub fn decision(&self) -> Option<&Decision> {
        self.more()?.decision.as_ref()
    }

    fn saying(kind: DenialKind, more: More) -> Self {
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
    /// For the log: the precise reason and what the log may know.
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
