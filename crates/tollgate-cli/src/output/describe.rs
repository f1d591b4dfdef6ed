//! Keys, events, usage, credits and limits as JSON. Keys and events have the format of the management routes.

use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tollgate::{
    Plan,
    credits::{Balance, Grant, LedgerCheck, LedgerEntry},
    manage::{IssuedKey, KeyDetails, KeyEvent, TenantDetails},
    usage::HourlyUsage,
};

/// A key.
pub(crate) fn key(details: &KeyDetails, now: SystemTime) -> Value {
    let KeyDetails { id, name, display_prefix, tenant, environment, role, metadata, .. } = details;
    let scopes: Vec<_> = details.scopes.iter().map(tollgate::scope::Scope::as_str).collect();
    let networks: Vec<_> = details.allowed_networks.iter().map(ToString::to_string).collect();
    let quotas = details.quotas.iter().map(|(policy, quota)| (policy.to_string(), quota.to_string().into()));
    json!({
        "id": id,
        "name": name,
        "prefix": display_prefix,
        "tenant": tenant,
        "scopes": scopes,
        "plan": plan(details.effective_plan()),
        "plan_source": plan_source(details),
        "allowed_networks": networks,
        "environment": environment.as_str(),
        "role": role,
        "quotas": Value::Object(quotas.collect()),
        "metadata": metadata,
        "status": details.state(now).as_str(),
        "created_at": instant(Some(details.created_at)),
        "expires_at": instant(details.expires_at),
        "last_used_at": instant(details.last_used_at),
        "revoked_at": instant(details.revoked_at),
        "former_until": instant(details.former_until),
    })
}

fn plan(plan: Option<&Plan>) -> Option<Value> {
    let plan = plan?;
    Some(json!({ "tier": plan.tier(), "active": plan.is_active() }))
}

/// Whose plan applies to a key: its own, or its tenant's.
fn plan_source(details: &KeyDetails) -> Option<&'static str> {
    let of_tenant = details.tenant_plan.as_ref().map(|_| "tenant");
    details.plan.as_ref().map(|_| "key").or(of_tenant)
}

/// A tenant.
pub(crate) fn tenant(details: &TenantDetails) -> Value {
    json!({
        "tenant": details.tenant,
        "plan": plan(details.plan.as_ref()),
        "suspended": details.is_suspended,
    })
}

/// A key that was just created or rotated. This is the only JSON with a secret.
pub(crate) fn issued(issued: &IssuedKey, now: SystemTime) -> Value {
    with(key(&issued.details, now), "secret", issued.secret.expose_secret().into())
}

/// An object with one more member.
pub(crate) fn with(mut object: Value, member: &str, value: Value) -> Value {
    if let Value::Object(members) = &mut object {
        members.insert(member.to_owned(), value);
    }
    object
}

/// An entry of the history.
pub(crate) fn event(event: &KeyEvent) -> Value {
    json!({
        "at": instant(Some(event.at)),
        "action": event.action.as_str(),
        "operator": event.actor,
        "detail": event.detail,
    })
}

/// The usage of a key.
pub(crate) fn usage(id: &str, range: (SystemTime, SystemTime), hours: &[HourlyUsage]) -> Value {
    let total: u64 = hours.iter().map(|hour| hour.requests).sum();
    let hours = hours.iter().map(|used| {
        Value::Object(Map::from_iter([
            ("hour".to_owned(), json!(instant(Some(used.hour)))),
            ("requests".to_owned(), used.requests.into()),
        ]))
    });
    json!({
        "id": id,
        "from": instant(Some(range.0)),
        "until": instant(Some(range.1)),
        "total": total,
        "hours": hours.collect::<Vec<_>>(),
    })
}

/// The credits of a tenant, and its grants in the order in which they are spent.
pub(crate) fn credits(tenant: &str, balance: &Balance, grants: &[Grant]) -> Value {
    json!({
        "tenant": tenant,
        "available": balance.available,
        "reserved": balance.reserved,
        "owed": balance.owed,
        "grants": grants.iter().map(grant).collect::<Vec<_>>(),
    })
}

/// A grant of credits.
pub(crate) fn grant(grant: &Grant) -> Value {
    json!({
        "id": grant.id,
        "tenant": grant.account,
        "amount": grant.amount,
        "remaining": grant.remaining,
        "priority": grant.priority,
        "granted_at": instant(Some(grant.granted_at)),
        "expires_at": instant(grant.expires_at),
        "refill": grant.refill.map(|refill| refill.to_string()),
        "note": grant.note,
    })
}

/// An entry of a ledger.
pub(crate) fn ledger_entry(entry: &LedgerEntry) -> Value {
    json!({
        "number": entry.number,
        "at": instant(Some(entry.at)),
        "action": entry.kind.as_str(),
        "amount": entry.amount,
        "grant": entry.grant,
        "reservation": entry.reservation.map(|id| id.to_string()),
        "operator": entry.actor,
        "note": entry.note,
    })
}

/// The credits of a tenant, compared with its ledger.
pub(crate) fn ledger_check(tenant: &str, check: &LedgerCheck) -> Value {
    json!({
        "tenant": tenant,
        "agrees": check.agrees,
        "available": check.available,
        "owed": check.owed,
        "net_by_ledger": check.net_by_ledger,
    })
}

/// A counter of a limit.
#[cfg(feature = "redis")]
pub(crate) fn counter(counter: &tollgate_redis::CounterState) -> Value {
    json!({
        "tenant": counter.group,
        "policy": counter.policy,
        "subject": counter.subject,
        "quota": counter.limit.to_string(),
        "limit": counter.limit.capacity(),
        "used": counter.used,
        "remaining": counter.remaining(),
        "resets_at": instant(Some(counter.resets_at)),
    })
}

/// A reset of counters.
#[cfg(feature = "redis")]
pub(crate) fn limit_reset(reset: &tollgate_redis::LimitReset) -> Value {
    json!({
        "at": instant(Some(reset.at)),
        "operator": reset.actor,
        "tenant": reset.query.group,
        "policy": reset.query.policy,
        "subject": reset.query.subject,
        "subjects": reset.subjects,
        "before": reset.before.iter().map(counter).collect::<Vec<_>>(),
    })
}

/// RFC 3339, in UTC. An instant outside the calendar, from before the bound existed, is shown as the last one, and not as `null`,
/// which means never.
pub(crate) fn instant(instant: Option<SystemTime>) -> Option<String> {
    Some(Timestamp::try_from(instant?).unwrap_or(Timestamp::MAX).to_string())
}
