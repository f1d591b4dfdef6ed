//! hyper's bodies, as a reverse proxy passes them on.

use std::net::SocketAddr;

use axum::Router;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::hosts::{Api, Connection, code, header, request, serve, serve_by_hyper};
use tokio::net::TcpStream;
use tower::{BoxError, Layer as _, Service, service_fn};

use super::{check_behind_all, nothing, stream_with_trailers};

/// Forwards requests to an upstream over HTTP/2, and returns its responses with hyper's bodies.
fn proxy<Q>(
    upstream: SocketAddr,
) -> impl Service<Request<Q>, Response = Response<Incoming>, Error = BoxError, Future: Send> + Clone + Send
where
    Q: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    service_fn(move |request: Request<Q>| async move {
        let stream = TokioIo::new(TcpStream::connect(upstream).await?);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        let mut passed_on = Request::new(request.into_body());
        *passed_on.method_mut() = Method::POST;
        *passed_on.uri_mut() = format!("http://{upstream}/").try_into()?;
        Ok(sender.send_request(passed_on).await?)
    })
}

#[tokio::test]
async fn bodies_of_a_proxied_upstream_pass() {
    let streams = serve(Router::new().fallback(async || axum::body::Body::new(stream_with_trailers()))).await;
    check_behind_all(proxy(streams), nothing).await;
    let exact = serve(Router::new().fallback(async || "bytes")).await;
    check_behind_all(proxy(exact), nothing).await;
    let nothing_at_all = serve(Router::new().fallback(async || StatusCode::OK)).await;
    check_behind_all(proxy(nothing_at_all), nothing).await;
}

#[tokio::test]
async fn a_reverse_proxy_passes_bodies_both_ways() {
    let upstream = serve(Router::new().fallback(async |body: axum::body::Body| body)).await;
    let api = Api::new();
    for proxy in [
        serve_by_hyper(api.stack().layer(proxy(upstream))).await,
        serve_by_hyper(api.six_layers().layer(proxy(upstream))).await,
    ] {
        let sent = Bytes::from(vec![b'x'; 300_000]);
        for mut connection in [Connection::http1(proxy).await, Connection::http2(proxy).await] {
            let request = request(Method::POST, "/", Some(&api.key)).map(|_| Full::from(sent.clone()));
            let response = connection.send(request).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(header(response.headers(), "content-length"), "300000");
            assert_eq!(response.body(), &sent);

            let response = connection.get("/", None).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(header(response.headers(), "content-length"), response.body().len().to_string());
            assert_eq!(code(response.body()), "missing_credential");
        }
    }
}
