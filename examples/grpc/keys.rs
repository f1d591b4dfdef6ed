//! Keys to try, and their revocation by name.

use std::{collections::HashMap, error::Error, sync::Arc};

use tollgate::{
    PerWindow, Plan, Scopes,
    key::ApiKey,
    limit::DEFAULT_POLICY,
    manage::{Actor, KeyAdminError, KeyManager, NewKey},
};

/// Credentials to try, by name.
pub(crate) type Credentials = Vec<(String, ApiKey)>;

/// The scopes of the proto, and the scope of the routes of this demonstration.
pub(crate) const ALL_SCOPES: [&str; 4] = ["prices:read", "candles:write", "alerts:read", "admin"];

const PLAN: &str = "market-data";

/// Revokes the issued keys by name. Clones revoke the same keys.
#[derive(Clone)]
pub(crate) struct Revocation {
    manager: KeyManager,
    // Without that of `admin`.
    ids: Arc<HashMap<String, Box<str>>>,
}

/// Issues one key of each kind.
pub(crate) async fn issue(manager: KeyManager) -> Result<(Credentials, Revocation), Box<dyn Error>> {
    let [prices, candles, alerts, admin] = ALL_SCOPES;
    let market = Scopes::new([prices, candles, alerts])?;
    let key = |name: &str| NewKey::named(name).with_scopes(market.clone()).with_plan(Plan::active(PLAN));
    let wanted = [
        key("full"),
        key("prices_only").with_scopes(Scopes::new([prices])?),
        key("revoked"),
        key("lapsed").with_plan(Plan::lapsed(PLAN)),
        key("tiny").with_quota(DEFAULT_POLICY, 5.per_minute()),
        key("admin").with_scopes(Scopes::new([admin])?),
    ];
    let mut credentials = Vec::new();
    let mut ids = HashMap::new();
    for key in wanted {
        let issued = manager.issue(key, &actor()).await?;
        if *issued.details.name != *"admin" {
            ids.insert(issued.details.name.to_string(), issued.details.id);
        }
        credentials.push((issued.details.name.into(), issued.secret));
    }
    let revocation = Revocation { manager, ids: Arc::new(ids) };
    revocation.revoke("revoked").await?;
    Ok((credentials, revocation))
}

impl Revocation {
    /// Revokes a key. Returns `false` if no key has this name. From the return on, the key is refused, and its streams end.
    pub(crate) async fn revoke(&self, name: &str) -> Result<bool, KeyAdminError> {
        let Some(id) = self.ids.get(name) else { return Ok(false) };
        self.manager.revoke(id, &actor()).await?;
        Ok(true)
    }
}

fn actor() -> Actor {
    Actor::new("grpc example")
}
