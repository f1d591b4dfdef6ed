//! How much a caller of the router can make the store keep, and which scopes and dates it can choose.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tollgate::{Scopes, manage::KeyDetails};
use tollgate_axum::management::KeyRouter;

use crate::support::{self, App, Stub, ada};

/// A tenant's user asks for everything.
#[tokio::test]
async fn a_wildcard_and_an_unlisted_scope_are_refused_also_if_the_manager_allows_every_scope() {
    let app = App::of_open_manager(|router| router);
    for scopes in [json!(["*"]), json!(["jobs:*"]), json!(["jobs:read"])] {
        let answer = app.post("/", &json!({ "name": "a", "scopes": scopes })).await;
        assert_eq!((answer.status, answer.code()), (400, "invalid_request"), "{scopes}: {answer:?}");
    }
    assert_eq!(app.issue("a").await.id.len(), "key_".len() + 32, "a key without scopes is issued");
}

/// By default callers choose from the manager's known scopes, which may have wildcards for keys that the application issues.
#[tokio::test]
async fn a_wildcard_is_refused_also_if_it_is_a_known_scope() {
    let known = Scopes::new(["jobs:read", "jobs:*", "*"]).unwrap();
    let app = App::of_manager(|manager| KeyRouter::new(manager.with_known_scopes(known), ada));
    for (scopes, status) in [(json!(["jobs:read"]), 201), (json!(["jobs:*"]), 400), (json!(["*"]), 400)] {
        let answer = app.post("/", &json!({ "name": format!("{scopes}"), "scopes": scopes })).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[tokio::test]
async fn the_application_lists_the_scopes_that_callers_may_choose() {
    let listed = Scopes::new(["jobs:read", "results:*"]).unwrap();
    let app = App::of_open_manager(|router| router.with_scopes(listed).with_rights_updates());
    for (scopes, status) in [
        (json!(["jobs:read", "results:*"]), 201),
        (json!(["results:read"]), 400),
        (json!(["jobs:*"]), 400),
        (json!(["*"]), 400),
    ] {
        let answer = app.post("/", &json!({ "name": format!("{scopes}"), "scopes": scopes })).await;
        assert_eq!(answer.status, status, "{answer:?}");
        if status == 400 {
            assert!(answer.detail().ends_with("choose from `jobs:read`, `results:*`."), "{answer:?}");
        }
    }
    let path = format!("/{}", app.issue("a").await.id);
    assert_eq!(app.patch(&path, &json!({ "scopes": ["*"] })).await.status, 400);
    assert_eq!(app.patch(&path, &json!({ "scopes": ["jobs:read"] })).await.status, 200);
}

/// One body of less than 64 KiB can have thousands of scopes. 10,900 of them took 0.6 MB in a cache.
#[tokio::test]
async fn a_body_with_thousands_of_scopes_is_refused() {
    let app = App::of_open_manager(|router| router);
    let scopes: Vec<_> = (0..8_000).map(|number| number.to_string()).collect();
    let body = json!({ "name": "a", "scopes": scopes });
    let answer = app.post("/", &body).await;
    assert_eq!((answer.status, answer.code()), (400, "invalid_request"), "{answer:?}");

    let app = App::of_open_manager(KeyRouter::dangerous_any_scope);
    let answer = app.post("/", &body).await;
    assert_eq!((answer.status, answer.code()), (400, "invalid_request"), "{answer:?}");
    assert!(answer.detail().contains("at most 256 scopes"), "{answer:?}");
    assert_eq!(app.post("/", &json!({ "name": "a", "scopes": ["*"] })).await.status, 201, "told to");
}

#[tokio::test]
async fn an_expiry_after_the_year_9998_is_refused_with_the_bound() {
    let app = App::new();
    for expires_at in ["9999-01-01T00:00:00Z", "9999-12-30T21:00:00Z", "9999-12-31T23:59:59Z"] {
        let answer = app.post("/", &json!({ "name": "a", "expires_at": expires_at })).await;
        assert_eq!((answer.status, answer.code()), (400, "invalid_request"), "{answer:?}");
        assert!(answer.detail().contains("before the year 9999"), "{answer:?}");
    }
    let latest = "9998-12-31T23:59:59Z";
    let answer = app.post("/", &json!({ "name": "a", "expires_at": latest })).await;
    assert_eq!((answer.status, &answer.json["expires_at"]), (201, &json!(latest)), "{answer:?}");
}

/// A store can hold a date that no calendar has: before this bound existed, or because another program wrote it.
#[tokio::test]
async fn an_expiry_beyond_the_calendar_is_not_shown_as_never() {
    let mut details = KeyDetails::new("key_1", "build", support::now());
    details.tenant = Some("acme".into());
    details.expires_at = Some(far_future());
    let app = App::of_store(&Stub(Ok(details)));
    let shown = app.get("/key_1").await.json["expires_at"].clone();
    assert!(shown != Value::Null && shown.as_str().unwrap().starts_with("9999-"), "{shown}");
}

fn far_future() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(300_000_000_000)
}
