//! The tokens: what keeps them, what issues them, and some to try it with.

use std::{error::Error, time::Duration};

use tollgate::{
    KeyFormat, Scopes,
    clock::{Clock, ManualClock},
    manage::{Actor, KeyAdmin, KeyManager, NewKey},
    scope::InvalidScope,
};
use tollgate_sql::{ConnectError, SqlKeys};

use crate::{Credentials, clock::ServiceClock, tiers};

const A_MONTH: Duration = Duration::from_hours(30 * 24);

/// Keeps tokens and their usage for as long as the service runs. With `sqlite://tokens.db` they would outlive it.
pub(crate) async fn store() -> Result<SqlKeys, ConnectError> {
    // In memory nothing is slow but a machine with too much to do, which is no reason to refuse a token.
    SqlKeys::builder().with_deadline(Duration::from_secs(5)).connect("sqlite::memory:").await
}

/// Issues tokens by the contract: they may read or write, and read if nobody says.
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

/// Issues one of each kind, and tells their names.
pub(crate) async fn issue(manager: &KeyManager, clock: &ServiceClock) -> Result<Credentials, Box<dyn Error>> {
    let actor = Actor::new("scanr");
    let token = |name: &str, account: &str| {
        NewKey::named(name).with_tenant(account).with_plan(tiers::plan_of(account))
    };
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
    // Two months ago, since none that has expired can be issued.
    let before = manager.clone().with_clock(ManualClock::at(clock.now() - 2 * A_MONTH));
    let expired = token("expired", "ada").with_expiry(clock.now() - A_MONTH);
    issued.push(before.issue(expired, &actor).await?);

    for token in issued.iter().filter(|token| *token.details.name == *"revoked") {
        manager.revoke(&token.details.id, &actor).await?;
    }
    Ok(issued.into_iter().map(|token| (token.details.name.into(), token.secret)).collect())
}
