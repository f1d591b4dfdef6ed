//! A clean end with open calls of every kind.

use serde_json::json;

use crate::{CHAT, UPLOAD_CANDLES, WATCH_PRICES, python::Client, service::Service, web};

#[tokio::test]
async fn a_shutdown_ends_open_calls_with_unavailable() {
    let service = Service::start().await;
    let mut client = Client::start(service.address());
    let metadata = [("x-api-key", service.key("full"))];
    let mut calls = Vec::new();
    for rpc in [
        WATCH_PRICES,
        CHAT,
        UPLOAD_CANDLES,
        "grpc.health.v1.Health/Watch",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        let call = client.open(rpc, &metadata, json!({})).await;
        if rpc != UPLOAD_CANDLES {
            client.initial_metadata(call).await;
        }
        calls.push((rpc, call));
    }
    let web = web::send(&service, web::TEXT, WATCH_PRICES, Some("full")).await;

    service.terminate().await;
    for (rpc, call) in calls {
        assert_eq!(client.end(call).await.code(), "UNAVAILABLE", "{rpc}");
    }
    assert_eq!(web::complete(web, web::TEXT).await.trailers["grpc-status"], "14", "unavailable");
    service.ended().await;
}
