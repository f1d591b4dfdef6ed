//! A whole stack in front of a tonic server, over a socket.

use tokio::net::TcpListener;
use tollgate::{
    Environment, KeyFormat, KeyVerifier, MemoryKeys, PerWindow as _, Policy, Principal, RateLimitLayer,
    Scopes, Tollgate, respond::Grpc,
};
use tollgate_tonic::policy::{RpcPolicies, Services};
use tonic::{
    Code, Request, Status,
    client::Grpc as Client,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};
use tonic_prost::ProstCodec;

use crate::{compile, services::Market};

const SERVICES: &str = "service Market {
    rpc GetPrice(Empty) returns (Empty) { option (tollgate.policy) = { scopes: 'prices:read' }; }
    rpc Upload(Empty) returns (Empty) { option (tollgate.policy) = { scopes: 'candles:write' cost: 10 }; }
}";

/// Starts a server with one key, which has the scope `prices:read` and a quota of 3. Returns a channel to it, and the key.
async fn start() -> (Channel, String) {
    let format = KeyFormat::new("sk").unwrap();
    let keys = MemoryKeys::new();
    let owner = Principal::new("ada").with_scopes(Scopes::new(["prices:read"]).unwrap());
    let key = keys.issue(&format, Environment::Live, owner).unwrap();

    let policies = RpcPolicies::from_descriptor_set(&compile(SERVICES)).unwrap();
    let table =
        policies.with_public_health().with_known_scopes(["prices:read", "candles:write"]).build().unwrap();
    let limit = Policy::new("key", 3.per_day()).with_cost(table.costs().otherwise(1).unwrap());
    let builder = Tollgate::builder()
        .responder(Grpc::new())
        .verify(KeyVerifier::new(format, keys))
        .rate_limit(RateLimitLayer::from_policies([limit]).unwrap());
    let stack = table.guard(builder).build().unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let routes = Services::new().add_service(Market).add_service(health).routes(&table).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().layer(stack).add_routes(routes);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    (channel, key.expose_secret().to_owned())
}

/// The status of a call without a message in its response.
async fn call(channel: &Channel, path: &'static str, key: Option<&str>) -> Code {
    let mut client = Client::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = Request::new(HealthCheckRequest::default());
    if let Some(key) = key {
        request.metadata_mut().insert("x-api-key", key.parse().unwrap());
    }
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let called: Result<_, Status> =
        client.server_streaming(request, PathAndQuery::from_static(path), codec).await;
    called.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn health_is_open_and_all_else_is_guarded() {
    let (channel, key) = start().await;
    let mut health = HealthClient::new(channel.clone());
    for key in [None, Some("sk_live_unknown"), Some(key.as_str()), Some("a b")] {
        for _ in 0..4 {
            let mut request = Request::new(HealthCheckRequest::default());
            if let Some(key) = key {
                request.metadata_mut().insert("x-api-key", key.parse().unwrap());
            }
            let response = health.check(request).await.unwrap();
            assert!(response.metadata().contains_key("x-request-id"));
            assert!(!response.metadata().contains_key("x-ratelimit-remaining"));
        }
    }
    // Upload costs more than the key's quota.
    for (path, key, code) in [
        ("/market.v1.Market/GetPrice", None, Code::Unauthenticated),
        ("/market.v1.Market/GetPrice", Some("unknown"), Code::Unauthenticated),
        ("/market.v1.Market/Upload", Some(&*key), Code::ResourceExhausted),
        ("/market.v1.Market/GetPrice", Some(&*key), Code::Ok),
        ("/market.v1.Market/Unknown", Some(&*key), Code::Unimplemented),
        ("/grpc.health.v1.Health/Unknown", None, Code::Unauthenticated),
        ("/grpc.health.v1.Health/Check/", None, Code::Unauthenticated),
    ] {
        assert_eq!(call(&channel, path, key).await, code, "{path} {key:?}");
    }
}
