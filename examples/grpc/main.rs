//! A tonic service behind the whole stack, and the same service as JSON on the same port: `cargo run --example grpc`.
//!
//! | file | idea |
//! |---|---|
//! | `main.rs` | the gate |
//! | `../proto/market.proto` | the RPCs, and the policy of each |
//! | `build.rs` | compiles the proto without `protoc` |
//! | `service.rs` | the RPCs' code |
//! | `routes.rs` | the JSON routes |
//! | `keys.rs` | keys to try |
//! | `market.rs` | sample data |
//! | `shutdown.rs` | ends open calls when the service shuts down |

mod keys;
mod market;
mod routes;
mod service;
mod shutdown;
#[cfg(test)]
mod tests;

use std::error::Error;

use axum::middleware;
use http::Method;
use support::{Host, Shutdown};
use tollgate::{
    AttemptLimitLayer, ClientAddress, EntitlementLayer, KeyFormat, KeyVerifier, MemoryKeys, MessageLayer,
    PerWindow, RateLimitLayer, Scopes, StreamEndLayer, Tollgate, manage::KeyManager, respond::Grpc, scope,
};
use tollgate_axum::{RecordedRouter, peer_address};
use tollgate_tonic::{
    Details,
    policy::{RpcPolicies, Services},
};
use tonic_web::GrpcWebLayer;

use crate::{
    keys::Revocation,
    service::{DESCRIPTOR_SET, Market, MarketServer, reflection},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let host =
        Host::start("A tonic service behind Tollgate, and the same service as JSON on the same port").await?;
    let format = KeyFormat::new("demo")?;
    let store = MemoryKeys::new();
    let manager = KeyManager::new(format.clone(), store.clone());
    let manager = manager.with_known_scopes(Scopes::new(keys::ALL_SCOPES)?);
    let (credentials, revocation) = keys::issue(manager).await?;
    let app = app(KeyVerifier::new(format, store), revocation, host.shutdown())?;
    host.serve(app.into_router(), &credentials).await
}

/// All services behind one gate, which answers gRPC, gRPC-Web and JSON each in its own way.
fn app(
    keys: KeyVerifier,
    revocation: Revocation,
    shutdown: Shutdown,
) -> Result<RecordedRouter, Box<dyn Error>> {
    // The policies are options in the proto. An RPC without a policy, or a scope that no key can have, is an error here.
    let policies = RpcPolicies::from_descriptor_set(DESCRIPTOR_SET)?
        .with_public_health()
        .with_public_reflection()
        .with_known_scopes(keys::ALL_SCOPES)
        .with_http_route(Method::GET, routes::PRICE, "tollgate.demo.v1.Market/GetPrice")
        .build()?;
    let details = Details::new("market.example.com");
    let limits = RateLimitLayer::new(10_000.per_minute());
    let tollgate = Tollgate::builder()
        .public(policies.public_routes())
        .attempt_limit(AttemptLimitLayer::new(3_000.per_minute(), ClientAddress::of_peer(peer_address)))
        .verify(keys)
        .rate_limit(limits.clone())
        .entitlement(EntitlementLayer::new())
        .scope(policies.scope_map().post(routes::REVOKE, scope("admin")))
        // Each message of a chat counts like a call.
        .messages(MessageLayer::from_rate_limit(limits))
        .stream_end(StreamEndLayer::new())
        .responder(Grpc::new().with_details(details.clone()))
        .build()?;

    let (_, health) = tonic_health::server::health_reporter();
    let rpcs = Services::new()
        .add_service(MarketServer::new(Market::new(details)))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .routes(&policies)?
        .into_axum_router()
        .layer(middleware::from_fn_with_state(shutdown, shutdown::end_calls))
        // Not around the JSON routes: it answers plain requests over HTTP/1.1 with 400.
        .layer(GrpcWebLayer::new());
    // The descriptor sets list the RPCs.
    let rpcs = RecordedRouter::with_paths(rpcs, []);
    // One stack around all routes. A route that the policies do not list is denied.
    Ok(routes::router(revocation).merge(rpcs).layer(tollgate))
}
