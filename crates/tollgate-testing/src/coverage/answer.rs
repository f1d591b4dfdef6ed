//! What an answer says about its route.

use std::fmt;

use http::{Response, StatusCode};
use tollgate::{Denial, DenialKind, denial::Outcome};

/// How a route answered a request without a credential.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Answer {
    /// A response that no layer of Tollgate made.
    Response(StatusCode),
    /// A refusal of Tollgate, but not for the missing credential.
    Refused(Denial),
    /// The service failed with this error.
    Failed(String),
    /// The service panicked.
    Panicked,
    /// There was no answer within the [`DEADLINE`](super::DEADLINE).
    Pending,
}

/// What one request has shown.
#[derive(Debug)]
pub(super) enum Verdict {
    Guarded,
    Open(Answer),
    Undecided(Answer),
    /// The router has the path, but not for this method.
    NoSuchMethod,
}

impl Verdict {
    pub(super) fn of<B>(response: &Response<B>) -> Self {
        let Some(denial) = response.extensions().get::<Denial>() else {
            return match response.status() {
                StatusCode::METHOD_NOT_ALLOWED => Self::NoSuchMethod,
                status => Self::Open(Answer::Response(status)),
            };
        };
        match denial.kind() {
            DenialKind::CredentialMissing => Self::Guarded,
            DenialKind::RouteUnlisted if denial.allowed_methods().is_some() => Self::NoSuchMethod,
            // Whether a credential is missing was not asked yet, or cannot be.
            DenialKind::RateLimited | DenialKind::TooManyInFlight => {
                Self::Undecided(Answer::Refused(denial.clone()))
            }
            kind if kind.outcome() != Outcome::Denied => Self::Undecided(Answer::Refused(denial.clone())),
            // Perhaps the handler's own refusal. So the route counts as open, although it may be none.
            _ => Self::Open(Answer::Refused(denial.clone())),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Response(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) => {
                write!(f, "no layer of Tollgate made its answer, {status}")
            }
            Self::Response(status) => write!(f, "it answers with {status}"),
            Self::Refused(denial) => match denial.outcome() {
                Outcome::Misconfigured => write!(f, "it is refused with `{denial}`. Correct the stack."),
                Outcome::Unavailable => {
                    write!(f, "it is refused with `{denial}`. Start what the stack needs.")
                }
                _ if matches!(denial.kind(), DenialKind::RateLimited | DenialKind::TooManyInFlight) => {
                    write!(f, "it is refused with `{denial}`. Raise the limit in this test.")
                }
                _ => write!(f, "it is refused with `{denial}`, and not for the missing credential"),
            },
            Self::Failed(error) => write!(f, "it fails with `{error}`"),
            Self::Panicked => f.write_str("it panics"),
            Self::Pending => f.write_str("it accepts the request, and does not answer soon"),
        }
    }
}
