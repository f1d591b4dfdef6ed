//! A service whose tokens have lived in a table of its own for years, moved behind Tollgate without a new token for anybody:
//! `cargo run --example migration`.
//!
//! | file | idea |
//! |---|---|
//! | `main.rs` | the gate |
//! | `table.rs` | the application's table as a store of keys: two methods to find them, two to upgrade old ones |
//! | `before.rs` | the table as it was, what was added to it, and its tokens |
//! | `routes.rs` | the endpoints, and the page on which operators revoke tokens |
//!
//! The hash of an old token is checked once. From then on it is found by its digest, as `is_upgraded` shows:
//!
//! ```sh
//! curl "$url/invoices" -H "X-API-Key: $bcrypt"
//! curl "$url/admin/tokens" -H "X-API-Key: $operator"
//! curl -X DELETE "$url/admin/tokens/tok_0344" -H "X-API-Key: $operator"
//! ```

mod before;
mod routes;
mod table;
#[cfg(test)]
mod tests;

use std::error::Error;

use axum::Router;
use support::Host;
use tollgate::{
    AttemptLimitLayer, CachedKeys, ClientAddress, KeyFormat, KeyVerifier, PerWindow, ScopeLayer, Tollgate,
    store::LegacyHashes,
};
use tollgate_axum::peer_address;

use crate::table::TokenTable;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let host = Host::start("Tokens of an application's own table, behind Tollgate").await?;
    let database = before::database().await?;
    let format = KeyFormat::new("acme")?;
    let table = TokenTable::new(database.clone());
    let new = table.issue(&format, "dorothy", "invoices:read").await?;
    let app = app(format, table)?;

    let mut credentials: Vec<_> = before::TOKENS.iter().map(|token| (token.name, token.secret)).collect();
    credentials.push(("new", new.expose_secret()));
    host.serve(app, &credentials).await?;
    database.close().await;
    Ok(())
}

fn app(format: KeyFormat, table: TokenTable) -> Result<Router, Box<dyn Error>> {
    // What the table does not know by its digest may be known to it by a hash from before.
    let legacy = LegacyHashes::new(table.clone()).with_prefix(before::prefix);
    let verifier = KeyVerifier::new(format, CachedKeys::new(table.clone())).with_legacy(legacy);
    let tollgate = Tollgate::builder()
        // Slow hashes are worth guarding: whoever goes on guessing is not listened to.
        .attempt_limit(AttemptLimitLayer::new(300.per_minute(), ClientAddress::of_peer(peer_address)))
        .verify(verifier)
        .scope(ScopeLayer::per_route(routes::scopes())?)
        .build()?;
    Ok(routes::router(table).layer(tollgate))
}
