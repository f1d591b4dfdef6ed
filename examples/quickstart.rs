//! An axum service behind the whole stack: `cargo run --example quickstart`.
//!
//! It prints four curl commands to try: one that is allowed and three that are refused.

use std::error::Error;

use axum::{Router, routing::get};
use support::Host;
use tollgate::{
    AttemptLimitLayer, CachedKeys, ClientAddress, EntitlementLayer, Environment, KeyFormat, KeyVerifier,
    PerWindow, Plan, ScopeLayer, Scopes, Tollgate,
    key::ApiKey,
    limit::WindowState,
    manage::{Actor, KeyManager, NewKey},
    scope::{InvalidScope, ScopeMap, scope},
};
use tollgate_axum::{Authenticated, RateLimit, peer_address};
use tollgate_sql::SqlKeys;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let host = Host::start("An axum service behind the whole Tollgate stack").await?;

    // The secret of a key is available only here, when the key is issued: the store keeps its digest. Keys in memory are lost
    // when the service stops; `sqlite://keys.db` keeps them.
    let format = KeyFormat::new("sk")?;
    let store = SqlKeys::connect("sqlite::memory:").await?;
    let keys = KeyManager::new(format.clone(), store.clone());
    let actor = Actor::new("quickstart");
    let caller = |name: &str| -> Result<NewKey, InvalidScope> {
        let scopes = Scopes::new(["hello:read"])?;
        let key = NewKey::named(name).with_tenant("acme").with_scopes(scopes).with_plan(Plan::active("pro"));
        Ok(key.with_environment(Environment::Test))
    };
    let reader = keys.issue(caller("reader")?, &actor).await?.secret;
    // The quota of this key replaces the default quota below.
    let hasty = caller("hasty")?.with_quota(tollgate::limit::DEFAULT_POLICY, 5.per_minute());
    let hasty = keys.issue(hasty, &actor).await?.secret;

    // The order of these calls does not matter. A request always passes: request ID, failed attempts, credential, key, quota,
    // subscription, scope.
    let tollgate = Tollgate::builder()
        .attempt_limit(AttemptLimitLayer::new(3_000.per_minute(), ClientAddress::of_peer(peer_address)))
        .verify(KeyVerifier::new(format, CachedKeys::new(store.clone())))
        .rate_limit(60.per_minute().and(1_000.per_hour()))
        .entitlement(EntitlementLayer::new())
        .scope(ScopeLayer::per_route(
            // A route that is not listed here is refused.
            ScopeMap::new().get("/hello", scope("hello:read")).get("/admin", scope("admin")),
        )?)
        .build()?;

    // `.layer` guards every route that was added before it, and paths that do not exist.
    let app = Router::new().route("/hello", get(hello)).route("/admin", get(admin)).layer(tollgate);

    print_curl_commands(&host.url(), &reader, &hasty);
    host.serve(app, &[("reader", reader), ("hasty", hasty)]).await?;
    store.close().await;
    Ok(())
}

async fn hello(Authenticated(caller): Authenticated, RateLimit(limits): RateLimit) -> String {
    let left = limits.tightest().map_or(0, WindowState::remaining);
    format!("Hello, {}! You may ask {left} more times.", caller.tenant().unwrap_or("caller"))
}

async fn admin() -> &'static str {
    "Unreachable: no key has the scope `admin`."
}

fn print_curl_commands(url: &str, reader: &ApiKey, hasty: &ApiKey) {
    let (reader, hasty) = (reader.expose_secret(), hasty.expose_secret());
    eprintln!(
        "
# 200: the X-RateLimit-* headers show what is left
curl -i -s -w '\\n' -H 'Authorization: Bearer {reader}' '{url}/hello'
# 401: no key; WWW-Authenticate asks for one
curl -i -s -w '\\n' '{url}/hello'
# 403: a valid key without the scope
curl -i -s -w '\\n' -H 'X-API-Key: {reader}' '{url}/admin'
# 429 from the sixth request on, with Retry-After; eleven requests, in case a new minute begins in between
curl -i -s -w '\\n' -H 'X-API-Key: {hasty}' '{url}/hello?[1-11]'
"
    );
}
