//! Requests that are charged in credits, with callers that read to the end, and callers that hang up.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{Router, body::Body, response::IntoResponse, routing::get};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, StatusCode, header::CONTENT_LENGTH};
use http_body_util::BodyExt as _;
use tests::{
    hosts::{Connection, request, serve, within},
    suite::{Call, Directory, FaultyCredits, World, at},
};
use tollgate::{CreditsLayer, Principal, Tollgate, clock::ManualClock};
use tollgate_axum::Credits;

use crate::in_flight::{Http1, http2, http2_get};

/// The estimate of each request.
const ESTIMATE: u64 = 10;
/// What the handler of `/reported` reports before its body begins.
const REPORTED: u64 = 3;
/// What the account has at the beginning.
const GRANTED: u64 = 1_000_000;

fn pieces() -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    stream::iter(["one", "two"].map(|piece| Ok(Bytes::from(piece))))
}

fn endless() -> Body {
    Body::from_stream(stream::repeat(Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 1_000]))))
}

/// A server whose requests are charged.
async fn server(credits: &FaultyCredits) -> SocketAddr {
    let directory =
        Directory::new(&World::new().backend).with("ada", Principal::new("ada").with_tenant("acme"));
    let tollgate = Tollgate::builder()
        .verify(directory)
        .credits(CreditsLayer::new(credits.clone(), ESTIMATE))
        .clock(ManualClock::at(at(0)))
        .build()
        .unwrap();
    let silent = async || Body::from_stream(pieces().chain(stream::pending()));
    let reported = async |credits: Credits| {
        credits.set(REPORTED);
        endless()
    };
    let counted = async || ([(CONTENT_LENGTH, "6")], Body::from_stream(pieces())).into_response();
    let metered =
        async |Credits(credits): Credits| Body::from_stream(pieces().inspect(move |_| credits.add(2)));
    let router = Router::new()
        .route("/short", get(async || "short"))
        .route("/empty", get(async || ()))
        .route("/stream", get(async || Body::from_stream(pieces())))
        .route("/counted", get(counted))
        .route("/metered", get(metered))
        .route("/no-content", get(async || StatusCode::NO_CONTENT))
        .route("/error", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route("/endless", get(async || endless()))
        .route("/silent", get(silent))
        .route("/reported", get(reported))
        .route("/never", get(std::future::pending::<()>))
        .layer(tollgate);
    serve(router).await
}

/// What was charged, once so many requests are settled and no reservation is left. A server notices after a moment that a caller has hung
/// up.
async fn charged(credits: &FaultyCredits, requests: usize) -> u64 {
    within(async {
        loop {
            let (available, reserved, _) = credits.account("acme");
            if credits.settlements() == requests && reserved == 0 {
                return GRANTED - available;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Waits until the server has begun to reserve for so many requests.
async fn arrived(credits: &FaultyCredits, requests: usize) {
    within(async {
        while credits.reservations() < requests {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// How the calls of the backend go, in real time.
const CALLS: [Call; 2] = [Call::Prompt, Call::Slow(Duration::from_millis(2))];

#[tokio::test]
async fn responses_that_are_read_to_the_end_are_charged() {
    for call in CALLS {
        let credits = FaultyCredits::granted("acme", GRANTED).reserving(call).settling(call);
        let address = server(&credits).await;
        let (mut total, mut requests) = (0, 0);
        for mut caller in [Connection::http1(address).await, Connection::http2(address).await] {
            for (method, path, cost) in [
                (Method::GET, "/short", ESTIMATE),
                (Method::GET, "/empty", ESTIMATE),
                (Method::GET, "/stream", ESTIMATE),
                (Method::GET, "/counted", ESTIMATE),
                (Method::GET, "/metered", 4),
                (Method::GET, "/no-content", ESTIMATE),
                (Method::GET, "/error", 0),
                (Method::GET, "/missing", 0),
                (Method::HEAD, "/short", ESTIMATE),
                (Method::HEAD, "/stream", ESTIMATE),
                (Method::HEAD, "/missing", 0),
            ] {
                let response = caller.send(request(method.clone(), path, Some("ada"))).await;
                assert_ne!(response.status(), StatusCode::PAYMENT_REQUIRED);
                total += cost;
                requests += 1;
                assert_eq!(charged(&credits, requests).await, total, "{method} {path} {caller:?}");
            }
        }
    }
}

/// How a response goes on after its head, and what it costs if the caller hangs up.
const INTERRUPTED: [(&str, u64); 3] = [("/endless", 0), ("/silent", 0), ("/reported", REPORTED)];

#[tokio::test]
async fn http_1_callers_that_hang_up_leave_no_reservation_and_no_loss() {
    for call in CALLS {
        let credits = FaultyCredits::granted("acme", GRANTED).reserving(call).settling(call);
        let address = server(&credits).await;
        let (mut total, mut requests) = (0, 0);
        for (path, cost) in INTERRUPTED.into_iter().cycle().take(200) {
            let response = Http1::get(address, path, "ada").await;
            assert!(response.status.ends_with("200"), "{}", response.status);
            drop(response);
            total += cost;
            // Hangs up before there is a response.
            let sent = Http1::send(address, "/never", "ada").await;
            requests += 2;
            arrived(&credits, requests).await;
            drop(sent);
        }
        assert_eq!(charged(&credits, requests).await, total, "{call:?}");
    }
}

#[tokio::test]
async fn http_2_streams_that_are_reset_leave_no_reservation_and_no_loss() {
    for call in CALLS {
        let credits = FaultyCredits::granted("acme", GRANTED).reserving(call).settling(call);
        let address = server(&credits).await;
        let mut sender = http2(address).await;
        let (mut total, mut requests) = (0, 0);
        for (number, (path, cost)) in INTERRUPTED.into_iter().cycle().take(200).enumerate() {
            let mut response = http2_get(&mut sender, path, "ada").await;
            assert_eq!(response.status(), StatusCode::OK);
            if number % 2 == 0 {
                within(response.body_mut().frame()).await.unwrap().unwrap();
            }
            total += cost;
            // Dropped, the stream is reset.
            drop(response);
            requests += 2;
            tokio::select! {
                _ = http2_get(&mut sender, "/never", "ada") => panic!("it has no response"),
                () = arrived(&credits, requests) => {}
            }
        }
        // The connection is lost while a stream is open.
        let open = http2_get(&mut sender, "/silent", "ada").await;
        drop((sender, open));
        assert_eq!(charged(&credits, requests + 1).await, total, "{call:?}");
    }
}
