//! Keys and their history as JSON.

use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tollgate::{
    manage::{IssuedKey, KeyDetails, KeyEvent, Page},
    scope::Scope,
};

use super::KeyRouter;

impl KeyRouter {
    pub(super) fn describe(&self, details: &KeyDetails) -> Value {
        let KeyDetails { id, name, display_prefix, tenant, environment, .. } = details;
        let scopes: Vec<_> = details.scopes.iter().map(Scope::as_str).collect();
        let plan = details.effective_plan();
        let networks: Vec<_> = details.allowed_networks.iter().map(ToString::to_string).collect();
        let mut described = json!({
            "id": id,
            "name": name,
            "prefix": display_prefix,
            "tenant": tenant,
            "scopes": scopes,
            "plan": plan.map(|plan| json!({ "tier": plan.tier(), "active": plan.is_active() })),
            "allowed_networks": networks,
            "environment": environment.as_str(),
            "status": details.state(self.manager.now()).as_str(),
            "created_at": instant(Some(details.created_at)),
            "expires_at": instant(details.expires_at),
            "last_used_at": instant(details.last_used_at),
            "revoked_at": instant(details.revoked_at),
            "former_until": instant(details.former_until),
        });
        if let (true, Value::Object(members)) = (self.shows_metadata, &mut described) {
            members.insert("metadata".to_owned(), json!(details.metadata));
        }
        described
    }

    /// The only place that writes a secret.
    pub(super) fn describe_issued(&self, issued: &IssuedKey) -> Value {
        let mut described = self.describe(&issued.details);
        if let Value::Object(members) = &mut described {
            members.insert("secret".to_owned(), issued.secret.expose_secret().into());
        }
        described
    }
}

pub(super) fn describe_event(event: &KeyEvent) -> Value {
    json!({
        "at": instant(Some(event.at)),
        "action": event.action.as_str(),
        "operator": event.actor,
        "detail": event.detail,
    })
}

pub(super) fn describe_page<T>(page: &Page<T>, describe: impl Fn(&T) -> Value) -> Value {
    let items: Vec<_> = page.items.iter().map(describe).collect();
    Value::Object(Map::from_iter([("items".to_owned(), items.into()), ("next".to_owned(), json!(page.next))]))
}

/// An instant outside the calendar, from before the bound existed, is shown as the last one, and not as `null`, which means never.
fn instant(instant: Option<SystemTime>) -> Option<String> {
    Some(Timestamp::try_from(instant?).unwrap_or(Timestamp::MAX).to_string())
}
