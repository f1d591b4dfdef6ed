//! The readiness contract under tonic's own limits: a refusal gives back what `poll_ready` has reserved.

use std::{net::SocketAddr, time::Duration};

use tonic::{Code, transport::Server};
use tower::limit::ConcurrencyLimitLayer;

use super::{call, connect, serve, tollgate, within};

/// Refused and admitted calls, many at a time on one connection. None hangs, and each gets its own answer.
async fn many_at_once(server: SocketAddr) {
    let client = connect(server).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..60 {
        let mut client = client.clone();
        calls.spawn(async move {
            let (key, expected) = [
                ("good", Code::Ok),
                ("", Code::Unauthenticated),
                ("slow", Code::Unauthenticated),
                ("scopeless", Code::PermissionDenied),
            ][number % 4];
            let answer = client.check(call(key, "")).await;
            let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
            assert_eq!(code, expected, "call {number} with the key {key:?}");
        });
    }
    while let Some(done) = within(calls.join_next()).await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_concurrency_limit_per_connection() {
    many_at_once(serve!(Server::builder().concurrency_limit_per_connection(1).layer(tollgate(1_000)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_concurrency_limit_outside_and_inside() {
    let limit = ConcurrencyLimitLayer::new(1);
    many_at_once(serve!(Server::builder().layer(limit.clone()).layer(tollgate(1_000)))).await;
    many_at_once(serve!(Server::builder().layer(tollgate(1_000)).layer(limit.clone()))).await;
    many_at_once(serve!(Server::builder().layer(limit.clone()).layer(tollgate(1_000)).layer(limit))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_of_them_and_a_timeout() {
    let server = Server::builder()
        .concurrency_limit_per_connection(8)
        .timeout(Duration::from_secs(60))
        .layer(tollgate(1_000))
        .layer(ConcurrencyLimitLayer::new(1));
    many_at_once(serve!(server)).await;
}

/// With load shedding, a permit that a refusal had kept would refuse every later call.
#[tokio::test]
async fn load_shedding_sees_every_permit_given_back() {
    let server = Server::builder().load_shed(true).concurrency_limit_per_connection(1).layer(tollgate(1_000));
    let mut client = connect(serve!(server)).await;
    for _ in 0..20 {
        for (key, expected) in [
            ("", Code::Unauthenticated),
            ("slow", Code::Unauthenticated),
            ("scopeless", Code::PermissionDenied),
        ] {
            assert_eq!(within(client.check(call(key, ""))).await.unwrap_err().code(), expected);
        }
        within(client.check(call("good", ""))).await.unwrap();
    }
}

/// A verifier that never answers: the call ends by the timeout, and its permit is free.
#[tokio::test]
async fn a_call_that_times_out_gives_its_permit_back() {
    let server = Server::builder()
        .timeout(Duration::from_millis(50))
        .load_shed(true)
        .concurrency_limit_per_connection(1)
        .layer(tollgate(1_000));
    let mut client = connect(serve!(server)).await;
    for _ in 0..3 {
        let status = within(client.check(call("stuck", ""))).await.unwrap_err();
        assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status:?}");
        assert_eq!(within(client.check(call("", ""))).await.unwrap_err().code(), Code::Unauthenticated);
    }
}
