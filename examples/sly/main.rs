//! An API that accepts API keys, and session tokens of Supabase Auth on the same header, following a published contract with live and test
//! data, scopes and credits: `cargo run --example sly`.
//!
//! | file | idea |
//! |---|---|
//! | `main.rs` | the gate: which verifier a credential goes to, and in which order a request is checked |
//! | `routes.rs` | the endpoints: the scope and the cost of each |
//! | `corpus.rs` | the two corpora, and the scans in each |
//! | `credits.rs` | the credits of organizations |
//! | `keys.rs` | the key store, the key manager, and keys to try |
//! | `rotation.rs` | a key replaces itself |
//! | `users.rs` | session tokens: the user's organization and role |
//! | `supabase.rs` | the issuer of session tokens, on this machine |
//! | `body.rs` | request bodies: any JSON object |
//! | `error.rs` | the contract's errors |
//!
//! ```sh
//! curl "$url/v1/scanner/scan" -H "Authorization: Bearer $live" -d '{"domain": "shopify.com"}'
//! curl "$url/v1/scanner/scan" -H "Authorization: Bearer $jwt" -H 'X-Environment: test' -d '{"domain": "shopify.com"}'
//! curl "$url/v1/scanner/credits/balance" -H "Authorization: Bearer $live"
//! ```
//!
//! | credential | organization | credits at the start | |
//! |---|---|---|---|
//! | `live` | acme | 100 | |
//! | `revoked` | acme | | was revoked |
//! | `test` | globex | 1,000 | a test key |
//! | `read_only` | globex | 1,000 | has the scope `read` only |
//! | `fast` | globex | 1,000 | 600 requests per minute in place of 60 |
//! | `jwt` | globex | 1,000 | a session of 15 minutes |
//! | `jwt_expired`, `jwt_forged` | globex | | |
//! | `no_credits` | hooli | 0 | |
//! | `suspended` | initech | 100 | its organization is suspended |
//!
//! Scans of test data cost as much as others: an organization has one balance.
//!
//! To see a limit reset or a session expire: stop the clock with `-- --now 2026-03-01T22:58:30Z`, and move it:
//!
//! ```sh
//! curl -X POST "$url/_demo/clock" -d '{"advance_s": 900}'
//! ```

mod body;
mod corpus;
mod credits;
mod error;
mod keys;
mod rotation;
mod routes;
mod supabase;
#[cfg(test)]
mod tests;
mod users;

use std::error::Error;

use clap::Args;
use jiff::Timestamp;
use support::{
    Host,
    clock::{self, ServiceClock},
};
use tollgate::{
    AttemptLimitLayer, CachedKeys, ClientAddress, CredentialLayer, CreditsLayer, KeyVerifier, PerWindow as _,
    Policy, RateLimitLayer, RequestIdLayer, ScopeLayer, Tollgate,
    verify::{Branch, CredentialSource, Dispatch},
};
use tollgate_axum::{RecordedRouter, peer_address};
use tollgate_jwt::JwtVerifier;
use tollgate_sql::SqlKeys;

use crate::{supabase::Supabase, users::Users};

/// Credentials to try, by name.
type Credentials = Vec<(&'static str, String)>;

#[derive(Args)]
struct Arguments {
    /// Stop the clock at this instant; POST /_demo/clock moves it.
    #[arg(long, value_name = "RFC3339", value_parser = clock::parse)]
    now: Option<Timestamp>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let about = "Scans for credits behind Tollgate, following a contract with API keys and Supabase sessions";
    let (host, Arguments { now }) = Host::start_with(about).await?;
    let clock = ServiceClock::new(now)?;
    let store = keys::store().await?;
    let mut credentials = keys::issue(&keys::manager(store.clone(), clock.clone())?).await?;
    credits::grant(&store.credits(), &clock).await?;

    let supabase = Supabase::start(clock.clone()).await;
    credentials.extend(supabase.credentials().await);
    let sessions = users::verifier(supabase.issuer()?, Users::open(store.clone()).await?, store.clone());
    // If the issuer's keys cannot be fetched, the service ends here, and not with the first request.
    sessions.connect().await?;

    host.serve(app(&store, sessions, clock)?, &credentials).await?;
    store.close().await;
    Ok(())
}

/// The API, and beside it the clock.
fn app(
    store: &SqlKeys,
    sessions: JwtVerifier,
    clock: ServiceClock,
) -> Result<RecordedRouter, Box<dyn Error>> {
    let demo = clock::router(clock.clone(), |status, _code, message| error::response(status, message));
    Ok(api(store, sessions, clock)?.merge(demo))
}

/// The API behind its gate, which checks the credential, the rate limit and the scope, and then reserves credits: a request that is
/// refused costs nothing.
fn api(
    store: &SqlKeys,
    sessions: JwtVerifier,
    clock: ServiceClock,
) -> Result<RecordedRouter, Box<dyn Error>> {
    let keys = KeyVerifier::new(keys::format()?, CachedKeys::new(store.clone()));
    // A credential has one verifier, and one text for every reason why it is invalid.
    let verifier = Dispatch::new()
        .with_prefix(
            "eyJ",
            Branch::new(sessions).with_refusal_text("invalid_session", error::INVALID_SESSION),
        )?
        .with_default(Branch::new(keys).with_refusal_text("invalid_key", error::INVALID_KEY))?;
    // A session token contains the user's metadata, and may be longer than the default of 4 KiB.
    let bearer = CredentialLayer::from_sources([CredentialSource::Bearer])?.with_max_length(16 * 1024);
    let tollgate = Tollgate::builder()
        .request_id(RequestIdLayer::new().with_uuids_only())
        .attempt_limit(AttemptLimitLayer::new(3_000.per_minute(), ClientAddress::of_peer(peer_address)))
        .credential(bearer)
        .verify(verifier)
        // Counted by key or user, and not by organization. A key may have a quota of its own: see `fast` in keys.rs.
        .rate_limit(RateLimitLayer::from_policies([Policy::new(keys::POLICY, 60.per_minute())])?)
        .scope(ScopeLayer::per_route(routes::scopes())?)
        .credits(CreditsLayer::new(store.credits(), routes::costs()?))
        .responder(error::responder())
        .clock(clock.clone())
        .realm("sly scanner")
        .build()?;
    // The layer wraps the fallbacks too: without a valid credential, every path is answered with 401.
    Ok(routes::router(store, clock)?.layer(tollgate))
}
