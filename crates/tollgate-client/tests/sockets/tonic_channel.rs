use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use http::{Response, Uri};
use tollgate_client::{Client, ClientLayer, Retries};
use tonic::{
    Code,
    service::Routes,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{Layer, ServiceBuilder};

use crate::{KEY, server::Server};

/// A health service that answers by a script first.
async fn server(script: impl IntoIterator<Item = Response<Body>>) -> Server {
    let (_, health) = tonic_health::server::health_reporter();
    Server::before(script, Routes::new(health).into_axum_router()).await
}

fn endpoint(server: &Server) -> Endpoint {
    Endpoint::from_shared(server.uri("")).unwrap()
}

fn client(server: &Server) -> HealthClient<Client<Channel, Retries<tonic::body::Body>>> {
    let channel = ServiceBuilder::new()
        .layer(
            ClientLayer::for_channel(KEY, server.origin())
                .unwrap()
                .with_retries(Retries::new(tonic::body::Body::new)),
        )
        .service(endpoint(server).connect_lazy());
    HealthClient::new(channel)
}

fn exhausted(headers: &[(&str, &str)]) -> Response<Body> {
    let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", "8");
    let response = headers.iter().fold(response, |response, (name, value)| response.header(*name, *value));
    response.body(Body::empty()).unwrap()
}

/// A `google.rpc.Status` with a `RetryInfo` of `delay`, by hand.
fn details(delay: &[u8]) -> String {
    let field = |tag: u8, value: &[u8]| {
        let mut field = vec![tag << 3 | 2, u8::try_from(value.len()).unwrap()];
        field.extend(value);
        field
    };
    let any = [field(1, b"type.googleapis.com/google.rpc.RetryInfo"), field(2, &field(1, delay))].concat();
    BASE64_STANDARD_NO_PAD.encode([&[8, 8][..], &field(3, &any)].concat())
}

#[tokio::test]
async fn sends_the_key_without_retries() {
    let server = server([]).await;
    let layer = ClientLayer::for_channel(KEY, server.origin()).unwrap();
    let mut client = HealthClient::new(layer.layer(endpoint(&server).connect_lazy()));
    client.check(HealthCheckRequest::default()).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(seen[0].headers["x-request-id"].len(), 36);
}

#[tokio::test]
async fn waits_as_the_status_says_and_sends_the_message_again() {
    let ten_ms = details(b"\x10\x80\xad\xe2\x04");
    let server = server([
        exhausted(&[("grpc-retry-pushback-ms", "10")]),
        exhausted(&[("grpc-status-details-bin", &ten_ms)]),
    ])
    .await;
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.set_timeout(std::time::Duration::from_secs(20));
    let response = client(&server).check(request).await.unwrap();
    assert_eq!(response.into_inner().status, 1, "serving");

    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    for (attempt, seen) in seen.iter().enumerate() {
        assert_eq!(seen.headers["authorization"], format!("Bearer {KEY}"));
        assert_eq!(&*seen.body, b"\0\0\0\0\0", "one empty message");
        assert_eq!(seen.uri.path(), "/grpc.health.v1.Health/Check");
        let previous = seen.headers.get("grpc-previous-rpc-attempts");
        assert_eq!(
            previous.map(|value| value.to_str().unwrap().to_owned()),
            (attempt > 0).then(|| attempt.to_string())
        );
        let timeout = seen.headers["grpc-timeout"].to_str().unwrap();
        assert_eq!(timeout.ends_with('m'), attempt > 0, "{timeout}");
    }
    assert_eq!(seen[0].headers["x-request-id"], seen[2].headers["x-request-id"]);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn returns_a_status_that_does_not_say_how_long_to_wait() {
    for headers in
        [&[("grpc-message", "no credits")][..], &[("grpc-retry-pushback-ms", "-1"), ("retry-after", "0")]]
    {
        let server = server([exhausted(headers)]).await;
        let status = client(&server).check(HealthCheckRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(server.seen().len(), 1);
    }
}

/// The response of a stream has begun: what comes in its trailers is for the caller.
#[tokio::test]
async fn streams_pass() {
    let server = server([exhausted(&[("grpc-retry-pushback-ms", "0")])]).await;
    let mut stream = client(&server).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().status, 1, "serving");
    assert_eq!(server.seen().len(), 2);
}

/// `with_origin` gives requests an absolute URI, which the channel replaces by its own: the layer goes by what it sees, so no key is sent.
#[tokio::test]
async fn a_request_that_names_another_origin_gets_no_key() {
    let server = server([]).await;
    let layer = ClientLayer::for_channel(KEY, server.origin()).unwrap();
    for (origin, has_key) in [("http://other.example", false), (&*server.uri(""), true)] {
        let channel = layer.layer(endpoint(&server).connect_lazy());
        let mut client = HealthClient::with_origin(channel, origin.parse::<Uri>().unwrap());
        client.check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(server.seen().last().unwrap().headers.contains_key("authorization"), has_key, "{origin}");
    }
}

/// A caller that hangs up while its request waits: nothing is sent any more.
#[tokio::test]
async fn a_dropped_call_is_not_sent_again() {
    let server = server([exhausted(&[("grpc-retry-pushback-ms", "20000")])]).await;
    let mut waiting = client(&server);
    let call = tokio::spawn(async move { waiting.check(HealthCheckRequest::default()).await });
    while server.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    client(&server).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(server.seen().len(), 2, "the refused one, and this one");
}
