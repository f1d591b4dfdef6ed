//! Authorization, and what responses reveal.

use std::sync::{Arc, Mutex};

use axum::{Router, extract::FromRequestParts, extract::Path};
use http::{Method, request::Parts};
use serde_json::json;
use tollgate::{
    Denial, DenialKind, Plan,
    manage::{Actor, NewKey},
};
use tollgate_axum::management::{Action, Grant, KeyRouter};

use crate::support::{self, App, JSON, manager};

#[tokio::test]
async fn every_route_calls_the_authorization_first_with_its_action() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&asked);
    let app = App::authorized(move |_head: Parts, action: Action| {
        record.lock().unwrap().push(action);
        async { Err::<Actor, _>(Denial::new(DenialKind::CredentialMissing)) }
    });
    let id = || "key_1".into();
    for (method, path, action) in [
        (Method::GET, "/?limit=0", Action::List),
        (Method::HEAD, "/", Action::List),
        (Method::POST, "/", Action::Create),
        (Method::GET, "/key_1", Action::Show { id: id() }),
        (Method::PATCH, "/key_1", Action::Update { id: id() }),
        (Method::POST, "/key_1/revoke", Action::Revoke { id: id() }),
        (Method::POST, "/key_1/rotate", Action::Rotate { id: id() }),
        (Method::DELETE, "/key_1", Action::Delete { id: id() }),
        (Method::GET, "/key_1/history?limit=0", Action::History { id: id() }),
    ] {
        let answer = app.send(method.clone(), path, &[], "nonsense").await;
        assert_eq!(answer.status, 401, "before the request is read: {method} {path} {answer:?}");
        assert_eq!(answer.header("www-authenticate"), Some(r#"Bearer realm="api""#));
        assert_eq!(answer.header("cache-control"), Some("private, no-store"));
        if method != Method::HEAD {
            assert_eq!(answer.code(), "missing_credential");
        }
        assert_eq!(action.key().is_some(), path.starts_with("/key_1"));
        assert_eq!(action.is_change(), !method.is_safe());
        assert_eq!(std::mem::take(&mut *asked.lock().unwrap()), [action], "{method} {path}");
    }
}

#[tokio::test]
async fn keys_of_other_tenants_look_like_missing_ones() {
    let app = App::authorized(async |head: Parts, _action: Action| {
        let tenant = head.headers["tenant"].to_str().unwrap().to_owned();
        Ok::<_, Denial>(Actor::of_tenant("user", tenant))
    });
    let (acme, umbrella) = (("tenant", "acme"), ("tenant", "umbrella"));
    let body = r#"{"name":"build"}"#;
    let issued = app.send(Method::POST, "/", &[acme, JSON], body).await;
    let id = issued.json["id"].as_str().unwrap();
    assert_eq!(
        app.send(Method::POST, "/", &[umbrella, JSON], body).await.status,
        201,
        "names are unique per tenant"
    );

    let foreign = app.send(Method::GET, &format!("/{id}"), &[umbrella], "").await;
    let unknown = app.send(Method::GET, "/key_1", &[umbrella], "").await;
    assert_eq!((foreign.status, &foreign.body), (404, &unknown.body), "both look the same");
    for (method, path, body) in [
        (Method::PATCH, "", body),
        (Method::POST, "/revoke", ""),
        (Method::POST, "/rotate", ""),
        (Method::DELETE, "", ""),
        (Method::GET, "/history", ""),
    ] {
        let path = format!("/{id}{path}");
        assert_eq!(app.send(method, &path, &[umbrella, JSON], body).await.status, 404, "{path}");
    }
    let listed = app.send(Method::GET, "/", &[umbrella], "").await;
    assert!(!listed.body.contains(id), "{listed:?}");
    let own = app.send(Method::GET, &format!("/{id}"), &[acme], "").await;
    assert_eq!((own.json["status"].as_str(), own.json["name"].as_str()), (Some("active"), Some("build")));
}

#[tokio::test]
async fn a_grant_completes_and_refuses_new_keys_and_updates() {
    let app = App::authorized(async |_head: Parts, _action: Action| {
        let grant = Grant::to(Actor::of_tenant("ada", "acme"))
            .with_new_key(|key: NewKey| {
                if key.scopes().grants("jobs:create") || key.expires_at().is_some() {
                    return Err(
                        Denial::new(DenialKind::Forbidden).with_detail(format!("Not {}.", key.name()))
                    );
                }
                Ok(key.with_plan(Plan::active("pro")))
            })
            .with_update(|update| match update.name.as_deref() {
                Some("root") => Err(DenialKind::Forbidden.into()),
                _ => Ok(update),
            });
        Ok::<_, Denial>(grant)
    });
    let issued = app.post("/", &json!({ "name": "build" })).await;
    assert_eq!(issued.json["plan"], json!({ "tier": "pro", "active": true }));
    for refused in [
        json!({ "name": "a", "scopes": ["jobs:create"] }),
        json!({ "name": "a", "expires_at": "2027-01-01T00:00:00Z" }),
    ] {
        let answer = app.post("/", &refused).await;
        assert_eq!((answer.status, answer.detail()), (403, "Not a."));
    }
    let path = format!("/{}", issued.json["id"].as_str().unwrap());
    assert_eq!(app.patch(&path, &json!({ "name": "root" })).await.status, 403);
    assert_eq!(app.names("").await, ["build"]);
}

#[tokio::test]
async fn changes_from_pages_of_other_sites_are_refused() {
    let app = App::with(|router| router.with_trusted_origin("https://app.example.com"));
    let key = app.issue("build").await;
    let path = format!("/{}", key.id);
    let revoke = format!("{path}/revoke");
    let (cross_site, origin) = (("sec-fetch-site", "cross-site"), ("origin", "https://evil.example"));
    for headers in [[cross_site, origin], [("host", "api.example.com"), origin]] {
        for (method, path) in [(Method::POST, &*revoke), (Method::DELETE, &*path), (Method::POST, "/")] {
            let answer = app.send(method, path, &headers, "").await;
            assert_eq!((answer.status, answer.code()), (403, "cross_origin"), "{path}");
        }
        assert_eq!(app.send(Method::GET, "/", &headers, "").await.status, 200);
    }
    assert_eq!(app.get(&path).await.json["status"], "active");
    let trusted = [cross_site, ("origin", "https://app.example.com")];
    assert_eq!(app.send(Method::POST, &revoke, &trusted, "").await.status, 200);
}

#[tokio::test]
async fn a_secret_is_in_one_response_and_no_response_is_cached() {
    let app = App::new();
    let issued = app.post("/", &json!({ "name": "build" })).await;
    let id = issued.json["id"].as_str().unwrap();
    let first = issued.json["secret"].as_str().unwrap().to_owned();
    let rotated = app.post_nothing(&format!("/{id}/rotate")).await;
    let second = rotated.json["secret"].as_str().unwrap().to_owned();
    assert!(issued.body.contains(&first) && rotated.body.contains(&second));
    assert!(!rotated.body.contains(&first));

    let mut answers = vec![issued, rotated];
    let later = answers.len();
    answers.push(app.get("/").await);
    answers.push(app.get(&format!("/{}", answers[0].json["id"].as_str().unwrap())).await);
    let path = format!("/{}", answers[0].json["id"].as_str().unwrap());
    answers.push(app.patch(&path, &json!({ "name": "deploy" })).await);
    answers.push(app.post("/", &json!({ "name": "deploy" })).await);
    answers.push(app.get(&format!("{path}/history")).await);
    answers.push(app.post_nothing(&format!("{path}/revoke")).await);
    answers.push(app.post_nothing(&format!("{path}/rotate")).await);
    answers.push(app.delete(&path).await);
    answers.push(app.get(&path).await);
    for answer in &answers {
        assert!(answer.header("cache-control").unwrap().contains("no-store"), "{answer:?}");
    }
    for answer in &answers[later..] {
        assert!(!answer.body.contains(&first) && !answer.body.contains(&second), "{answer:?}");
        assert!(answer.json.get("secret").is_none(), "{answer:?}");
    }
    let log = support::log();
    assert!(log.contains("name_taken"), "refusals are logged: {log}");
    assert!(!log.contains(&first) && !log.contains(&second), "{log}");
    let debug = format!("{:?}", KeyRouter::new(manager(&app.keys, &app.clock), deny));
    assert!(!debug.contains("pepper"), "{debug}");
}

async fn deny(_head: Parts, _action: Action) -> Result<Grant, Denial> {
    Err(DenialKind::Forbidden.into())
}

#[tokio::test]
async fn it_can_be_mounted_at_any_path_and_authorization_can_read_it() {
    let mut app = App::authorized(async |mut head: Parts, _action: Action| {
        let path = Path::<Vec<(String, String)>>::from_request_parts(&mut head, &()).await.unwrap();
        assert_eq!(path[0].0, "account");
        Ok::<_, Denial>(Actor::of_tenant("ada", path[0].1.clone()))
    });
    app.router = Router::new()
        .nest("/accounts/{account}/keys", app.router)
        .fallback(async || "the application's own")
        .method_not_allowed_fallback(async || "the application's own");
    let issued = app.post("/accounts/acme/keys", &json!({ "name": "build" })).await;
    assert_eq!((issued.status, &issued.json["tenant"]), (201, &json!("acme")), "{issued:?}");
    let id = issued.json["id"].as_str().unwrap();
    assert_eq!(app.get(&format!("/accounts/acme/keys/{id}")).await.status, 200);
    assert_eq!(app.get(&format!("/accounts/umbrella/keys/{id}/history")).await.status, 404);
    assert_eq!(app.send(Method::PUT, "/accounts/acme/keys", &[], "").await.code(), "method_not_allowed");
    assert_eq!(app.get("/accounts/acme/keys/a/b/c").await.code(), "not_found");
    assert_eq!(app.get("/elsewhere").await.body, "the application's own");
}
