//! Market data for subscribers, following the published contract of a partner API: `cargo run --example stratalerts`.
//!
//! | file | idea |
//! |---|---|
//! | `main.rs` | the gate |
//! | `keys.rs` | the key store, the key manager, and keys to try |
//! | `error.rs` | the error envelope: every refusal with the contract's codes |
//! | `routes.rs` | the REST endpoints, and the scope of each |
//! | `socket.rs` | the WebSocket and its channels |
//! | `market.rs` | sample data |

mod error;
mod keys;
mod market;
mod routes;
mod socket;
#[cfg(test)]
mod tests;

use std::error::Error;

use support::{Host, Shutdown};
use tollgate::{
    AttemptLimitLayer, CachedKeys, ClientAddress, EntitlementLayer, KeyFormat, KeyVerifier, PerWindow,
    ScopeLayer, Tollgate,
};
use tollgate_axum::{RecordedRouter, peer_address};
use tollgate_sql::SqlKeys;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let host = Host::start("Market data behind Tollgate, following the StratAlerts Partner API").await?;
    let format = KeyFormat::new("strat")?;
    let store = keys::store().await?;
    let credentials = keys::issue(&keys::manager(format.clone(), store.clone())?).await?;
    let app = app(format, store.clone(), host.shutdown())?;
    host.serve(app, &credentials).await?;
    store.close().await;
    Ok(())
}

/// The API behind its gate, which checks the key, then the subscription, then the scope.
fn app(format: KeyFormat, store: SqlKeys, shutdown: Shutdown) -> Result<RecordedRouter, Box<dyn Error>> {
    let tollgate = Tollgate::builder()
        .attempt_limit(AttemptLimitLayer::new(3_000.per_minute(), ClientAddress::of_peer(peer_address)))
        // The store notifies the cache of a revocation, and ends the streams of the key.
        .verify(KeyVerifier::new(format, CachedKeys::new(store)))
        .entitlement(EntitlementLayer::new())
        .scope(ScopeLayer::per_route(routes::scopes())?)
        .responder(error::responder())
        .realm("market")
        .build()?;
    // The layer wraps the fallbacks too: without a valid key, every path is answered with 401.
    Ok(routes::router(shutdown).layer(tollgate))
}
