//! A service with its own table of tokens, moved behind Tollgate. Customers keep their tokens: `cargo run --example migration`.
//!
//! | file | idea |
//! |---|---|
//! | `main.rs` | the gate |
//! | `table.rs` | the application's table as a key store: two methods to find tokens, two to upgrade legacy tokens |
//! | `legacy_table.rs` | the old table, its migration, and its tokens |
//! | `routes.rs` | the endpoints, and the routes where operators revoke tokens |
//!
//! The hash of a legacy token is checked once. After that, the token is found by its digest, and `is_upgraded` is true:
//!
//! ```sh
//! curl "$url/invoices" -H "X-API-Key: $bcrypt"
//! curl "$url/admin/tokens" -H "X-API-Key: $operator"
//! curl -X DELETE "$url/admin/tokens/tok_0344" -H "X-API-Key: $operator"
//! ```

mod legacy_table;
mod routes;
mod table;
#[cfg(test)]
mod tests;

use std::error::Error;

use support::Host;
use tollgate::{
    AttemptLimitLayer, CachedKeys, ClientAddress, KeyFormat, KeyVerifier, PerWindow, ScopeLayer, Tollgate,
    store::LegacyHashes,
};
use tollgate_axum::{RecordedRouter, peer_address};

use crate::table::TokenTable;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let host = Host::start("Tokens of an application's own table, behind Tollgate").await?;
    let database = legacy_table::database().await?;
    let format = KeyFormat::new("acme")?;
    let table = TokenTable::new(database.clone());
    let new = table.issue(&format, "dorothy", "invoices:read").await?;
    let app = app(format, table)?;

    let mut credentials: Vec<_> =
        legacy_table::TOKENS.iter().map(|token| (token.name, token.secret)).collect();
    credentials.push(("new", new.expose_secret()));
    host.serve(app, &credentials).await?;
    database.close().await;
    Ok(())
}

fn app(format: KeyFormat, table: TokenTable) -> Result<RecordedRouter, Box<dyn Error>> {
    // A token without a digest in the table is checked against the legacy hashes.
    let legacy = LegacyHashes::new(table.clone()).with_prefix(legacy_table::prefix);
    let verifier = KeyVerifier::new(format, CachedKeys::new(table.clone())).with_legacy(legacy);
    let tollgate = Tollgate::builder()
        // Limits how many slow hashes one client can cause by guessing.
        .attempt_limit(AttemptLimitLayer::new(300.per_minute(), ClientAddress::of_peer(peer_address)))
        .verify(verifier)
        .scope(ScopeLayer::per_route(routes::scopes())?)
        .build()?;
    Ok(routes::router(table).layer(tollgate))
}
