//! Failed attempts over real sockets: where addresses come from, and a WebSocket that is accepted to be closed.

use std::net::{Ipv4Addr, SocketAddr};

use axum::{
    Router,
    routing::{any, get},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tests::hosts::{Connection, How, header, request, serve_with_peers, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tollgate::{
    AttemptLimitLayer, ClientAddress, CredentialLayer, PerWindow as _, Tollgate, VerifyLayer,
    clock::ManualClock, respond::WebSocketClose,
};
use tollgate_axum::peer_address;
use tower::ServiceBuilder;

use super::Verifier;

/// The other end of the connection, as axum attaches it.
fn connected() -> ClientAddress {
    ClientAddress::of_peer(peer_address)
}

/// Two attempts a minute for each address.
async fn serve(how: How, address: ClientAddress) -> SocketAddr {
    let clock = ManualClock::at(tests::suite::at(0));
    let attempts = AttemptLimitLayer::new(2.per_minute(), address);
    let router = Router::new().route("/jobs", get(async || "jobs"));
    let router = match how {
        How::Built => {
            let tollgate = Tollgate::builder().attempt_limit(attempts).verify(Verifier::new());
            router.layer(tollgate.clock(clock).build().unwrap())
        }
        How::Separate => router.layer(
            ServiceBuilder::new()
                .layer(attempts.with_clock(clock))
                .layer(CredentialLayer::new())
                .layer(VerifyLayer::new(Verifier::new())),
        ),
    };
    serve_with_peers(router).await
}

#[tokio::test]
async fn each_address_has_its_own_count_over_all_its_connections() {
    let neighbour = Ipv4Addr::new(127, 0, 0, 2);
    for how in How::BOTH {
        let server = serve(how, connected()).await;
        for status in [401, 401, 429] {
            let mut caller = Connection::http1(server).await;
            let refused = caller.get("/jobs", Some("guess")).await;
            assert_eq!(refused.status(), status, "{how:?}");
            assert_eq!(header(refused.headers(), "retry-after"), if status == 429 { "60" } else { "" });
            assert!(!refused.headers().contains_key("x-ratelimit-limit"));
        }
        let mut caller = Connection::http2(server).await;
        assert_eq!(caller.get("/jobs", Some("good")).await.status(), StatusCode::TOO_MANY_REQUESTS);
        let mut other = Connection::http1_from(neighbour, server).await;
        assert_eq!(other.get("/jobs", Some("good")).await.status(), StatusCode::OK);
    }
}

/// The status of an attempt with this key and this forwarding header.
async fn attempt(caller: &mut Connection, key: &str, forwarded: &str) -> u16 {
    let mut request = request(Method::GET, "/jobs", Some(key));
    request.headers_mut().insert("x-forwarded-for", HeaderValue::try_from(forwarded).unwrap());
    caller.send(request).await.status().as_u16()
}

#[tokio::test]
async fn a_forged_header_grants_no_further_attempts() {
    for how in How::BOTH {
        // No proxy is trusted, or another one.
        for address in [connected(), connected().with_trusted_proxies(["10.0.0.0/8"]).unwrap()] {
            let mut caller = Connection::http1(serve(how, address).await).await;
            assert_eq!(attempt(&mut caller, "guess", "198.51.100.1").await, 401);
            assert_eq!(attempt(&mut caller, "guess", "198.51.100.2").await, 401);
            assert_eq!(attempt(&mut caller, "guess", "198.51.100.3").await, 429, "{how:?}");
        }
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_address_is_the_one_that_the_proxy_names() {
    for how in How::BOTH {
        let server = serve(how, connected().with_trusted_proxies(["127.0.0.0/8"]).unwrap()).await;
        let mut proxy = Connection::http1(server).await;
        // Entries to the left of the proxy's own one come from the caller.
        assert_eq!(attempt(&mut proxy, "guess", "198.51.100.1").await, 401);
        assert_eq!(attempt(&mut proxy, "guess", "203.0.113.9, 198.51.100.1").await, 401);
        assert_eq!(attempt(&mut proxy, "good", "203.0.113.10, 198.51.100.1").await, 429, "{how:?}");
        assert_eq!(attempt(&mut proxy, "good", "198.51.100.2").await, 200);
    }
}

#[tokio::test]
async fn addresses_of_one_ipv6_network_are_one_client() {
    for how in How::BOTH {
        let address = connected().with_trusted_proxies(["127.0.0.1"]).unwrap();
        let mut proxy = Connection::http1(serve(how, address.clone()).await).await;
        assert_eq!(attempt(&mut proxy, "guess", "2001:db8:1:1::1").await, 401);
        assert_eq!(attempt(&mut proxy, "guess", "2001:db8:1:1:ffff::2").await, 401);
        assert_eq!(attempt(&mut proxy, "good", "2001:db8:1:1::3").await, 429, "{how:?}");
        assert_eq!(attempt(&mut proxy, "good", "2001:db8:1:2::1").await, 200);

        let mut proxy = Connection::http1(serve(how, address.with_ipv6_prefix(48)).await).await;
        assert_eq!(attempt(&mut proxy, "guess", "2001:db8:1:1::1").await, 401);
        assert_eq!(attempt(&mut proxy, "guess", "2001:db8:1:2::1").await, 401);
        assert_eq!(attempt(&mut proxy, "good", "2001:db8:1:3::1").await, 429, "{how:?}");
        assert_eq!(attempt(&mut proxy, "good", "2001:db8:2::1").await, 200);
    }
}

/// A WebSocket handshake with this key, written by hand.
async fn close_code(server: SocketAddr, key: &str) -> u16 {
    let handshake = format!(
        "GET /live HTTP/1.1\r\nhost: {server}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-api-key: {key}\r\n\r\n"
    );
    let mut socket = within(TcpStream::connect(server)).await.unwrap();
    within(socket.write_all(handshake.as_bytes())).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(within(socket.read_u8()).await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    // RFC 6455 sections 5.2 and 5.5.1: a final frame that closes, its length, and the code.
    assert_eq!(within(socket.read_u8()).await.unwrap(), 0x88);
    within(socket.read_u8()).await.unwrap();
    within(socket.read_u16()).await.unwrap()
}

#[tokio::test]
async fn a_websocket_that_is_accepted_only_to_be_closed_is_a_failed_attempt() {
    for how in How::BOTH {
        let clock = ManualClock::at(tests::suite::at(0));
        let attempts = AttemptLimitLayer::new(2.per_minute(), connected());
        let router = Router::new().route("/live", any(async |_: HeaderMap| "no WebSocket"));
        let router = match how {
            How::Built => {
                let tollgate = Tollgate::builder().attempt_limit(attempts).verify(Verifier::new());
                let tollgate = tollgate.responder(WebSocketClose::new()).clock(clock);
                router.layer(tollgate.build().unwrap())
            }
            How::Separate => router.layer(
                ServiceBuilder::new()
                    .layer(attempts.with_clock(clock).with_responder(WebSocketClose::new()))
                    .layer(CredentialLayer::new())
                    .layer(VerifyLayer::new(Verifier::new())),
            ),
        };
        let server = serve_with_peers(router).await;
        for code in [4401, 4401, 4429, 4429] {
            assert_eq!(close_code(server, "guess").await, code, "{how:?}");
        }
    }
}
