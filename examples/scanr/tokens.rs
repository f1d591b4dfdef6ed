//! The token store, the token manager, and tokens to try.

use std::{error::Error, time::Duration};

use support::clock::ServiceClock;
use tollgate::{
    KeyFormat, Scopes,
    clock::{Clock, ManualClock},
    manage::{Actor, KeyAdmin, KeyManager, NewKey},
    scope::InvalidScope,
};
use tollgate_sql::{ConnectError, SqlKeys};

use crate::{Credentials, tiers};

const A_MONTH: Duration = Duration::from_hours(30 * 24);

/// Keeps tokens and their usage in memory while the service runs; `sqlite://tokens.db` would keep them on disk.
pub(crate) async fn store() -> Result<SqlKeys, ConnectError> {
    // A database in memory is slow only on an overloaded machine; then wait instead of refusing the token.
    SqlKeys::builder().with_deadline(Duration::from_secs(5)).connect("sqlite::memory:").await
}

/// Issues tokens with the scopes of the contract: `read` and `write`. Default: `read`.
pub(crate) fn manager(
    format: KeyFormat,
    store: impl KeyAdmin,
    clock: ServiceClock,
) -> Result<KeyManager, InvalidScope> {
    Ok(KeyManager::new(format, store)
        .with_clock(clock)
        .with_known_scopes(Scopes::new(["read", "write"])?)
        .with_default_scopes(Scopes::new(["read"])?))
}

/// Issues one token of each kind, and returns them by name.
pub(crate) async fn issue(manager: &KeyManager, clock: &ServiceClock) -> Result<Credentials, Box<dyn Error>> {
    let actor = Actor::new("scanr");
    // In a real service, the payment provider's webhook does this. All tokens of an account have its plan, also after an upgrade.
    for account in ["ada", "barbara", "edsger", "grace"] {
        manager.set_tenant_plan(account, Some(tiers::plan_of(account)), &actor).await?;
    }
    let token = |name: &str, account: &str| NewKey::named(name).with_tenant(account);
    let read_and_write = Scopes::new(["read", "write"])?;
    let mut issued = Vec::new();
    for token in [
        token("basic", "ada"),
        token("basic_write", "ada").with_scopes(read_and_write.clone()),
        token("revoked", "ada"),
        token("pro", "grace").with_scopes(read_and_write.clone()),
        token("tiny", "barbara"),
        token("lapsed", "edsger").with_scopes(read_and_write),
    ] {
        issued.push(manager.issue(token, &actor).await?);
    }
    // Issued two months ago by another clock, because a token that has expired cannot be issued.
    let before = manager.clone().with_clock(ManualClock::at(clock.now() - 2 * A_MONTH));
    let expired = token("expired", "ada").with_expiry(clock.now() - A_MONTH);
    issued.push(before.issue(expired, &actor).await?);

    for token in issued.iter().filter(|token| *token.details.name == *"revoked") {
        manager.revoke(&token.details.id, &actor).await?;
    }
    Ok(issued.into_iter().map(|token| (token.details.name.into(), token.secret)).collect())
}
