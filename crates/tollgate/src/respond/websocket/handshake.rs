//! The opening handshake of a WebSocket, in both forms.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
    request,
};
use hyper::ext::Protocol;
use sha1::{Digest, Sha1};

/// A valid opening handshake.
pub(super) enum Handshake<'r> {
    /// HTTP/1.1 Upgrade (RFC 6455 section 4.2.1), with the caller's key.
    Upgrade { key: &'r HeaderValue },
    /// HTTP/2 extended CONNECT (RFC 8441 section 5), which has no key.
    Connect,
}

impl<'r> Handshake<'r> {
    /// The handshake of a request; `None` if it is not a valid one.
    pub(super) fn of(request: &'r request::Parts) -> Option<Self> {
        if single(&request.headers, &SEC_WEBSOCKET_VERSION)? != "13" {
            return None;
        }
        if request.method == Method::CONNECT {
            let protocol = request.extensions.get::<Protocol>()?;
            return (protocol.as_str() == "websocket").then_some(Self::Connect);
        }
        let has = |name, token: &str| {
            listed(&request.headers, name).any(|listed| listed.eq_ignore_ascii_case(token.as_bytes()))
        };
        let is_upgrade = request.method == Method::GET
            && request.version == Version::HTTP_11
            && has(&CONNECTION, "upgrade")
            && has(&UPGRADE, "websocket");
        let key = single(&request.headers, &SEC_WEBSOCKET_KEY)?;
        let is_nonce = STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16);
        (is_upgrade && is_nonce).then_some(Self::Upgrade { key })
    }

    /// The response that accepts it.
    pub(super) fn accept(&self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        if let Self::Upgrade { key } = self {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            // Base64 is always a header value.
            if let Ok(proof) = HeaderValue::try_from(proof(key)) {
                headers.insert(SEC_WEBSOCKET_ACCEPT, proof);
            }
        }
        response
    }
}

/// The value that proves to the caller that the server understood the handshake (RFC 6455 section 4.2.2, item 5.4).
fn proof(key: &HeaderValue) -> String {
    let digest =
        Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    STANDARD.encode(digest)
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}

/// The elements of a header that is a comma-separated list, over all its lines (RFC 9110 section 5.6.1).
pub(super) fn listed<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
pub(super) mod tests {
    use http::{Request, header::HOST};

    use super::*;

    /// The example of RFC 6455 section 1.3.
    pub(in super::super) fn upgrade_request() -> request::Parts {
        let request = Request::builder()
            .uri("/chat")
            .header(HOST, "server.example.com")
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "Upgrade")
            .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
            .header(SEC_WEBSOCKET_VERSION, "13");
        request.body(()).unwrap().into_parts().0
    }

    fn connect_request() -> request::Parts {
        let request = Request::builder()
            .method(Method::CONNECT)
            .version(Version::HTTP_2)
            .uri("https://server.example.com/chat")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .extension(Protocol::from_static("websocket"));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn accepts_an_upgrade_with_the_proof_of_the_rfc() {
        let request = upgrade_request();
        let response = Handshake::of(&request).unwrap().accept();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()[CONNECTION], "upgrade");
        assert_eq!(response.headers()[UPGRADE], "websocket");
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn accepts_an_extended_connect_without_any_header() {
        let request = connect_request();
        let response = Handshake::of(&request).unwrap().accept();
        assert_eq!(response.status(), 200);
        assert!(response.headers().is_empty());
    }

    #[test]
    fn finds_tokens_in_any_case_and_in_lists() {
        let mut request = upgrade_request();
        request.headers.insert(CONNECTION, HeaderValue::from_static("keep-alive , UPGRADE"));
        request.headers.insert(UPGRADE, HeaderValue::from_static("h2c"));
        request.headers.append(UPGRADE, HeaderValue::from_static("WebSocket"));
        assert!(Handshake::of(&request).is_some());
    }

    #[test]
    fn rejects_invalid_handshakes() {
        type Change = fn(&mut request::Parts);
        let changes: [(&str, Change); 11] = [
            ("method", |request| request.method = Method::POST),
            ("HTTP/1.0", |request| request.version = Version::HTTP_10),
            ("HTTP/2", |request| request.version = Version::HTTP_2),
            ("no version", |request| drop(request.headers.remove(SEC_WEBSOCKET_VERSION))),
            ("old version", |request| put(request, SEC_WEBSOCKET_VERSION, "8")),
            ("two keys", |request| {
                request
                    .headers
                    .append(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
            }),
            ("no key", |request| drop(request.headers.remove(SEC_WEBSOCKET_KEY))),
            ("short key", |request| put(request, SEC_WEBSOCKET_KEY, "c2hvcnQ=")),
            ("other protocol", |request| put(request, UPGRADE, "websockets")),
            ("no upgrade", |request| put(request, CONNECTION, "keep-alive")),
            ("plain CONNECT", |request| request.method = Method::CONNECT),
        ];
        for (name, change) in changes {
            let mut request = upgrade_request();
            change(&mut request);
            assert!(Handshake::of(&request).is_none(), "{name}");
        }

        let mut request = connect_request();
        request.extensions.insert(Protocol::from_static("connect-udp"));
        assert!(Handshake::of(&request).is_none());
        let mut request = connect_request();
        request.headers.clear();
        assert!(Handshake::of(&request).is_none());
    }

    fn put(request: &mut request::Parts, name: HeaderName, value: &'static str) {
        request.headers.insert(name, HeaderValue::from_static(value));
    }
}
