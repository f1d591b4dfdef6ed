//! What the examples of the guides share: a guarded stack, and requests to a router.
//!
//! Each code block of a guide is a test.
#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use std::sync::Arc;

use axum::{Router, body::Body, routing::get};
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use tollgate::{
    Answer, ConfigurationError, Denial, DenialKind, Environment, KeyVerifier, PerWindow as _, Principal,
    Scopes, Tollgate,
    clock::Clock,
    respond::Grpc,
    scope,
    verify::{Verify, VerifyRequest},
};
use tower::ServiceExt as _;

use crate::suite::Directory;

/// A key that [`tollgate()`] accepts.
pub const KEY: &str = "a-key";

struct OneKey(Arc<Principal>);

impl Verify for OneKey {
    fn verify(&self, request: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        Answer::Now(match request.credential.expose_secret() {
            KEY => Ok(Arc::clone(&self.0)),
            _ => Err(Denial::new(DenialKind::KeyUnknown)),
        })
    }
}

/// A verifier of [`KEY`], whose scope is `jobs:read`.
pub fn one_key() -> impl Verify {
    let scopes = Scopes::new(["jobs:read"]).expect("a valid scope");
    OneKey(Arc::new(Principal::new("key_1").with_tenant("acme").with_scopes(scopes)))
}

/// A stack that accepts [`KEY`] a thousand times per hour, and that also serves gRPC. The scope of the key is `jobs:read`.
pub fn tollgate() -> Tollgate {
    let builder = Tollgate::builder().verify(one_key()).rate_limit(1_000.per_hour());
    builder.responder(Grpc::new()).build().expect("a valid stack")
}

/// The encoded descriptor set of the proto of the example `grpc`.
pub fn descriptors() -> Vec<u8> {
    let protos = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/proto");
    let mut compiler = protox::Compiler::new([protos]).expect("a folder");
    compiler.include_imports(true).open_file("market.proto").expect("a valid proto");
    compiler.encode_file_descriptor_set()
}

/// A verifier of two keys without scopes: `live-key` and `test-key`.
pub fn people() -> Directory {
    let person = |environment| Principal::new("key_1").with_environment(environment);
    Directory::default()
        .with("live-key", person(Environment::Live))
        .with("test-key", person(Environment::Test))
}

/// A stack that accepts both keys of [`people`].
pub fn of_both_environments() -> Tollgate {
    Tollgate::builder().verify(people()).build().expect("a valid stack")
}

/// The application of the guide on testing.
///
/// # Errors
/// Never.
pub fn app(keys: KeyVerifier, clock: impl Clock) -> Result<Router, ConfigurationError> {
    let builder = Tollgate::builder().verify(keys).rate_limit(2.per_minute()).scope(scope("jobs:read"));
    Ok(Router::new().route("/jobs", get(async || "jobs")).layer(builder.clock(clock).build()?))
}

/// The response to a request such as `GET /jobs`, with or without [`KEY`].
pub fn send(app: &Router, request: &str, key: Option<&str>) -> Response<Body> {
    send_request(app, self::request(request, key).body(Body::empty()).expect("a valid request"))
}

/// The status of the response to a request such as `GET /jobs` with this key.
pub fn status(app: &Router, request: &str, key: &str) -> u16 {
    send(app, request, Some(key)).status().as_u16()
}

/// The body of the response to a request such as `GET /jobs` with this key.
pub fn body(app: &Router, request: &str, key: &str) -> String {
    let body = block_on(send(app, request, Some(key)).into_body().collect()).expect("a body").to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

/// The status of the response to a request such as `GET /jobs` with [`KEY`].
pub fn with_key(app: &Router, request: &str) -> u16 {
    status(app, request, KEY)
}

/// The status of the response to a request such as `GET /jobs` without a key.
pub fn without_key(app: &Router, request: &str) -> u16 {
    send(app, request, None).status().as_u16()
}

/// The gRPC status of a call without content, such as `/grpc.health.v1.Health/Check`: from the headers, or from the trailers.
pub fn grpc_status(app: &Router, path: &str, key: Option<&str>) -> String {
    let request = request(&format!("POST {path}"), key).version(http::Version::HTTP_2);
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    // One message of length 0, not compressed.
    let response = send_request(app, request.body(Body::from(&[0_u8; 5][..])).expect("a valid request"));
    let (head, body) = response.into_parts();
    let body = block_on(body.collect()).expect("a body");
    let status = head.headers.get("grpc-status").or_else(|| body.trailers()?.get("grpc-status"));
    status.and_then(|status| status.to_str().ok()).expect("a gRPC status").to_owned()
}

fn request(line: &str, key: Option<&str>) -> http::request::Builder {
    let (method, path) = line.split_once(' ').expect("a method and a path");
    let request = Request::builder().method(Method::try_from(method).expect("a method")).uri(path);
    match key {
        Some(key) => request.header("authorization", format!("Bearer {key}")),
        None => request,
    }
}

fn send_request(app: &Router, request: Request<Body>) -> Response<Body> {
    match block_on(app.clone().oneshot(request)) {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Runs a future to its end.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}
