//! `scanr`: the account routes, where owners manage their tokens and see their usage.

use http::Method;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Client},
    scanr::{NOW, STATUS, advance, numbers},
    service::Service,
};

const TOKENS: &str = "/account/api-tokens";
const USAGE: &str = "/account/api-usage";
const SCANS: &str = "/api/v2/scans";

/// Ada's tokens at the start, in alphabetical order.
const ADAS: [&str; 4] = ["basic", "basic_write", "expired", "revoked"];

#[tokio::test]
async fn a_token_works_from_its_issue_to_its_revocation_and_is_shown_once() {
    let service = Service::start_with("scanr", &["--now", NOW]).await;
    let mut owner = Owner::connect(&service, "account").await;
    let created = owner.post(TOKENS, &json!({ "name": "my-backtest-notebook" })).await;
    assert_eq!(created.status, 201, "{created:?}");
    let token = created.json();
    let secret = token["secret"].as_str().unwrap().to_owned();
    assert_eq!(token["scopes"], json!(["read"]), "the default scope is `read`");
    assert_eq!(created.header("cache-control"), Some("no-store"));

    let bearer = format!("Bearer {secret}");
    for (remaining, header) in [(59, ("authorization", &*bearer)), (58, ("x-api-key", &*secret))] {
        let answer = owner.client.get(STATUS, &[header]).await;
        assert_eq!(answer.status, 200);
        let (limit, left, _) = numbers(&answer);
        assert_eq!((limit, left), (60, remaining), "the tier of the account sets the limit");
    }
    let denied = owner.client.send_body(Method::POST, SCANS, &[("x-api-key", &secret)], "{}").await;
    assert_eq!((denied.status.as_u16(), &*denied.code()), (403, "insufficient_scope"));

    advance(&mut owner.client, 5).await;
    let id = token["id"].as_str().unwrap();
    let listed = owner.listed(id).await;
    assert_eq!(listed["status"], "active");
    assert_eq!(listed["last_used_at"], NOW);
    assert_eq!(listed["prefix"], secret[..listed["prefix"].as_str().unwrap().len()]);
    assert!(listed["expires_at"].is_null() && listed.get("secret").is_none(), "{listed}");

    let renamed = owner.patch(&format!("{TOKENS}/{id}"), &json!({ "name": "notebook" })).await;
    assert_eq!((renamed.status.as_u16(), &renamed.json()["name"]), (200, &json!("notebook")));

    let revoked = owner.send(Method::POST, &format!("{TOKENS}/{id}/revoke")).await;
    assert_eq!((revoked.status.as_u16(), &revoked.json()["status"]), (200, &json!("revoked")));
    for header in [("authorization", &*bearer), ("x-api-key", &*secret)] {
        let answer = owner.client.get(STATUS, &[header]).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (401, "invalid_credential"));
    }
    let listed = owner.listed(id).await;
    assert_eq!(
        (&listed["status"], &listed["revoked_at"]),
        (&json!("revoked"), &json!("2026-03-01T22:58:35Z"))
    );
    assert_eq!(listed["last_used_at"], NOW, "the record stays");
    let history = owner.get(&format!("{TOKENS}/{id}/history")).await;
    let events = history.json()["items"].as_array().unwrap().clone();
    let actions: Vec<_> = events.iter().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["revoked", "updated", "issued"]);
    for answer in [&renamed, &revoked, &history] {
        assert!(!answer.body.contains(&secret));
    }
    service.end().await;
}

#[tokio::test]
async fn a_deleted_token_is_refused_at_once() {
    let service = Service::start("scanr").await;
    let mut owner = Owner::connect(&service, "account").await;
    let id = owner.id_of("basic").await;
    let key = [("x-api-key", service.key("basic"))];
    assert_eq!(owner.client.get(STATUS, &key).await.status, 200);
    let path = format!("{TOKENS}/{id}");
    let deleted = owner.send(Method::DELETE, &path).await;
    assert_eq!((deleted.status.as_u16(), &*deleted.body), (204, ""));
    assert_eq!(owner.client.get(STATUS, &key).await.status, 401);
    for method in [Method::DELETE, Method::GET] {
        assert_eq!(owner.send(method, &path).await.status, 404);
    }
    assert_eq!(owner.names().await, ["basic_write", "expired", "revoked"]);
    // A revoked token can be deleted, too, and its name is free again.
    let id = owner.id_of("revoked").await;
    assert_eq!(owner.send(Method::DELETE, &format!("{TOKENS}/{id}")).await.status, 204);
    assert_eq!(owner.post(TOKENS, &json!({ "name": "revoked" })).await.status, 201);
    service.end().await;
}

#[tokio::test]
async fn a_new_token_gets_the_requested_scopes_and_expiry() {
    let service = Service::start_with("scanr", &["--now", NOW]).await;
    let mut owner = Owner::connect(&service, "account").await;
    let asked =
        json!({ "name": "for a minute", "scopes": ["write", "read"], "expires_at": "2026-03-01T22:59:30Z" });
    let token = owner.post(TOKENS, &asked).await.json();
    assert_eq!(token["scopes"], json!(["read", "write"]));
    assert_eq!(token["expires_at"], "2026-03-01T22:59:30Z");
    let key = [("x-api-key", token["secret"].as_str().unwrap())];
    assert_eq!(owner.client.send_body(Method::POST, SCANS, &key, "{}").await.status, 201);
    let basic = [("x-api-key", service.key("basic"))];
    let scans = owner.client.get(SCANS, &basic).await.json();
    assert_eq!(scans["scans"].as_array().unwrap().len(), 1, "scans belong to the account");

    let id = token["id"].as_str().unwrap();
    for (step, status, shown) in [(59, 200, "active"), (1, 401, "expired")] {
        advance(&mut owner.client, step).await;
        assert_eq!(owner.client.get(STATUS, &key).await.status, status);
        assert_eq!(owner.listed(id).await["status"], shown);
    }
    service.end().await;
}

#[tokio::test]
async fn refuses_to_create_a_token_without_an_active_subscription() {
    let service = Service::start("scanr").await;
    let mut owner = Owner::connect(&service, "account_lapsed").await;
    for asked in [json!({ "name": "new" }), json!({ "name": "new", "scopes": ["read"] }), json!([])] {
        let answer = owner.post(TOKENS, &asked).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (403, "inactive_entitlement"));
    }
    // Existing tokens can still be managed.
    assert_eq!(owner.names().await, ["lapsed"]);
    let id = owner.id_of("lapsed").await;
    assert_eq!(owner.send(Method::POST, &format!("{TOKENS}/{id}/revoke")).await.status, 200);
    service.end().await;
}

#[tokio::test]
async fn refuses_invalid_requests_with_the_services_error_body() {
    let service = Service::start("scanr").await;
    let mut owner = Owner::connect(&service, "account").await;
    for (asked, status, code) in [
        (json!({}), 400, "invalid_request"),
        (json!([]), 400, "invalid_request"),
        (json!({ "name": "" }), 400, "invalid_request"),
        (json!({ "name": "a", "scopes": ["admin"] }), 400, "invalid_request"),
        (json!({ "name": "a", "scopes": ["*"] }), 400, "invalid_request"),
        (json!({ "name": "a", "scopes": "read" }), 400, "invalid_request"),
        (json!({ "name": "a", "expires_at": "2020-01-01T00:00:00Z" }), 400, "invalid_request"),
        (json!({ "name": "a", "expires_at": "tomorrow" }), 400, "invalid_request"),
        (json!({ "name": "a", "plan": { "tier": "pro" } }), 400, "invalid_request"),
        (json!({ "name": "basic" }), 409, "name_taken"),
        (json!({ "name": "x".repeat(70_000) }), 413, "too_large"),
    ] {
        let answer = owner.post(TOKENS, &asked).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (status, code), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.json()["error"]["message"].as_str().unwrap().ends_with('.'), "{answer:?}");
    }
    let session = owner.session.clone();
    let form = [("authorization", &*session), ("content-type", "application/x-www-form-urlencoded")];
    let answer = owner.client.send_body(Method::POST, TOKENS, &form, r#"{"name":"a"}"#).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (415, "unsupported_media_type"));
    let page = [("authorization", &*session), ("sec-fetch-site", "cross-site")];
    let answer = owner.client.send(Method::POST, &format!("{TOKENS}/x/revoke"), &page).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (403, "cross_origin"));

    for (method, path, status, code) in [
        (Method::GET, format!("{TOKENS}/unknown"), 404, "not_found"),
        (Method::POST, format!("{TOKENS}/unknown/revoke"), 404, "not_found"),
        (Method::DELETE, format!("{TOKENS}/%00"), 404, "not_found"),
        (Method::GET, "/account/nowhere".to_owned(), 404, "not_found"),
        (Method::PUT, TOKENS.to_owned(), 405, "method_not_allowed"),
        (Method::POST, USAGE.to_owned(), 405, "method_not_allowed"),
        (Method::GET, format!("{TOKENS}?limit=0"), 400, "invalid_request"),
        (Method::GET, format!("{TOKENS}?after=nonsense"), 400, "invalid_cursor"),
        (Method::GET, format!("{USAGE}?after=nonsense"), 400, "invalid_cursor"),
        (Method::GET, format!("{USAGE}?after=1&after=2"), 400, "invalid_request"),
    ] {
        let answer = owner.send(method, &path).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (status, code), "{path}");
    }
    assert_eq!(owner.names().await, ADAS, "no request has changed anything");
    service.end().await;
}

#[tokio::test]
async fn only_a_session_opens_the_account_routes_of_its_account() {
    let service = Service::start("scanr").await;
    let mut ada = Owner::connect(&service, "account").await;
    let mut edsger = Owner::connect(&service, "account_lapsed").await;
    let id = ada.id_of("basic").await;
    let routes = [
        (Method::GET, TOKENS.to_owned()),
        (Method::POST, TOKENS.to_owned()),
        (Method::GET, format!("{TOKENS}/{id}")),
        (Method::PATCH, format!("{TOKENS}/{id}")),
        (Method::DELETE, format!("{TOKENS}/{id}")),
        (Method::POST, format!("{TOKENS}/{id}/revoke")),
        (Method::POST, format!("{TOKENS}/{id}/rotate")),
        (Method::GET, format!("{TOKENS}/{id}/history")),
        (Method::GET, USAGE.to_owned()),
    ];
    let token = format!("Bearer {}", service.key("basic_write"));
    let mistyped = format!("{}x", ada.session);
    let in_another_header = ada.session.trim_start_matches("Bearer ").to_owned();
    for (method, path) in &routes {
        for headers in [
            vec![],
            vec![("authorization", &*token)],
            vec![("authorization", &*mistyped)],
            vec![("authorization", &*in_another_header)],
            vec![("x-api-key", &*in_another_header)],
            vec![("authorization", &*ada.session), ("authorization", &*edsger.session)],
        ] {
            let answer = edsger.client.send(method.clone(), path, &headers).await;
            assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(challenge.starts_with(r#"Bearer realm="scanr account""#), "{challenge}");
            assert_eq!(answer.header("x-ratelimit-limit"), None);
        }
    }
    for (method, path) in routes.iter().filter(|(_, path)| path.contains(&id)) {
        let answer = edsger.send_json(method.clone(), path, r#"{"name":"mine"}"#).await;
        let expected =
            if path.ends_with("rotate") || path.ends_with("revoke") { [400, 404] } else { [404; 2] };
        assert!(expected.contains(&answer.status.as_u16()), "{method} {path}: {answer:?}");
        if method == Method::POST {
            assert_eq!(edsger.send(method.clone(), path).await.status, 404);
        }
    }
    assert_eq!(edsger.names().await, ["lapsed"]);
    assert_eq!(ada.names().await, ADAS);
    assert_eq!(ada.listed(&id).await["status"], "active");

    // A session is not a token.
    let session = ada.session.clone();
    let answer = ada.client.get(STATUS, &[("authorization", &session)]).await;
    assert_eq!(answer.status, 401);
    service.end().await;
}

#[tokio::test]
async fn shows_the_usage_and_the_remaining_limits_of_each_token() {
    let service = Service::start_with("scanr", &["--now", NOW]).await;
    let mut owner = Owner::connect(&service, "account").await;
    let key = [("x-api-key", service.key("basic"))];
    let windows = |used: [u64; 3], resets_at: [&str; 3]| {
        let windows = [("minute", 60), ("hour", 1_000), ("day", 5_000)];
        let shown = windows.into_iter().zip(used).zip(resets_at).map(|(((window, limit), used), resets_at)| {
            json!({ "window": window, "limit": limit, "used": used, "remaining": limit - used, "resets_at": resets_at })
        });
        Value::from(shown.collect::<Vec<_>>())
    };
    let midnight = "2026-03-02T00:00:00Z";

    let unused = owner.usage_of("basic").await;
    assert_eq!(unused["limits"], windows([0; 3], ["2026-03-01T22:59:00Z", "2026-03-01T23:00:00Z", midnight]));
    assert_eq!(unused["usage"], json!({ "last_24_hours": [], "last_30_days": [] }));
    assert_eq!(unused["last_used_at"], Value::Null);

    for _ in 0..3 {
        assert_eq!(owner.client.get(STATUS, &key).await.status, 200);
    }
    for _ in 0..2 {
        let shown = owner.usage_of("basic").await;
        let resets_at = ["2026-03-01T22:59:00Z", "2026-03-01T23:00:00Z", midnight];
        assert_eq!(shown["limits"], windows([3; 3], resets_at), "looking does not count");
        assert_eq!(shown["last_used_at"], NOW);
    }
    advance(&mut owner.client, 3_600).await;
    let answer = owner.client.get(STATUS, &key).await;
    assert_eq!(numbers(&answer).1, 59);
    let shown = owner.usage_of("basic").await;
    let resets_at = ["2026-03-01T23:59:00Z", midnight, midnight];
    assert_eq!(shown["limits"], windows([1, 1, 4], resets_at));
    let (at_22, at_23) = (
        json!({ "hour": "2026-03-01T22:00:00Z", "requests": 3 }),
        json!({ "hour": "2026-03-01T23:00:00Z", "requests": 1 }),
    );
    let today = json!({ "day": "2026-03-01", "requests": 4 });
    assert_eq!(shown["usage"], json!({ "last_24_hours": [at_22, at_23], "last_30_days": [today] }));
    assert_eq!(shown["last_used_at"], "2026-03-01T23:58:30Z");

    // At 21:59 the hour from 22:00 is the 24th and last one. At 22:00 it is gone.
    advance(&mut owner.client, 22 * 3_600).await;
    assert_eq!(owner.client.get(STATUS, &key).await.status, 200);
    let shown = owner.usage_of("basic").await;
    let tomorrow = json!({ "day": "2026-03-02", "requests": 1 });
    let at_21 = json!({ "hour": "2026-03-02T21:00:00Z", "requests": 1 });
    assert_eq!(
        shown["usage"],
        json!({ "last_24_hours": [at_22, at_23, at_21], "last_30_days": [today, tomorrow] })
    );
    advance(&mut owner.client, 90).await;
    let shown = owner.usage_of("basic").await;
    assert_eq!(shown["usage"]["last_24_hours"], json!([at_23, at_21]));
    advance(&mut owner.client, 29 * 86_400).await;
    let shown = owner.usage_of("basic").await;
    assert_eq!(shown["usage"], json!({ "last_24_hours": [], "last_30_days": [tomorrow] }));

    // A revoked token has no limits and keeps its usage.
    let id = owner.id_of("basic").await;
    owner.send(Method::POST, &format!("{TOKENS}/{id}/revoke")).await;
    assert_eq!(owner.client.get(STATUS, &key).await.status, 401);
    let shown = owner.usage_of("basic").await;
    assert_eq!((&shown["status"], &shown["limits"]), (&json!("revoked"), &json!([])));
    assert_eq!(shown["usage"]["last_30_days"], json!([tomorrow]));
    service.end().await;
}

#[tokio::test]
async fn usage_excludes_requests_that_a_limit_refuses() {
    let service = Service::start_with("scanr", &["--now", NOW]).await;
    let mut owner = Owner::connect(&service, "account").await;
    let key = [("x-api-key", service.key("basic"))];
    for number in 0..65 {
        let expected = if number < 60 { 200 } else { 429 };
        assert_eq!(owner.client.get(STATUS, &key).await.status, expected);
    }
    let shown = owner.usage_of("basic").await;
    assert_eq!(shown["limits"][0]["remaining"], 0);
    assert_eq!(shown["usage"]["last_30_days"], json!([{ "day": "2026-03-01", "requests": 60 }]));
    let other = owner.usage_of("basic_write").await;
    assert_eq!(other["limits"][0]["remaining"], 60, "each token has its own limit");
    service.end().await;
}

/// An owner of tokens, with a session.
struct Owner {
    client: Client,
    session: String,
}

impl Owner {
    async fn connect(service: &Service, session: &str) -> Self {
        Self { client: Client::connect(service).await, session: format!("Bearer {}", service.key(session)) }
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path).await
    }

    async fn send(&mut self, method: Method, path: &str) -> Answer {
        self.client.send(method, path, &[("authorization", &self.session)]).await
    }

    async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.send_json(Method::POST, path, &body.to_string()).await
    }

    async fn patch(&mut self, path: &str, body: &Value) -> Answer {
        self.send_json(Method::PATCH, path, &body.to_string()).await
    }

    async fn send_json(&mut self, method: Method, path: &str, body: &str) -> Answer {
        let headers = [("authorization", &*self.session), ("content-type", "application/json")];
        self.client.send_body(method, path, &headers, body).await
    }

    async fn tokens(&mut self, path: &str) -> Vec<Value> {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.json()["next"], Value::Null);
        answer.json()["items"].as_array().unwrap().clone()
    }

    /// The names of the account's tokens, in alphabetical order.
    async fn names(&mut self) -> Vec<String> {
        let tokens = self.tokens(TOKENS).await;
        let mut names: Vec<_> =
            tokens.iter().map(|token| token["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    async fn id_of(&mut self, name: &str) -> String {
        let tokens = self.tokens(TOKENS).await;
        let token = tokens.iter().find(|token| token["name"] == name).unwrap();
        token["id"].as_str().unwrap().to_owned()
    }

    async fn listed(&mut self, id: &str) -> Value {
        let tokens = self.tokens(TOKENS).await;
        tokens.into_iter().find(|token| token["id"] == id).unwrap()
    }

    async fn usage_of(&mut self, name: &str) -> Value {
        let tokens = self.tokens(USAGE).await;
        tokens.into_iter().find(|token| token["name"] == name).unwrap()
    }
}

impl Answer {
    /// The code in the error body.
    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}
