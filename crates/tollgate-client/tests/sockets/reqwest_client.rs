use axum::{Router, routing::get};
use http::{HeaderName, Request, Response};
use reqwest::{Body, redirect::Policy};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tollgate::{
    Environment, KeyFormat, KeyVerifier, MemoryKeys, PerWindow, Principal, Tollgate, clock::ManualClock,
};
use tollgate_client::{ClientLayer, Retries};
use tower::{Layer, Service, ServiceExt};

use crate::{
    KEY,
    server::{Server, retry_after},
};

/// The adapter of the README.
fn reqwest(
    client: reqwest::Client,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = reqwest::Error, Future: Send> + Clone {
    tower::service_fn(move |request: Request<Body>| {
        let client = client.clone();
        async move { client.execute(request.try_into()?).await.map(Response::from) }
    })
}

fn without_redirects() -> reqwest::Client {
    reqwest::Client::builder().redirect(Policy::none()).no_proxy().build().unwrap()
}

fn request(server: &Server) -> Request<Body> {
    Request::post(server.uri("/jobs?full")).body("data".into()).unwrap()
}

#[tokio::test]
async fn sends_the_key_and_sends_again() {
    let server = Server::answering([retry_after("0", "refused")]).await;
    let layer = ClientLayer::new(KEY, server.origin()).unwrap().with_retries(Retries::new(Body::wrap));
    let response = layer.layer(reqwest(without_redirects())).oneshot(request(&server)).await.unwrap();
    assert_eq!(response.status(), 200);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    for seen in &seen {
        assert_eq!(seen.headers["authorization"], format!("Bearer {KEY}"));
        assert_eq!(seen.headers["content-length"], "4", "the length stays known");
        assert_eq!((seen.uri.to_string(), &*seen.body), ("/jobs?full".into(), &b"data"[..]));
    }
    assert_eq!(seen[0].headers["x-request-id"], seen[1].headers["x-request-id"]);
}

/// What the documentation says about reqwest's own redirects, and why they are to be turned off.
#[tokio::test]
async fn its_own_redirects_remove_only_authorization() {
    let redirect = |to: &Server| {
        let response = Response::builder().status(307).header("location", to.uri("/file"));
        response.body(axum::body::Body::empty()).unwrap()
    };
    let x_api_key = HeaderName::from_static("x-api-key");
    for (header, follows, reaches, is_leaked) in [
        (None, true, true, false),
        (Some(x_api_key.clone()), true, true, true),
        (Some(x_api_key), false, false, false),
    ] {
        let other = Server::answering([]).await;
        let server = Server::answering([redirect(&other)]).await;
        let policy = if follows { Policy::default() } else { Policy::none() };
        let client = reqwest::Client::builder().redirect(policy).no_proxy().build().unwrap();
        let mut layer = ClientLayer::new(KEY, server.origin()).unwrap();
        if let Some(header) = header {
            layer = layer.with_header(header);
        }
        layer.layer(reqwest(client)).oneshot(request(&server)).await.unwrap();
        let seen = other.seen();
        assert_eq!(seen.len(), usize::from(reaches));
        let leaked =
            seen.iter().any(|seen| seen.headers.values().any(|value| value.to_str().unwrap().contains(KEY)));
        assert_eq!(leaked, is_leaked);
    }
}

/// A stack of Tollgate with a limit, and a client that obeys it. The clock of the server is advanced by the test.
#[tokio::test]
async fn obeys_the_limits_of_tollgate() -> Result<(), Box<dyn std::error::Error>> {
    let (format, keys, clock) = (KeyFormat::new("sk")?, MemoryKeys::new(), ManualClock::default());
    let key = keys.issue(&format, Environment::Live, Principal::new("key_1"))?;
    let tollgate = Tollgate::builder()
        .verify(KeyVerifier::new(format, keys))
        .rate_limit(1.per_second())
        .clock(clock.clone())
        .build()?;
    let server = Server::before([], Router::new().route("/jobs", get(async || "jobs")).layer(tollgate)).await;
    let layer = ClientLayer::new(&key, server.origin())?;
    let request = || Request::get(server.uri("/jobs")).body(Body::default()).unwrap();

    let once = layer.clone().layer(reqwest(without_redirects()));
    assert_eq!(once.clone().oneshot(request()).await?.status(), 200);
    assert_eq!(once.oneshot(request()).await?.status(), 429);

    let started = Instant::now();
    let answered = Arc::new(AtomicUsize::new(0));
    let counted = answered.clone();
    let inner = reqwest(without_redirects()).map_response(move |response| {
        counted.fetch_add(1, Ordering::Relaxed);
        response
    });
    let patient = layer.with_retries(Retries::new(Body::wrap)).layer(inner);
    let response = tokio::spawn(patient.oneshot(request()));
    while answered.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(1));
    assert_eq!(response.await??.status(), 200);
    assert_eq!(answered.load(Ordering::Relaxed), 2);
    assert!(started.elapsed() >= Duration::from_secs(1));
    Ok(())
}
