//! gRPC-Web by hand over HTTP/1.1, binary and text, on the same port as gRPC and JSON.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, Response, body::Incoming};
use tokio::time::timeout;

use crate::{
    CHAT, GET_PRICE, WATCH_PRICES,
    http::{Connection, revoke},
    python::Client,
    service::{PATIENCE, Service},
};

pub(crate) const BINARY: &str = "application/grpc-web+proto";
pub(crate) const TEXT: &str = "application/grpc-web-text+proto";

/// `{"symbol": "MSFT"}`, and the price of it.
const REQUEST: &[u8] = b"\x0a\x04MSFT";
const PRICE: &[u8] = b"\x0a\x04MSFT\x12\x06428.03";

/// A complete response.
pub(crate) struct Answer {
    headers: hyper::HeaderMap,
    messages: Vec<Bytes>,
    pub(crate) trailers: HashMap<String, String>,
}

#[tokio::test]
async fn a_call_is_answered() {
    let service = Service::start().await;
    for format in [BINARY, TEXT] {
        let answer = call(&service, format, GET_PRICE, Some("full")).await;
        assert_eq!(answer.headers["content-type"], format);
        assert_eq!(answer.headers["x-ratelimit-limit"], "10000", "initial metadata");
        assert!(answer.headers.contains_key("x-request-id"));
        assert_eq!(answer.messages, [PRICE]);
        assert_eq!(answer.trailers["grpc-status"], "0");
    }
    service.end().await;
}

#[tokio::test]
async fn a_refusal_is_a_trailer_frame() {
    let service = Service::start().await;
    let nothing = "tollgate.demo.v1.Market/Nothing";
    for format in [BINARY, TEXT] {
        for (rpc, key, status, message, reason) in [
            (GET_PRICE, None, "16", "This request needs a credential.", "missing_credential"),
            (GET_PRICE, Some("revoked"), "16", "The credential is not valid.", "invalid_credential"),
            (WATCH_PRICES, Some("revoked"), "16", "The credential is not valid.", "invalid_credential"),
            (GET_PRICE, Some("lapsed"), "7", "This needs an active subscription.", "inactive_entitlement"),
            (GET_PRICE, Some("admin"), "7", "The credential lacks a required scope.", "insufficient_scope"),
            (CHAT, Some("prices_only"), "7", "The credential lacks a required scope.", "alerts:read"),
            (nothing, Some("full"), "12", "This path does not exist.", "not_found"),
        ] {
            let answer = call(&service, format, rpc, key).await;
            assert_refused(&answer, format, status, message, reason);
        }
        let answer = exhausted(&service, format).await;
        assert_refused(&answer, format, "8", "The limit is used up. Retry later.", "rate_limited");
        assert!(answer.trailers["grpc-retry-pushback-ms"].parse::<u64>().unwrap() >= 1_000);
        assert_eq!(answer.headers["x-ratelimit-remaining"], "0");
    }
    service.end().await;
}

#[tokio::test]
async fn an_open_stream_ends_with_a_trailer_frame_when_its_key_is_revoked() {
    let service = Service::start().await;
    for (format, key) in [(BINARY, "full"), (TEXT, "prices_only")] {
        let response = send(&service, format, WATCH_PRICES, Some(key)).await;
        let (head, mut body) = response.into_parts();
        let first = timeout(PATIENCE, body.frame()).await.expect("no message").unwrap().unwrap();
        let mut data = first.into_data().unwrap().to_vec();
        revoke(&service, key).await;
        let rest = timeout(PATIENCE, body.collect()).await.expect("no end").unwrap();
        data.extend_from_slice(&rest.to_bytes());
        let answer = answer(head.headers, &data, format);
        assert_eq!(answer.messages[0], PRICE);
        assert_eq!(answer.trailers["grpc-status"], "16");
        assert_eq!(decoded(&answer.trailers["grpc-message"]), "The credential is not valid.");
        assert!(details(&answer).contains("invalid_credential"));
    }
    service.end().await;
}

#[tokio::test]
async fn each_protocol_has_its_own_kind_of_refusal_on_one_port() {
    let service = Service::start().await;
    let mut client = Client::start(service.address());
    let mut connection = Connection::open(&service).await;

    let grpc = client.call(GET_PRICE, &[]).await;
    assert_eq!((grpc.code(), grpc.details()), ("UNAUTHENTICATED", vec!["ErrorInfo"]));
    let web = call(&service, BINARY, GET_PRICE, None).await;
    assert_eq!(
        (&*web.trailers["grpc-status"], &web.headers["content-type"]),
        ("16", &BINARY.parse().unwrap())
    );
    // The same path, but not gRPC.
    for path in [&format!("/{GET_PRICE}"), "/v1/prices/MSFT"] {
        let json = connection.json(Method::POST, path, None).await;
        assert_eq!(
            (json.status(), &json.body()["code"]),
            (401.try_into().unwrap(), &"missing_credential".into())
        );
        assert_eq!(json.headers()["content-type"], "application/problem+json");
        assert!(!json.headers().contains_key("grpc-status"));
    }
    service.end().await;
}

fn assert_refused(answer: &Answer, format: &str, status: &str, message: &str, detail: &str) {
    assert_eq!(answer.headers["content-type"], format);
    assert!(!answer.headers.contains_key("grpc-status"), "browsers read it from the body");
    assert!(answer.headers.contains_key("x-request-id"));
    assert!(answer.messages.is_empty());
    assert_eq!(answer.trailers["grpc-status"], status);
    assert_eq!(decoded(&answer.trailers["grpc-message"]), message);
    assert!(details(answer).contains(detail), "{detail}");
}

/// The encoded details, in which strings can be found.
fn details(answer: &Answer) -> String {
    let padding = base64::engine::GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    let engine = base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, padding);
    let details = engine.decode(&answer.trailers["grpc-status-details-bin"]).unwrap();
    String::from_utf8_lossy(&details).into_owned()
}

/// Calls until the limit is used up. A new minute may begin in between.
async fn exhausted(service: &Service, format: &str) -> Answer {
    for _ in 0..11 {
        let answer = call(service, format, GET_PRICE, Some("tiny")).await;
        if answer.trailers["grpc-status"] != "0" {
            return answer;
        }
    }
    panic!("the limit is never used up");
}

async fn call(service: &Service, format: &str, rpc: &str, key: Option<&str>) -> Answer {
    complete(send(service, format, rpc, key).await, format).await
}

/// Reads a response to its end.
pub(crate) async fn complete(response: Response<Incoming>, format: &str) -> Answer {
    let (head, body) = response.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("no end").unwrap().to_bytes();
    answer(head.headers, &body, format)
}

/// Opens a call with the credential of this name.
pub(crate) async fn send(
    service: &Service,
    format: &str,
    rpc: &str,
    key: Option<&str>,
) -> Response<Incoming> {
    let mut body = vec![0, 0, 0, 0, u8::try_from(REQUEST.len()).unwrap()];
    body.extend_from_slice(REQUEST);
    if format == TEXT {
        body = STANDARD.encode(body).into();
    }
    let mut headers = vec![("content-type", format), ("accept", format), ("x-grpc-web", "1")];
    headers.extend(key.map(|name| ("x-api-key", service.key(name))));
    let response =
        Connection::open(service).await.send(Method::POST, &format!("/{rpc}"), &headers, body).await;
    assert_eq!(response.status(), 200);
    response
}

/// The frames of a body: a flag, the length, and the content. The last one holds the trailers.
fn answer(headers: hyper::HeaderMap, body: &[u8], format: &str) -> Answer {
    let body = if format == TEXT {
        // Each part of a stream has its own padding.
        body.chunks(4).flat_map(|four| STANDARD.decode(four).unwrap()).collect()
    } else {
        body.to_vec()
    };
    let mut answer = Answer { headers, messages: Vec::new(), trailers: HashMap::new() };
    let mut rest = &body[..];
    while let Some((head, after)) = rest.split_at_checked(5) {
        assert!(answer.trailers.is_empty(), "the trailers are last");
        let length = usize::try_from(u32::from_be_bytes(head[1..].try_into().unwrap())).unwrap();
        let (content, after) = after.split_at(length);
        match head[0] {
            0 => answer.messages.push(Bytes::copy_from_slice(content)),
            0x80 => answer.trailers = lines(content),
            flag => panic!("a frame with the flag {flag}"),
        }
        rest = after;
    }
    assert!(rest.is_empty());
    assert!(!answer.trailers.is_empty(), "a trailer frame");
    answer
}

fn lines(text: &[u8]) -> HashMap<String, String> {
    let lines = std::str::from_utf8(text).unwrap().lines().filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// tonic-web encodes spaces, too.
fn decoded(message: &str) -> String {
    message.replace("%20", " ")
}
