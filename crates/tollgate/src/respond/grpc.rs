//! A gRPC status, without a gRPC library.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, Version, header::CONTENT_TYPE, request};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tollgate_core::{denial::Denial, respond::Respond};

use super::Problem;

/// Answers gRPC requests with a gRPC status as *Trailers-Only* (gRPC over HTTP/2, "Responses"): HTTP 200, an empty body, and the
/// status in the headers. gRPC clients misread plain HTTP refusals: they treat a 429 as `UNAVAILABLE` and retry immediately.
///
/// Another responder answers all other requests. A stack refuses with a gRPC status only if it has this responder, even if a request
/// claims to be gRPC: programs that read HTTP statuses would count such a refusal, whose status is 200, as a success.
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
#[derive(Clone)]
pub struct Grpc {
    otherwise: Arc<dyn Respond>,
}

impl Grpc {
    /// Answers requests that are not gRPC with a problem.
    pub fn new() -> Self {
        Self::otherwise(Problem::new())
    }

    /// Answers requests that are [not gRPC](is_grpc) by `responder`.
    pub fn otherwise(responder: impl Respond) -> Self {
        Self { otherwise: Arc::new(responder) }
    }
}

impl Default for Grpc {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a request is gRPC (gRPC over HTTP/2, "Requests"): a POST over HTTP/2 with the content type of gRPC. The content
/// type alone is not enough: any caller could then turn a plain refusal into a response with status 200.
pub fn is_grpc(request: &request::Parts) -> bool {
    if request.method != Method::POST || request.version != Version::HTTP_2 {
        return false;
    }
    let content_type = request.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    match content_type.strip_prefix(b"application/grpc") {
        // Accepts `application/grpc`, `application/grpc+proto` and `application/grpc;...`, but not `application/grpc-web`:
        // its clients cannot read trailers.
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';' | b' ')),
        None => false,
    }
}

impl Respond for Grpc {
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        if !is_grpc(request) {
            return self.otherwise.respond(denial, request);
        }
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(u16::from(denial.grpc_code())));
        let message = utf8_percent_encode(denial.detail(), OUTSIDE_MESSAGE).to_string();
        if let Ok(message) = HeaderValue::try_from(message) {
            headers.insert("grpc-message", message);
        }
        response
    }
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grpc(..)")
    }
}

/// The characters that `grpc-message` percent-encodes: all except %x20-24 and %x26-7E.
const OUTSIDE_MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

#[cfg(test)]
mod tests {
    use http::Request;
    use tollgate_core::denial::DenialKind;

    use super::*;

    fn head(content_type: &str) -> request::Parts {
        let request =
            Request::post("/service/Method").version(Version::HTTP_2).header(CONTENT_TYPE, content_type);
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn answers_trailers_only_with_an_encoded_message() {
        let denial = Denial::new(DenialKind::CreditsExhausted).with_detail("100 % used: café\n");
        let response = Grpc::new().respond(&denial, &mut head("application/grpc"));
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "8");
        assert_eq!(response.headers()["grpc-message"], "100 %25 used: caf%C3%A9%0A");
        assert!(response.body().is_empty());
    }

    #[test]
    fn recognises_grpc_by_its_content_type() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;foo=bar", true),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&head(content_type)), expected, "{content_type}");
        }
        let mut get = head("application/grpc");
        get.method = Method::GET;
        assert!(!is_grpc(&get));
        let mut http_1 = head("application/grpc");
        http_1.version = Version::HTTP_11;
        assert!(!is_grpc(&http_1));
    }
}
