//! Market scans for subscribers, by a published contract whose limits reset on the minute, the hour and the day:
//! `cargo run --example scanr`.
//!
//! | file | idea |
//! |---|---|
//! | `main.rs` | the gate |
//! | `tokens.rs` | the tokens to try it with |
//! | `tiers.rs` | what was bought: how often it lets a token ask, and what it includes |
//! | `routes.rs` | the endpoints, and what each one asks for |
//! | `scans.rs` | the scans that an account has saved |
//! | `market.rs` | the data, made up |
//! | `body.rs` | bodies: any JSON object |
//! | `error.rs` | the contract's statuses, and the body of an error |
//! | `clock.rs` | the clock, which can be moved to see a limit reset |
//!
//! To see a limit reset, stop the clock with `-- --now 2026-03-01T22:58:30Z`, ask with the token `tiny` until the answer is
//! 429, and move the clock by what `Retry-After` says:
//!
//! ```sh
//! curl -X POST "$url/_demo/clock" -d '{"advance_s": 30}'
//! ```

mod body;
mod clock;
mod error;
mod market;
mod routes;
mod scans;
mod tiers;
mod tokens;

use std::error::Error;

use axum::Router;
use clap::Args;
use jiff::Timestamp;
use support::Host;
use tollgate::{Clock, EntitlementLayer, KeyFormat, KeyVerifier, MemoryKeys, RateLimitLayer, Tollgate};

use crate::clock::ServiceClock;

#[derive(Args)]
struct Arguments {
    /// Stops the clock at this instant; from then on POST /_demo/clock moves it.
    #[arg(long, value_name = "RFC3339", value_parser = clock::parse)]
    now: Option<Timestamp>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let about = "Market scans behind Tollgate, by the contract of the scanr.ai API";
    let (host, Arguments { now }) = Host::start_with(about).await?;
    let clock = ServiceClock::new(now)?;
    let format = KeyFormat::new("sk")?;
    let keys = MemoryKeys::new();
    let tokens = tokens::issue(&format, &keys, clock.now())?;
    let app = app(KeyVerifier::new(format, keys), clock)?;
    host.serve(app, &tokens).await
}

/// The whole API behind its gate: the token first, then its limits, then its subscription. What is left, the scope and the
/// tier, each route asks for itself.
fn app(verifier: KeyVerifier, clock: ServiceClock) -> Result<Router, Box<dyn Error>> {
    let tollgate = Tollgate::builder()
        .verify(verifier)
        .rate_limit(RateLimitLayer::from_policies([tiers::limits()]))
        .entitlement(EntitlementLayer::new())
        .responder(error::responder())
        .clock(clock.clone())
        .realm("scanr")
        .build()?;
    // What is merged after the layer stands outside the gate: moving the clock takes no token.
    Ok(routes::router(clock.clone()).layer(tollgate).merge(clock::router(clock)))
}
