//! The key store, the key manager, and keys to try.

use std::{error::Error, time::Duration};

use tollgate::{
    KeyFormat, Plan, Scopes,
    key::ApiKey,
    manage::{Actor, KeyAdmin, KeyManager, NewKey},
    scope::InvalidScope,
};
use tollgate_sql::{ConnectError, SqlKeys};

/// Credentials to try, by name.
type Credentials = Vec<(String, ApiKey)>;

const ALL_SCOPES: [&str; 6] =
    ["metadata:read", "prices:read", "candles:read", "states:read", "alerts:read", "ws:connect"];

/// The plan that a key needs.
pub(crate) const PLAN: &str = "api-access";

/// Keeps keys in memory while the service runs; `sqlite://keys.db` would keep them on disk.
pub(crate) async fn store() -> Result<SqlKeys, ConnectError> {
    // A database in memory is slow only on an overloaded machine; then wait instead of refusing the key.
    SqlKeys::builder().with_deadline(Duration::from_secs(5)).connect("sqlite::memory:").await
}

/// Issues keys with the scopes of the contract only.
pub(crate) fn manager(format: KeyFormat, store: impl KeyAdmin) -> Result<KeyManager, InvalidScope> {
    Ok(KeyManager::new(format, store).with_known_scopes(Scopes::new(ALL_SCOPES)?))
}

/// Issues one key of each kind, and returns them by name.
pub(crate) async fn issue(manager: &KeyManager) -> Result<Credentials, Box<dyn Error>> {
    let actor = Actor::new("stratalerts");
    let key = |name: &str, scopes: &[&'static str]| -> Result<NewKey, InvalidScope> {
        let scopes = Scopes::new(scopes.iter().copied())?;
        Ok(NewKey::named(name).with_scopes(scopes).with_plan(Plan::active(PLAN)))
    };
    let mut wanted = vec![
        key("full", &ALL_SCOPES)?,
        key("metadata_prices", &["metadata:read", "prices:read"])?,
        key("quotes_stream", &["ws:connect", "prices:read"])?,
        key("no_ws", &["prices:read"])?,
        key("lapsed", &ALL_SCOPES)?.with_plan(Plan::lapsed(PLAN)),
        key("revoked", &ALL_SCOPES)?,
    ];
    // One key for each scope, with the scope's name.
    for scope in ALL_SCOPES {
        wanted.push(key(scope, &[scope])?);
    }
    let mut issued = Vec::new();
    for key in wanted {
        issued.push(manager.issue(key, &actor).await?);
    }
    for key in issued.iter().filter(|key| *key.details.name == *"revoked") {
        manager.revoke(&key.details.id, &actor).await?;
    }
    Ok(issued.into_iter().map(|key| (key.details.name.into(), key.secret)).collect())
}
