//! An RFC 9457 problem.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Response, header::CONTENT_TYPE, request};
use tollgate_core::{Denial, DenialKind, Respond};

use crate::Passage;

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

    fn type_of(self, denial: &Denial) -> Cow<'static, str> {
        match (self.type_base, denial.kind()) {
            (Some(base), _) => Cow::Owned(format!("{base}{}", denial.code())),
            (None, DenialKind::RateLimited) => Cow::Borrowed(QUOTA_EXCEEDED),
            (None, _) => Cow::Borrowed("about:blank"),
        }
    }
}

impl Respond for Problem {
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        let request_id = Passage::of(&request.extensions).and_then(Passage::request_id);
        // Member by member: a tree of values would cost a dozen allocations, and refusals come in floods.
        let mut body = Members::default();
        body.text("code", denial.code());
        body.text("detail", denial.detail());
        if let Some(request_id) = request_id {
            body.text("request_id", request_id.as_str());
        }
        body.number("status", denial.status().as_u16());
        if let Some(title) = denial.status().canonical_reason() {
            body.text("title", title);
        }
        body.text("type", &self.type_of(denial));
        let mut response = Response::new(body.finish());
        *response.status_mut() = denial.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

/// The members of a JSON object, written one after the other.
struct Members(Vec<u8>);

impl Members {
    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        // Writing text into memory does not fail.
        let _ = serde_json::to_writer(&mut self.0, value);
    }

    fn number(&mut self, name: &str, value: u16) {
        self.name(name);
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn name(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        let _ = serde_json::to_writer(&mut self.0, name);
        self.0.push(b':');
    }

    fn finish(mut self) -> Bytes {
        self.0.push(b'}');
        Bytes::from(self.0)
    }
}

impl Default for Members {
    fn default() -> Self {
        Self(Vec::with_capacity(256))
    }
}
