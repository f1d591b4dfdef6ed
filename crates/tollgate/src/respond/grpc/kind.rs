//! Which protocol of gRPC a message speaks.

use http::{
    HeaderMap, HeaderValue, Method, Version,
    header::{CONTENT_TYPE, TE},
    request,
};
use tollgate_core::request::RequestHead;

/// The protocols of gRPC: what a request speaks, and so how a status is written into its response.
///
/// ```
/// use http::{Request, header::CONTENT_TYPE};
/// use tollgate::respond::GrpcKind;
///
/// let request = Request::post("/jobs.Jobs/List").header(CONTENT_TYPE, "application/grpc-web+proto").body(())?;
/// assert_eq!(GrpcKind::of(&request.into_parts().0), Some(GrpcKind::GrpcWeb));
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GrpcKind {
    /// gRPC over HTTP/2: `application/grpc`. The status is in the trailers.
    Grpc,
    /// gRPC-Web, for browsers, which cannot read trailers: `application/grpc-web`. The status is the last frame of the body.
    GrpcWeb,
    /// gRPC-Web in base64: `application/grpc-web-text`.
    GrpcWebText,
}

impl GrpcKind {
    /// What a request speaks; `None` for any other request.
    ///
    /// It is a POST with the content type of gRPC or gRPC-Web. gRPC-Web works over every version of HTTP. gRPC needs HTTP/2 as well, or
    /// `TE: trailers`: so a layer that translates gRPC-Web, such as tonic-web's, marks a request that came over HTTP/1.
    pub fn of(request: &request::Parts) -> Option<Self> {
        Self::of_head(request.into())
    }

    pub(crate) fn of_head(request: RequestHead<'_>) -> Option<Self> {
        let kind = Self::of_content_type(request.headers)?;
        let has_trailers = || {
            request.version == Version::HTTP_2 || request.headers.get(TE).is_some_and(|te| te == "trailers")
        };
        let is_possible = kind != Self::Grpc || has_trailers();
        (is_possible && *request.method == Method::POST).then_some(kind)
    }

    /// What the content type of a request or a response says.
    pub(crate) fn of_content_type(headers: &HeaderMap) -> Option<Self> {
        Self::of_media_type(headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes)?)
    }

    /// Lower case only, as tonic and the other servers of gRPC compare.
    pub(super) fn of_media_type(text: &[u8]) -> Option<Self> {
        let rest = text.strip_prefix(b"application/grpc")?;
        let (kind, rest) = match rest.strip_prefix(b"-web") {
            None => (Self::Grpc, rest),
            Some(rest) => match rest.strip_prefix(b"-text") {
                None => (Self::GrpcWeb, rest),
                Some(rest) => (Self::GrpcWebText, rest),
            },
        };
        // A message format, parameters, or nothing.
        matches!(rest.first(), None | Some(b'+' | b';' | b' ')).then_some(kind)
    }
}

/// Whether a request is gRPC (gRPC over HTTP/2, "Requests"), and not gRPC-Web: see [`GrpcKind::of`], which recognizes both.
pub fn is_grpc(request: &request::Parts) -> bool {
    GrpcKind::of(request) == Some(GrpcKind::Grpc)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(version: Version, content_type: &str) -> request::Parts {
        let request = Request::post("/service/Method").version(version).header(CONTENT_TYPE, content_type);
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn recognises_the_kind_by_its_content_type() {
        for (content_type, expected) in [
            ("application/grpc", Some(GrpcKind::Grpc)),
            ("application/grpc+proto", Some(GrpcKind::Grpc)),
            ("application/grpc;foo=bar", Some(GrpcKind::Grpc)),
            ("application/grpc ; foo=bar", Some(GrpcKind::Grpc)),
            ("application/grpc-web", Some(GrpcKind::GrpcWeb)),
            ("application/grpc-web+json", Some(GrpcKind::GrpcWeb)),
            ("application/grpc-web;charset=utf-8", Some(GrpcKind::GrpcWeb)),
            ("application/grpc-web-text", Some(GrpcKind::GrpcWebText)),
            ("application/grpc-web-text+proto", Some(GrpcKind::GrpcWebText)),
            ("application/grpc-webs", None),
            ("application/grpc-web-texts", None),
            ("application/grpc-other", None),
            ("application/grpcs", None),
            ("Application/grpc", None),
            ("application/json", None),
            ("", None),
        ] {
            assert_eq!(GrpcKind::of(&head(Version::HTTP_2, content_type)), expected, "{content_type}");
        }
    }

    #[test]
    fn only_grpc_needs_http_2_and_both_need_a_post() {
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2, Version::HTTP_3] {
            assert_eq!(is_grpc(&head(version, "application/grpc")), version == Version::HTTP_2);
            assert!(!is_grpc(&head(version, "application/grpc-web")));
            let mut web = head(version, "application/grpc-web");
            assert_eq!(GrpcKind::of(&web), Some(GrpcKind::GrpcWeb));
            web.method = Method::GET;
            assert_eq!(GrpcKind::of(&web), None);
        }
        let mut translated = head(Version::HTTP_11, "application/grpc");
        translated.headers.insert(TE, HeaderValue::from_static("trailers"));
        assert!(is_grpc(&translated));
        let mut get = head(Version::HTTP_2, "application/grpc");
        get.method = Method::GET;
        assert!(!is_grpc(&get));
        get.headers.clear();
        assert!(!is_grpc(&get));
    }
}
