//! An axum service behind the whole stack: `cargo run --example quickstart`.
//!
//! It prints curl lines to try: an answer, and three ways to be refused.

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

    // A key is shown once, when it is issued; the store keeps its digest. With `sqlite://keys.db` it would outlive the service.
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
    // A quota of its own takes the place of the one below.
    let hasty = caller("hasty")?.with_quota(tollgate::limit::DEFAULT_POLICY, 5.per_minute());
    let hasty = keys.issue(hasty, &actor).await?.secret;

    // In whatever order these are named, a request meets them in the right one: request ID, failed attempts, credential, key,
    // quota, subscription, scope.
    let tollgate = Tollgate::builder()
        .attempt_limit(AttemptLimitLayer::new(3_000.per_minute(), ClientAddress::of_peer(peer_address)))
        .verify(KeyVerifier::new(format, CachedKeys::new(store.clone())))
        .rate_limit(60.per_minute().and(1_000.per_hour()))
        .entitlement(EntitlementLayer::new())
        .scope(ScopeLayer::per_route(
            // Who adds a route and forgets it here has closed it, not opened it.
            ScopeMap::new().get("/hello", scope("hello:read")).get("/admin", scope("admin")),
        )?)
        .build()?;

    // `.layer` comes after the routes and holds for all of them, and for paths that do not exist.
    let app = Router::new().route("/hello", get(hello)).route("/admin", get(admin)).layer(tollgate);

    print_curl_lines(&host.url(), &reader, &hasty);
    host.serve(app, &[("reader", reader), ("hasty", hasty)]).await?;
    store.close().await;
    Ok(())
}

async fn hello(Authenticated(caller): Authenticated, RateLimit(limits): RateLimit) -> String {
    let left = limits.tightest().map_or(0, WindowState::remaining);
    format!("Hello, {}! You may ask {left} more times.", caller.tenant().unwrap_or("stranger"))
}

async fn admin() -> &'static str {
    "Nobody gets here: no key has the scope."
}

fn print_curl_lines(url: &str, reader: &ApiKey, hasty: &ApiKey) {
    let (reader, hasty) = (reader.expose_secret(), hasty.expose_secret());
    eprintln!(
        "
# 200: where the limits stand is in X-RateLimit-*
curl -i -s -w '\\n' -H 'Authorization: Bearer {reader}' '{url}/hello'
# 401: no key, and a challenge that asks for one
curl -i -s -w '\\n' '{url}/hello'
# 403: a good key that lacks the scope
curl -i -s -w '\\n' -H 'X-API-Key: {reader}' '{url}/admin'
# 429 at the sixth request, with Retry-After; eleven of them, in case the minute turns in between
curl -i -s -w '\\n' -H 'X-API-Key: {hasty}' '{url}/hello?[1-11]'
"
    );
}
