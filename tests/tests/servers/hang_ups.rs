//! Callers that hang up before they have an answer: over HTTP/1 they close the connection, over HTTP/2 they reset the stream.
//!
//! | module | tests |
//! |---|---|
//! | `flood` | a helper: callers that hang up |
//! | `recovery` | a key store that is slow, down, silent, and back |
//! | `legacy_hashes` | how many hashes run for callers that have hung up |
//! | `attempts` | an abandoned attempt is a failed one |

mod attempts;
mod flood;
mod legacy_hashes;
mod recovery;

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use http::StatusCode;
use tests::hosts::{Connection, serve_with_peers};
use tokio::time::Instant;
use tollgate::{AttemptLimitLayer, KeyFormat, Tollgate, VerifyLayer};

/// How a caller hangs up.
#[derive(Clone, Copy, Debug)]
enum How {
    /// It closes its HTTP/1 connection.
    Closes,
    /// It resets its HTTP/2 stream, and keeps the connection.
    Resets,
}

impl How {
    const BOTH: [Self; 2] = [Self::Closes, Self::Resets];
}

fn format() -> KeyFormat {
    KeyFormat::new("sk").unwrap()
}

/// Serves a built stack.
async fn serve(verify: impl Into<VerifyLayer>, attempts: Option<AttemptLimitLayer>) -> SocketAddr {
    let tollgate = Tollgate::builder().verify(verify);
    let tollgate = match attempts {
        Some(attempts) => tollgate.attempt_limit(attempts),
        None => tollgate,
    };
    serve_with_peers(Router::new().route("/", get(async || "in")).layer(tollgate.build().unwrap())).await
}

/// The status of a request by a caller that waits for it.
async fn status(server: SocketAddr, key: &str) -> StatusCode {
    Connection::http1(server).await.get("/", Some(key)).await.status()
}

/// Sends a key from time to time until it is accepted, and returns how long that took.
async fn until_accepted(server: SocketAddr, key: &str, at_most: Duration) -> Duration {
    let began = Instant::now();
    while status(server, key).await != StatusCode::OK {
        assert!(began.elapsed() < at_most, "a good key is refused after {:?}", began.elapsed());
        // Much less often than the flood: a request of this caller rarely is the one that the circuit breaker lets through.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    began.elapsed()
}
