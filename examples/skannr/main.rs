//! A service that scans networks for its users, following a published contract with sign-in, refresh tokens and MFA:
//! `cargo run --example skannr`.
//!
//! | file | idea |
//! |---|---|
//! | `main.rs` | the gate, the open routes beside it, and accounts to try |
//! | `routes.rs` | the endpoints |
//! | `limits.rs` | the limits of accounts and of client addresses |
//! | `sign_in.rs` | the open routes: registration, login, refresh |
//! | `sessions.rs` | refresh tokens: rotation, and what happens to a token that is used again |
//! | `tokens.rs` | access tokens |
//! | `passwords.rs`, `hashing.rs` | passwords, and how many slow hashes run at a time |
//! | `mfa.rs` | codes of an authenticator app |
//! | `accounts.rs`, `database.rs` | the accounts, in SQLite |
//! | `billing.rs` | the plan of an account |
//! | `targets.rs`, `scans.rs`, `alerts.rs`, `inventory.rs` | what an account scans, and what was found |
//! | `progress.rs` | sample data: score, streak, achievements |
//! | `body.rs`, `error.rs`, `random.rs` | request bodies, error bodies, random text |
//!
//! ```sh
//! curl "$url/api/v1/auth/register" -d '{"name": "Ada", "email": "ada@example.org", "password": "correct horse"}'
//! curl "$url/api/v1/auth/login" -d '{"email": "ada@example.org", "password": "correct horse"}'
//! curl "$url/api/v1/targets" -H "Authorization: Bearer $access_token" -d '{"target": "192.0.2.0/28"}'
//! ```
//!
//! To see a token expire: stop the clock with `-- --now 2026-03-01T22:58:30Z`, and move it by 15 minutes:
//!
//! ```sh
//! curl "$url/_demo/clock" -d '{"advance_s": 900}'
//! ```

mod accounts;
mod alerts;
mod billing;
mod body;
mod database;
mod error;
mod hashing;
mod inventory;
mod limits;
mod mfa;
mod passwords;
mod progress;
mod random;
mod routes;
mod scans;
mod sessions;
mod sign_in;
mod targets;
#[cfg(test)]
mod tests;
mod tokens;

use std::{error::Error, time::Duration};

use clap::Args;
use jiff::Timestamp;
use support::{
    Host,
    clock::{self, ServiceClock},
};
use tollgate::{
    AttemptLimitLayer, CredentialLayer, PerWindow, Plan, Principal, RateLimitLayer, RequestIdLayer, Tollgate,
    clock::Clock as _, verify::CredentialSource,
};
use tollgate_axum::{RecordedRouter, RefusalLayer};

use crate::{
    accounts::{Account, Accounts},
    error::NOT_FOUND,
    inventory::{Inventory, Owned},
    limits::Guesses,
    passwords::Passwords,
    sessions::Sessions,
    tokens::Tokens,
};

const REALM: &str = "skannr";

#[derive(Args)]
struct Arguments {
    /// Stop the clock at this instant; POST /_demo/clock moves it.
    #[arg(long, value_name = "RFC3339", value_parser = clock::parse)]
    now: Option<Timestamp>,
}

/// What the handlers share.
#[derive(Clone)]
struct App {
    accounts: Accounts,
    sessions: Sessions,
    passwords: Passwords,
    guesses: Guesses,
    limits: RateLimitLayer,
    inventory: Inventory,
    clock: ServiceClock,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let about = "Network scans behind Tollgate, following the contract of the Skannr REST API";
    let (host, Arguments { now }) = Host::start_with(about).await?;
    let clock = ServiceClock::new(now)?;
    let database = database::open().await?;
    let tokens = Tokens::new(clock.clone())?;
    let app = App {
        accounts: Accounts::new(database.clone()),
        sessions: Sessions::new(database.clone(), tokens.clone(), clock.clone()),
        passwords: Passwords::new()?,
        guesses: Guesses::new(),
        limits: limits::of_accounts()?,
        inventory: Inventory::default(),
        clock,
    };
    let credentials = app.issue_credentials(&tokens).await?;
    host.serve(service(app, &tokens)?, &credentials).await?;
    database.close().await;
    Ok(())
}

/// The routes behind the gate, and the open ones beside it.
fn service(app: App, tokens: &Tokens) -> Result<RecordedRouter, Box<dyn Error>> {
    let clock = app.clock.clone();
    let tollgate = Tollgate::builder()
        .attempt_limit(AttemptLimitLayer::new(3_000.per_minute(), limits::client_address()))
        .credential(CredentialLayer::from_sources([CredentialSource::Bearer])?)
        .verify(tokens.verifier())
        .plan(app.accounts.clone())
        // Clones share their counters: a sign-in shows what the gate counts.
        .rate_limit(app.limits.clone())
        .responder(error::responder())
        .clock(clock.clone())
        .realm(REALM)
        .build()?;
    let of_addresses = limits::of_addresses()?
        .with_responder(error::responder())
        .with_clock(clock.clone())
        .with_realm(REALM);
    // The fallback is inside the gate, too: without a token, every other path is answered with 401.
    let guarded = routes::guarded(app.clone()).layer(RefusalLayer::new()).layer(tollgate);
    let open = routes::open(app).layer(RefusalLayer::new()).layer(of_addresses).layer(RequestIdLayer::new());
    Ok(guarded.merge(open).merge(clock::router(clock, error::response)))
}

impl App {
    /// The account of a caller.
    async fn account(&self, caller: &Principal) -> Result<Account, error::Error> {
        self.accounts.find(caller.tenant().unwrap_or_default()).await?.ok_or(NOT_FOUND)
    }

    /// Acts on what a caller's account owns.
    fn owned<T>(&self, caller: &Principal, act: impl FnOnce(&mut Owned) -> T) -> T {
        self.inventory.of(caller.tenant().unwrap_or_default(), act)
    }

    /// Creates accounts to try, and returns an access token of each. They have no password.
    async fn issue_credentials(
        &self,
        tokens: &Tokens,
    ) -> Result<Vec<(&'static str, String)>, Box<dyn Error>> {
        let mut credentials = Vec::new();
        for (name, plan) in [
            ("free", Plan::active(limits::FREE)),
            ("pro", Plan::active(limits::PRO)),
            // The subscription was not paid for.
            ("lapsed", Plan::lapsed(limits::PRO)),
        ] {
            let account = Account {
                id: random::text(),
                name: name.to_owned(),
                email: format!("{name}@example.com"),
                password: None,
                plan,
                totp_secret: None,
                is_mfa_enabled: false,
            };
            self.accounts.create(&account).await.map_err(|_| "cannot create the accounts to try")?;
            self.inventory.of(&account.id, Owned::add_samples);
            credentials.push((name, self.sessions.begin(&account.id).await?.access_token));
            if name == "free" {
                let an_hour_ago = self.clock.now() - Duration::from_hours(1);
                credentials.push(("expired", tokens.mint(&account.id, &random::text(), an_hour_ago)));
            }
        }
        Ok(credentials)
    }
}
