//! Keys and tokens on one stack, from the request to the principal that its handler sees.

use std::sync::Arc;

use http::{HeaderName, Request, Response, StatusCode};
use serde_json::json;
use tollgate::{Environment, Principal, RequestContext, Tollgate, verify::Dispatch};
use tollgate_core::{denial::DenialKind, store::EndReason};
use tollgate_jwt::{JwtVerifier, Revocations};
use tollgate_testing::{TestAuthority, TestKeys, assert_denied, bearer, midnight};
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};

use crate::support::{authority, issuer, seconds};

const ENVIRONMENT: &str = "x-environment";

#[tokio::test]
async fn keys_ignore_the_environment_header_and_a_revoked_session_ends_its_streams() {
    let ((authority, clock), keys, revocations) = (authority().await, TestKeys::new(), Revocations::new());
    let tokens = JwtVerifier::new(issuer(&authority))
        .with_revocations(&revocations)
        .with_environment_header(HeaderName::from_static(ENVIRONMENT), Environment::Live);
    let verifier = Dispatch::new().with_prefix("sk_", keys.verifier()).unwrap().with_jwt(tokens).unwrap();
    let gate = Tollgate::builder().verify(verifier).clock(clock).build().unwrap();
    // The handler of a stream keeps the principal, and waits for its end.
    let handler = service_fn(async |request: Request<String>| {
        let caller = RequestContext::of(request.extensions()).and_then(RequestContext::principal).cloned();
        let mut response = Response::new(String::new());
        response.extensions_mut().insert(caller.expect("a principal"));
        Ok::<_, BoxError>(response)
    });
    let app = gate.layer(handler);
    let send = async |credential: http::HeaderValue, environment: &str| {
        let request = Request::get("/stream").header("authorization", credential);
        let request = request.header(ENVIRONMENT, environment).body(String::new()).unwrap();
        app.clone().oneshot(request).await.unwrap()
    };

    let key = keys.mint(Principal::new("key_1").with_environment(Environment::Live));
    for ignored in ["test", "neither"] {
        let response = send(bearer(&key), ignored).await;
        assert_eq!(response.status(), StatusCode::OK);
        let principal = response.extensions().get::<Arc<Principal>>().unwrap();
        assert_eq!((principal.id(), principal.environment()), ("key_1", Some(Environment::Live)));
    }

    let token = authority.mint(json!({"sub": "user_1", "sid": "session_1"}));
    let response = send(TestAuthority::bearer(&token), "test").await;
    let principal = response.extensions().get::<Arc<Principal>>().unwrap();
    assert_eq!((principal.id(), principal.environment()), ("user_1", Some(Environment::Test)));
    assert_denied(&send(TestAuthority::bearer(&token), "neither").await, DenialKind::EnvironmentInvalid);

    let stream = principal.wait_until_ended();
    revocations.revoke_session("session_1", midnight() + seconds(3_700)).unwrap();
    assert_eq!(stream.await, EndReason::Revoked);
    assert_denied(&send(TestAuthority::bearer(&token), "test").await, DenialKind::KeyRevoked);
}
