//! `oplive`: its published contract row by row. What each key may do, and how refusals look. `oplive_limits`, `oplive_credits` and
//! `oplive_dashboard` test the rest.

use http::Method;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Client},
    scanr::{NOW, advance},
    service::Service,
};

pub(crate) const CLASSIFY: &str = "/v1/classify";
pub(crate) const SCAN: &str = "/v1/scan";
pub(crate) const DEEP_SCAN: &str = "/v1/deep-scan";
pub(crate) const CREDITS: &str = "/v1/credits";
pub(crate) const WEBHOOKS: &str = "/v1/webhooks";

/// The published table of permissions: the endpoints of each, and the status of a success. `JOB` and `WEBHOOK` stand for identifiers.
const ENDPOINTS: [(&str, Method, &str, u16); 8] = [
    ("classify:create", Method::POST, CLASSIFY, 201),
    ("scan:create", Method::POST, SCAN, 201),
    ("scan:create", Method::POST, DEEP_SCAN, 201),
    ("jobs:read", Method::GET, "/v1/jobs/JOB", 200),
    ("results:read", Method::GET, "/v1/jobs/JOB/results", 200),
    ("credits:read", Method::GET, CREDITS, 200),
    ("webhooks:write", Method::POST, WEBHOOKS, 201),
    ("webhooks:write", Method::POST, "/v1/webhooks/WEBHOOK/test", 200),
];

pub(crate) const PERMISSIONS: [&str; 6] =
    ["classify:create", "scan:create", "jobs:read", "results:read", "credits:read", "webhooks:write"];

const INVALID_API_KEY: &str =
    r#"{"error":"INVALID_API_KEY","message":"Send one valid key: Authorization: Bearer op_live_..."}"#;
const ORGANIZATION_SUSPENDED: &str =
    r#"{"error":"ORGANIZATION_SUSPENDED","message":"The organization is suspended."}"#;

#[tokio::test]
async fn each_permission_grants_its_endpoints_and_no_other() {
    let service = Service::start_with("oplive", &["--now", NOW]).await;
    let mut full = Caller::connect(&service, "full").await;
    let paths = Paths::of(&mut full).await;
    for permission in PERMISSIONS {
        // A new minute for each key, since all of them share the limit of their organization.
        advance(&mut full.client, 60).await;
        let mut caller = Caller::connect_new(&service, permission, &[permission]).await;
        for (required, method, path, status) in ENDPOINTS {
            let answer = caller.send(&method, &paths.fill(path), "{}").await;
            if required == permission {
                assert_eq!(answer.status, status, "{permission} at {path}: {answer:?}");
            } else {
                assert_permission_missing(&answer, required);
            }
        }
    }
    service.end().await;
}

#[tokio::test]
async fn a_key_has_all_of_its_permissions_together() {
    const READ_ONLY: [&str; 3] = ["jobs:read", "results:read", "credits:read"];

    let service = Service::start_with("oplive", &["--now", NOW]).await;
    let mut full = Caller::connect(&service, "full").await;
    let mut none = Caller::connect_new(&service, "none", &[]).await;
    let paths = Paths::of(&mut full).await;
    for (name, permissions) in
        [("full", &PERMISSIONS[..]), ("sibling", &PERMISSIONS), ("read_only", &READ_ONLY)]
    {
        advance(&mut full.client, 60).await;
        let mut caller = Caller::connect(&service, name).await;
        for (required, method, path, status) in ENDPOINTS {
            let answer = caller.send(&method, &paths.fill(path), "{}").await;
            if permissions.contains(&required) {
                assert_eq!(answer.status, status, "{name} at {path}: {answer:?}");
            } else {
                assert_permission_missing(&answer, required);
            }
            assert_permission_missing(&none.send(&method, &paths.fill(path), "{}").await, required);
        }
    }
    service.end().await;
}

#[tokio::test]
async fn answers_401_to_anything_but_one_valid_bearer_key() {
    let service = Service::start("oplive").await;
    let other_service = Service::start("oplive").await;
    let mut client = Client::connect(&service).await;
    let full = service.key("full");
    let bearer = bearer(full);
    let [unknown, deleted, session, basic, test] = [
        format!("Bearer {}", other_service.key("full")),
        format!("Bearer {}", service.key("deleted")),
        format!("Bearer {}", service.key("dashboard")),
        format!("Basic {full}"),
        format!("Bearer {}", full.replace("op_live_", "op_test_")),
    ];
    let joined = format!("{bearer}, {bearer}");
    let cases: [(&str, &[(&str, &str)]); 14] = [
        ("missing", &[]),
        ("empty", &[("authorization", "")]),
        ("without a key", &[("authorization", "Bearer ")]),
        ("the key of the documentation", &[("authorization", "Bearer op_live_your_key_here")]),
        ("not a token", &[("authorization", "Bearer to be or not to be")]),
        ("unknown", &[("authorization", &unknown)]),
        ("deleted", &[("authorization", &deleted)]),
        ("a session", &[("authorization", &session)]),
        ("of another scheme", &[("authorization", &basic)]),
        ("without a scheme", &[("authorization", full)]),
        ("a test key", &[("authorization", &test)]),
        ("in another header", &[("x-api-key", full)]),
        ("repeated", &[("authorization", &bearer), ("authorization", &bearer)]),
        ("joined by a proxy", &[("authorization", &joined)]),
    ];
    for (case, headers) in cases {
        for (method, path) in [(Method::GET, CREDITS), (Method::POST, SCAN), (Method::GET, "/nowhere")] {
            let answer = client.send_body(method, path, headers, "{}").await;
            assert_error(&answer, 401, INVALID_API_KEY, case);
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(challenge.starts_with(r#"Bearer realm="oplive""#), "{case}: {challenge}");
            assert_no_rate_limit(&answer);
        }
    }
    service.end().await;
    other_service.end().await;
}

#[tokio::test]
async fn reads_no_other_header_than_authorization() {
    let service = Service::start("oplive").await;
    let mut client = Client::connect(&service).await;
    let bearer = bearer(service.key("full"));
    let others = [service.key("other_org"), service.key("suspended"), service.key("deleted"), "junk"];
    for other in others {
        let headers = [("authorization", &*bearer), ("x-api-key", other)];
        let answer = client.send_body(Method::POST, CLASSIFY, &headers, "{}").await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    assert_eq!(Caller::connect(&service, "read_only").await.balance().await, 200 - 4);
    assert_eq!(Caller::connect(&service, "other_org").await.balance().await, 200);
    service.end().await;
}

#[tokio::test]
async fn refuses_a_suspended_organization_on_every_path() {
    let service = Service::start("oplive").await;
    let mut suspended = Caller::connect(&service, "suspended").await;
    for (_, method, path, _) in ENDPOINTS {
        let answer = suspended.send(&method, path, "{}").await;
        assert_error(&answer, 403, ORGANIZATION_SUSPENDED, path);
        assert_no_rate_limit(&answer);
    }
    assert_error(&suspended.get("/nowhere").await, 403, ORGANIZATION_SUSPENDED, "nowhere");
    service.end().await;
}

#[tokio::test]
async fn a_job_is_visible_to_the_keys_of_its_organization_only() {
    let service = Service::start_with("oplive", &["--now", NOW]).await;
    let mut full = Caller::connect(&service, "full").await;
    let mut sibling = Caller::connect(&service, "sibling").await;
    let mut read_only = Caller::connect(&service, "read_only").await;
    let mut other_org = Caller::connect(&service, "other_org").await;
    for (path, kind) in [(CLASSIFY, "classify"), (SCAN, "scan"), (DEEP_SCAN, "deep_scan")] {
        let created = full.post(path, r#"{"url":"https://example.com"}"#).await;
        let id = created.json()["id"].as_str().unwrap().to_owned();
        assert_eq!((created.status.as_u16(), created.json()), (201, json!({ "id": id })));
        let job = format!("/v1/jobs/{id}");
        assert_eq!(created.header("location"), Some(&*job));

        for caller in [&mut full, &mut sibling, &mut read_only] {
            let status = caller.get(&job).await.json();
            let expected = json!({
                "id": id,
                "type": kind,
                "status": "completed",
                "created_at": NOW,
                "completed_at": NOW,
                "duration_ms": 0,
            });
            assert_eq!(status, expected);
            let results = caller.get(&format!("{job}/results")).await.json();
            assert_eq!((&results["id"], &results["type"]), (&json!(id), &json!(kind)));
            assert_eq!(results["input"], json!({ "url": "https://example.com" }));
            assert!(results["results"].is_object(), "{results}");
        }
        for suffix in ["", "/results"] {
            let of_another = other_org.get(&format!("{job}{suffix}")).await;
            let unknown = other_org.get(&format!("/v1/jobs/job_{}{suffix}", "0".repeat(32))).await;
            assert_eq!(of_another.status, 404);
            assert_eq!(of_another.json()["error"], "NOT_FOUND");
            assert_eq!((unknown.status, &unknown.body), (of_another.status, &of_another.body));
            assert_eq!(other_org.get(&format!("/v1/jobs/%FF{suffix}")).await.body, of_another.body);
        }
    }
    // What other_org creates is its own.
    let theirs = other_org.post(SCAN, "{}").await.json();
    assert_eq!(full.get(&format!("/v1/jobs/{}", theirs["id"].as_str().unwrap())).await.status, 404);
    service.end().await;
}

#[tokio::test]
async fn a_webhook_is_tested_by_the_keys_of_its_organization_only() {
    let service = Service::start("oplive").await;
    let mut full = Caller::connect(&service, "full").await;
    let created = full.post(WEBHOOKS, r#"{"url":"https://example.com/hook"}"#).await;
    assert_eq!(created.status, 201);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let test = format!("{WEBHOOKS}/{id}/test");
    for (name, status) in [("full", 200), ("sibling", 200), ("read_only", 403), ("other_org", 404)] {
        let mut caller = Caller::connect(&service, name).await;
        // With or without a body.
        for body in ["", "{}"] {
            let answer = caller.post(&test, body).await;
            assert_eq!(answer.status, status, "{name}: {answer:?}");
            if status == 200 {
                assert_eq!(answer.json(), json!({ "id": id, "event": { "type": "webhook.test" } }));
            }
        }
    }
    assert_eq!(full.post("/v1/webhooks/unknown/test", "{}").await.status, 404);
    service.end().await;
}

#[tokio::test]
async fn accepts_only_json_objects() {
    let service = Service::start_with("oplive", &["--now", NOW]).await;
    let mut full = Caller::connect(&service, "full").await;
    for path in [CLASSIFY, SCAN, DEEP_SCAN, WEBHOOKS] {
        advance(&mut full.client, 60).await;
        for body in ["", "nonsense", "[]", "7", "null", r#""{}""#, r#"{"a":1"#, r#"{"a":1} {}"#] {
            let answer = full.post(path, body).await;
            assert_eq!(answer.status, 400, "{path} {body}");
            assert_eq!(answer.json()["error"], "INVALID_BODY");
            assert!(answer.json()["message"].as_str().unwrap().contains("must be a JSON object"));
        }
        let long = json!({ "long": "x".repeat(17_000) }).to_string();
        let answer = full.post(path, &long).await;
        assert_eq!(answer.status, 413);
        assert_eq!(answer.json()["error"], "UNREADABLE_BODY");
        assert_eq!(full.post(path, r#"{"text":"a short text"}"#).await.status, 201);
    }
    assert_eq!(full.balance().await, 200 - 1 - 5 - 20, "only jobs that were created are charged");
    service.end().await;
}

#[tokio::test]
async fn answers_unknown_paths_and_methods_with_json() {
    let service = Service::start("oplive").await;
    let mut full = Caller::connect(&service, "full").await;
    for path in ["/", "/v1", "/v1/nowhere", "/v1/scan/", "//v1/scan", "/v2/scan", "/v1/webhooks/a/b"] {
        let answer = full.post(path, "{}").await;
        let not_found = r#"{"error":"NOT_FOUND","message":"This path does not exist."}"#;
        assert_error(&answer, 404, not_found, path);
    }
    for (method, path, allowed) in [
        (Method::GET, CLASSIFY, "POST"),
        (Method::DELETE, "/v1/jobs/job_1", "GET, HEAD"),
        (Method::POST, CREDITS, "GET, HEAD"),
        (Method::PUT, WEBHOOKS, "POST"),
    ] {
        let answer = full.send(&method, path, "{}").await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some(allowed)));
        assert_eq!(answer.json()["error"], "METHOD_NOT_ALLOWED");
    }
    assert_eq!(full.balance().await, 200);
    service.end().await;
}

#[tokio::test]
async fn writes_no_key_to_the_log() {
    let mut service = Service::start_logging("oplive", &[], "trace").await;
    let log = service.log();
    let mut dashboard = Client::connect(&service).await;
    let new = create_key(&mut dashboard, &service, "new", &PERMISSIONS).await;
    let names = ["full", "sibling", "read_only", "other_org", "suspended", "deleted", "dashboard"];
    let mut keys: Vec<_> = names.iter().map(|name| service.key(name).to_owned()).collect();
    keys.push(new["secret"].as_str().unwrap().to_owned());
    for key in &keys {
        let mut caller = Caller::with_key(&service, key).await;
        caller.post(DEEP_SCAN, "{}").await;
        caller.post(DEEP_SCAN, "[]").await;
        caller.client.get(CREDITS, &[("x-api-key", key)]).await;
    }
    service.end().await;
    let log = log.await.unwrap();
    assert!(log.contains("credential_missing") && log.contains("tenant_suspended"), "{log}");
    for key in keys {
        // The prefix is shown in lists of keys; what follows is secret.
        assert!(!log.contains(&key[16..]), "{log}");
    }
}

/// A caller with a key, on a connection of its own.
pub(crate) struct Caller {
    pub(crate) client: Client,
    bearer: String,
}

impl Caller {
    /// With a key of the ready line.
    pub(crate) async fn connect(service: &Service, name: &str) -> Self {
        Self::with_key(service, service.key(name)).await
    }

    /// With a new key that is created in the dashboard.
    pub(crate) async fn connect_new(service: &Service, name: &str, permissions: &[&str]) -> Self {
        let mut dashboard = Client::connect(service).await;
        let key = create_key(&mut dashboard, service, name, permissions).await;
        Self::with_key(service, key["secret"].as_str().unwrap()).await
    }

    pub(crate) async fn with_key(service: &Service, key: &str) -> Self {
        Self { client: Client::connect(service).await, bearer: bearer(key) }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(&Method::GET, path, "").await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Answer {
        self.send(&Method::POST, path, body).await
    }

    /// Posts with an `Idempotency-Key`.
    pub(crate) async fn post_once(&mut self, path: &str, key: &str, body: &str) -> Answer {
        let headers = [("authorization", &*self.bearer), ("idempotency-key", key)];
        self.client.send_body(Method::POST, path, &headers, body).await
    }

    pub(crate) async fn send(&mut self, method: &Method, path: &str, body: &str) -> Answer {
        let headers = [("authorization", &*self.bearer)];
        self.client.send_body(method.clone(), path, &headers, body).await
    }

    /// The balance. A response that was read to its end is settled, so nothing is reserved.
    pub(crate) async fn balance(&mut self) -> u64 {
        let answer = self.get(CREDITS).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let credits = answer.json();
        assert_eq!((credits.as_object().unwrap().len(), &credits["reserved"]), (2, &json!(0)), "{credits}");
        credits["balance"].as_u64().unwrap()
    }
}

/// Creates a key in the dashboard, and returns the response, which has the `secret`.
pub(crate) async fn create_key(
    dashboard: &mut Client,
    service: &Service,
    name: &str,
    permissions: &[&str],
) -> Value {
    let session = bearer(service.key("dashboard"));
    let headers = [("authorization", &*session), ("content-type", "application/json")];
    let asked = json!({ "name": name, "scopes": permissions }).to_string();
    let answer = dashboard.send_body(Method::POST, "/dashboard/api-keys", &headers, &asked).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

pub(crate) fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// The identifiers of a job and of a webhook.
struct Paths {
    job: String,
    webhook: String,
}

impl Paths {
    async fn of(caller: &mut Caller) -> Self {
        let job = caller.post(CLASSIFY, "{}").await.json();
        let webhook = caller.post(WEBHOOKS, "{}").await.json();
        let id = |created: Value| created["id"].as_str().unwrap().to_owned();
        Self { job: id(job), webhook: id(webhook) }
    }

    fn fill(&self, path: &str) -> String {
        path.replace("JOB", &self.job).replace("WEBHOOK", &self.webhook)
    }
}

fn assert_permission_missing(answer: &Answer, permission: &str) {
    let body = format!(
        r#"{{"error":"MISSING_PERMISSION","message":"This key lacks the permission {permission}.","permission":"{permission}"}}"#
    );
    assert_error(answer, 403, &body, permission);
    let challenge = format!(r#"Bearer realm="oplive",error="insufficient_scope",scope="{permission}""#);
    assert_eq!(answer.header("www-authenticate"), Some(&*challenge));
}

fn assert_error(answer: &Answer, status: u16, body: &str, case: &str) {
    assert_eq!(answer.status, status, "{case}: {answer:?}");
    assert_eq!(answer.body, body, "{case}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{case}");
}

/// Limits are shown to authenticated callers only.
fn assert_no_rate_limit(answer: &Answer) {
    let names = answer.headers.keys().map(http::HeaderName::as_str);
    assert!(!names.into_iter().any(|name| name.contains("ratelimit") || name == "retry-after"), "{answer:?}");
}
