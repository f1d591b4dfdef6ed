//! Market data for subscribers, by the published contract of a partner API: `cargo run --example stratalerts`.
//!
//! | file | idea |
//! |---|---|
//! | `main.rs` | the gate, and the keys to try it with |
//! | `error.rs` | the error envelope: every refusal by the contract's words |
//! | `routes.rs` | the REST endpoints, and the scope of each |
//! | `socket.rs` | the WebSocket and its channels |
//! | `market.rs` | the data, made up |

mod error;
mod market;
mod routes;
mod socket;
#[cfg(test)]
mod tests;

use std::error::Error;

use axum::Router;
use support::{Host, Shutdown};
use tollgate::{
    ApiKey, AttemptLimitLayer, ClientAddress, EntitlementLayer, Environment, KeyFormat, KeyVerifier,
    MemoryKeys, PerWindow, Plan, Principal, ScopeLayer, Scopes, Tollgate,
};
use tollgate_axum::peer_address;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let host =
        Host::start("Market data behind Tollgate, by the contract of the StratAlerts Partner API").await?;
    let format = KeyFormat::new("strat")?;
    let keys = MemoryKeys::new();
    let credentials = issue_demonstration_keys(&format, &keys)?;
    let app = app(KeyVerifier::new(format, keys), host.shutdown())?;
    host.serve(app, &credentials).await
}

/// The whole API behind its gate: the key first, then the subscription, then the scope.
fn app(verifier: KeyVerifier, shutdown: Shutdown) -> Result<Router, Box<dyn Error>> {
    let tollgate = Tollgate::builder()
        .attempt_limit(AttemptLimitLayer::new(3_000.per_minute(), ClientAddress::of_peer(peer_address)))
        .verify(verifier)
        .entitlement(EntitlementLayer::new())
        .scope(ScopeLayer::per_route(routes::scopes())?)
        .responder(error::responder())
        .realm("market")
        .build()?;
    // The layer goes around everything, so that strangers get 401 whatever they ask for.
    Ok(routes::router(shutdown).layer(tollgate))
}

const ALL_SCOPES: [&str; 6] =
    ["metadata:read", "prices:read", "candles:read", "states:read", "alerts:read", "ws:connect"];

fn issue_demonstration_keys(
    format: &KeyFormat,
    keys: &MemoryKeys,
) -> Result<Vec<(&'static str, ApiKey)>, Box<dyn Error>> {
    let active = || Plan::active("api-access");
    let issue = |name: &'static str, scopes: &[&'static str], plan: Plan| -> Result<_, Box<dyn Error>> {
        let principal =
            Principal::new(name).with_scopes(Scopes::new(scopes.iter().copied())?).with_plan(plan);
        Ok((name, keys.issue(format, Environment::Live, principal)?))
    };
    let mut credentials = vec![
        issue("full", &ALL_SCOPES, active())?,
        issue("metadata_prices", &["metadata:read", "prices:read"], active())?,
        issue("quotes_stream", &["ws:connect", "prices:read"], active())?,
        issue("no_ws", &["prices:read"], active())?,
        issue("lapsed", &ALL_SCOPES, Plan::lapsed("api-access"))?,
        issue("revoked", &ALL_SCOPES, active())?,
    ];
    // And one for each scope, named like it.
    for scope in ALL_SCOPES {
        credentials.push(issue(scope, &[scope], active())?);
    }
    keys.revoke("revoked");
    Ok(credentials)
}
