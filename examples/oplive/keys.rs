//! The key store, the key manager, and keys to try.

use std::{error::Error, time::Duration};

use support::clock::ServiceClock;
use tollgate::{
    KeyFormat, Scopes,
    manage::{Actor, KeyAdmin, KeyManager, NewKey},
    scope::InvalidScope,
};
use tollgate_sql::{ConnectError, SqlKeys};

use crate::Credentials;

/// The permissions that a key can have.
const PERMISSIONS: [&str; 6] =
    ["classify:create", "scan:create", "jobs:read", "results:read", "credits:read", "webhooks:write"];

/// What an integration that only reads needs.
const READ_ONLY: [&str; 3] = ["jobs:read", "results:read", "credits:read"];

/// The organization of `full`, of its siblings, and of the dashboard's session.
pub(crate) const ACME: &str = "acme";
const GLOBEX: &str = "globex";
const INITECH: &str = "initech";
pub(crate) const ORGANIZATIONS: [&str; 3] = [ACME, GLOBEX, INITECH];

/// Keeps keys and credits in memory while the service runs; `sqlite://oplive.db` would keep them on disk.
pub(crate) async fn store() -> Result<SqlKeys, ConnectError> {
    // A database in memory is slow only on an overloaded machine; then wait instead of refusing the request.
    let patience = Duration::from_secs(5);
    SqlKeys::builder().with_deadline(patience).with_credit_deadline(patience).connect("sqlite::memory:").await
}

/// Issues keys with the permissions of the contract only.
pub(crate) fn manager(
    format: KeyFormat,
    store: impl KeyAdmin,
    clock: ServiceClock,
) -> Result<KeyManager, InvalidScope> {
    Ok(KeyManager::new(format, store).with_clock(clock).with_known_scopes(Scopes::new(PERMISSIONS)?))
}

/// Issues one key of each kind, and returns them by name.
pub(crate) async fn issue(manager: &KeyManager) -> Result<Credentials, Box<dyn Error>> {
    let actor = Actor::new("oplive");
    let (all, read_only) = (Scopes::new(PERMISSIONS)?, Scopes::new(READ_ONLY)?);
    let mut issued = Vec::new();
    for (name, organization, permissions) in [
        ("full", ACME, &all),
        ("sibling", ACME, &all),
        ("read_only", ACME, &read_only),
        ("deleted", ACME, &all),
        ("other_org", GLOBEX, &all),
        ("suspended", INITECH, &all),
    ] {
        let key = NewKey::named(name).with_tenant(organization).with_scopes(permissions.clone());
        issued.push(manager.issue(key, &actor).await?);
    }
    for key in issued.iter().filter(|key| *key.details.name == *"deleted") {
        manager.delete(&key.details.id, &actor).await?;
    }
    manager.suspend_tenant(INITECH, &actor).await?;
    Ok(issued.into_iter().map(|key| (key.details.name.into(), key.secret)).collect())
}
