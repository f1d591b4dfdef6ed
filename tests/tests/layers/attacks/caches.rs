//! No request makes a cache store a refusal, or serve one caller's response to another.

use std::sync::Arc;

use axum::{Router, routing::any};
use http::{Method, Response, StatusCode};
use tests::{
    hosts::{Api, Connection, How, header, request, serve},
    suite::{Inner, Reply, erase, get, send, with_key},
};
use tollgate::{
    Answer, CredentialLayer, Denial, DenialKind, Principal, Tollgate,
    respond::{Json, Respond},
    verify::{CredentialSource, Verify, VerifyRequest},
};
use tower::Layer as _;

/// The attacker requests a page with the content type of gRPC. A gRPC refusal has status 200, which caches store.
#[tokio::test]
async fn a_grpc_content_type_alone_does_not_turn_a_refusal_into_200() {
    let api = Api::new().with_grpc();
    let server = serve(api.guard(Router::new().route("/jobs", any(async || "jobs")), How::Built)).await;
    for (mut caller, methods) in [
        (Connection::http1(server).await, &[Method::GET, Method::POST, Method::HEAD][..]),
        (Connection::http2(server).await, &[Method::GET, Method::PUT, Method::HEAD]),
    ] {
        for method in methods {
            let mut attack = request(method.clone(), "/jobs", None);
            attack.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            let refused = caller.send(attack).await;
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{method}");
            assert_eq!(header(refused.headers(), "cache-control"), "private, no-store");
        }
    }
    // A real gRPC refusal is a 200, and is marked as not cacheable.
    let mut call = request(Method::POST, "/jobs", None);
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let refused = Connection::http2(server).await.send(call).await;
    assert_eq!((refused.status(), header(refused.headers(), "grpc-status")), (StatusCode::OK, "16"));
    assert_eq!(header(refused.headers(), "cache-control"), "private, no-store");
}

/// Refuses every request. The credential sets the status.
struct UnderStatus;

impl Verify for UnderStatus {
    fn verify(&self, presented: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        let status = status(presented.credential.expose_secret());
        Answer::Now(Err(Denial::new(DenialKind::KeyUnknown).with_status(status)))
    }
}

fn status(text: &str) -> StatusCode {
    StatusCode::from_bytes(text.as_bytes()).unwrap()
}

/// A verifier refuses with a status that caches store, clients follow, or proxies take for permission.
#[tokio::test]
async fn a_denial_is_never_sent_with_a_success_or_redirect_status() {
    let mut stack = erase(Tollgate::builder().verify(UnderStatus).build().unwrap().layer(Inner::new()));
    for no_error in ["100", "101", "103", "200", "204", "301", "304", "308", "399", "600", "999"] {
        let reply = send(&mut stack, with_key(no_error)).await;
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED, "instead of {no_error}");
        expect_no_cache(&reply);
    }
    for error in ["400", "404", "410", "499", "500", "599"] {
        let reply = send(&mut stack, with_key(error)).await;
        assert_eq!(reply.status().as_str(), error);
        expect_no_cache(&reply);
    }
}

/// The same attack, with the status set by the responder.
#[tokio::test]
async fn a_responder_cannot_send_a_denial_with_a_success_or_redirect_status() {
    let empty = |_: &Denial| serde_json::json!({});
    let responders: [Box<dyn Respond>; 4] = [
        Box::new(Json::new(empty).with_status(|_| StatusCode::OK)),
        Box::new(Json::new(empty).with_status(|_| StatusCode::SWITCHING_PROTOCOLS)),
        Box::new(Json::new(empty).with_status(|_| StatusCode::PERMANENT_REDIRECT)),
        Box::new(Json::new(empty).with_status(|_| status("999"))),
    ];
    for responder in responders {
        let layer = CredentialLayer::new().with_responder(Arc::<dyn Respond>::from(responder));
        let reply = send(&mut erase(layer.layer(Inner::new())), get("/jobs", &[])).await;
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
        expect_no_cache(&reply);
    }
}

fn expect_no_cache(reply: &Reply) {
    assert_eq!(reply.header("cache-control"), "private, no-store", "{reply:?}");
}

/// The attacker asks a cache, without a key, for a response that it stored for another caller's `X-API-Key`.
#[tokio::test]
async fn a_response_to_an_api_key_header_is_private_even_if_the_service_says_otherwise() {
    const OURS: &str = "private, no-store";

    for (lines, expected) in [
        (&[][..], OURS),
        // The caller's own cache may keep it, a shared one may not.
        (&["max-age=60"], "private, max-age=60"),
        (&["MAX-AGE=60, must-revalidate"], "private, MAX-AGE=60, must-revalidate"),
        (&["max-age=\"60\""], OURS),
        (&["no-cache"], "private, no-cache"),
        (&["public", "max-age=60"], "private, max-age=60"),
        (&["Public, s-maxage=600, , max-age=60,"], "private, max-age=60"),
        (
            &["max-age=60, ext=\"a, public\\\", b\", immutable"],
            "private, max-age=60, ext=\"a, public\\\", b\", immutable",
        ),
        // `private="name"` keeps only that header from being stored, not the response (RFC 9111 section 5.2.2.7).
        (&["private=\"set-cookie\", max-age=60"], "private, max-age=60"),
        (&["private=\"set-cookie, x\""], OURS),
        (&["no-cache=\"set-cookie\""], OURS),
        // It does not say how long the caller's own cache may keep it.
        (&["s-maxage=60, must-revalidate"], OURS),
        (&["public"], OURS),
        (&["x-private, xno-store"], OURS),
        (&[""], OURS),
        // Text within quotes is no directive. After an open quote, no directive is trusted.
        (&["max-age=60, ext=\"a, private, b\""], "private, max-age=60, ext=\"a, private, b\""),
        (&["ext=\"a, no-store, b\""], OURS),
        (&["private, ext=\"max-age=60"], OURS),
        (&["max-age=60, ext=\"", "private"], OURS),
        (&["private, max-age=60"], "private, max-age=60"),
        (&["max-age=60 ,\tPrivate"], "max-age=60 ,\tPrivate"),
        (&["max-age=60", "no-store"], "max-age=60 | no-store"),
    ] {
        let inner = Inner::answering(move |_| {
            let response = Response::builder();
            let response =
                lines.iter().fold(response, |response, line| response.header("cache-control", *line));
            Ok(response.body(String::new()).unwrap())
        });
        let request = get("/jobs", &[("x-api-key", "tok")]);
        let reply = send(&mut erase(CredentialLayer::new().layer(inner)), request).await;
        assert_eq!(reply.header("cache-control"), expected, "{lines:?}");
        assert_eq!(reply.header("vary"), "x-api-key");
    }
}

/// No cache may store a URL with a key in it, not even the caller's own.
#[tokio::test]
async fn a_response_to_a_key_in_the_query_is_not_stored() {
    for (line, expected) in
        [("max-age=60", "private, no-store"), ("private, max-age=60", "private, max-age=60")]
    {
        let inner = Inner::answering(move |_| {
            Ok(Response::builder().header("cache-control", line).body(String::new()).unwrap())
        });
        let layer = CredentialLayer::from_sources([CredentialSource::DangerousQuery("key")]).unwrap();
        let reply = send(&mut erase(layer.layer(inner)), get("/jobs?key=tok", &[])).await;
        assert_eq!(
            (reply.header("cache-control"), reply.header("vary")),
            (expected.to_owned(), String::new())
        );
    }
}
