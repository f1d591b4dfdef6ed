use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tollgate_client::{ClientLayer, Retries};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{Layer, ServiceExt};
use tracing::Level;

use crate::{
    KEY,
    server::{Server, retry_after},
};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Neither the log of the layer, nor that of hyper, h2, tower or tonic shows the key, whatever happens to the request.
#[tokio::test]
async fn the_key_is_in_no_log_and_no_error() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();

    let server = Server::answering([retry_after("0", "refused")]).await;
    let layer = ClientLayer::new(KEY, server.origin()).unwrap().with_retries(Retries::cloned());
    let hyper = layer.layer(Client::builder(TokioExecutor::new()).build_http());
    let request = |uri: &str| Request::post(uri).body(Full::<Bytes>::from("data")).unwrap();
    hyper.clone().oneshot(request(&server.uri("/"))).await.unwrap();
    hyper.clone().oneshot(request(&Server::answering([]).await.uri("/hidden?token=hunter2"))).await.unwrap();

    // The receiver is gone.
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let origin = tollgate_client::Origin::dangerous_allow_plaintext(&*closed).unwrap();
    let layer = ClientLayer::for_channel(KEY, origin).unwrap();
    let error = layer.layer(hyper).oneshot(request(&closed)).await.unwrap_err();
    let channel = tonic::transport::Endpoint::from_shared(closed).unwrap().connect_lazy();
    let status =
        HealthClient::new(layer.layer(channel)).check(HealthCheckRequest::default()).await.unwrap_err();

    // A usual mistake: a channel behind a layer for absolute URIs.
    let layer = ClientLayer::new(KEY, server.origin()).unwrap();
    let channel = tonic::transport::Endpoint::from_shared(server.uri("")).unwrap().connect_lazy();
    HealthClient::new(layer.layer(channel)).check(HealthCheckRequest::default()).await.unwrap_err();

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("request refused, will be sent again"), "the log of the layer");
    assert!(log.contains("request to another origin, sent without the key"), "the log of the layer");
    assert!(log.contains("use ClientLayer::for_channel"), "the log of the layer");
    assert!(log.contains(" TRACE hyper"), "the log of hyper");
    for text in [&*log, &format!("{error:?} {error}"), &format!("{status:?} {status}")] {
        assert!(!text.contains(KEY) && !text.contains(&KEY[8..]), "{text}");
    }
    let events = log.lines().filter(|line| line.contains("tollgate: "));
    for event in events {
        assert!(!event.contains("hunter2") && !event.contains("hidden"), "{event}");
    }
}
