//! In hyper without a framework.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tests::hosts::{Api, Connection, code, request, serve_by_hyper, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tower::{Layer, Service, ServiceExt as _, service_fn};

fn echo()
-> impl Service<http::Request<Incoming>, Response = Response<Incoming>, Error = Infallible, Future: Send>
+ Clone
+ Send {
    service_fn(async |request: http::Request<Incoming>| Ok(Response::new(request.into_body())))
}

fn upload(key: Option<&str>, bytes: usize) -> http::Request<Full<Bytes>> {
    request(Method::POST, "/", key).map(|_| Full::from(vec![b'x'; bytes]))
}

async fn servers(api: &Api) -> [SocketAddr; 2] {
    [serve_by_hyper(api.stack().layer(echo())).await, serve_by_hyper(api.six_layers().layer(echo())).await]
}

#[tokio::test]
async fn requests_are_guarded_over_http_1_and_2() {
    let api = Api::new();
    for server in servers(&api).await {
        for mut caller in [Connection::http1(server).await, Connection::http2(server).await] {
            let allowed = caller.send(upload(Some(&api.key), 100_000)).await;
            assert_eq!((allowed.status(), allowed.body().len()), (StatusCode::OK, 100_000));
            let refused = caller.get("/", Some(&api.key_without_scope)).await;
            assert_eq!(refused.status(), StatusCode::FORBIDDEN);
            assert_eq!(code(refused.body()), "insufficient_scope");
        }
    }
}

#[tokio::test]
async fn a_request_with_the_maximum_of_headers_causes_no_panic() {
    let api = Api::new();
    for key in [None, Some(&*api.key)] {
        let mut request = request(Method::GET, "/", key);
        let headers = request.headers_mut();
        let mut names = (0..).map(|number| HeaderName::try_from(format!("x-{number}")).unwrap());
        while headers.try_insert(names.next().unwrap(), HeaderValue::from_static("")).is_ok() {}
        let service = service_fn(async |_| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())));
        let response = within(api.stack().layer(service).oneshot(request)).await.unwrap();
        let expected = if key.is_some() { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        assert_eq!(response.status(), expected);
    }
}

#[tokio::test]
async fn refused_uploads_leave_an_http_2_connection_usable() {
    let api = Api::new();
    for server in servers(&api).await {
        let mut caller = Connection::http2(server).await;
        // Together more than any flow-control window: a refusal must release the window of the unread body.
        for _ in 0..50 {
            assert_eq!(caller.send(upload(None, 100_000)).await.status(), StatusCode::UNAUTHORIZED);
        }
        assert_eq!(caller.send(upload(Some(&api.key), 100_000)).await.body().len(), 100_000);
    }
}

#[tokio::test]
async fn a_refusal_sends_no_100_continue() {
    let api = Api::new();
    let reads = service_fn(async |request: http::Request<Incoming>| {
        request.into_body().collect().await.map(|body| Response::new(Full::<Bytes>::from(body.to_bytes())))
    });
    for server in
        [serve_by_hyper(api.stack().layer(reads)).await, serve_by_hyper(api.six_layers().layer(reads)).await]
    {
        for (key, answer) in [(&api.unknown_key, "HTTP/1.1 401 "), (&api.key, "HTTP/1.1 100 ")] {
            let mut stream = within(TcpStream::connect(server)).await.unwrap();
            let head = format!(
                "POST / HTTP/1.1\r\nhost: api\r\nx-api-key: {key}\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n"
            );
            within(stream.write_all(head.as_bytes())).await.unwrap();
            let mut first = [0; 13];
            within(stream.read_exact(&mut first)).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&first), answer);
        }
    }
}

#[tokio::test]
async fn a_refusal_leaves_an_http_1_connection_usable() {
    let api = Api::new();
    for server in servers(&api).await {
        let mut caller = Connection::http1(server).await;
        for _ in 0..3 {
            assert_eq!(caller.get("/", None).await.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(caller.send(upload(Some(&api.key), 10)).await.status(), StatusCode::OK);
        }
    }
}
