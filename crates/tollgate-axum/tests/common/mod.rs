//! A server on a real socket, and a verifier with a key.

use std::net::SocketAddr;

use axum::Router;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tollgate::{Environment, KeyFormat, KeyVerifier, MemoryKeys, Principal};

/// A verifier, and a key of the tenant `acme` without scopes.
pub(crate) fn verifier() -> (KeyVerifier, String) {
    let format = KeyFormat::new("sk").unwrap();
    let keys = MemoryKeys::new();
    let principal = Principal::new("key_1").with_tenant("acme");
    let key = keys.issue(&format, Environment::Live, principal).unwrap();
    let secret = key.expose_secret().to_owned();
    (KeyVerifier::new(format, keys), secret)
}

/// Serves on a free TCP port until the test's runtime ends.
pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Sends `GET /` with these headers. Returns the whole response as text.
pub(crate) async fn get(address: SocketAddr, headers: &[(&str, &str)]) -> String {
    let lines: String = headers.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
    let request = format!("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{lines}\r\n");
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).await.unwrap();
    response
}
