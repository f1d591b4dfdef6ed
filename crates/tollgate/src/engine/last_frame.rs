//! What a stream is, and the frame that ends it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{CONTENT_TYPE, TE},
    request,
};
use http_body::Frame;
use tollgate_core::{denial::Denial, respond::Respond as _};

use super::refusal::answer;
use crate::respond::{Grpc, GrpcKind};

/// A response that is ended with its caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stream {
    Grpc(GrpcKind),
    Events,
}

impl Stream {
    /// By the content type of a response.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        if let Some(kind) = GrpcKind::of_content_type(headers) {
            return Some(Self::Grpc(kind));
        }
        let media_type = headers.get(CONTENT_TYPE)?.as_bytes().split(|byte| *byte == b';').next()?;
        media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream").then_some(Self::Events)
    }

    /// Whether this data is the status of a handler, with which a gRPC-Web stream ends: one frame of trailers, and all of it. Data that
    /// only begins like one is the rest of a message that was passed on in parts.
    pub(super) fn is_status(self, data: &impl Buf) -> bool {
        let (start, len) = (data.chunk(), data.remaining());
        match self {
            Self::Grpc(GrpcKind::GrpcWeb) => trailers_len(start).is_some_and(|frame_len| frame_len == len),
            Self::Grpc(GrpcKind::GrpcWebText) => {
                let decoded = start.get(..8).and_then(|text| STANDARD.decode(text).ok());
                let frame_len = decoded.and_then(|start| trailers_len(&start));
                frame_len.is_some_and(|frame_len| base64::encoded_len(frame_len, true) == Some(len))
            }
            Self::Grpc(GrpcKind::Grpc) | Self::Events => false,
        }
    }

    /// The frame that ends the stream: the status of the refusal, as the open response writes it. `head` is that of its request, with the
    /// content type of the response.
    pub(super) fn last_frame(self, denial: &Denial, head: &mut request::Parts) -> Option<Frame<Bytes>> {
        match self {
            Self::Grpc(GrpcKind::Grpc) => Some(Frame::trailers(trailers(denial, head))),
            Self::Grpc(kind) => Some(Frame::data(last_data(kind, denial, head))),
            Self::Events => None,
        }
    }
}

/// The length of the frame that begins so, if it is a frame of trailers: PROTOCOL-WEB, "Message framing".
fn trailers_len(start: &[u8]) -> Option<usize> {
    let &[flags, a, b, c, d, ..] = start else { return None };
    let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    if flags & 0x80 == 0 { None } else { len.checked_add(5) }
}

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The trailers of a gRPC stream: the fields of gRPC in the refusal, which is Trailers-Only. Most other headers have no meaning in trailers
/// (RFC 9110 section 6.5.1).
fn trailers(denial: &Denial, head: &mut request::Parts) -> HeaderMap {
    let mut headers = answer(denial, head).into_parts().0.headers;
    if !headers.contains_key(&GRPC_STATUS) {
        // The responder does not know gRPC, but the caller does.
        headers = grpc_answer(denial, head).into_parts().0.headers;
    }
    let fields = headers.iter().filter(|(name, _)| name.as_str().starts_with("grpc-"));
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The last data of a gRPC-Web stream: the body of the refusal.
fn last_data(kind: GrpcKind, denial: &Denial, head: &mut request::Parts) -> Bytes {
    let refusal = answer(denial, head);
    if GrpcKind::of_content_type(refusal.headers()) == Some(kind) {
        return refusal.into_body();
    }
    // The responder does not know gRPC-Web, or writes it in another way than the open response.
    grpc_answer(denial, head).into_body()
}

/// The answer of [`Grpc`] to a request that certainly is gRPC, or gRPC-Web: its head has the content type of the open response.
fn grpc_answer(denial: &Denial, head: &mut request::Parts) -> http::Response<Bytes> {
    head.method = Method::POST;
    head.version = Version::HTTP_2;
    head.headers.insert(TE, HeaderValue::from_static("trailers"));
    Grpc::new().respond(denial, head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(content_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))])
    }

    #[test]
    fn streams_are_recognized_by_their_content_type() {
        for (content_type, expected) in [
            ("application/grpc", Some(Stream::Grpc(GrpcKind::Grpc))),
            ("application/grpc+proto", Some(Stream::Grpc(GrpcKind::Grpc))),
            ("application/grpc-web", Some(Stream::Grpc(GrpcKind::GrpcWeb))),
            ("application/grpc-web-text+proto;charset=utf-8", Some(Stream::Grpc(GrpcKind::GrpcWebText))),
            ("text/event-stream", Some(Stream::Events)),
            ("Text/Event-Stream ; charset=utf-8", Some(Stream::Events)),
            ("application/grpcx", None),
            ("text/event-streams", None),
            ("application/json", None),
            ("", None),
        ] {
            assert_eq!(Stream::of(&headers(content_type)), expected, "{content_type}");
        }
        assert_eq!(Stream::of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_status_is_one_whole_frame_of_trailers() {
        let (web, text) = (Stream::Grpc(GrpcKind::GrpcWeb), Stream::Grpc(GrpcKind::GrpcWebText));
        let status = b"\x80\0\0\0\x10grpc-status: 0\r\n";
        for (frame, expected) in [
            (&status[..], true),
            (b"\x81\0\0\0\x01x", true),
            (b"\x80\0\0\0\0", true),
            (b"\0\0\0\0\x01x", false),
            (b"\x80\0\0\0\x01xy", false),
            (b"\x80\0\0\0\x02x", false),
            (b"\x80\0\0\0", false),
            (b"", false),
        ] {
            assert_eq!(web.is_status(&frame), expected, "{frame:?}");
            assert_eq!(text.is_status(&STANDARD.encode(frame).as_bytes()), expected, "{frame:?}");
        }
        assert!(!web.is_status(&STANDARD.encode(status).as_bytes()) && !text.is_status(&&status[..]));
        for other in [Stream::Grpc(GrpcKind::Grpc), Stream::Events] {
            assert!(!other.is_status(&&status[..]));
        }
    }
}
