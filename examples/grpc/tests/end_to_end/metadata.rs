//! What a client with grpcio sees of calls that are allowed.

use serde_json::{Value, json};

use crate::{CHAT, GET_PRICE, UPLOAD_CANDLES, WATCH_PRICES, python::Client, service::Service};

const REQUEST_ID: (&str, &str) = ("x-request-id", "0199b7d0-3b5c-7c3f-8c55-4e1f2d9f6a01");

#[tokio::test]
async fn every_kind_of_call_is_answered_with_initial_metadata() {
    let service = Service::start().await;
    let mut client = Client::start(service.address());
    let metadata = [("x-api-key", service.key("full")), REQUEST_ID];

    let end = client.call(GET_PRICE, &metadata).await;
    assert_eq!(end.status(), ("OK", ""));
    assert_eq!(end.messages(), [json!({ "symbol": "AAPL", "price": "227.41" })]);
    assert_shown(end.initial_metadata());

    let watch = client.open(WATCH_PRICES, &metadata, json!({ "symbol": "MSFT" })).await;
    assert_shown(&client.initial_metadata(watch).await);
    let first = client.receive(watch).await;
    assert_eq!(first, Some(json!({ "symbol": "MSFT", "price": "428.03" })), "at once");
    assert!(client.receive(watch).await.is_some(), "the stream stays open");
    client.cancel(watch).await;

    let upload = client.open(UPLOAD_CANDLES, &metadata, json!({})).await;
    client.send(upload, json!({ "symbol": "AAPL", "open": "227.00" })).await;
    client.send(upload, json!({})).await;
    client.half_close(upload).await;
    let end = client.end(upload).await;
    assert_eq!(end.status(), ("OK", ""));
    assert_eq!(end.messages(), [json!({ "candles": "2" })]);
    assert_shown(end.initial_metadata());

    let chat = client.open(CHAT, &metadata, json!({})).await;
    assert_shown(&client.initial_metadata(chat).await);
    client.send(chat, json!({ "symbol": "NVDA" })).await;
    let answer = json!({ "symbol": "NVDA", "alert": "NVDA is above its high." });
    assert_eq!(client.receive(chat).await, Some(answer));
    client.send(chat, json!({})).await;
    let answer = json!({ "symbol": "AAPL", "alert": "AAPL is above its high." });
    assert_eq!(client.receive(chat).await, Some(answer));
    client.half_close(chat).await;
    assert_eq!(client.end(chat).await.status(), ("OK", ""));
    service.end().await;
}

#[tokio::test]
async fn an_error_of_the_service_is_none_of_tollgate() {
    let service = Service::start().await;
    let mut client = Client::start(service.address());
    let call = client.open(GET_PRICE, &[("x-api-key", service.key("full"))], json!({ "symbol": "?" })).await;
    let end = client.end(call).await;
    assert_eq!(end.status(), ("NOT_FOUND", "There is no such symbol."));
    assert_eq!(end.details(), [""; 0]);
    service.end().await;
}

#[tokio::test]
async fn health_needs_no_key_and_is_not_counted() {
    let service = Service::start().await;
    let mut client = Client::start(service.address());
    for metadata in [&[][..], &[("x-api-key", service.key("revoked"))]] {
        let end = client.call("grpc.health.v1.Health/Check", metadata).await;
        assert_eq!((end.status(), end.messages()), (("OK", ""), &[json!({ "status": "SERVING" })][..]));
        assert!(end.initial_metadata()["x-ratelimit-limit"].is_null());
    }
    service.end().await;
}

fn assert_shown(metadata: &Value) {
    let (name, id) = REQUEST_ID;
    assert_eq!(metadata[name], id, "{metadata}");
    assert_eq!(metadata["x-ratelimit-limit"], "10000");
    for name in ["x-ratelimit-remaining", "x-ratelimit-reset"] {
        metadata[name].as_str().unwrap().parse::<u64>().unwrap();
    }
}
