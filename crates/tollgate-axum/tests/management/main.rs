//! Key management by the owners of keys: routes, refusals and access.
#![cfg(test)]

mod bounds;
mod refusals;
mod support;
mod trust;

use std::time::Duration;

use serde_json::{Value, json};
use support::{App, NOW, Stub, is_accepted, manager};
use tollgate::Plan;
use tollgate_axum::management::KeyRouter;

#[tokio::test]
async fn a_key_is_issued_as_requested_and_its_secret_is_shown_once() {
    let app = App::new();
    let asked = json!({ "name": "build", "scopes": ["jobs:read", "jobs:create"], "expires_at": "2027-01-31T01:00:00+01:00" });
    let answer = app.post("/", &asked).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let secret = answer.json["secret"].as_str().unwrap();
    let id = answer.json["id"].as_str().unwrap();
    assert_eq!(
        answer.json,
        json!({
            "id": id,
            "secret": secret,
            "name": "build",
            "prefix": &secret[..answer.json["prefix"].as_str().unwrap().len()],
            "tenant": "acme",
            "scopes": ["jobs:create", "jobs:read"],
            "plan": null,
            "allowed_networks": [],
            "environment": "live",
            "status": "active",
            "created_at": NOW,
            "expires_at": "2027-01-31T00:00:00Z",
            "last_used_at": null,
            "revoked_at": null,
            "former_until": null,
        })
    );
    assert!(is_accepted(&app.keys, secret));

    let mut shown = answer.json.clone();
    shown.as_object_mut().unwrap().remove("secret");
    assert_eq!(app.get(&format!("/{id}")).await.json, shown);
    assert_eq!(app.get("/").await.json, json!({ "items": [shown], "next": null }));
}

#[tokio::test]
async fn omitted_members_have_defaults() {
    let app = App::new();
    for asked in [
        json!({ "name": "a" }),
        json!({ "name": "b", "scopes": null, "expires_at": null }),
        json!({ "name": "c", "scopes": [] }),
    ] {
        let answer = app.post("/", &asked).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.json["scopes"], json!(["jobs:read"]));
        assert_eq!(answer.json["expires_at"], Value::Null);
    }
}

#[tokio::test]
async fn a_key_may_be_restricted_to_networks() {
    let app = App::new();
    let asked = json!({ "name": "build", "allowed_networks": ["2001:db8::/32", "198.51.100.7"] });
    let issued = app.post("/", &asked).await;
    assert_eq!(issued.json["allowed_networks"], json!(["198.51.100.7/32", "2001:db8::/32"]));
    let id = issued.json["id"].as_str().unwrap();
    assert_eq!(app.get(&format!("/{id}")).await.json["allowed_networks"], issued.json["allowed_networks"]);
    let many: Vec<_> = (0..101).map(|number| format!("10.0.0.{number}")).collect();
    for (networks, expected) in [
        (json!(["10.0.0.0/33"]), "`allowed_networks`: \"10.0.0.0/33\" is not a network"),
        (json!(many), "`allowed_networks`: more than 100 networks"),
        (json!("10.0.0.0/8"), "`allowed_networks` is invalid"),
    ] {
        let refused = app.post("/", &json!({ "name": "other", "allowed_networks": networks })).await;
        assert_eq!((refused.status, refused.code()), (400, "invalid_request"));
        assert!(refused.detail().contains(expected), "{refused:?}");
    }
    assert_eq!(app.names("").await, ["build"]);
}

#[tokio::test]
async fn a_key_has_the_plan_of_its_tenant_unless_it_has_its_own() {
    let app = App::new();
    let path = format!("/{}", app.issue("build").await.id);
    app.keys.set_tenant_plan("acme", Plan::active("pro"));
    assert_eq!(app.get(&path).await.json["plan"], json!({ "tier": "pro", "active": true }));
    assert_eq!(app.get("/").await.json["items"][0]["plan"]["tier"], "pro");
    app.keys.set_tenant_plan("acme", None);
    assert_eq!(app.get(&path).await.json["plan"], Value::Null);
}

#[tokio::test]
async fn a_key_is_renamed() {
    let app = App::new();
    let id = app.issue("before").await.id;
    let answer = app.patch(&format!("/{id}"), &json!({ "name": "after" })).await;
    assert_eq!((answer.status, &answer.json["name"]), (200, &json!("after")));
    assert_eq!(app.get(&format!("/{id}")).await.json["name"], "after");
}

#[tokio::test]
async fn rights_can_be_changed_only_if_enabled() {
    let app = App::new();
    let path = format!("/{}", app.issue("build").await.id);
    for update in [
        json!({ "scopes": ["jobs:create"] }),
        json!({ "name": "a", "expires_at": null }),
        json!({ "allowed_networks": [] }),
        json!({}),
    ] {
        let answer = app.patch(&path, &update).await;
        assert_eq!((answer.status, answer.code()), (400, "invalid_request"), "{update}");
    }
    assert_eq!(app.get(&path).await.json["name"], "build");

    let app = App::with(KeyRouter::with_rights_updates);
    let path = format!("/{}", app.issue("build").await.id);
    let changed =
        app.patch(&path, &json!({ "scopes": ["jobs:create"], "expires_at": "2027-01-31T00:00:00Z" })).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(changed.json["scopes"], json!(["jobs:create"]));
    assert_eq!(changed.json["name"], "build");
    assert_eq!(changed.json["expires_at"], "2027-01-31T00:00:00Z");
    let changed = app.patch(&path, &json!({ "name": "deploy" })).await;
    assert_eq!(changed.json["expires_at"], "2027-01-31T00:00:00Z");
    assert_eq!(app.patch(&path, &json!({ "expires_at": null })).await.json["expires_at"], Value::Null);
    let changed = app.patch(&path, &json!({ "allowed_networks": ["10.1.2.3/8"] })).await;
    assert_eq!(changed.json["allowed_networks"], json!(["10.0.0.0/8"]));
    assert_eq!(
        app.patch(&path, &json!({ "allowed_networks": [] })).await.json["allowed_networks"],
        json!([])
    );
    for update in [
        json!({ "allowed_networks": ["everywhere"] }),
        json!({ "scopes": ["jobs:delete"] }),
        json!({ "expires_at": "2020-01-01T00:00:00Z" }),
        json!({ "name": "" }),
        json!({ "plan": "pro" }),
    ] {
        assert_eq!(app.patch(&path, &update).await.status, 400, "{update}");
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_and_its_record_is_kept() {
    let app = App::new();
    let key = app.issue("build").await;
    for _ in 0..2 {
        let answer = app.post_nothing(&format!("/{}/revoke", key.id)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json["status"], "revoked");
        assert_eq!(answer.json["revoked_at"], NOW);
        assert!(!is_accepted(&app.keys, &key.secret));
    }
    assert_eq!(app.get(&format!("/{}", key.id)).await.json["status"], "revoked");
    for (path, body) in [("", json!({ "name": "other" })), ("/rotate", json!({}))] {
        let path = format!("/{}{path}", key.id);
        let answer = if path.ends_with("rotate") {
            app.post(&path, &body).await
        } else {
            app.patch(&path, &body).await
        };
        assert_eq!((answer.status, answer.code()), (409, "revoked"));
    }
}

#[tokio::test]
async fn a_rotated_key_has_a_new_secret_and_the_former_one_for_the_overlap() {
    let app = App::new();
    let key = app.issue("build").await;
    let answer = app.post(&format!("/{}/rotate", key.id), &json!({ "overlap_s": 90 })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json["id"], *key.id);
    assert_eq!(answer.json["former_until"], "2026-03-01T23:00:00Z");
    let second = answer.json["secret"].as_str().unwrap();
    assert_ne!(second, key.secret);
    assert!(is_accepted(&app.keys, &key.secret) && is_accepted(&app.keys, second));

    let answer = app.post_nothing(&format!("/{}/rotate", key.id)).await;
    assert_eq!((answer.status, &answer.json["former_until"]), (200, &Value::Null));
    let third = answer.json["secret"].as_str().unwrap();
    assert!(!is_accepted(&app.keys, &key.secret) && !is_accepted(&app.keys, second));
    assert!(is_accepted(&app.keys, third));

    for body in [
        json!({ "overlap_s": 366 * 86_400 + 1 }),
        json!({ "overlap_s": -1 }),
        json!({ "overlap": 1 }),
        json!([]),
    ] {
        assert_eq!(app.post(&format!("/{}/rotate", key.id), &body).await.status, 400, "{body}");
    }
    assert!(is_accepted(&app.keys, third), "nothing half done");
}

#[tokio::test]
async fn a_deleted_key_keeps_only_its_history() {
    let app = App::new();
    let key = app.issue("build").await;
    let path = format!("/{}", key.id);
    let answer = app.delete(&path).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert!(!is_accepted(&app.keys, &key.secret));
    assert_eq!(app.get(&path).await.status, 404);
    assert_eq!(app.delete(&path).await.status, 404);
    assert_eq!(app.get("/").await.json["items"], json!([]));
    let history = app.get(&format!("{path}/history")).await;
    assert_eq!(history.json["items"][0]["action"], "deleted");
    app.issue("build").await;
}

#[tokio::test]
async fn a_history_is_listed_in_pages_latest_first() {
    let app = App::new();
    let id = app.issue("build").await.id;
    app.clock.advance(Duration::from_secs(1));
    app.patch(&format!("/{id}"), &json!({ "name": "deploy" })).await;
    app.clock.advance(Duration::from_millis(1_500));
    app.post_nothing(&format!("/{id}/revoke")).await;
    app.issue("another").await;

    let page = app.get(&format!("/{id}/history?limit=2")).await.json;
    let time_and_action = |event: &Value| {
        assert_eq!(event["operator"], "ada");
        [event["at"].as_str().unwrap().to_owned(), event["action"].as_str().unwrap().to_owned()]
    };
    let events: Vec<_> = page["items"].as_array().unwrap().iter().map(time_and_action).collect();
    assert_eq!(events, [["2026-03-01T22:58:32.5Z", "revoked"], ["2026-03-01T22:58:31Z", "updated"]]);
    assert!(page["items"][1]["detail"].is_string());
    let page = app.get(&format!("/{id}/history?after={}", page["next"].as_str().unwrap())).await.json;
    assert_eq!(time_and_action(&page["items"][0]), [NOW, "issued"]);
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next"]), (1, &Value::Null));
}

#[tokio::test]
async fn a_list_can_be_filtered_and_is_listed_in_pages() {
    let app = App::new();
    for name in ["a1", "a2", "b1"] {
        app.issue_later(name).await;
    }
    app.clock.advance(Duration::from_micros(1));
    let soon = json!({ "name": "b2", "expires_at": "2026-03-01T22:58:31Z" });
    assert_eq!(app.post("/", &soon).await.status, 201);
    let revoked = app.issue_later("b3").await;
    app.post_nothing(&format!("/{}/revoke", revoked.id)).await;

    for (query, expected) in [
        ("", vec!["b3", "b2", "b1", "a2", "a1"]),
        ("?limit=1000", vec!["b3", "b2", "b1", "a2", "a1"]),
        ("?search=a", vec!["a2", "a1"]),
        ("?search=sk_live_", vec!["b3", "b2", "b1", "a2", "a1"]),
        ("?search=x", vec![]),
        ("?status=active", vec!["b2", "b1", "a2", "a1"]),
        ("?status=revoked", vec!["b3"]),
        ("?status=expired", vec![]),
        ("?status=active&search=b", vec!["b2", "b1"]),
    ] {
        assert_eq!(app.names(query).await, expected, "{query}");
    }
    app.clock.advance(Duration::from_secs(1));
    for (query, expected) in [
        ("?status=active", vec!["b1", "a2", "a1"]),
        ("?status=expired", vec!["b2"]),
        ("?status=suspended", vec![]),
    ] {
        assert_eq!(app.names(query).await, expected, "{query}");
    }
    app.keys.suspend_tenant("acme");
    for (query, expected) in [
        ("?status=active", vec![]),
        ("?status=suspended", vec!["b1", "a2", "a1"]),
        ("?status=expired", vec!["b2"]),
    ] {
        assert_eq!(app.names(query).await, expected, "{query}");
    }

    let mut names = Vec::new();
    let mut next = String::new();
    loop {
        let page = app.get(&format!("/?limit=2{next}")).await.json;
        names.extend(page["items"].as_array().unwrap().iter().map(|key| key["name"].clone()));
        let Some(cursor) = page["next"].as_str() else { break };
        next = format!("&after={cursor}");
    }
    assert_eq!(names, ["b3", "b2", "b1", "a2", "a1"]);
}

#[tokio::test]
async fn metadata_is_shown_only_if_enabled() {
    let metadata = tollgate::manage::Metadata::of(&json!({ "team": 7 })).unwrap();
    for (app, expected) in
        [(App::new(), None), (App::with(KeyRouter::with_metadata), Some(json!({ "team": 7 })))]
    {
        let manager = manager(&app.keys, &app.clock);
        let key =
            tollgate::manage::NewKey::named("build").with_tenant("acme").with_metadata(metadata.clone());
        manager.issue(key, &tollgate::manage::Actor::new("cli")).await.unwrap();
        assert_eq!(app.get("/").await.json["items"][0].get("metadata").cloned(), expected);
    }
}

#[tokio::test]
async fn the_last_use_is_shown() {
    let mut details = tollgate::manage::KeyDetails::new("key_1", "build", support::now());
    details.tenant = Some("acme".into());
    details.last_used_at = Some(support::now() + Duration::from_secs(9));
    let app = App::of_store(&Stub(Ok(details)));
    assert_eq!(app.get("/key_1").await.json["last_used_at"], "2026-03-01T22:58:39Z");
}
