//! gRPC-Web: the status is a frame in the body, because browsers do not show trailers.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response,
    header::{ACCEPT, CONTENT_TYPE},
    request,
};

use super::GrpcKind;

/// The flag of a frame that holds trailers: PROTOCOL-WEB, "Message framing".
const TRAILERS: u8 = 0x80;

/// A response that has only this status.
pub(super) fn response(
    fields: impl Iterator<Item = (HeaderName, HeaderValue)>,
    request: &request::Parts,
) -> Response<Bytes> {
    let format = Format::of_response(&request.headers);
    let frame = trailer_frame(fields);
    let body = if format.is_text { STANDARD.encode(frame).into() } else { frame };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    response
}

/// The status as the last frame of a body: the flag, the length of the rest (big-endian), and lines like headers of HTTP/1.
fn trailer_frame(fields: impl Iterator<Item = (HeaderName, HeaderValue)>) -> Bytes {
    let mut lines = Vec::with_capacity(256);
    for (name, value) in fields {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(5 + lines.len());
    frame.put_u8(TRAILERS);
    // A status is much shorter than the 4 GiB of a frame.
    frame.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    frame.put_slice(&lines);
    frame.freeze()
}

/// How the messages of a body are written.
#[derive(Clone, Copy)]
struct Format {
    is_text: bool,
    is_json: bool,
}

impl Format {
    /// The format that the client of a request reads. `Accept` chooses between binary and text (PROTOCOL-WEB, "Text-encoded
    /// streams"); a client that names neither gets the format in which it writes.
    fn of_response(request: &HeaderMap) -> Self {
        let accepted = request
            .get_all(ACCEPT)
            .into_iter()
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
        let sent = request.get_all(CONTENT_TYPE).into_iter().map(HeaderValue::as_bytes);
        let mut formats = accepted.chain(sent).filter_map(|media_type| Self::parse(media_type.trim_ascii()));
        formats.next().unwrap_or(Self { is_text: false, is_json: false })
    }

    fn parse(media_type: &[u8]) -> Option<Self> {
        let is_text = match GrpcKind::of_media_type(media_type)? {
            GrpcKind::Grpc => return None,
            GrpcKind::GrpcWeb => false,
            GrpcKind::GrpcWebText => true,
        };
        let mut parts = media_type.split(|byte| matches!(byte, b';' | b' '));
        let is_json = parts.next().is_some_and(|name| name.ends_with(b"+json"));
        Some(Self { is_text, is_json })
    }

    /// Always with the format of the messages, as tonic-web writes it. Some clients read no other response.
    fn media_type(self) -> &'static str {
        match (self.is_text, self.is_json) {
            (false, false) => "application/grpc-web+proto",
            (false, true) => "application/grpc-web+json",
            (true, false) => "application/grpc-web-text+proto",
            (true, true) => "application/grpc-web-text+json",
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn fields() -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("16"));
        let message = (HeaderName::from_static("grpc-message"), HeaderValue::from_static("No."));
        [status, message].into_iter()
    }

    fn answer(headers: &[(HeaderName, &str)]) -> Response<Bytes> {
        let mut request = Request::post("/service/Method");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        response(fields(), &request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_status_is_one_frame() {
        let response = answer(&[(CONTENT_TYPE, "application/grpc-web")]);
        assert_eq!(response.status(), 200);
        assert_eq!(&response.body()[..], b"\x80\0\0\0\x24grpc-status: 16\r\ngrpc-message: No.\r\n");
        let text = answer(&[(CONTENT_TYPE, "application/grpc-web-text")]);
        assert_eq!(
            &text.body()[..],
            b"gAAAACRncnBjLXN0YXR1czogMTYNCmdycGMtbWVzc2FnZTogTm8uDQo=",
            "with padding"
        );
        assert_eq!(STANDARD.decode(text.body()).unwrap(), &response.body()[..]);
    }

    #[test]
    fn the_content_type_is_what_the_client_reads() {
        let (binary, text) = ("application/grpc-web+proto", "application/grpc-web-text+proto");
        for (content_type, accept, expected) in [
            ("application/grpc-web", None, binary),
            ("application/grpc-web+proto", Some("*/*"), binary),
            ("application/grpc-web+json", None, "application/grpc-web+json"),
            ("application/grpc-web+json; charset=utf-8", None, "application/grpc-web+json"),
            ("application/grpc-web+thrift", None, binary),
            ("application/grpc-web-text", None, text),
            ("application/grpc-web-text+json", None, "application/grpc-web-text+json"),
            // What the official client for browsers sends.
            ("application/grpc-web-text", Some("application/grpc-web-text"), text),
            ("application/grpc-web+proto", Some("application/grpc-web-text"), text),
            ("application/grpc-web-text", Some("application/grpc-web+proto"), binary),
            ("application/grpc-web-text", Some("*/*, application/grpc-web"), binary),
            ("application/grpc-web-text", Some("application/grpc"), text),
        ] {
            let mut headers = vec![(CONTENT_TYPE, content_type)];
            headers.extend(accept.map(|accept| (ACCEPT, accept)));
            assert_eq!(answer(&headers).headers()[CONTENT_TYPE], expected, "{headers:?}");
        }
    }
}
