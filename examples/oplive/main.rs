//! Jobs that organizations pay for with credits, following a published contract in which jobs, credits and limits belong to the
//! organization, not to the key: `cargo run --example oplive`.
//!
//! | file | idea |
//! |---|---|
//! | `main.rs` | the gate, and the routes beside it |
//! | `routes.rs` | the endpoints: the permission and the cost of each |
//! | `organization.rs` | the caller's organization, and what belongs to it |
//! | `jobs.rs` | jobs: what is paid for |
//! | `credits.rs` | the credits of organizations |
//! | `webhooks.rs` | webhooks, and their test |
//! | `keys.rs` | the key store, the key manager, and keys to try |
//! | `dashboard.rs` | the dashboard, where an organization manages its keys |
//! | `body.rs` | request bodies: any JSON object |
//! | `error.rs` | the contract's statuses, codes and bodies |
//!
//! ```sh
//! curl "$url/v1/scan" -H "Authorization: Bearer $full" -d '{"url": "https://example.com"}'
//! curl "$url/v1/credits" -H "Authorization: Bearer $read_only"
//! ```
//!
//! To see a limit reset or the credits of the next month: stop the clock with `-- --now 2026-03-31T23:59:30Z`, and move it:
//!
//! ```sh
//! curl -X POST "$url/_demo/clock" -d '{"advance_s": 30}'
//! ```

mod body;
mod credits;
mod dashboard;
mod error;
mod jobs;
mod keys;
mod organization;
mod routes;
#[cfg(test)]
mod tests;
mod webhooks;

use std::error::Error;

use clap::Args;
use jiff::Timestamp;
use support::{
    Host,
    clock::{self, ServiceClock},
};
use tollgate::{
    AttemptLimitLayer, CachedKeys, ClientAddress, CredentialLayer, CreditsLayer, KeyFormat, KeyVerifier,
    PerWindow, Policy, RateLimitLayer, ScopeLayer, Tollgate, credits::RepeatedRequest, key::ApiKey,
    limit::Subject, manage::KeyManager, verify::CredentialSource,
};
use tollgate_axum::{RecordedRouter, peer_address};
use tollgate_sql::SqlKeys;

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
    let about = "Jobs for credits behind Tollgate, following a contract with keys of organizations";
    let (host, Arguments { now }) = Host::start_with(about).await?;
    let clock = ServiceClock::new(now)?;
    let format = KeyFormat::new("op")?;
    let store = keys::store().await?;
    let manager = keys::manager(format.clone(), store.clone(), clock.clone())?;
    let mut credentials = keys::issue(&manager).await?;
    credits::grant(&store.credits(), keys::ORGANIZATIONS, &clock).await?;
    let (sessions, dashboard) = dashboard::sign_in()?;
    credentials.push(("dashboard".to_owned(), dashboard));

    host.serve(app(format, &store, manager, sessions, clock)?, &credentials).await?;
    store.close().await;
    Ok(())
}

/// The API, and beside it the dashboard and the clock.
fn app(
    format: KeyFormat,
    store: &SqlKeys,
    manager: KeyManager,
    sessions: KeyVerifier,
    clock: ServiceClock,
) -> Result<RecordedRouter, Box<dyn Error>> {
    // Failed attempts on keys and on sessions count together.
    let attempts = AttemptLimitLayer::new(3_000.per_minute(), ClientAddress::of_peer(peer_address));
    Ok(api(format, store, attempts.clone(), clock.clone())?
        .merge(dashboard::router(manager, sessions, attempts, clock.clone())?)
        .merge(clock::router(clock, error::response)))
}

/// The API behind its gate, which checks the key, the limit of its organization, and the permission, and then reserves credits: a
/// request that is refused costs nothing.
fn api(
    format: KeyFormat,
    store: &SqlKeys,
    attempts: AttemptLimitLayer,
    clock: ServiceClock,
) -> Result<RecordedRouter, Box<dyn Error>> {
    // Counted by organization: its keys share the limit, and one more key gives it no more requests.
    let limit = Policy::new("organization", 30.per_minute()).with_subject(Subject::Tenant);
    // A job's answer is stored, so a request that is repeated with its `Idempotency-Key` reaches the handler, and costs nothing.
    let charges = CreditsLayer::new(store.credits(), routes::costs()?)
        .with_idempotency_key(RepeatedRequest::PassToHandler);
    let tollgate = Tollgate::builder()
        .attempt_limit(attempts)
        // The only place where a key is read: `X-API-Key` is ignored.
        .credential(CredentialLayer::from_sources([CredentialSource::Bearer])?)
        // The store notifies the cache of a deletion and of a suspension.
        .verify(KeyVerifier::new(format, CachedKeys::new(store.clone())))
        .rate_limit(RateLimitLayer::from_policies([limit])?)
        .scope(ScopeLayer::per_route(routes::permissions())?)
        .credits(charges)
        .responder(error::responder())
        .clock(clock.clone())
        .realm("oplive")
        .build()?;
    // The layer wraps the fallbacks too: without a valid key, every path is answered with 401.
    Ok(routes::router(store.credits(), clock).layer(tollgate))
}
