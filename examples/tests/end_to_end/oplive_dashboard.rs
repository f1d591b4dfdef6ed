//! `oplive`: the dashboard, where an organization manages its keys.

use http::Method;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Client},
    oplive::{CREDITS, Caller, PERMISSIONS, SCAN, bearer, create_key},
    service::Service,
};

const KEYS: &str = "/dashboard/api-keys";

#[tokio::test]
async fn a_new_key_has_the_chosen_permissions_and_is_shown_once() {
    let service = Service::start("oplive").await;
    let mut dashboard = Dashboard::connect(&service).await;
    let created = create_key(&mut dashboard.client, &service, "ci", &["scan:create", "credits:read"]).await;
    let secret = created["secret"].as_str().unwrap();
    assert!(secret.starts_with("op_live_"), "{secret}");
    assert_eq!(created["scopes"], json!(["credits:read", "scan:create"]));
    let mut caller = Caller::with_key(&service, secret).await;
    assert_eq!(caller.post(SCAN, "{}").await.status, 201);
    assert_eq!(caller.balance().await, 195, "the key belongs to the organization of the session");
    assert_eq!(caller.get("/v1/jobs/job_1").await.status, 403);

    let id = created["id"].as_str().unwrap();
    for path in [KEYS.to_owned(), format!("{KEYS}/{id}"), format!("{KEYS}/{id}/history")] {
        let shown = dashboard.send(Method::GET, &path, "").await;
        assert_eq!(shown.status, 200);
        assert!(shown.body.contains("ci") && !shown.body.contains(&secret[16..]), "{shown:?}");
    }
    for permissions in [json!(["scan:delete"]), json!(["scan:*"]), json!(["*"])] {
        let asked = json!({ "name": "more", "scopes": permissions }).to_string();
        let refused = dashboard.send(Method::POST, KEYS, &asked).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["error"]), (400, &json!("INVALID_REQUEST")));
    }
    service.end().await;
}

#[tokio::test]
async fn shows_the_keys_of_the_organization_only() {
    let service = Service::start("oplive").await;
    let mut dashboard = Dashboard::connect(&service).await;
    assert_eq!(
        dashboard.names().await,
        ["full", "read_only", "sibling"],
        "not of other organizations, nor deleted"
    );
    service.end().await;
}

#[tokio::test]
async fn a_key_that_is_deleted_or_revoked_is_refused_at_once() {
    let service = Service::start("oplive").await;
    let mut dashboard = Dashboard::connect(&service).await;
    for (name, method, suffix, status) in
        [("deleted now", Method::DELETE, "", 204), ("revoked now", Method::POST, "/revoke", 200)]
    {
        let key = create_key(&mut dashboard.client, &service, name, &PERMISSIONS).await;
        let mut caller = Caller::with_key(&service, key["secret"].as_str().unwrap()).await;
        let job = caller.post(SCAN, "{}").await.json();
        let path = format!("{KEYS}/{}{suffix}", key["id"].as_str().unwrap());
        assert_eq!(dashboard.send(method, &path, "").await.status, status);
        assert_invalid(&caller.get(CREDITS).await);
        assert_invalid(&caller.post(SCAN, "{}").await);
        // The job belongs to the organization, which still has it.
        let job = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
        assert_eq!(Caller::connect(&service, "read_only").await.get(&job).await.status, 200);
    }
    assert_eq!(dashboard.names().await, ["full", "read_only", "revoked now", "sibling"]);
    service.end().await;
}

#[tokio::test]
async fn a_rotation_replaces_the_key_at_once() {
    let service = Service::start("oplive").await;
    let mut dashboard = Dashboard::connect(&service).await;
    let key = create_key(&mut dashboard.client, &service, "leaked", &["credits:read"]).await;
    let mut caller = Caller::with_key(&service, key["secret"].as_str().unwrap()).await;
    assert_eq!(caller.get(CREDITS).await.status, 200);
    let rotated =
        dashboard.send(Method::POST, &format!("{KEYS}/{}/rotate", key["id"].as_str().unwrap()), "").await;
    assert_eq!(rotated.status, 200, "{rotated:?}");
    assert_invalid(&caller.get(CREDITS).await);
    let mut caller = Caller::with_key(&service, rotated.json()["secret"].as_str().unwrap()).await;
    assert_eq!(caller.get(CREDITS).await.status, 200);
    service.end().await;
}

#[tokio::test]
async fn accepts_sessions_only() {
    let service = Service::start("oplive").await;
    let mut client = Client::connect(&service).await;
    let [full, other_org] = [bearer(service.key("full")), bearer(service.key("other_org"))];
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[], "MISSING_CREDENTIAL"),
        (&[("x-api-key", service.key("dashboard"))], "MISSING_CREDENTIAL"),
        (&[("authorization", &full)], "INVALID_CREDENTIAL"),
        (&[("authorization", &other_org)], "INVALID_CREDENTIAL"),
    ];
    for (headers, code) in cases {
        for path in [KEYS, "/dashboard/nowhere"] {
            let answer = client.get(path, headers).await;
            assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (401, &json!(code)), "{path}");
        }
    }
    service.end().await;
}

/// A session of the dashboard.
struct Dashboard {
    client: Client,
    session: String,
}

impl Dashboard {
    async fn connect(service: &Service) -> Self {
        Self { client: Client::connect(service).await, session: bearer(service.key("dashboard")) }
    }

    async fn send(&mut self, method: Method, path: &str, body: &str) -> Answer {
        let headers = [("authorization", &*self.session), ("content-type", "application/json")];
        self.client.send_body(method, path, &headers, body).await
    }

    /// The names of all keys, in alphabetical order.
    async fn names(&mut self) -> Vec<String> {
        let listed = self.send(Method::GET, KEYS, "").await.json();
        let keys = listed["items"].as_array().unwrap();
        let name = |key: &Value| key["name"].as_str().unwrap().to_owned();
        let mut names: Vec<_> = keys.iter().map(name).collect();
        names.sort();
        names
    }
}

fn assert_invalid(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (401, &json!("INVALID_API_KEY")));
}
