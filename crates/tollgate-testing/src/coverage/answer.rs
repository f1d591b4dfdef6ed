//! What an answer says about its route.

use std::fmt;

use http::{Response, StatusCode};
use tollgate::{Denial, DenialKind, denial::Outcome};

/// How a route answered a request without a credential.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Answer {
    /// A response that no layer of Tollgate made.
    #[non_exhaustive]
    Response {
        /// Its status.
        status: StatusCode,
        /// Its gRPC status, if that is in its headers.
        grpc_status: Option<u8>,
    },
    /// A refusal of Tollgate, but not for the missing credential.
    Refused(Denial),
    /// The service failed with this error.
    Failed(String),
    /// The service panicked.
    Panicked,
    /// There was no answer within the [`DEADLINE`](super::DEADLINE).
    Pending,
    /// Each usual method is refused with 405 (Method Not Allowed), so the route has another one. See
    /// [`Routes::any`](super::Routes::any).
    NoUsualMethod,
}

/// What one request has shown.
#[derive(Debug)]
pub(super) enum Verdict {
    Guarded,
    Open(Answer),
    Undecided(Answer),
    /// The router has the path, but not for this method.
    NoSuchMethod(Answer),
}

impl Verdict {
    pub(super) fn of<B>(response: &Response<B>) -> Self {
        let Some(denial) = response.extensions().get::<Denial>() else {
            let answer = Answer::Response { status: response.status(), grpc_status: grpc_status(response) };
            return match response.status() {
                StatusCode::METHOD_NOT_ALLOWED => Self::NoSuchMethod(answer),
                _ => Self::Open(answer),
            };
        };
        let answer = || Answer::Refused(denial.clone());
        match denial.kind() {
            DenialKind::CredentialMissing => Self::Guarded,
            DenialKind::RouteUnlisted if denial.allowed_methods().is_some() => Self::NoSuchMethod(answer()),
            // Whether a credential is missing was not asked yet, or cannot be.
            DenialKind::RateLimited | DenialKind::TooManyInFlight => Self::Undecided(answer()),
            kind if kind.outcome() != Outcome::Denied => Self::Undecided(answer()),
            // Perhaps the handler's own refusal. So the route counts as open, although it may be none.
            _ => Self::Open(answer()),
        }
    }
}

fn grpc_status<B>(response: &Response<B>) -> Option<u8> {
    response.headers().get("grpc-status")?.to_str().ok()?.parse().ok()
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Response { status, grpc_status } => {
                let begin = match *status {
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                        "no layer of Tollgate made its answer,"
                    }
                    _ => "it answers with",
                };
                write!(f, "{begin} {status}")?;
                grpc_status.map_or(Ok(()), |code| write!(f, ", gRPC status {code}"))
            }
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
            Self::NoUsualMethod => {
                f.write_str("it has none of the usual methods. List it with its method: `Routes::route`.")
            }
        }
    }
}
