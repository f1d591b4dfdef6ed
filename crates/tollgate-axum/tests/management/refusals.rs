//! Refused requests.

use http::Method;
use serde_json::json;
use tollgate::{RequestIdLayer, denial::Unavailable, manage::KeyAdminError, respond};

use crate::support::{App, JSON, Stub};

#[tokio::test]
async fn an_invalid_body_is_refused_with_the_invalid_member_and_issues_nothing() {
    let app = App::new();
    for (body, hint) in [
        ("", "body"),
        ("nonsense", "body"),
        ("[]", "body"),
        ("null", "body"),
        (r#"{"name":"a"} {}"#, "body"),
        (r#"{"name":"a""#, "body"),
        ("{}", "`name`"),
        (r#"{"name":null}"#, "`name`"),
        (r#"{"name":7}"#, "`name`"),
        (r#"{"name":"a","name":"b"}"#, "`name`"),
        (r#"{"name":""}"#, "name"),
        (r#"{"name":"  "}"#, "name"),
        (r#"{"name":"a\nb"}"#, "name"),
        (r#"{"name":"a","scopes":"jobs:read"}"#, "`scopes`"),
        (r#"{"name":"a","scopes":[7]}"#, "`scopes[0]`"),
        (r#"{"name":"a","scopes":["jobs read"]}"#, "`scopes`"),
        (r#"{"name":"a","scopes":[""]}"#, "`scopes`"),
        (r#"{"name":"a","scopes":["jobs:delete"]}"#, "`jobs:delete`"),
        (r#"{"name":"a","scopes":["jobs:*"]}"#, "`jobs:*`"),
        (r#"{"name":"a","scopes":["*"]}"#, "`*`"),
        (r#"{"name":"a","expires_at":"2026-03-01T22:58:30Z"}"#, "expiry"),
        (r#"{"name":"a","expires_at":"1969-01-01T00:00:00Z"}"#, "expiry"),
        (r#"{"name":"a","expires_at":"tomorrow"}"#, "`expires_at`"),
        (r#"{"name":"a","expires_at":"2027-01-31"}"#, "`expires_at`"),
        (r#"{"name":"a","expires_at":"2027-01-31T00:00:00"}"#, "`expires_at`"),
        (r#"{"name":"a","expires_at":"2027-02-31T00:00:00Z"}"#, "`expires_at`"),
        (r#"{"name":"a","expires_at":1800000000}"#, "`expires_at`"),
        (r#"{"name":"a","plan":{"tier":"pro"}}"#, "`plan`"),
        (r#"{"name":"a","quotas":{}}"#, "`quotas`"),
        (r#"{"name":"a","tenant":"umbrella"}"#, "`tenant`"),
        (r#"{"name":"a","metadata":{}}"#, "`metadata`"),
        (r#"{"name":"a","environment":"test"}"#, "`environment`"),
    ] {
        let answer = app.send(Method::POST, "/", &[JSON], body).await;
        assert_eq!((answer.status, answer.code()), (400, "invalid_request"), "{body}: {answer:?}");
        assert!(answer.detail().contains(hint), "{body}: {}", answer.detail());
        assert!(answer.detail().ends_with('.'), "{}", answer.detail());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let long = json!({ "name": "n".repeat(101) });
    assert_eq!(app.post("/", &long).await.status, 400);
    assert!(app.names("").await.is_empty());
}

#[tokio::test]
async fn an_invalid_query_is_refused() {
    let app = App::new();
    let id = app.issue("build").await.id;
    for (path, code) in [
        ("/?limit=0", "invalid_request"),
        ("/?limit=1001", "invalid_request"),
        ("/?limit=-1", "invalid_request"),
        ("/?limit=many", "invalid_request"),
        ("/?status=dead", "invalid_request"),
        ("/?status=", "invalid_request"),
        ("/?search=%00", "invalid_request"),
        ("/?after=%00", "invalid_request"),
        ("/?tenant=umbrella", "invalid_request"),
        ("/?limit=1&limit=2", "invalid_request"),
        ("/?after=nonsense", "invalid_cursor"),
        ("/ID/history?after=nonsense", "invalid_cursor"),
        ("/ID/history?limit=0", "invalid_request"),
        ("/ID/history?status=active", "invalid_request"),
    ] {
        let answer = app.get(&path.replace("ID", &id)).await;
        assert_eq!((answer.status, answer.code()), (400, code), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn names_are_unique() {
    let app = App::new();
    app.issue("build").await;
    let answer = app.post("/", &json!({ "name": "build" })).await;
    assert_eq!((answer.status, answer.code()), (409, "name_taken"), "{answer:?}");
    let other = app.issue_later("other").await;
    let answer = app.patch(&format!("/{}", other.id), &json!({ "name": "build" })).await;
    assert_eq!((answer.status, answer.code()), (409, "name_taken"));
    assert_eq!(app.names("").await, ["other", "build"]);
}

#[tokio::test]
async fn unknown_paths_methods_and_keys_are_refused() {
    let app = App::new();
    let id = app.issue("build").await.id;
    let long = "k".repeat(300);
    for key in ["missing", "key_1", "%00", "%FF", "..%2f", &long] {
        for (method, path) in KEY_ROUTES {
            let path = path.replace("ID", key);
            let body = if method == Method::PATCH { r#"{"name":"a"}"# } else { "" };
            let answer = app.send(method, &path, &[JSON], body).await;
            assert_eq!((answer.status, answer.code()), (404, "not_found"), "{path}: {answer:?}");
        }
    }
    for path in ["/ID/", "/ID/nowhere", "/ID/history/1", "//"] {
        let answer = app.get(&path.replace("ID", &id)).await;
        assert_eq!((answer.status, answer.code()), (404, "not_found"), "{path}: {answer:?}");
    }
    for (method, path, allow) in [
        (Method::PUT, "/", "GET,HEAD,POST"),
        (Method::DELETE, "/", "GET,HEAD,POST"),
        (Method::POST, "/ID", "GET,HEAD,PATCH,DELETE"),
        (Method::GET, "/ID/revoke", "POST"),
        (Method::DELETE, "/ID/rotate", "POST"),
        (Method::POST, "/ID/history", "GET,HEAD"),
    ] {
        let answer = app.send(method, &path.replace("ID", &id), &[], "").await;
        assert_eq!((answer.status, answer.code()), (405, "method_not_allowed"), "{path}");
        assert_eq!(answer.header("allow"), Some(allow), "{path}");
        assert_eq!(answer.header("cache-control"), Some("private, no-store"));
    }
}

const KEY_ROUTES: [(Method, &str); 6] = [
    (Method::GET, "/ID"),
    (Method::PATCH, "/ID"),
    (Method::POST, "/ID/revoke"),
    (Method::POST, "/ID/rotate"),
    (Method::DELETE, "/ID"),
    (Method::GET, "/ID/history"),
];

#[tokio::test]
async fn only_json_of_a_bounded_size_is_read() {
    let app = App::new();
    let id = app.issue("build").await.id;
    let (name, overlap) = (r#"{"name":"a"}"#, r#"{"overlap_s":1}"#);
    for (method, path, body) in [
        (Method::POST, "/", name),
        (Method::PATCH, "/ID", name),
        (Method::POST, "/ID/rotate", overlap),
        (Method::POST, "/ID/revoke", "{}"),
    ] {
        let path = path.replace("ID", &id);
        for media_type in [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "application/jsonp",
            "json",
        ] {
            let headers = [("content-type", media_type)];
            let headers = if media_type.is_empty() { &[] } else { &headers[..] };
            let answer = app.send(method.clone(), &path, headers, body).await;
            assert_eq!(
                (answer.status, answer.code()),
                (415, "unsupported_media_type"),
                "{path} {media_type}"
            );
        }
        let long = format!("{body}{}", " ".repeat(64 * 1024));
        let answer = app.send(method.clone(), &path, &[JSON], &long).await;
        assert_eq!((answer.status, answer.code()), (413, "too_large"), "{path}");
        let answer = app.send(method, &path, &[JSON, JSON], body).await;
        assert_eq!(answer.status, 415, "a repeated type is none");
    }
    assert_eq!(app.names("").await, ["build"], "nothing was done");
    for media_type in ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"]
    {
        let answer = app.send(Method::PATCH, &format!("/{id}"), &[("content-type", media_type)], name).await;
        assert_eq!(answer.status, 200, "{media_type}");
    }
    let answer = app.post(&format!("/{id}/revoke"), &json!({ "why": "leaked" })).await;
    assert_eq!(answer.status, 400);
    assert_eq!(app.get(&format!("/{id}")).await.json["status"], "active");
}

#[tokio::test]
async fn each_store_error_has_its_status() {
    for (error, status, code) in [
        (KeyAdminError::Invalid("no".into()), 400, "invalid_request"),
        (KeyAdminError::InvalidCursor, 400, "invalid_cursor"),
        (KeyAdminError::NotPermitted, 403, "forbidden"),
        (KeyAdminError::NotFound, 404, "not_found"),
        (KeyAdminError::NameTaken, 409, "name_taken"),
        (KeyAdminError::KeyTaken, 409, "key_taken"),
        (KeyAdminError::Revoked, 409, "revoked"),
        (KeyAdminError::Unavailable(Unavailable::new("db-7 is down")), 503, "unavailable"),
    ] {
        let app = App::of_store(&Stub(Err(error)));
        for answer in [
            app.get("/").await,
            app.post("/", &json!({ "name": "a" })).await,
            app.get("/key_1").await,
            app.patch("/key_1", &json!({ "name": "a" })).await,
            app.post_nothing("/key_1/revoke").await,
            app.post_nothing("/key_1/rotate").await,
            app.delete("/key_1").await,
            app.get("/key_1/history").await,
        ] {
            assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
            assert!(!answer.body.contains("db-7"), "only for the log: {answer:?}");
        }
    }
}

#[tokio::test]
async fn refusals_use_the_responder_of_the_router_or_else_of_the_outer_layers() {
    let own = || respond::Json::new(|denial| json!({ "own": denial.code() }));
    let outer = respond::Json::new(|denial| json!({ "outer": denial.code() }));
    let layer = RequestIdLayer::new().with_responder(outer);
    let mut plain = App::new();
    plain.router = plain.router.layer(layer.clone());
    let mut with_own = App::with(|router| router.with_responder(own()));
    with_own.router = with_own.router.layer(layer);
    for (app, expected) in [(plain, "outer"), (with_own, "own")] {
        for (method, path, code) in [
            (Method::GET, "/missing", "not_found"),
            (Method::GET, "/no/where", "not_found"),
            (Method::PUT, "/", "method_not_allowed"),
            (Method::GET, "/?limit=0", "invalid_request"),
        ] {
            let answer = app.send(method, path, &[], "").await;
            assert_eq!(answer.json, json!({ expected: code }), "{path}");
        }
    }
}
