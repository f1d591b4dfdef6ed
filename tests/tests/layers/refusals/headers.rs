//! The headers of refusals, and the headers that stop shared caches from serving one caller's response to another.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, request};
use tests::suite::{Inner, Reply, erase, get, send, with_key};
use tollgate::{
    CredentialLayer, Denial, DenialKind, Principal, RequestIdLayer, ScopeLayer, Tollgate, VerifyLayer,
    respond::{Json, Problem, Respond},
    scope::{Requirement, scope},
    verify::CredentialSource,
};
use tower::{Layer as _, ServiceBuilder};

use super::{Refuse, every_denial, refusing};

#[tokio::test]
async fn each_kind_has_its_status_and_challenge() {
    use DenialKind::*;
    const NONE_PRESENTED: &str = r#"Bearer realm="api""#;
    const INVALID_TOKEN: &str = r#"Bearer realm="api",error="invalid_token""#;
    const INVALID_REQUEST: &str = r#"Bearer realm="api",error="invalid_request""#;
    const INSUFFICIENT: &str = r#"Bearer realm="api",error="insufficient_scope",scope="jobs:read jobs:list""#;
    for denial in every_denial() {
        let (status, challenge) = match denial.kind() {
            CredentialMissing | CredentialEmpty => (401, NONE_PRESENTED),
            CredentialMalformed | KeyUnknown | KeyRevoked | KeyExpired | WrongEnvironment
            | NetworkNotAllowed => (401, INVALID_TOKEN),
            CredentialRepeated | CredentialConflicting => (400, INVALID_REQUEST),
            ScopeMissing => (403, INSUFFICIENT),
            TenantSuspended | EntitlementInactive | TierTooLow | Forbidden => (403, ""),
            RouteUnlisted => (404, ""),
            CreditsExhausted => (402, ""),
            RateLimited => (429, ""),
            Unavailable => (503, ""),
            Misconfigured => (500, ""),
            other => panic!("a row for {other:?}"),
        };
        let kind = denial.kind();
        let reply = send(&mut refusing(denial, None), with_key("tok")).await;
        assert_eq!(
            (reply.status().as_u16(), &*reply.header("www-authenticate")),
            (status, challenge),
            "{kind:?}"
        );
        assert_eq!(reply.header("cache-control"), "private, no-store", "{kind:?}");
        assert_eq!(
            reply.header("retry-after"),
            if status == 429 { "21" } else { "" },
            "{kind:?}, rounded up"
        );
        assert_eq!(reply.kind(), Some(kind));
    }
}

#[tokio::test]
async fn a_realm_is_quoted_and_inherited() {
    for (realm, challenge) in [
        ("jobs", r#"Bearer realm="jobs""#),
        (r#"the "best" \ api"#, r#"Bearer realm="the \"best\" \\ api""#),
        ("", r#"Bearer realm="""#),
        ("two\nlines", "Bearer"),
    ] {
        let inside = CredentialLayer::new();
        let reply =
            send(&mut erase(inside.clone().with_realm(realm).layer(Inner::new())), get("/", &[])).await;
        assert_eq!(reply.header("www-authenticate"), challenge);
        let outside =
            ServiceBuilder::new().layer(tollgate::RequestIdLayer::new().with_realm(realm)).layer(inside);
        let reply = send(&mut erase(outside.service(Inner::new())), get("/", &[])).await;
        assert_eq!(reply.header("www-authenticate"), challenge, "set on an outer layer");
    }
}

#[tokio::test]
async fn a_401_has_a_challenge_even_if_the_responder_sets_the_status() {
    for denial in every_denial() {
        let kind = denial.kind();
        let responder = Json::new(|_| serde_json::json!({})).with_status(|_| StatusCode::UNAUTHORIZED);
        let reply = send(&mut refusing(denial, Some(Arc::new(responder))), with_key("tok")).await;
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
        // RFC 9110 section 15.5.2 requires it.
        assert!(reply.header("www-authenticate").starts_with("Bearer"), "{kind:?}");
    }
}

const START: &str = r#"Bearer realm="api",error="insufficient_scope""#;

#[tokio::test]
async fn a_challenge_names_the_scopes_or_omits_the_parameter() {
    let challenge = async |requirement: Requirement| {
        let keys = tests::suite::Directory::default().with("tok", Principal::new("ada"));
        let layers = (CredentialLayer::new(), VerifyLayer::new(keys), ScopeLayer::new(requirement).unwrap());
        send(&mut erase(layers.layer(Inner::new())), with_key("tok")).await.header("www-authenticate")
    };
    assert_eq!(challenge(scope("a") & (scope("b") | scope("c"))).await, format!(r#"{START},scope="a b c""#));
    // RFC 6750 section 3: the parameter has at least one scope.
    assert_eq!(challenge(Requirement::any_of([] as [Requirement; 0])).await, START);
}

/// A responder that sets every header itself.
struct Own;

impl Respond for Own {
    fn respond(&self, _denial: &Denial, _request: &mut request::Parts) -> Response<Bytes> {
        let builder = Response::builder().status(StatusCode::TOO_MANY_REQUESTS);
        let builder = builder.header("www-authenticate", "Custom").header("retry-after", "3600");
        builder.header("cache-control", "no-cache").body(Bytes::from("own")).unwrap()
    }
}

#[tokio::test]
async fn the_headers_of_a_responder_are_kept() {
    for denial in every_denial() {
        let responder = Arc::new(Own);
        let request = get("/", &[("authorization", "Bearer tok")]);
        let reply = send(&mut refusing(denial, Some(responder)), request).await;
        assert_eq!(reply.header("www-authenticate"), "Custom");
        assert_eq!(reply.header("retry-after"), "3600");
        assert_eq!(reply.header("cache-control"), "no-cache");
        assert_eq!(reply.body(), "own");
    }
}

/// All headers, sorted by name.
fn sorted(reply: &Reply) -> Vec<(String, HeaderValue)> {
    let mut headers: Vec<_> =
        reply.headers().iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    headers.sort_by(|(one, _), (other, _)| one.cmp(other));
    headers
}

/// The default problem, with one more header.
struct ProblemWithMore;

impl Respond for ProblemWithMore {
    fn respond(&self, denial: &Denial, request: &mut request::Parts) -> Response<Bytes> {
        let mut response = Problem::new().respond(denial, request);
        response.headers_mut().insert("x-more", HeaderValue::from_static("more"));
        response
    }
}

#[tokio::test]
async fn a_custom_responder_gets_the_same_headers_as_the_default_one() {
    let requests: [fn() -> Request<String>; 4] = [
        || get("/", &[("authorization", "Bearer tok"), ("x-request-id", "abc-1")]),
        || get("/", &[("x-api-key", "tok"), ("x-request-id", "abc-2")]),
        || get("/?key=tok", &[("x-request-id", "abc-3")]),
        || get("/", &[("x-request-id", "abc-4")]),
    ];
    let replies = async |denial: &Denial, responder: Option<Arc<dyn Respond>>| {
        let mut all = Vec::new();
        for is_optional in [false, true] {
            let credential = CredentialLayer::from_sources([
                CredentialSource::Bearer,
                CredentialSource::Header(HeaderName::from_static("x-api-key")),
                CredentialSource::DangerousQuery("key"),
            ])
            .unwrap();
            let builder = Tollgate::builder()
                .request_id(RequestIdLayer::new())
                .credential(if is_optional { credential.with_anonymous() } else { credential })
                .verify(Refuse(denial.clone()))
                .scope(scope("jobs:read"));
            let builder = match responder.clone() {
                Some(responder) => builder.responder(responder),
                None => builder,
            };
            let mut stack = erase(builder.build().unwrap().layer(Inner::new()));
            for request in requests {
                all.push(sorted(&send(&mut stack, request()).await));
            }
        }
        all
    };
    for denial in every_denial() {
        let mut expected = replies(&denial, Some(Arc::new(ProblemWithMore))).await;
        for headers in &mut expected {
            headers.retain(|(name, _)| name != "x-more");
        }
        assert_eq!(replies(&denial, None).await, expected, "{denial:?}");
        assert_eq!(replies(&denial, Some(Arc::new(Problem::new()))).await, expected, "{denial:?}");
    }
}

#[tokio::test]
async fn the_request_id_wins_over_a_refusal_header_of_the_same_name() {
    for name in ["cache-control", "www-authenticate", "content-type"] {
        let stack = Tollgate::builder()
            .request_id(RequestIdLayer::new().with_header(HeaderName::from_static(name)))
            .credential(CredentialLayer::new())
            .verify(Refuse(Denial::new(DenialKind::KeyUnknown)));
        let mut stack = erase(stack.build().unwrap().layer(Inner::new()));
        let request = get("/", &[("authorization", "Bearer tok"), (name, "abc-1")]);
        let reply = send(&mut stack, request).await;
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(reply.header(name), "abc-1");
        assert_eq!(reply.header("vary"), "authorization");
    }
}

/// The `Cache-Control` and `Vary` of an allowed response.
async fn caching(layer: CredentialLayer, inner: Inner, request: Request<String>) -> (String, String) {
    let reply = send(&mut erase(layer.layer(inner)), request).await;
    assert_eq!(reply.status(), StatusCode::OK);
    (reply.header("cache-control"), reply.header("vary"))
}

fn pair(cache_control: &str, vary: &str) -> (String, String) {
    (cache_control.to_owned(), vary.to_owned())
}

#[tokio::test]
async fn shared_caches_keep_callers_separate() {
    let layer = CredentialLayer::new;
    let bearer = || get("/", &[("authorization", "Bearer tok")]);
    let key = || get("/", &[("x-api-key", "tok")]);
    let both = || get("/", &[("authorization", "Bearer tok"), ("x-api-key", "tok")]);

    assert_eq!(
        caching(layer(), Inner::new(), bearer()).await,
        pair("", ""),
        "RFC 9111 section 3.5 protects it"
    );
    assert_eq!(caching(layer(), Inner::new(), key()).await, pair("private, no-store", "x-api-key"));
    assert_eq!(caching(layer(), Inner::new(), both()).await, pair("", ""), "protected by Authorization");
    assert_eq!(caching(layer().with_anonymous(), Inner::new(), bearer()).await, pair("", ""));
    assert_eq!(
        caching(layer().with_anonymous(), Inner::new(), key()).await,
        pair("private, no-store", "x-api-key")
    );
    let anonymous = caching(layer().with_anonymous(), Inner::new(), get("/", &[])).await;
    assert_eq!(
        anonymous,
        pair("", "authorization, x-api-key"),
        "an anonymous response is not for callers with a key"
    );

    let query = CredentialLayer::from_sources([CredentialSource::DangerousQuery("key")]).unwrap();
    assert_eq!(
        caching(query.clone(), Inner::new(), get("/?key=tok", &[])).await,
        pair("private, no-store", "")
    );
    assert_eq!(caching(query.with_anonymous(), Inner::new(), get("/", &[])).await, pair("", ""));
    let removed = layer().with_removal();
    assert_eq!(caching(removed, Inner::new(), key()).await, pair("private, no-store", "x-api-key"));
}

#[tokio::test]
async fn shared_caches_keep_callers_separate_even_if_the_service_allows_caching() {
    let inner = || {
        Inner::answering(|_| {
            let builder =
                Response::builder().header("cache-control", "public, max-age=60").header("vary", "accept");
            Ok(builder.body(String::new()).unwrap())
        })
    };
    let key = get("/", &[("x-api-key", "tok")]);
    assert_eq!(
        caching(CredentialLayer::new(), inner(), key).await,
        pair("private, max-age=60", "accept | x-api-key"),
        "shared caches do not protect this header, and many ignore Vary; the caller's own cache may keep it"
    );
    let bearer = get("/", &[("authorization", "Bearer tok")]);
    assert_eq!(
        caching(CredentialLayer::new(), inner(), bearer).await,
        pair("public, max-age=60", "accept | authorization"),
        "`public` lets a cache store it (RFC 9111 section 3.5)"
    );
    let anonymous = get("/", &[]);
    assert_eq!(
        caching(CredentialLayer::new().with_anonymous(), inner(), anonymous).await,
        pair("public, max-age=60", "accept | authorization, x-api-key")
    );
}

#[tokio::test]
async fn a_preflight_gets_no_caching_headers() {
    let mut preflight =
        get("/", &[("origin", "https://a.example"), ("access-control-request-method", "GET")]);
    *preflight.method_mut() = http::Method::OPTIONS;
    assert_eq!(
        caching(CredentialLayer::new().dangerous_preflights(), Inner::new(), preflight).await,
        pair("", "")
    );
}

#[tokio::test]
async fn every_invalid_key_gets_the_same_response() {
    use tests::suite::at;
    use tollgate::{Environment, KeyFormat, KeyVerifier, MemoryKeys, clock::ManualClock};

    let (format, keys) = (KeyFormat::new("sk").unwrap(), MemoryKeys::new());
    let issue = |id: &str, environment: Environment| {
        let principal =
            Principal::new(id).with_tenant("acme").with_expiry(at(if id == "expired" { 0 } else { 100 }));
        keys.issue(&format, environment, principal).unwrap().expose_secret().to_owned()
    };
    let good = issue("good", Environment::Live);
    let rotated = issue("rotated", Environment::Live);
    issue("rotated", Environment::Live);
    let revoked = issue("revoked", Environment::Live);
    assert!(keys.revoke("revoked"));
    let mut wrong_checksum = good.clone();
    wrong_checksum.replace_range(good.len() - 1.., if good.ends_with('x') { "y" } else { "x" });
    let bad = [
        ("unknown", format.generate(Environment::Live).unwrap().expose_secret().to_owned()),
        ("revoked", revoked),
        ("rotated", rotated),
        ("expired", issue("expired", Environment::Live)),
        ("another environment", issue("elsewhere", Environment::Test)),
        ("a wrong checksum", wrong_checksum),
        ("too short", "sk_live_abc".to_owned()),
        ("another prefix", good.replace("sk_", "pk_")),
        ("not a key", "hello".to_owned()),
        ("a secret of another service", "ghp_0123456789".to_owned()),
    ];

    let verify = VerifyLayer::new(KeyVerifier::new(format, keys)).with_environment(Environment::Live);
    let clock = ManualClock::at(at(50));
    let layers = (
        RequestIdLayer::new().with_clock(clock.clone()),
        CredentialLayer::new().with_clock(clock.clone()),
        verify.with_clock(clock),
    );
    let mut stack = erase(layers.layer(Inner::new()));
    assert_eq!(send(&mut stack, with_key(&good)).await.status(), StatusCode::OK);
    for place in ["authorization", "x-api-key"] {
        let mut seen = Vec::new();
        for (name, key) in &bad {
            let value = if place == "authorization" { format!("Bearer {key}") } else { key.clone() };
            let reply = send(&mut stack, get("/", &[(place, &value)])).await;
            seen.push((*name, visible(&reply)));
        }
        for (name, response) in &seen {
            assert_eq!(*response, seen[0].1, "{name} and {} have different responses", seen[0].0);
        }
    }
}

/// Everything that a caller sees, without the request ID.
fn visible(reply: &Reply) -> (StatusCode, Vec<(HeaderName, HeaderValue)>, String) {
    let id = reply.header("x-request-id");
    assert!(!id.is_empty() && reply.body().contains(&id));
    let headers = reply.headers().iter().filter(|(name, _)| *name != "x-request-id");
    let headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
    (reply.status(), headers, reply.body().replace(&id, "ID"))
}
