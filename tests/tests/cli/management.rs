//! The JSON of the command line and of the management routes have the same format. The command line shows more members of a
//! key, since the routes only show what an account page needs.

use axum::{Router, body::Body, http::request::Parts};
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tollgate::{
    Denial, KeyFormat,
    clock::{Clock as _, SystemClock},
    manage::{Actor, KeyManager},
    usage::{UsageBatch, UsageCount, UsageStore as _},
};
use tollgate_axum::management::{Action, KeyRouter};
use tower::ServiceExt as _;

use super::{json, text};

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_events_have_the_json_format_of_the_management_routes() {
    let folder = tempfile::tempdir().unwrap();
    let url = &format!("sqlite://{}", folder.path().join("keys.db").display());
    let bare = text(&json(url, &["keys", "create", "--name=bare"]).await["id"]);
    let create = [
        "keys",
        "create",
        "--name=full",
        "--tenant=acme",
        "--scope=jobs:read jobs:create",
        "--plan=pro",
        "--environment=test",
        "--expires-in=90d",
        "--quota=default=60/minute",
        "--metadata={\"region\":\"eu\"}",
        "--role=owner",
        "--network=198.51.100.0/24",
    ];
    let full = text(&json(url, &create).await["id"]);
    json(url, &["keys", "update", &full, "--plan=pro", "--lapsed", "--name=complete"]).await;
    json(url, &["keys", "rotate", &full, "--overlap=1h"]).await;
    let of_tenant = text(&json(url, &["keys", "create", "--name=plain", "--tenant=acme"]).await["id"]);
    json(url, &["tenants", "plan", "acme", "max"]).await;
    let revoked = text(&json(url, &["keys", "create", "--name=revoked"]).await["id"]);
    json(url, &["keys", "revoke", &revoked]).await;

    let store = tests::patient_store().connect(url).await.unwrap();
    let now = SystemClock.now();
    store.add(UsageBatch::new(1, 1, vec![UsageCount::new(full.as_str(), now, 7, now)])).await.unwrap();
    let manager = KeyManager::new(KeyFormat::opaque(), store.clone());
    let router = KeyRouter::new(manager, allow_everything).with_metadata().into_router();
    for id in [bare, full, of_tenant, revoked] {
        let mut written = json(url, &["keys", "show", &id]).await;
        let members = written.as_object_mut().unwrap();
        let history = members.remove("history").unwrap();
        assert_eq!(answer(&router, &format!("/{id}/history")).await["items"], history);
        for cli_only in ["role", "quotas", "plan_source"] {
            assert!(members.remove(cli_only).is_some(), "{cli_only}");
        }
        assert_eq!(answer(&router, &format!("/{id}")).await, written);
    }
    store.close().await;
}

async fn allow_everything(_head: Parts, _action: Action) -> Result<Actor, Denial> {
    Ok(Actor::new("root"))
}

async fn answer(router: &Router, path: &str) -> Value {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}
