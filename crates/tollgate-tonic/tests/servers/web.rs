//! gRPC-Web, by hand: over HTTP/1 and HTTP/2, binary and text, with tonic-web outside and inside the stack.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::{Status, metadata::MetadataValue, transport::Server};
use tonic_types::StatusExt as _;
use tonic_web::GrpcWebLayer;

use super::{serve, tollgate, within};

const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";

/// Sends an empty message to `Check`.
async fn send(server: SocketAddr, version: Version, content_type: &str, key: &str) -> Response<Bytes> {
    let message: &[u8] = if content_type == TEXT { b"AAAAAAA=" } else { b"\0\0\0\0\0" };
    let request = Request::post(format!("http://{server}/grpc.health.v1.Health/Check"))
        .header("host", "market.example.com")
        .header(CONTENT_TYPE, content_type)
        .header("accept", content_type)
        .header("x-api-key", key)
        .body(Full::new(Bytes::copy_from_slice(message)))
        .unwrap();
    let io = TokioIo::new(TcpStream::connect(server).await.unwrap());
    let response = if version == Version::HTTP_2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        within(sender.send_request(request)).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        within(sender.send_request(request)).await.unwrap()
    };
    assert_eq!(response.version(), version);
    let (head, body) = response.into_parts();
    Response::from_parts(head, within(body.collect()).await.unwrap().to_bytes())
}

/// The frames of a body: their flags and their content.
fn frames(response: &Response<Bytes>) -> Vec<(u8, Bytes)> {
    let mut body = match response.headers()[CONTENT_TYPE].to_str().unwrap() {
        BINARY => response.body().clone(),
        TEXT => decode_text(response.body()),
        other => panic!("no content type of gRPC-Web: {other}"),
    };
    let mut frames = Vec::new();
    while !body.is_empty() {
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap());
        let flag = body[0];
        let mut frame = body.split_to(5 + usize::try_from(length).unwrap());
        frames.push((flag, frame.split_off(5)));
    }
    frames
}

/// Each frame is encoded for itself, with its own padding.
fn decode_text(text: &[u8]) -> Bytes {
    let mut decoded = Vec::new();
    for chunk in text.chunks(4) {
        assert_eq!(chunk.len(), 4, "padded");
        let mut bits = 0u32;
        for &character in chunk {
            let value = match character {
                b'A'..=b'Z' => character - b'A',
                b'a'..=b'z' => character - b'a' + 26,
                b'0'..=b'9' => character - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => 0,
                other => panic!("no character of base64: {other}"),
            };
            bits = bits << 6 | u32::from(value);
        }
        let padding = chunk.iter().rev().take_while(|&&character| character == b'=').count();
        decoded.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
    }
    decoded.into()
}

/// The status of a response: in its last frame, or in its headers if it has no frame.
fn status(response: &Response<Bytes>) -> Status {
    assert_eq!(response.status(), 200);
    let frames = frames(response);
    let Some((flag, lines)) = frames.last() else {
        return Status::from_header_map(response.headers()).unwrap();
    };
    assert_eq!(*flag, 0x80);
    let mut trailers = HeaderMap::new();
    for line in std::str::from_utf8(lines).unwrap().split_terminator("\r\n") {
        let (name, value) = line.split_once(':').unwrap();
        trailers
            .insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.trim().parse().unwrap());
    }
    Status::from_header_map(&trailers).unwrap()
}

async fn check(server: SocketAddr, in_body: bool) {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for content_type in [BINARY, TEXT] {
            let refused = send(server, version, content_type, "invented").await;
            assert_eq!(refused.headers()[CONTENT_TYPE], content_type);
            assert_eq!(frames(&refused).len(), usize::from(in_body));
            assert_eq!(refused.headers().contains_key("grpc-status"), !in_body);
            assert!(refused.headers().contains_key("x-request-id"));
            assert_eq!(refused.headers()["cache-control"], "private, no-store");
            let status = status(&refused);
            assert_eq!(
                (status.code(), status.message()),
                (tonic::Code::Unauthenticated, "The credential is not valid.")
            );
            assert_eq!(status.get_details_error_info().unwrap().reason, "invalid_credential");

            let admitted = send(server, version, content_type, "good").await;
            assert!(admitted.headers().contains_key("x-ratelimit-remaining"));
            let flags: Vec<_> = frames(&admitted).into_iter().map(|(flag, _)| flag).collect();
            assert_eq!(flags, [0, 0x80], "{version:?} {content_type}");
        }
    }
}

#[tokio::test]
async fn a_stack_outside_refuses_in_the_body() {
    let server = Server::builder().accept_http1(true).layer(tollgate(60)).layer(GrpcWebLayer::new());
    check(serve!(server), true).await;
}

#[tokio::test]
async fn a_stack_inside_refuses_in_the_headers() {
    let server = Server::builder().accept_http1(true).layer(GrpcWebLayer::new()).layer(tollgate(60));
    check(serve!(server), false).await;
}

#[tokio::test]
async fn a_used_up_limit_is_seen_with_its_wait() {
    let server = Server::builder().accept_http1(true).layer(tollgate(0)).layer(GrpcWebLayer::new());
    let server = serve!(server);
    let status = status(&send(server, Version::HTTP_11, TEXT, "good").await);
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms"), Some(&MetadataValue::from_static("-1")));
    assert_eq!(status.get_details_error_info().unwrap().metadata["limit"], "0");
}

/// A response with status 200 looks like a success to programs that read HTTP statuses.
#[tokio::test]
async fn a_stack_without_the_responder_never_answers_200_to_a_refusal() {
    let tollgate = tollgate::Tollgate::builder().verify(super::Keys).build().unwrap();
    let server = serve!(Server::builder().accept_http1(true).layer(tollgate));
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for content_type in [BINARY, TEXT, "application/grpc-web", "application/grpc", "application/json"] {
            let refused = send(server, version, content_type, "invented").await;
            assert_eq!(refused.status(), 401, "{version:?} {content_type}");
            assert_eq!(refused.headers()[CONTENT_TYPE], "application/problem+json");
            assert!(!refused.headers().contains_key("grpc-status"));
        }
    }
}

#[tokio::test]
async fn each_kind_of_request_gets_its_own_kind_of_refusal() {
    let server = serve!(Server::builder().accept_http1(true).layer(tollgate(60)).layer(GrpcWebLayer::new()));
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let plain = send(server, version, "application/json", "invented").await;
        assert_eq!(
            (plain.status().as_u16(), &plain.headers()[CONTENT_TYPE]),
            (401, &"application/problem+json".parse().unwrap())
        );
        let web = send(server, version, BINARY, "invented").await;
        assert_eq!((web.status().as_u16(), &web.headers()[CONTENT_TYPE]), (200, &BINARY.parse().unwrap()));
        let grpc = send(server, version, "application/grpc", "invented").await;
        let is_grpc = version == Version::HTTP_2;
        assert_eq!(grpc.headers().contains_key("grpc-status"), is_grpc, "{version:?}");
        assert_eq!(grpc.status(), if is_grpc { 200 } else { 401 });
    }
}
