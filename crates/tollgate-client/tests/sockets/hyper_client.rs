use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tollgate_client::{ClientLayer, Retries};
use tower::{Layer, ServiceExt};

use crate::{
    KEY,
    server::{Server, retry_after},
};

fn hyper() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn request(server: &Server) -> Request<Full<Bytes>> {
    Request::post(server.uri("/jobs?full")).body(Full::from("data")).unwrap()
}

fn with_retries(server: &Server) -> ClientLayer<Retries<Full<Bytes>>> {
    ClientLayer::new(KEY, server.origin()).unwrap().with_retries(Retries::cloned())
}

#[tokio::test]
async fn sends_the_key() {
    let server = Server::answering([]).await;
    let client = ClientLayer::new(KEY, server.origin()).unwrap().layer(hyper());
    assert_eq!(client.oneshot(request(&server)).await.unwrap().status(), 200);
    let seen = &server.seen()[0];
    assert_eq!(seen.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(seen.headers["x-request-id"].len(), 36);
    assert_eq!((seen.uri.to_string(), &*seen.body), ("/jobs?full".into(), &b"data"[..]));
}

#[tokio::test]
async fn another_server_does_not_get_the_key() {
    let [ours, other] = [Server::answering([]).await, Server::answering([]).await];
    let client = with_retries(&ours).layer(hyper());
    assert_eq!(client.oneshot(request(&other)).await.unwrap().status(), 200);
    let headers = &other.seen()[0].headers;
    assert!(!headers.contains_key("authorization") && !headers.contains_key("x-request-id"), "{headers:?}");
    assert!(ours.seen().is_empty());
}

/// The refusal is complete when it is dropped, so its connection is used for the next try, once hyper has it back.
#[tokio::test]
async fn sends_again_on_the_same_connection() {
    let server = Server::answering([retry_after("1", "refused")]).await;
    let response = with_retries(&server).layer(hyper()).oneshot(request(&server)).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "done");
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.body == "data"));
    assert_eq!(seen[0].headers, seen[1].headers);
    assert_eq!(server.connections(), 1);
}

/// A refusal whose body never ends does not hold up the next try.
#[tokio::test]
async fn an_endless_refusal_costs_its_connection() {
    struct Endless(bool);
    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            if std::mem::replace(&mut self.0, true) {
                return std::task::Poll::Pending;
            }
            std::task::Poll::Ready(Some(Ok(http_body::Frame::data("refused".into()))))
        }
    }
    let refusal = retry_after("0", axum::body::Body::new(Endless(false)));
    let server = Server::answering([refusal]).await;
    let response = with_retries(&server).layer(hyper()).oneshot(request(&server)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn returns_the_refusal_that_it_does_not_wait_for() {
    let server = Server::answering([retry_after("3600", "refused")]).await;
    let response = with_retries(&server).layer(hyper()).oneshot(request(&server)).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"3600".parse().unwrap())
    );
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "refused");
    assert_eq!(server.seen().len(), 1);
}

/// One connection of hyper takes requests without an authority, as tonic's channel does.
#[tokio::test]
async fn works_on_one_connection() {
    let server = Server::answering([Response::default()]).await;
    let stream =
        tokio::net::TcpStream::connect(server.uri("").strip_prefix("http://").unwrap()).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let sender = std::sync::Arc::new(tokio::sync::Mutex::new(sender));
    let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let sender = sender.clone();
        async move { sender.lock().await.send_request(request).await }
    });
    let layer = ClientLayer::for_channel(KEY, server.origin()).unwrap();
    let host = server.uri("").replace("http://", "");
    for (host, has_key) in [(&*host, true), ("other.example", false)] {
        let request = Request::get("/jobs").header("host", host).body(Full::default()).unwrap();
        layer.layer(service.clone()).oneshot(request).await.unwrap().into_body().collect().await.unwrap();
        let seen = server.seen();
        assert_eq!(seen.last().unwrap().headers.contains_key("authorization"), has_key, "{host}");
    }
}
