//! A gRPC status, without a gRPC library.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Response, header::CONTENT_TYPE, request};
use tollgate_core::{denial::Denial, respond::Respond};

use super::Problem;

mod kind;
mod status;
mod web;

pub use kind::{GrpcKind, is_grpc};
use status::Fields;

/// Answers gRPC and gRPC-Web requests with a gRPC status. gRPC clients misread plain HTTP refusals: they treat a 429 as `UNAVAILABLE`
/// and retry immediately.
///
/// | request | response: HTTP 200, and |
/// |---|---|
/// | gRPC | *Trailers-Only* (gRPC over HTTP/2, "Responses"): an empty body, and the status in the headers |
/// | gRPC-Web, binary or text | the status in a trailer frame, which is the whole body (PROTOCOL-WEB) |
/// | any other | that of another responder |
///
/// # The status
///
/// | field | value |
/// |---|---|
/// | `grpc-status` | [`Denial::grpc_code`] |
/// | `grpc-message` | [`Denial::detail`], percent-encoded |
/// | `grpc-retry-pushback-ms` | how long clients with a retry policy wait, in milliseconds (gRFC A6): [`Denial::retry_after`] |
/// | `grpc-status-details-bin` | what [`with_details`](Self::with_details) has set, if anything |
///
/// The pushback is -1, which means *do not retry*, for used-up credits, also with a `retry_after`, and for a request that its limit never
/// admits: a client's wait does not help there, but clients usually retry their code, `RESOURCE_EXHAUSTED`. It is also -1 for a wait of more than 24 days, the longest that
/// the field can hold.
///
/// The fields together take at most 7 KiB, because clients accept 8 KiB of metadata by default. A message is cut after 2 KiB at a
/// character. The details get the room that is left; those that do not fit are left out.
///
/// # Examples
///
/// ```
/// use tollgate::{RateLimitLayer, PerWindow, respond::Grpc};
///
/// let layer = RateLimitLayer::new(60.per_minute()).with_responder(Grpc::new());
/// ```
///
/// For a service that also has HTTP routes, with errors in its own format:
///
/// ```
/// use tollgate::respond::{Grpc, Json};
///
/// let responder = Grpc::otherwise(Json::new(|denial| serde_json::json!({ "error": denial.code() })));
/// ```
///
/// # Security
///
/// A stack refuses with a gRPC status only if it has this responder, even if a request claims to be gRPC: programs that read HTTP
/// statuses would count such a refusal, whose status is 200, as a success. With this responder, **any caller gets status 200 for a refusal by
/// claiming to be gRPC**: a gRPC-Web request is an ordinary POST of HTTP/1 with another content type. Count the refusals of such a stack by
/// the log, or choose by path with [`ByRequest`](super::ByRequest).
#[derive(Clone)]
pub struct Grpc {
    details: Option<Arc<dyn StatusDetails>>,
    otherwise: Arc<dyn Respond>,
}

impl Grpc {
    /// Answers requests that are not gRPC with a problem.
    pub fn new() -> Self {
        Self::otherwise(Problem::new())
    }

    /// Answers requests that are [neither gRPC nor gRPC-Web](GrpcKind::of) by `responder`.
    pub fn otherwise(responder: impl Respond) -> Self {
        Self { details: None, otherwise: Arc::new(responder) }
    }

    /// Adds details to each status: an encoded `google.rpc.Status`, sent as `grpc-status-details-bin`. Default: none.
    ///
    /// The crate `tollgate-tonic` has details with the standard messages of Google's APIs: `Details`. With a closure:
    ///
    /// ```
    /// use bytes::Bytes;
    /// use tollgate::{Denial, respond::Grpc};
    ///
    /// /// A `google.rpc.Status` that has only its code.
    /// fn code_only(denial: &Denial) -> Option<Bytes> {
    ///     Some(Bytes::copy_from_slice(&[0x08, denial.grpc_code()]))
    /// }
    ///
    /// let responder = Grpc::new().with_details(code_only);
    /// ```
    pub fn with_details(mut self, details: impl StatusDetails) -> Self {
        self.details = Some(Arc::new(details));
        self
    }

    /// The message of the status that refuses with `denial`, before it is encoded: the denial's detail, cut at a character so that it
    /// takes at most 2 KiB encoded. A `google.rpc.Status` has the same message as its gRPC status.
    ///
    /// ```
    /// use tollgate::{Denial, DenialKind, respond::Grpc};
    ///
    /// assert_eq!(Grpc::message(&Denial::new(DenialKind::Forbidden)), "This is not allowed.");
    /// ```
    pub fn message(denial: &Denial) -> &str {
        status::message(denial)
    }
}

impl Default for Grpc {
    fn default() -> Self {
        Self::new()
    }
}

/// Encodes the details of a gRPC status. Functions and closures do: see [`Grpc::with_details`].
pub trait StatusDetails: Send + Sync + 'static {
    /// The encoded `google.rpc.Status` of a refusal; `None` for no details. What it has must be what callers may see:
    /// neither the denial's [kind](Denial::kind) nor its [sentence for the log](Denial::log_detail).
    ///
    /// `room`: how many bytes fit. Longer details are left out, so give shorter ones.
    fn encode(&self, denial: &Denial, room: usize) -> Option<Bytes>;
}

impl<F> StatusDetails for F
where
    F: Fn(&Denial) -> Option<Bytes> + Send + Sync + 'static,
{
    fn encode(&self, denial: &Denial, _room: usize) -> Option<Bytes> {
        self(denial)
    }
}

impl Respond for Grpc {
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        let Some(kind) = GrpcKind::of(request) else {
            return self.otherwise.respond(denial, request);
        };
        let details = |room| self.details.as_ref()?.encode(denial, room);
        let fields = Fields::new(denial, details).into_iter();
        match kind {
            GrpcKind::Grpc => {
                let mut response = Response::new(Bytes::new());
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.extend(fields);
                response
            }
            GrpcKind::GrpcWeb | GrpcKind::GrpcWebText => web::response(fields, request),
        }
    }
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grpc(..)")
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Version};
    use tollgate_core::denial::DenialKind;

    use super::*;

    fn head(version: Version, content_type: &str) -> request::Parts {
        let request = Request::post("/service/Method").version(version).header(CONTENT_TYPE, content_type);
        request.body(()).unwrap().into_parts().0
    }

    /// Answers with the same details for each denial.
    fn with_details() -> Grpc {
        Grpc::new().with_details(|_: &Denial| Some(Bytes::from_static(b"\x08\x10")))
    }

    #[test]
    fn a_grpc_request_is_answered_trailers_only() {
        let denial = Denial::new(DenialKind::CreditsExhausted).with_detail("100 % used.");
        let mut request = head(Version::HTTP_2, "application/grpc");
        let response = with_details().respond(&denial, &mut request);
        assert_eq!(response.status(), 200);
        let headers = response.headers();
        assert_eq!(headers[CONTENT_TYPE], "application/grpc");
        assert_eq!(headers["grpc-status"], "8");
        assert_eq!(headers["grpc-message"], "100 %25 used.");
        assert_eq!(headers["grpc-retry-pushback-ms"], "-1");
        assert_eq!(headers["grpc-status-details-bin"], "CBA");
        assert_eq!(headers.len(), 5);
        assert!(response.body().is_empty());

        let plain = Grpc::new().respond(&denial, &mut request);
        assert!(!plain.headers().contains_key("grpc-status-details-bin"), "none by default");
    }

    #[test]
    fn a_grpc_web_request_is_answered_in_the_body() {
        let denial = Denial::new(DenialKind::KeyUnknown);
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let mut request = head(version, "application/grpc-web+proto");
            let response = with_details().respond(&denial, &mut request);
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc-web+proto");
            assert_eq!(response.headers().len(), 1, "the status is in the body alone");
            let lines = "grpc-status: 16\r\ngrpc-message: The credential is not valid.\r\ngrpc-status-details-bin: CBA\r\n";
            let frame = [&[0x80, 0, 0, 0, u8::try_from(lines.len()).unwrap()], lines.as_bytes()].concat();
            assert_eq!(response.body(), &frame);
        }
    }

    #[test]
    fn any_other_request_is_answered_by_the_other_responder() {
        let denial = Denial::new(DenialKind::KeyUnknown);
        for (version, content_type) in
            [(Version::HTTP_11, "application/grpc"), (Version::HTTP_2, "application/json")]
        {
            let response = with_details().respond(&denial, &mut head(version, content_type));
            assert_eq!(response.status(), 401);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        }
    }
}
