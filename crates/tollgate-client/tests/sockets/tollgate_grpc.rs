use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Response;
use tokio::time::Instant;
use tollgate::{
    Environment, KeyFormat, KeyVerifier, MemoryKeys, PerWindow, Principal, Tollgate,
    clock::ManualClock,
    credits::{CreditCosts, MemoryCredits},
    respond::Grpc,
    scope,
};
use tollgate_client::{ClientLayer, Retries};
use tollgate_tonic::Details;
use tonic::{Code, body::Body, service::Routes, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{
    Layer,
    util::{MapResponse, MapResponseLayer},
};

use crate::server::Server;

#[tokio::test]
async fn a_tonic_client_obeys_the_limits_of_tollgate() -> Result<(), Box<dyn std::error::Error>> {
    obeys_a_limit(Grpc::new(), &[]).await
}

/// Without the headers that say the same, as behind a proxy that removes them.
#[tokio::test]
async fn a_tonic_client_obeys_the_details_of_a_status() -> Result<(), Box<dyn std::error::Error>> {
    let responder = Grpc::new().with_details(Details::new("health.example.com"));
    obeys_a_limit(responder, &["grpc-retry-pushback-ms", "retry-after"]).await
}

/// A stack of Tollgate with a limit, in front of tonic, and a tonic client that obeys it. The clock of the server is advanced by the test.
async fn obeys_a_limit(
    responder: Grpc,
    removed: &'static [&'static str],
) -> Result<(), Box<dyn std::error::Error>> {
    let (format, keys, clock) = (KeyFormat::new("sk")?, MemoryKeys::new(), ManualClock::default());
    let key = keys.issue(&format, Environment::Live, Principal::new("key_1"))?;
    let tollgate = Tollgate::builder()
        .verify(KeyVerifier::new(format, keys))
        .rate_limit(1.per_second())
        .responder(responder)
        .clock(clock.clone())
        .build()?;
    let (_, health) = tonic_health::server::health_reporter();
    let without_headers = MapResponseLayer::new(move |mut response: Response<axum::body::Body>| {
        for name in removed {
            response.headers_mut().remove(*name);
        }
        response
    });
    let app = Routes::new(health).into_axum_router().layer(tollgate).layer(without_headers);
    let server = Server::before([], app).await;

    let answered = Arc::new(AtomicUsize::new(0));
    let counted = answered.clone();
    let channel = Endpoint::from_shared(server.uri(""))?.connect_lazy();
    let channel = MapResponse::new(channel, move |response: Response<Body>| {
        counted.fetch_add(1, Ordering::Relaxed);
        response
    });
    let layer = ClientLayer::for_channel(&key, server.origin())?.with_retries(Retries::new(Body::new));
    let mut client = HealthClient::new(layer.layer(channel));
    client.check(HealthCheckRequest::default()).await?;

    let started = Instant::now();
    let call = tokio::spawn(async move { client.check(HealthCheckRequest::default()).await });
    while answered.load(Ordering::Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(1));
    call.await??;
    assert_eq!(answered.load(Ordering::Relaxed), 3);
    assert!(started.elapsed() >= Duration::from_secs(1));
    Ok(())
}

/// Refusals that waiting does not end are returned at once.
#[tokio::test]
async fn other_refusals_are_returned_at_once() -> Result<(), Box<dyn std::error::Error>> {
    for is_for_credits in [true, false] {
        let (format, keys) = (KeyFormat::new("sk")?, MemoryKeys::new());
        let key = keys.issue(&format, Environment::Live, Principal::new("key_1").with_tenant("acme"))?;
        let builder = Tollgate::builder().verify(KeyVerifier::new(format, keys)).responder(Grpc::new());
        let tollgate = if is_for_credits {
            let cost = CreditCosts::new().post("/grpc.health.v1.Health/Check", 1).otherwise(0)?;
            builder.credits(tollgate::CreditsLayer::new(MemoryCredits::new(), cost)).build()?
        } else {
            builder.scope(scope("admin")).build()?
        };
        let (_, health) = tonic_health::server::health_reporter();
        let server = Server::before([], Routes::new(health).into_axum_router().layer(tollgate)).await;
        let layer = ClientLayer::for_channel(&key, server.origin())?.with_retries(Retries::new(Body::new));
        let mut client =
            HealthClient::new(layer.layer(Endpoint::from_shared(server.uri(""))?.connect_lazy()));
        let status = client.check(HealthCheckRequest::default()).await.unwrap_err();
        let expected = if is_for_credits { Code::ResourceExhausted } else { Code::PermissionDenied };
        assert_eq!(status.code(), expected);
        assert_eq!(server.seen().len(), 1);
    }
    Ok(())
}
