//! An RFC 9457 problem.

use bytes::Bytes;
use http::{HeaderValue, Response, header::CONTENT_TYPE, request};
use serde_json::json;
use tollgate_core::{Denial, DenialKind, Respond};

use crate::{Passage, RequestId};

/// Answers with an RFC 9457 problem: `application/problem+json` with `type`, `title`, `status`, `detail`, the stable `code`,
/// and the request's identifier as `request_id`.
///
/// The `type` is `about:blank`, whose title is the status' own phrase (section 4.2.1), but for limits, which have a
/// registered type; with [`with_type_base`](Self::with_type_base) it is a page of yours for each code.
///
/// ```
/// use tollgate::{CredentialLayer, respond::Problem};
///
/// let layer = CredentialLayer::new()
///     .with_responder(Problem::new().with_type_base("https://docs.example.com/errors/"));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Problem {
    type_base: Option<&'static str>,
}

/// Registered by draft-ietf-httpapi-ratelimit-headers.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

impl Problem {
    /// Problems of the type `about:blank`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Problems whose type is this text followed by their code.
    pub fn with_type_base(mut self, type_base: &'static str) -> Self {
        self.type_base = Some(type_base);
        self
    }

    fn type_of(self, denial: &Denial) -> String {
        match (self.type_base, denial.kind()) {
            (Some(base), _) => format!("{base}{}", denial.code()),
            (None, DenialKind::RateLimited) => QUOTA_EXCEEDED.to_owned(),
            (None, _) => "about:blank".to_owned(),
        }
    }
}

impl Respond for Problem {
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        let mut problem = json!({
            "type": self.type_of(denial),
            "status": denial.status().as_u16(),
            "detail": denial.detail(),
            "code": denial.code(),
        });
        let request_id = Passage::of(&request.extensions).and_then(Passage::request_id);
        let optional = [
            ("title", denial.status().canonical_reason()),
            ("request_id", request_id.map(RequestId::as_str)),
        ];
        for (name, value) in optional {
            if let (Some(value), Some(members)) = (value, problem.as_object_mut()) {
                members.insert(name.to_owned(), value.into());
            }
        }
        let mut response = Response::new(Bytes::from(problem.to_string()));
        *response.status_mut() = denial.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}
