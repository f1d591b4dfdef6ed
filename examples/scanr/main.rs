//! Market scans for subscribers, following a published contract whose limits reset each minute, hour and day:
//! `cargo run --example scanr`.
//!
//! | file | idea |
//! |---|---|
//! | `main.rs` | the gate, and the routes beside it |
//! | `tokens.rs` | the token store, the token manager, and tokens to try |
//! | `account.rs` | the account routes, where subscribers manage their tokens |
//! | `api_usage.rs` | the usage of an account's tokens, and what remains of their limits |
//! | `tiers.rs` | the tiers: their limits, and what they include |
//! | `routes.rs` | the endpoints, and what each one requires |
//! | `scans.rs` | the saved scans of an account |
//! | `market.rs` | sample data |
//! | `body.rs` | request bodies: any JSON object |
//! | `error.rs` | the contract's statuses, and the body of an error |
//!
//! To see a limit reset: stop the clock with `-- --now 2026-03-01T22:58:30Z`, send requests with the token `tiny` until the
//! answer is 429, and move the clock by the seconds in `Retry-After`:
//!
//! ```sh
//! curl -X POST "$url/_demo/clock" -d '{"advance_s": 30}'
//! ```

mod account;
mod api_usage;
mod body;
mod error;
mod market;
mod routes;
mod scans;
#[cfg(test)]
mod tests;
mod tiers;
mod tokens;

use std::error::Error;

use clap::Args;
use jiff::Timestamp;
use support::{
    Host,
    clock::{self, ServiceClock},
};
use tollgate::{
    AttemptLimitLayer, CachedKeys, ClientAddress, EntitlementLayer, KeyFormat, KeyVerifier, PerWindow,
    RateLimitLayer, Tollgate, key::ApiKey, manage::KeyManager, usage::UsageRecorder,
};
use tollgate_axum::{RecordedRouter, peer_address};
use tollgate_sql::SqlKeys;

use crate::api_usage::ApiUsage;

/// Credentials to try, by name.
type Credentials = Vec<(String, ApiKey)>;

#[derive(Args)]
struct Arguments {
    /// Stop the clock at this instant; POST /_demo/clock moves it.
    #[arg(long, value_name = "RFC3339", value_parser = clock::parse)]
    now: Option<Timestamp>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let about = "Market scans behind Tollgate, following the contract of the scanr.ai API";
    let (host, Arguments { now }) = Host::start_with(about).await?;
    let clock = ServiceClock::new(now)?;
    let format = KeyFormat::new("sk")?;
    let store = tokens::store().await?;
    let manager = tokens::manager(format.clone(), store.clone(), clock.clone())?;
    let mut credentials = tokens::issue(&manager, &clock).await?;
    let (sessions, signed_in) = account::sign_in()?;
    credentials.extend(signed_in);
    let usage = UsageRecorder::new(store.clone());
    let app = app(format, store.clone(), manager, sessions, usage.clone(), clock)?;

    let flushing = usage.spawn()?;
    host.serve(app, &credentials).await?;
    flushing.shutdown().await?;
    store.close().await;
    Ok(())
}

/// The API behind its gate, and beside it the account routes and the clock.
fn app(
    format: KeyFormat,
    store: SqlKeys,
    manager: KeyManager,
    sessions: KeyVerifier,
    usage: UsageRecorder,
    clock: ServiceClock,
) -> Result<RecordedRouter, Box<dyn Error>> {
    // Clones share their counters: the account routes show what the gate counts, and failed attempts on tokens and on sessions
    // count together.
    let limits = RateLimitLayer::from_policies([tiers::limits()])?;
    let attempts = AttemptLimitLayer::new(3_000.per_minute(), ClientAddress::of_peer(peer_address));

    let tollgate = Tollgate::builder()
        .attempt_limit(attempts.clone())
        .verify(KeyVerifier::new(format, CachedKeys::new(store)))
        .rate_limit(limits.clone())
        .entitlement(EntitlementLayer::new())
        .usage(usage.clone())
        .responder(error::responder())
        .clock(clock.clone())
        .realm("scanr")
        .build()?;
    let api_usage = ApiUsage { manager, limits, usage };
    // The gate checks the token, its limits and its subscription. Each route checks the scope and the tier itself. Routes merged
    // after the layer are outside the gate: moving the clock needs no token.
    Ok(routes::router(clock.clone())?
        .layer(tollgate)
        .merge(account::router(api_usage, sessions, attempts, clock.clone())?)
        .merge(clock::router(clock, error::response)))
}
