//! `sly`: its published contract row by row. Which credentials are accepted, what each scope grants, and how errors look.
//! The files `sly_*` test the rest.

use http::Method;
use serde_json::Value;

use crate::{
    client::{Answer, Client},
    scanr::{NOW, advance},
    service::Service,
};

pub(crate) const SCAN: &str = "/v1/scanner/scan";
pub(crate) const BATCH: &str = "/v1/scanner/batch";
pub(crate) const TESTS: &str = "/v1/scanner/tests";
pub(crate) const BALANCE: &str = "/v1/scanner/credits/balance";
pub(crate) const ROTATE: &str = "/v1/scanner/keys/rotate";

/// The scope, method and path of each endpoint with a scope. `SCAN` stands for an identifier.
const ENDPOINTS: [(&str, Method, &str); 5] = [
    ("scan", Method::POST, SCAN),
    ("batch", Method::POST, BATCH),
    ("tests", Method::POST, TESTS),
    ("read", Method::GET, "/v1/scanner/scans/SCAN"),
    ("read", Method::GET, BALANCE),
];

pub(crate) const INVALID_HEADER: &str = r#"{"error":"Missing or invalid authorization header"}"#;
pub(crate) const INVALID_KEY: &str = r#"{"error":"Invalid scanner API key"}"#;
pub(crate) const INVALID_SESSION: &str = r#"{"error":"Invalid or expired session token"}"#;
const INACTIVE: &str = r#"{"error":"Organization is not active"}"#;

/// The headers of a request.
type Headers<'a> = &'a [(&'a str, &'a str)];

#[tokio::test]
async fn each_credential_of_the_ready_line_does_what_its_name_says() {
    let service = Service::start("sly").await;
    for (name, status, body) in [
        ("live", 200, r#"{"balance":100}"#),
        ("test", 200, r#"{"balance":1000}"#),
        ("read_only", 200, r#"{"balance":1000}"#),
        ("fast", 200, r#"{"balance":1000}"#),
        ("jwt", 200, r#"{"balance":1000}"#),
        ("no_credits", 200, r#"{"balance":0}"#),
        ("revoked", 401, INVALID_KEY),
        ("suspended", 403, INACTIVE),
        ("jwt_expired", 401, INVALID_SESSION),
        ("jwt_forged", 401, INVALID_SESSION),
    ] {
        // Twice, the second time from the cache.
        for _ in 0..2 {
            let answer = Caller::connect(&service, name).await.get(BALANCE).await;
            assert_answer(&answer, status, body, name);
        }
    }
    for name in ["live", "read_only", "fast", "revoked", "suspended", "no_credits"] {
        assert!(service.key(name).starts_with("psk_live_"), "{name}");
    }
    assert!(service.key("test").starts_with("psk_test_"));
    for name in ["jwt", "jwt_expired", "jwt_forged"] {
        assert!(service.key(name).starts_with("eyJ"), "{name}");
    }
    service.end().await;
}

#[tokio::test]
async fn each_endpoint_requires_its_scope() {
    let service = Service::start("sly").await;
    for (name, scopes) in [
        ("live", &["scan", "batch", "read", "tests"][..]),
        ("test", &["scan", "batch", "read", "tests"]),
        ("fast", &["scan", "batch", "read", "tests"]),
        // A session has full scopes, in both environments.
        ("jwt", &["scan", "batch", "read", "tests"]),
        ("read_only", &["read"]),
    ] {
        let mut caller = Caller::connect(&service, name).await;
        // A scan of the caller's own, if it can make one; else that of another key of its organization.
        let creator = if name == "read_only" { "fast" } else { name };
        let id = Caller::connect(&service, creator).await.create(SCAN).await;
        for (scope, method, path) in ENDPOINTS {
            let answer = caller.send(&method, &path.replace("SCAN", &id), "{}").await;
            if scopes.contains(&scope) {
                assert_eq!(answer.status, 200, "{name} at {path}: {answer:?}");
            } else {
                let body = format!(r#"{{"error":"Insufficient scope","required_scope":"{scope}"}}"#);
                assert_answer(&answer, 403, &body, name);
                let challenge =
                    format!(r#"Bearer realm="sly scanner",error="insufficient_scope",scope="{scope}""#);
                assert_eq!(answer.header("www-authenticate"), Some(&*challenge));
            }
        }
    }
    service.end().await;
}

#[tokio::test]
async fn answers_401_to_anything_but_one_valid_bearer_credential() {
    let service = Service::start("sly").await;
    let other_service = Service::start("sly").await;
    let mut client = Client::connect(&service).await;
    let [live, jwt] = ["live", "jwt"].map(|name| service.key(name));
    let bearer = |credential: &str| format!("Bearer {credential}");
    // The last character is part of the checksum.
    let last = if live.ends_with('A') { "B" } else { "A" };
    let bad_checksum = bearer(&format!("{}{last}", &live[..live.len() - 1]));
    let mut parts = jwt.split('.');
    let [header, claims, signature] = [(); 3].map(|()| parts.next().unwrap());
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"; // {"alg":"none","typ":"JWT"}
    let [live_bearer, jwt_bearer, unknown, test_as_live, main_api, other_issuer, unsigned, cut_off, resigned] = [
        bearer(live),
        bearer(jwt),
        bearer(other_service.key("live")),
        bearer(&service.key("test").replace("psk_test_", "psk_live_")),
        bearer(&live.replace("psk_", "pk_")),
        bearer(other_service.key("jwt")),
        bearer(&format!("{none}.{claims}.")),
        bearer(&jwt[..jwt.len() / 2]),
        bearer(&format!("{header}.{claims}.{}", signature.replace(|c: char| c.is_ascii_digit(), "x"))),
    ];
    let [basic, joined, twice_bearer] =
        [format!("Basic {live}"), format!("{live_bearer}, {live_bearer}"), format!("Bearer {live_bearer}")];
    let cases: [(&str, Headers<'_>, &str); 21] = [
        ("missing", &[], INVALID_HEADER),
        ("empty", &[("authorization", "")], INVALID_HEADER),
        ("only a scheme", &[("authorization", "Bearer")], INVALID_HEADER),
        ("without a credential", &[("authorization", "Bearer ")], INVALID_HEADER),
        ("of another scheme", &[("authorization", &basic)], INVALID_HEADER),
        ("without a scheme", &[("authorization", live)], INVALID_HEADER),
        ("not a token", &[("authorization", "Bearer to be or not to be")], INVALID_HEADER),
        ("two schemes", &[("authorization", &twice_bearer)], INVALID_HEADER),
        ("in another header", &[("x-api-key", live)], INVALID_HEADER),
        ("repeated", &[("authorization", &live_bearer), ("authorization", &live_bearer)], INVALID_HEADER),
        ("both", &[("authorization", &live_bearer), ("authorization", &jwt_bearer)], INVALID_HEADER),
        ("joined by a proxy", &[("authorization", &joined)], INVALID_HEADER),
        ("the key of the page", &[("authorization", "Bearer psk_live_xxxxx")], INVALID_KEY),
        ("unknown", &[("authorization", &unknown)], INVALID_KEY),
        ("a wrong checksum", &[("authorization", &bad_checksum)], INVALID_KEY),
        ("a test key as a live one", &[("authorization", &test_as_live)], INVALID_KEY),
        ("a key of the main API", &[("authorization", &main_api)], INVALID_KEY),
        ("of another issuer", &[("authorization", &other_issuer)], INVALID_SESSION),
        ("without a signature", &[("authorization", &unsigned)], INVALID_SESSION),
        ("cut off", &[("authorization", &cut_off)], INVALID_SESSION),
        ("with another signature", &[("authorization", &resigned)], INVALID_SESSION),
    ];
    for (case, headers, body) in cases {
        for (method, path) in [(Method::GET, BALANCE), (Method::POST, SCAN), (Method::GET, "/nowhere")] {
            let answer = client.send_body(method, path, headers, "{}").await;
            assert_answer(&answer, 401, body, case);
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(challenge.starts_with(r#"Bearer realm="sly scanner""#), "{case}: {challenge}");
            assert_no_rate_limit(&answer);
        }
    }
    service.end().await;
    other_service.end().await;
}

#[tokio::test]
async fn a_session_ends_after_15_minutes() {
    let service = Service::start_with("sly", &["--now", NOW]).await;
    let mut jwt = Caller::connect(&service, "jwt").await;
    for (after, status) in [(0, 200), (15 * 60 - 1, 200), (1, 401), (3_600, 401)] {
        advance(&mut jwt.client, after).await;
        let answer = jwt.get(BALANCE).await;
        assert_eq!(answer.status, status, "{after} s later: {answer:?}");
        if status == 401 {
            assert_eq!(answer.body, INVALID_SESSION);
        }
    }
    service.end().await;
}

#[tokio::test]
async fn refuses_a_suspended_organization_on_every_path() {
    let service = Service::start("sly").await;
    let mut suspended = Caller::connect(&service, "suspended").await;
    for (_, method, path) in ENDPOINTS {
        let answer = suspended.send(&method, path, "{}").await;
        assert_answer(&answer, 403, INACTIVE, path);
        assert_no_rate_limit(&answer);
    }
    for path in [ROTATE, "/nowhere"] {
        assert_answer(&suspended.post(path, "{}").await, 403, INACTIVE, path);
    }
    service.end().await;
}

#[tokio::test]
async fn a_scan_is_visible_to_its_organization_only() {
    let service = Service::start("sly").await;
    let mut fast = Caller::connect(&service, "fast").await;
    let mut read_only = Caller::connect(&service, "read_only").await;
    let mut jwt = Caller::connect(&service, "jwt").await;
    let mut live = Caller::connect(&service, "live").await;
    for (path, kind) in [(SCAN, "scan"), (BATCH, "batch"), (TESTS, "test")] {
        let created = fast.post(path, r#"{"domain":"shopify.com"}"#).await;
        assert_eq!(created.status, 200);
        let scan = created.json();
        assert_eq!((&scan["type"], &scan["corpus"]), (&kind.into(), &"production".into()));
        assert_eq!(scan["input"]["domain"], "shopify.com");
        let path = format!("/v1/scanner/scans/{}", scan["id"].as_str().unwrap());
        for caller in [&mut fast, &mut read_only, &mut jwt] {
            assert_eq!(caller.get(&path).await.json(), scan);
        }
        let (theirs, unknown) = (live.get(&path).await, live.get("/v1/scanner/scans/scan_0").await);
        assert_answer(&theirs, 404, r#"{"error":"Not found"}"#, kind);
        assert_eq!((unknown.status, unknown.body), (theirs.status, theirs.body));
        assert_eq!(live.get("/v1/scanner/scans/%FF").await.status, 404);
    }
    service.end().await;
}

#[tokio::test]
async fn accepts_only_json_objects_with_any_content_type() {
    let service = Service::start("sly").await;
    let mut fast = Caller::connect(&service, "fast").await;
    for path in [SCAN, BATCH, TESTS] {
        for body in ["", "nonsense", "[]", "7", "null", r#""{}""#, r#"{"a":1"#, r#"{"a":1} {}"#] {
            let answer = fast.post(path, body).await;
            assert_eq!(answer.status, 400, "{path} {body}");
            let error = answer.json();
            assert!(
                error["error"].as_str().unwrap().starts_with("The body must be a JSON object"),
                "{error}"
            );
        }
        let long = format!(r#"{{"long":"{}"}}"#, "x".repeat(17_000));
        assert_eq!(fast.post(path, &long).await.status, 413);
        for content_type in ["application/json", "application/x-www-form-urlencoded"] {
            let headers = [("authorization", &*fast.bearer), ("content-type", content_type)];
            let answer = fast.client.send_body(Method::POST, path, &headers, "{}").await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    service.end().await;
}

#[tokio::test]
async fn answers_unknown_paths_and_methods_with_json() {
    let service = Service::start("sly").await;
    for name in ["live", "jwt"] {
        let mut caller = Caller::connect(&service, name).await;
        for path in ["/", "/v1", "/v1/scanner", "/v1/scanner/scan/", "//v1/scanner/scan", "/v2/scanner/scan"]
        {
            let answer = caller.post(path, "{}").await;
            assert_eq!((answer.status.as_u16(), answer.json()["error"].is_string()), (404, true), "{path}");
        }
        for (method, path, allowed) in [
            (Method::GET, SCAN, "POST"),
            (Method::PUT, BATCH, "POST"),
            (Method::GET, ROTATE, "POST"),
            (Method::POST, BALANCE, "GET, HEAD"),
            (Method::DELETE, "/v1/scanner/scans/scan_1", "GET, HEAD"),
        ] {
            let answer = caller.send(&method, path, "{}").await;
            assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some(allowed)), "{path}");
            assert!(answer.json()["error"].is_string());
        }
    }
    service.end().await;
}

#[tokio::test]
async fn writes_no_credential_to_the_log() {
    let mut service = Service::start_logging("sly", &[], "trace").await;
    let log = service.log();
    let mut secrets = Vec::new();
    for name in [
        "live",
        "test",
        "read_only",
        "revoked",
        "suspended",
        "no_credits",
        "fast",
        "jwt",
        "jwt_expired",
        "jwt_forged",
    ] {
        let mut caller = Caller::connect(&service, name).await;
        caller.post(SCAN, "{}").await;
        caller.post(SCAN, "[]").await;
        caller.get("/nowhere").await;
        caller.client.get(BALANCE, &[("x-api-key", service.key(name))]).await;
        secrets.push(service.key(name).to_owned());
    }
    let mut live = Caller::connect(&service, "live").await;
    secrets.push(live.post(ROTATE, "").await.json()["key"].as_str().unwrap().to_owned());
    service.end().await;
    let log = log.await.unwrap();
    for reason in
        ["credential_missing", "tenant_suspended", "token_invalid", "key_revoked", "credits_exhausted"]
    {
        assert!(log.contains(reason), "{reason}: {log}");
    }
    for secret in secrets {
        // Of a key, the prefix is shown in lists, and what follows is secret. Of a token, the signature is.
        let hidden = secret.rsplit('.').next().unwrap();
        let hidden = if secret.starts_with("psk_") { &secret[17..] } else { hidden };
        assert!(!log.contains(hidden), "{log}");
    }
}

/// A caller with a credential, on a connection of its own.
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) bearer: String,
}

impl Caller {
    /// With a credential of the ready line.
    pub(crate) async fn connect(service: &Service, name: &str) -> Self {
        Self::with_credential(service, service.key(name)).await
    }

    pub(crate) async fn with_credential(service: &Service, credential: &str) -> Self {
        Self { client: Client::connect(service).await, bearer: format!("Bearer {credential}") }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(&Method::GET, path, "").await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Answer {
        self.send(&Method::POST, path, body).await
    }

    pub(crate) async fn send(&mut self, method: &Method, path: &str, body: &str) -> Answer {
        self.client.send_body(method.clone(), path, &[("authorization", &*self.bearer)], body).await
    }

    /// Like [`send`](Self::send), with the values of `X-Environment`.
    pub(crate) async fn send_in(
        &mut self,
        environments: &[&str],
        method: &Method,
        path: &str,
        body: &str,
    ) -> Answer {
        let mut headers = vec![("authorization", &*self.bearer)];
        headers.extend(environments.iter().map(|value| ("x-environment", *value)));
        self.client.send_body(method.clone(), path, &headers, body).await
    }

    /// Like [`send`](Self::send) without a JSON object, with an `X-Request-ID`.
    pub(crate) async fn send_as(&mut self, id: &str, method: &Method, path: &str) -> Answer {
        let headers = [("authorization", &*self.bearer), ("x-request-id", id)];
        self.client.send_body(method.clone(), path, &headers, "[]").await
    }

    /// The identifier of a new scan.
    pub(crate) async fn create(&mut self, path: &str) -> String {
        let answer = self.post(path, r#"{"domain":"shopify.com"}"#).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn balance(&mut self) -> u64 {
        let answer = self.get(BALANCE).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let Value::Object(body) = answer.json() else { panic!("{answer:?}") };
        assert_eq!(body.len(), 1, "{body:?}");
        body["balance"].as_u64().unwrap()
    }
}

pub(crate) fn assert_answer(answer: &Answer, status: u16, body: &str, case: &str) {
    assert_eq!((answer.status.as_u16(), &*answer.body), (status, body), "{case}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{case}");
}

/// Limits are shown to authenticated callers only.
pub(crate) fn assert_no_rate_limit(answer: &Answer) {
    let names = answer.headers.keys().map(http::HeaderName::as_str);
    assert!(!names.into_iter().any(|name| name.contains("ratelimit") || name == "retry-after"), "{answer:?}");
}
