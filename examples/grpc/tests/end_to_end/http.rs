//! A small HTTP/1.1 client that sends exactly the given headers and body.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use crate::service::{PATIENCE, Service};

/// One connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    pub(crate) async fn open(service: &Service) -> Self {
        let stream = TcpStream::connect(service.address()).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender, host: service.address().to_owned() }
    }

    /// Sends a request. The body of the response is not read yet.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path).header("host", &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request.body(Full::from(body.into())).unwrap());
        timeout(PATIENCE, response).await.expect("no response").unwrap()
    }

    /// Sends a request, and reads the JSON of its response.
    pub(crate) async fn json(&mut self, method: Method, path: &str, key: Option<&str>) -> Response<Value> {
        let headers: Vec<_> = key.map(|key| ("x-api-key", key)).into_iter().collect();
        let response = self.send(method, path, &headers, "").await;
        let (head, body) = response.into_parts();
        let body = timeout(PATIENCE, body.collect()).await.expect("no body").unwrap().to_bytes();
        Response::from_parts(head, serde_json::from_slice(&body).unwrap_or_default())
    }
}

/// Revokes a credential of the example.
pub(crate) async fn revoke(service: &Service, name: &str) {
    let path = format!("/_demo/revoke/{name}");
    let admin = Some(service.key("admin"));
    let response = Connection::open(service).await.json(Method::POST, &path, admin).await;
    assert_eq!(response.status(), 200, "{response:?}");
}
