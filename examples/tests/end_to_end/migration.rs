//! `migration`: the legacy tokens of its customers behind Tollgate.

use http::Method;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Client},
    service::Service,
};

const INVOICES: &str = "/invoices";
const TOKENS: &str = "/admin/tokens";

/// Legacy tokens by their kind of hash: the customer and the ID.
const OLD: [(&str, &str, &str); 3] =
    [("sha256", "ada", "tok_0017"), ("bcrypt", "grace", "tok_0344"), ("argon2", "barbara", "tok_1208")];

#[tokio::test]
async fn upgrades_a_legacy_token_at_its_first_use_and_accepts_it_afterwards() {
    let service = Service::start("migration").await;
    let mut api = Api::connect(&service).await;
    for (name, customer, id) in OLD {
        assert_eq!(api.token(id).await["is_upgraded"], false, "{name}");
        for _ in 0..2 {
            let answer = api.get(INVOICES, service.key(name)).await;
            assert_eq!(
                (answer.status.as_u16(), &answer.json()["customer"]),
                (200, &json!(customer)),
                "{name}"
            );
            assert_eq!(api.token(id).await["is_upgraded"], true, "{name}");
        }
    }
    assert_eq!(api.get(INVOICES, service.key("new")).await.json()["customer"], "dorothy");
    service.end().await;
}

#[tokio::test]
async fn refuses_what_is_not_a_token_and_upgrades_nothing() {
    let service = Service::start("migration").await;
    let mut api = Api::connect(&service).await;
    for (name, _, id) in OLD {
        let (prefix, secret) = service.key(name).split_once('.').unwrap();
        for wrong in [format!("{prefix}.{}", secret.to_lowercase()), format!("{prefix}.")] {
            assert_eq!(api.get(INVOICES, &wrong).await.status, 401, "{name}");
        }
        assert_eq!(api.token(id).await["is_upgraded"], false, "{name}");
    }
    let unknown_prefix = service.key("bcrypt").replace("Lv57ecMu", "Lv57ecMv");
    for unknown in [&*unknown_prefix, "no-full-stop-in-it", "acme_live_0123456789ABCDEFGHIJKLMNOP1000000"] {
        assert_eq!(api.get(INVOICES, unknown).await.status, 401, "{unknown}");
    }
    service.end().await;
}

#[tokio::test]
async fn refuses_a_revoked_token_whenever_it_was_revoked() {
    let service = Service::start("migration").await;
    let mut api = Api::connect(&service).await;
    // Revoked before the migration. Asked twice, because the first request upgrades it.
    for _ in 0..2 {
        assert_eq!(api.get(INVOICES, service.key("revoked")).await.status, 401);
    }
    assert_eq!(api.token("tok_0345").await["is_upgraded"], true);
    // Revoked after its upgrade.
    assert_eq!(api.get(INVOICES, service.key("bcrypt")).await.status, 200);
    assert_eq!(api.revoke("tok_0344").await, 204);
    assert_eq!(api.get(INVOICES, service.key("bcrypt")).await.status, 401);
    // Revoked before its first use.
    assert_eq!(api.revoke("tok_1208").await, 204);
    assert_eq!(api.get(INVOICES, service.key("argon2")).await.status, 401);

    assert_eq!(api.revoke("tok_9999").await, 404);
    assert_eq!(api.get(INVOICES, service.key("sha256")).await.status, 200, "another token still works");
    service.end().await;
}

#[tokio::test]
async fn enforces_the_scopes_of_legacy_tokens() {
    let service = Service::start("migration").await;
    let mut api = Api::connect(&service).await;
    for (name, method, path, status) in [
        ("sha256", Method::POST, INVOICES, 201),
        ("argon2", Method::POST, INVOICES, 403),
        ("argon2", Method::GET, TOKENS, 403),
        ("argon2", Method::DELETE, "/admin/tokens/tok_0017", 403),
        ("new", Method::POST, INVOICES, 403),
        ("operator", Method::GET, INVOICES, 403),
        ("sha256", Method::GET, "/nowhere", 404),
        ("sha256", Method::PUT, INVOICES, 405),
    ] {
        let answer = api.send(method.clone(), path, service.key(name)).await;
        assert_eq!(answer.status, status, "{name}: {method} {path}");
    }
    assert_eq!(api.token("tok_0017").await["is_revoked"], false);
    service.end().await;
}

struct Api<'s> {
    client: Client,
    operator: &'s str,
}

impl<'s> Api<'s> {
    async fn connect(service: &'s Service) -> Self {
        Self { client: Client::connect(service).await, operator: service.key("operator") }
    }

    async fn get(&mut self, path: &str, token: &str) -> Answer {
        self.send(Method::GET, path, token).await
    }

    async fn send(&mut self, method: Method, path: &str, token: &str) -> Answer {
        self.client.send(method, path, &[("x-api-key", token)]).await
    }

    /// A token as operators see it.
    async fn token(&mut self, id: &str) -> Value {
        let tokens = self.get(TOKENS, self.operator).await.json();
        tokens.as_array().unwrap().iter().find(|token| token["id"] == id).unwrap().clone()
    }

    async fn revoke(&mut self, id: &str) -> u16 {
        self.send(Method::DELETE, &format!("{TOKENS}/{id}"), self.operator).await.status.as_u16()
    }
}
