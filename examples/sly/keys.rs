//! The key store, the key manager, and keys to try.

use std::{error::Error, time::Duration};

use support::clock::ServiceClock;
use tollgate::{
    Environment, KeyFormat, PerWindow as _, Scopes,
    key::InvalidKeyFormat,
    manage::{Actor, KeyManager, NewKey},
};
use tollgate_sql::{ConnectError, SqlKeys};

use crate::{Credentials, routes::SCOPES};

pub(crate) const ACME: &str = "acme";
pub(crate) const GLOBEX: &str = "globex";
pub(crate) const INITECH: &str = "initech";
const HOOLI: &str = "hooli";

/// The name of the rate limit, by which a key may have a quota of its own.
pub(crate) const POLICY: &str = "requests";

/// `psk_live_…` and `psk_test_…`: other prefixes than those of the main API (`pk_…`), so a leaked key of one does not open the other.
pub(crate) fn format() -> Result<KeyFormat, InvalidKeyFormat> {
    KeyFormat::new("psk")
}

/// Keeps keys and credits in memory while the service runs; `sqlite://sly.db` would keep them on disk. Keys are stored as their SHA-256.
pub(crate) async fn store() -> Result<SqlKeys, ConnectError> {
    // A database in memory is slow only on an overloaded machine; then wait instead of refusing the key.
    let patience = Duration::from_secs(5);
    SqlKeys::builder().with_deadline(patience).with_credit_deadline(patience).connect("sqlite::memory:").await
}

/// Issues keys with the scopes of the contract only.
pub(crate) fn manager(store: SqlKeys, clock: ServiceClock) -> Result<KeyManager, Box<dyn Error>> {
    Ok(KeyManager::new(format()?, store).with_clock(clock).with_known_scopes(Scopes::new(SCOPES)?))
}

/// Issues one key of each kind, and returns them by name.
pub(crate) async fn issue(manager: &KeyManager) -> Result<Credentials, Box<dyn Error>> {
    let actor = Actor::new("sly");
    let (all, read) = (Scopes::new(SCOPES)?, Scopes::new(["read"])?);
    let key = |name, organization| NewKey::named(name).with_tenant(organization).with_scopes(all.clone());
    let mut credentials = Vec::new();
    for (name, key) in [
        ("live", key("live", ACME)),
        ("test", key("test", GLOBEX).with_environment(Environment::Test)),
        ("read_only", key("read_only", GLOBEX).with_scopes(read)),
        ("revoked", key("revoked", ACME)),
        ("suspended", key("suspended", INITECH)),
        ("no_credits", key("no_credits", HOOLI)),
        // Higher on request.
        ("fast", key("fast", GLOBEX).with_quota(POLICY, 600.per_minute())),
    ] {
        let issued = manager.issue(key, &actor).await?;
        if name == "revoked" {
            manager.revoke(&issued.details.id, &actor).await?;
        }
        credentials.push((name, issued.secret.expose_secret().to_owned()));
    }
    manager.suspend_tenant(INITECH, &actor).await?;
    Ok(credentials)
}
