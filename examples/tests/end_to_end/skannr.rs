//! `skannr`: its published contract row by row. Each route, each error, and whose data a caller sees. The other parts of the contract
//! are tested in `skannr_sessions` (tokens), `skannr_mfa` and `skannr_limits`.

use http::Method;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Client},
    scanr::{advance, numbers},
    service::{Service, output},
};

/// 30 seconds before the end of a minute.
pub(crate) const NOW: &str = "2026-03-01T22:58:30Z";

pub(crate) const TARGETS: &str = "/targets";
const REGISTER: &str = "/auth/register";
pub(crate) const LOGIN: &str = "/auth/login";
pub(crate) const REFRESH: &str = "/auth/token/refresh";

/// The open routes of the page.
const OPEN: [&str; 3] = [LOGIN, REGISTER, REFRESH];

/// All other routes of the page, with a request and the status that an active account gets. `{target}`, `{scan}` and `{alert}` are
/// identifiers of the account's data. Deleting the target is the last request.
const GUARDED: [(Method, &str, &str, u16); 24] = [
    (Method::POST, "/auth/mfa/setup", "", 200),
    (Method::POST, "/auth/mfa/enable", r#"{"code":"000000"}"#, 400),
    (Method::DELETE, "/auth/mfa", r#"{"password":"not the password"}"#, 403),
    (Method::GET, TARGETS, "", 200),
    (Method::POST, TARGETS, r#"{"target":"example.com"}"#, 201),
    (Method::GET, "/targets/{target}", "", 200),
    (Method::PATCH, "/targets/{target}", r#"{"label":"office"}"#, 200),
    (Method::GET, "/scans", "", 200),
    (Method::GET, "/scans/{scan}", "", 200),
    (Method::GET, "/scans/{scan}/results", "", 200),
    (Method::GET, "/scans/{scan}/summary", "", 200),
    (Method::POST, "/targets/{target}/scan", "", 201),
    (Method::POST, "/scans/trigger-all", "", 201),
    (Method::GET, "/alerts", "", 200),
    (Method::POST, "/alerts/{alert}/acknowledge", "", 200),
    (Method::POST, "/alerts/{alert}/resolve", "", 200),
    (Method::GET, "/billing/status", "", 200),
    (Method::POST, "/billing/checkout", "", 200),
    (Method::POST, "/billing/portal", "", 200),
    (Method::POST, "/billing/change-plan", r#"{"plan":"pro"}"#, 200),
    (Method::GET, "/score", "", 200),
    (Method::GET, "/streak", "", 200),
    (Method::GET, "/achievements", "", 200),
    (Method::DELETE, "/targets/{target}", "", 204),
];

#[tokio::test]
async fn each_route_answers_an_account_and_shows_its_limit() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    for (token, limit) in [("free", 30), ("pro", 300)] {
        let mut api = Api::with_token(&service, service.key(token)).await;
        let ids = api.sample_ids().await;
        let mut limit = limit;
        for (method, path, body, status) in GUARDED {
            let path = with_ids(path, &ids);
            let answer = api.send(method.clone(), &path, body).await;
            assert_eq!(answer.status, status, "{token}: {method} {path}: {answer:?}");
            assert_eq!(numbers(&answer).0, limit, "{token}: {method} {path}");
            assert_eq!(answer.body.is_empty(), status == 204, "{method} {path}");
            if path.ends_with("change-plan") {
                limit = 300;
            }
        }
    }
    service.end().await;
}

#[tokio::test]
async fn only_login_register_and_refresh_need_no_token() {
    let service = Service::start("skannr").await;
    let mut api = Api::connect(&service).await;
    let other_signature = format!("{}x", service.key("free"));
    let tokens = [None, Some(service.key("expired")), Some(&*other_signature), Some("nonsense"), Some("")];
    for token in tokens {
        api.token = token.map(str::to_owned);
        for (method, path, body, _) in GUARDED {
            let answer = api.send(method.clone(), path, body).await;
            assert_eq!(answer.status, 401, "{token:?}: {method} {path}: {answer:?}");
        }
        for path in ["/nowhere", "", "/auth", "/auth/logout"] {
            assert_eq!(api.get(path).await.status, 401, "{token:?}: {path}");
        }
        for path in OPEN {
            let answer = api.post(path, &json!({})).await;
            assert_eq!(answer.status, 400, "{token:?}: {path}: {answer:?}");
        }
    }
    service.end().await;
}

#[tokio::test]
async fn accepts_the_token_only_as_one_bearer_token() {
    let service = Service::start("skannr").await;
    let mut client = Client::connect(&service).await;
    let (free, bearer) = (service.key("free"), format!("Bearer {}", service.key("free")));
    let (basic, lower_case) = (format!("Basic {free}"), format!("bearer {free}"));
    let path = "/api/v1/targets";
    for (case, headers, status) in [
        ("a bearer token", vec![("authorization", &*bearer)], 200),
        ("the scheme in lower case", vec![("authorization", &*lower_case)], 200),
        ("another header", vec![("x-api-key", free)], 401),
        ("another scheme", vec![("authorization", &*basic)], 401),
        ("no scheme", vec![("authorization", free)], 401),
        ("twice", vec![("authorization", &*bearer), ("authorization", &*bearer)], 400),
    ] {
        let answer = client.get(path, &headers).await;
        assert_eq!(answer.status, status, "{case}: {answer:?}");
        assert_error(&answer);
        assert_eq!(answer.header("x-ratelimit-limit").is_some(), status == 200, "{case}");
    }
    service.end().await;
}

#[tokio::test]
async fn every_error_is_an_object_with_a_message() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    // `Api::send` looks at the body and the headers of each answer.
    let mut api = Api::with_token(&service, service.key("pro")).await;
    let id = api.add_target("192.0.2.1").await;
    let target = format!("{TARGETS}/{id}");
    let too_large = json!({ "long": "x".repeat(20_000) }).to_string();
    let cases = [
        (Method::GET, "/nowhere", "", 404),
        (Method::GET, "/targets/", "", 404),
        (Method::GET, "/targets/unknown", "", 404),
        (Method::GET, "/targets/%FF", "", 404),
        (Method::PATCH, "/targets/unknown", "{}", 404),
        (Method::DELETE, "/targets/unknown", "", 404),
        (Method::POST, "/targets/unknown/scan", "", 404),
        (Method::GET, "/scans/unknown", "", 404),
        (Method::GET, "/scans/unknown/results", "", 404),
        (Method::GET, "/scans/unknown/summary", "", 404),
        (Method::POST, "/alerts/unknown/acknowledge", "", 404),
        (Method::POST, "/alerts/unknown/resolve", "", 404),
        (Method::PUT, TARGETS, "", 405),
        (Method::DELETE, "/score", "", 405),
        (Method::GET, "/auth/mfa", "", 405),
        (Method::GET, LOGIN, "", 405),
        (Method::POST, TARGETS, &too_large, 413),
        (Method::PATCH, &target, &too_large, 413),
        (Method::POST, "/billing/change-plan", r#"{"plan":"enterprise"}"#, 400),
        (Method::POST, "/billing/change-plan", r#"{"plan":7}"#, 400),
        (Method::POST, "/billing/change-plan", "{}", 400),
        (Method::POST, "/auth/mfa/enable", "{}", 400),
        (Method::DELETE, "/auth/mfa", "", 400),
    ];
    for (method, path, body, status) in cases {
        let answer = api.send(method.clone(), path, body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{method} {path}");
    }
    // No route answers a body that is not a JSON object, whatever its content type says.
    for body in ["", "nonsense", "[]", "7", "null", r#""{}""#, r#"{"a":1"#, r#"{"a":1} {}"#, "a=1&b=2"] {
        for (method, path) in [
            (Method::POST, TARGETS),
            (Method::PATCH, &target),
            (Method::PUT, &target),
            (Method::POST, "/billing/change-plan"),
            (Method::POST, "/auth/mfa/enable"),
            (Method::DELETE, "/auth/mfa"),
            (Method::POST, LOGIN),
            (Method::POST, REGISTER),
            (Method::POST, REFRESH),
        ] {
            let answer = api.send(method.clone(), path, body).await;
            assert_eq!(answer.status, 400, "{method} {path} {body}: {answer:?}");
            let message = answer.json()["message"].as_str().unwrap().to_owned();
            assert!(message.contains("must be a JSON object"), "{message}");
        }
    }
    service.end().await;
}

#[tokio::test]
async fn an_account_manages_its_targets() {
    let service = Service::start("skannr").await;
    let mut api = Api::with_token(&service, service.key("pro")).await;
    let settings = json!({
        "target": "198.51.100.0/24", "label": "office", "scan_profile": "standard", "interval": 60
    });
    let added = api.post(TARGETS, &settings).await;
    assert_eq!(added.status, 201);
    let target = added.json();
    let id = target["id"].as_str().unwrap().to_owned();
    for (field, value) in settings.as_object().unwrap() {
        assert_eq!(target[field], *value);
    }
    let path = format!("{TARGETS}/{id}");
    assert_eq!(api.get(&path).await.json(), target);
    assert!(api.items(TARGETS, "targets").await.contains(&target));

    for (method, label) in [(Method::PATCH, "branch"), (Method::PUT, "store")] {
        let changed = api.send(method, &path, &json!({ "label": label, "id": "other" }).to_string()).await;
        assert_eq!(changed.status, 200);
        let mut expected = target.clone();
        expected["label"] = json!(label);
        assert_eq!(changed.json(), expected, "all other fields stay, and the identifier too");
        assert_eq!(api.get(&path).await.json(), expected);
    }
    let without = api.send(Method::PATCH, &path, r#"{"label":null}"#).await.json();
    assert_eq!(without["label"], Value::Null);

    let scan = api.post(&format!("{path}/scan"), &json!({})).await.json();
    assert_eq!(api.send(Method::DELETE, &path, "").await.status, 204);
    assert_eq!(api.get(&path).await.status, 404);
    assert_eq!(api.send(Method::DELETE, &path, "").await.status, 404);
    // Its data is deleted with it.
    assert_eq!(api.get(&format!("/scans/{}", scan["id"].as_str().unwrap())).await.status, 404);
    let of_target = |items: &[Value]| items.iter().any(|item| item["target_id"] == *id);
    assert!(!of_target(&api.items("/scans", "scans").await));
    assert!(!of_target(&api.items("/alerts", "alerts").await));
    service.end().await;
}

#[tokio::test]
async fn a_target_is_an_address_a_domain_or_a_range() {
    let service = Service::start("skannr").await;
    let mut api = Api::with_token(&service, service.key("pro")).await;
    let valid = [
        "192.0.2.1",
        "2001:db8::1",
        "example.com",
        "a-b.example",
        "192.0.2.0/28",
        "2001:db8::/32",
        "0.0.0.0/0",
    ];
    for target in valid {
        assert_eq!(api.post(TARGETS, &json!({ "target": target })).await.status, 201, "{target}");
    }
    assert_eq!(api.post(TARGETS, &json!({ "host": "any object" })).await.status, 201);
    let path = format!("{TARGETS}/{}", api.add_target("192.0.2.1").await);
    let invalid = [
        json!(""),
        json!("not a host"),
        json!("-a.example"),
        json!("192.0.2.256"),
        json!("192.0.2"),
        json!("192.0.2.0/33"),
        json!("192.0.2.0/"),
        json!("example.com/24"),
        json!("https://example.com"),
        json!("a..b"),
        json!(7),
        json!(null),
        json!("a".repeat(64)),
    ];
    for target in invalid {
        let body = json!({ "target": target });
        assert_eq!(api.post(TARGETS, &body).await.status, 400, "{target}");
        assert_eq!(api.send(Method::PATCH, &path, &body.to_string()).await.status, 400, "{target}");
    }
    assert_eq!(api.get(&path).await.json()["target"], "192.0.2.1");
    service.end().await;
}

#[tokio::test]
async fn a_target_stays_below_16_kib_however_often_it_is_updated() {
    let service = Service::start("skannr").await;
    let mut api = Api::with_token(&service, service.key("pro")).await;
    let path = format!("{TARGETS}/{}", api.add_target("192.0.2.1").await);
    let long = "x".repeat(10_000);
    for (field, status) in [("a", 200), ("a", 200), ("b", 400)] {
        let change = json!({ field: long }).to_string();
        assert_eq!(api.send(Method::PATCH, &path, &change).await.status, status, "{field}");
    }
    assert_eq!(api.get(&path).await.json()["b"], Value::Null, "nothing was changed");
    service.end().await;
}

#[tokio::test]
async fn refuses_more_than_100_targets_and_keeps_the_latest_500_scans() {
    let service = Service::start("skannr").await;
    let mut api = Api::with_token(&service, service.key("pro")).await;
    // One is there from the start.
    for number in 1..100 {
        assert_eq!(api.post(TARGETS, &json!({ "label": number })).await.status, 201);
    }
    assert_eq!(api.post(TARGETS, &json!({})).await.status, 403);
    for _ in 0..6 {
        let scans = api.post("/scans/trigger-all", &json!({})).await.json();
        assert_eq!(scans["scans"].as_array().unwrap().len(), 100);
    }
    let (scans, alerts) = (api.items("/scans", "scans").await, api.items("/alerts", "alerts").await);
    assert_eq!((scans.len(), alerts.len()), (500, 500));
    assert!(scans.iter().zip(&alerts).all(|(scan, alert)| scan["id"] == alert["scan_id"]));
    let first = format!("{TARGETS}/{}", api.sample_ids().await[0]);
    assert_eq!(api.send(Method::DELETE, &first, "").await.status, 204);
    assert_eq!(api.post(TARGETS, &json!({})).await.status, 201);
    service.end().await;
}

#[tokio::test]
async fn a_scan_shows_its_status_results_and_summary() {
    let service = Service::start("skannr").await;
    let mut api = Api::with_token(&service, service.key("free")).await;
    let id = api.add_target("198.51.100.7").await;
    let scan = api.post(&format!("{TARGETS}/{id}/scan"), &json!({})).await;
    assert_eq!(scan.status, 201);
    let scan = scan.json();
    assert_eq!(
        (&scan["status"], &scan["progress"], &scan["target_id"]),
        (&json!("completed"), &json!(100), &json!(id))
    );
    let path = format!("/scans/{}", scan["id"].as_str().unwrap());
    assert_eq!(api.get(&path).await.json(), scan);
    assert!(api.items("/scans", "scans").await.contains(&scan));

    let results = api.items(&format!("{path}/results"), "results").await;
    assert!(!results.is_empty() && results.iter().all(|port| port["host"] == "198.51.100.7"), "{results:?}");
    let hosts = api.items(&format!("{path}/summary"), "hosts").await;
    for state in ["open", "filtered", "closed"] {
        let ports = results.iter().filter(|port| port["state"] == state).count();
        assert_eq!(hosts[0][state], ports, "{state}");
    }
    service.end().await;
}

#[tokio::test]
async fn all_enabled_targets_are_scanned_together() {
    let service = Service::start("skannr").await;
    let mut api = Api::with_token(&service, service.key("free")).await;
    let sample = api.sample_ids().await.swap_remove(0);
    let (enabled, disabled) = (api.add_target("192.0.2.1").await, api.add_target("192.0.2.2").await);
    assert_eq!(
        api.send(Method::PATCH, &format!("{TARGETS}/{disabled}"), r#"{"enabled":false}"#).await.status,
        200
    );
    let scans = api.post("/scans/trigger-all", &json!({})).await.json();
    let scanned: Vec<_> = scans["scans"].as_array().unwrap().iter().map(|scan| &scan["target_id"]).collect();
    assert_eq!(scanned, [&json!(sample), &json!(enabled)]);
    service.end().await;
}

#[tokio::test]
async fn an_alert_is_open_until_it_is_acknowledged_or_resolved() {
    let service = Service::start("skannr").await;
    let mut api = Api::with_token(&service, service.key("free")).await;
    let alert = api.items("/alerts", "alerts").await.swap_remove(0);
    assert_eq!(alert["status"], "open");
    let path = format!("/alerts/{}", alert["id"].as_str().unwrap());
    for (action, status) in [("acknowledge", "acknowledged"), ("resolve", "resolved")] {
        assert_eq!(api.post(&format!("{path}/{action}"), &json!({})).await.json()["status"], status);
        assert_eq!(api.items("/alerts", "alerts").await[0]["status"], status);
    }
    service.end().await;
}

#[tokio::test]
async fn another_accounts_data_is_not_found() {
    let service = Service::start("skannr").await;
    let mut owner = Api::with_token(&service, service.key("free")).await;
    let mut other = Api::with_token(&service, service.key("pro")).await;
    let ids = owner.sample_ids().await;
    let of_owner = GUARDED.into_iter().filter(|(_, path, _, _)| path.contains('{'));
    for (method, path, body, _) in of_owner {
        let path = with_ids(path, &ids);
        assert_eq!(other.send(method.clone(), &path, body).await.status, 404, "{method} {path}");
    }
    for (path, name) in [(TARGETS, "targets"), ("/scans", "scans"), ("/alerts", "alerts")] {
        let (seen, owners) = (other.items(path, name).await, owner.items(path, name).await);
        assert_eq!(owners.len(), 1, "nothing was changed");
        assert!(!seen.contains(&owners[0]), "{path}");
    }
    service.end().await;
}

#[tokio::test]
async fn a_lapsed_subscription_is_forbidden_everything_but_billing_and_mfa() {
    let service = Service::start_with("skannr", &["--now", NOW]).await;
    let mut api = Api::with_token(&service, service.key("lapsed")).await;
    for (method, path, body, _) in GUARDED {
        let needs_subscription = !path.starts_with("/billing") && !path.starts_with("/auth");
        if needs_subscription {
            let answer = api.send(method.clone(), path, body).await;
            assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
            assert_eq!(numbers(&answer).0, 30, "the smallest limit");
        }
    }
    assert_eq!(api.get("/billing/status").await.json(), json!({ "plan": "pro", "status": "lapsed" }));
    let chosen = api.post("/billing/change-plan", &json!({ "plan": "free" })).await;
    assert_eq!(chosen.json(), json!({ "plan": "free", "status": "active" }));
    assert_eq!(api.get(TARGETS).await.status, 200);
    assert_eq!(api.get("/billing/status").await.json(), json!({ "plan": "free", "status": "active" }));
    service.end().await;
}

#[tokio::test]
async fn the_clock_answers_errors_with_a_message() {
    let service = Service::start("skannr").await;
    let mut client = Client::connect(&service).await;
    let answer = client.send_body(Method::POST, "/_demo/clock", &[], r#"{"advance_s":60}"#).await;
    assert_eq!(answer.status, 409);
    assert_error(&answer);
    service.end().await;
    let output = output("skannr", &["--now", "tomorrow"]).await;
    assert_eq!(output.status.code(), Some(2));
}

/// A client of the API, with or without an access token. Checks what holds for every answer.
pub(crate) struct Api {
    pub(crate) client: Client,
    pub(crate) token: Option<String>,
}

impl Api {
    /// A client without a token.
    pub(crate) async fn connect(service: &Service) -> Self {
        Self { client: Client::connect(service).await, token: None }
    }

    pub(crate) async fn with_token(service: &Service, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..Self::connect(service).await }
    }

    /// A client of a new account, signed in.
    pub(crate) async fn of_new_account(service: &Service, email: &str, password: &str) -> Self {
        let mut api = Self::connect(service).await;
        let account = json!({ "name": "Ada", "email": email, "password": password });
        assert_eq!(api.post(REGISTER, &account).await.status, 201);
        let tokens = api.login(email, password).await.json();
        api.token = Some(tokens["access_token"].as_str().unwrap().to_owned());
        api
    }

    pub(crate) async fn login(&mut self, email: &str, password: &str) -> Answer {
        self.post(LOGIN, &json!({ "email": email, "password": password })).await
    }

    pub(crate) async fn refresh(&mut self, token: &str) -> Answer {
        self.post(REFRESH, &json!({ "refresh_token": token })).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &body.to_string()).await
    }

    pub(crate) async fn send(&mut self, method: Method, path: &str, body: &str) -> Answer {
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let headers: Vec<_> =
            authorization.iter().map(|authorization| ("authorization", authorization.as_str())).collect();
        let answer = self.client.send_body(method, &format!("/api/v1{path}"), &headers, body).await;
        assert_error(&answer);
        if OPEN.contains(&path) {
            assert_eq!(
                answer.header("x-ratelimit-limit").is_some(),
                answer.status.is_success(),
                "{answer:?}"
            );
        } else if answer.status != 401 {
            numbers(&answer);
        }
        answer
    }

    pub(crate) async fn advance(&mut self, seconds: i64) {
        advance(&mut self.client, seconds).await;
    }

    /// The list in an answer.
    async fn items(&mut self, path: &str, name: &str) -> Vec<Value> {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()[name].as_array().unwrap().clone()
    }

    async fn add_target(&mut self, target: &str) -> String {
        let added = self.post(TARGETS, &json!({ "target": target })).await;
        assert_eq!(added.status, 201, "{added:?}");
        added.json()["id"].as_str().unwrap().to_owned()
    }

    /// The identifiers of the account's first target, scan and alert.
    async fn sample_ids(&mut self) -> Vec<String> {
        let mut ids = Vec::new();
        for (path, name) in [(TARGETS, "targets"), ("/scans", "scans"), ("/alerts", "alerts")] {
            ids.push(self.items(path, name).await[0]["id"].as_str().unwrap().to_owned());
        }
        ids
    }
}

fn with_ids(path: &str, ids: &[String]) -> String {
    let names = ["{target}", "{scan}", "{alert}"];
    names.iter().zip(ids).fold(path.to_owned(), |path, (name, id)| path.replace(name, id))
}

/// What holds for every error: the body, and what its status requires.
pub(crate) fn assert_error(answer: &Answer) {
    let status = answer.status.as_u16();
    if status < 400 {
        return;
    }
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    let error = answer.json();
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer:?}");
    if status == 401 {
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with(r#"Bearer realm="skannr""#), "{challenge}");
        assert_eq!(answer.header("x-ratelimit-limit"), None, "the account is not known");
    }
    assert_eq!(answer.header("retry-after").is_some(), status == 429, "{answer:?}");
}
