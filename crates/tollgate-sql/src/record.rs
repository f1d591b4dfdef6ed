//! Keys as rows of the tables.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use tollgate_core::{
    key::Digest,
    limit::Quota,
    manage::KeyDetails,
    network::Networks,
    store::{EndReason, EndSignal, KeyRecord, KeyStatus},
    verify::Plan,
};

use crate::{
    database::{Row, Value},
    fault::Fault,
    instant::{from_micros, to_micros},
};

/// The columns of a key and its tenant that [`read_details`] reads.
macro_rules! columns {
    () => {
        "k.id, k.name, k.display_prefix, k.tenant, k.scopes, k.plan, k.plan_is_active, k.environment, k.role, k.quotas, \
         k.metadata, k.created_at, k.expires_at, k.revoked_at, k.former_until, k.generation, k.allowed_networks, \
         t.is_suspended, t.generation, t.plan, t.plan_is_active"
    };
}
pub(crate) use columns;

/// Selects these columns and the last use of all keys, for [`read_listed`].
macro_rules! select_listed {
    () => {
        concat!(
            "SELECT ",
            $crate::record::columns!(),
            ", u.at FROM tollgate_keys k LEFT JOIN tollgate_tenants t ON t.tenant = k.tenant \
             LEFT JOIN tollgate_last_uses u ON u.key_id = k.id"
        )
    };
}
pub(crate) use select_listed;

/// The number of [`columns`]. Further columns of a query follow them.
pub(crate) const COLUMNS: usize = 21;

/// Reads a key from a row that begins with the [`columns`]. Leaves out its last use.
pub(crate) fn read_details(row: &Row) -> Result<KeyDetails, Fault> {
    let mut details = KeyDetails::new(row.text(0)?, row.text(1)?, from_micros(row.number(11)?));
    details.display_prefix = row.text(2)?;
    details.tenant = row.optional_text(3)?;
    details.scopes = row.text(4)?.parse().map_err(|_| Fault::Unreadable("the scopes of a key"))?;
    details.plan = read_plan(row, 5)?;
    details.tenant_plan = read_plan(row, 19)?;
    details.environment = row.text(7)?.parse().map_err(|_| Fault::Unreadable("the environment of a key"))?;
    details.role = row.optional_text(8)?;
    details.quotas = serde_json::from_str::<Quotas>(&row.text(9)?)
        .map_err(|_| Fault::Unreadable("the quotas of a key"))?
        .0;
    details.metadata = row.text(10)?.parse().map_err(|_| Fault::Unreadable("the metadata of a key"))?;
    details.allowed_networks = read_networks(row.optional_text(16)?)?;
    details.expires_at = row.optional_number(12)?.map(from_micros);
    details.revoked_at = row.optional_number(13)?.map(from_micros);
    details.former_until = row.optional_number(14)?.map(from_micros);
    details.status = if details.revoked_at.is_some() {
        KeyStatus::Revoked
    } else if row.optional_number(17)? == Some(1) {
        KeyStatus::TenantSuspended
    } else {
        KeyStatus::Active
    };
    details.generation = generation(row.number(15)?.max(row.optional_number(18)?.unwrap_or(0)));
    Ok(details)
}

/// Reads a plan from a column of its tier and the next one, which says whether it is active.
pub(crate) fn read_plan(row: &Row, column: usize) -> Result<Option<Plan>, Fault> {
    let is_active = row.optional_number(column + 1)? == Some(1);
    let tier = row.optional_text(column)?.filter(|tier| !tier.trim().is_empty());
    Ok(tier.map(|tier| if is_active { Plan::active(tier) } else { Plan::lapsed(tier) }))
}

/// A plan as two columns.
pub(crate) fn plan_columns(plan: Option<&Plan>) -> [Value; 2] {
    [plan.map(Plan::tier).into(), plan.map(|plan| i64::from(plan.is_active())).into()]
}

/// An empty text is not read as "anywhere": a restriction must not be lost.
fn read_networks(text: Option<Box<str>>) -> Result<Networks, Fault> {
    let Some(text) = text else { return Ok(Networks::anywhere()) };
    let networks = Networks::new(text.split_ascii_whitespace()).ok();
    networks
        .filter(|networks| !networks.is_anywhere())
        .ok_or(Fault::Unreadable("the allowed networks of a key"))
}

/// Reads a key from a row of [`select_listed`].
pub(crate) fn read_listed(row: &Row) -> Result<KeyDetails, Fault> {
    let mut details = read_details(row)?;
    details.last_used_at = row.optional_number(COLUMNS)?.map(from_micros);
    Ok(details)
}

/// The record of a key that was found by a secret with this end of its validity.
pub(crate) fn to_record(mut details: KeyDetails, valid_until: Option<i64>) -> KeyRecord {
    if let Some(valid_until) = valid_until.map(from_micros) {
        details.expires_at = Some(details.expires_at.map_or(valid_until, |at| at.min(valid_until)));
    }
    let signal = EndSignal::new();
    match details.status {
        KeyStatus::Active => {}
        KeyStatus::TenantSuspended => signal.end(EndReason::TenantSuspended),
        _ => signal.end(EndReason::Revoked),
    }
    let (status, generation) = (details.status, details.generation);
    KeyRecord::new(Arc::new(details.to_principal(signal)), status, generation)
}

/// The columns of a key that can change, as `$2` to `$11` of a statement; `$1` is its identifier.
pub(crate) fn changeable(details: &KeyDetails) -> [Value; 11] {
    let [tier, plan_is_active] = plan_columns(details.plan.as_ref());
    let networks = &details.allowed_networks;
    let quotas = Quotas(details.quotas.clone());
    [
        (&*details.id).into(),
        (&*details.name).into(),
        (&*details.display_prefix).into(),
        details.scopes.to_string().into(),
        tier,
        plan_is_active,
        // Strings always serialize.
        serde_json::to_string(&quotas).unwrap_or_else(|_| "{}".into()).into(),
        details.metadata.to_string().into(),
        details.expires_at.map(to_micros).into(),
        details.former_until.map(to_micros).into(),
        (!networks.is_anywhere()).then(|| networks.to_string()).as_deref().into(),
    ]
}

/// The columns of a key that never change, as `$12` to `$15`.
pub(crate) fn lasting(details: &KeyDetails) -> [Value; 4] {
    [
        details.tenant.as_deref().into(),
        details.environment.as_str().into(),
        details.role.as_deref().into(),
        to_micros(details.created_at).into(),
    ]
}

/// A digest as two columns: its bytes and the ID of its pepper.
pub(crate) fn digest_columns(digest: &Digest) -> [Value; 2] {
    let pepper = digest.pepper().map_or(-1, |pepper| i64::from(pepper.get()));
    [(&digest.as_bytes()[..]).into(), pepper.into()]
}

/// A generation as the backend traits count it.
pub(crate) fn generation(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Rounds timestamps down to the precision of the tables.
pub(crate) fn truncate(details: &mut KeyDetails) {
    for instant in [&mut details.expires_at, &mut details.former_until].into_iter().flatten() {
        *instant = from_micros(to_micros(*instant));
    }
}

/// Quotas as a JSON object that keeps their order: `{"requests": "60 per minute"}`.
struct Quotas(Vec<(Box<str>, Quota)>);

impl Serialize for Quotas {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (policy, quota) in &self.0 {
            map.serialize_entry(&**policy, &quota.to_string())?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Quotas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Quotas;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of quotas by policy")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Quotas, A::Error> {
                let mut quotas = Vec::new();
                while let Some((policy, quota)) = map.next_entry::<String, String>()? {
                    quotas.push((policy.into(), quota.parse().map_err(serde::de::Error::custom)?));
                }
                Ok(Quotas(quotas))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use tollgate_core::limit::PerWindow;

    use super::*;

    #[test]
    fn quotas_keep_their_order_and_their_names() {
        let quotas = vec![
            ("z".into(), 60.per_minute().and(10.per_second().with_burst(5))),
            ("a \"quoted\" ü".into(), Quota::unlimited()),
        ];
        let json = serde_json::to_string(&Quotas(quotas.clone())).unwrap();
        assert_eq!(
            json,
            r#"{"z":"10 per second in bursts of 5, 60 per minute","a \"quoted\" ü":"unlimited"}"#
        );
        assert_eq!(serde_json::from_str::<Quotas>(&json).unwrap().0, quotas);
        assert!(serde_json::from_str::<Quotas>(r#"{"z":"many"}"#).is_err());
    }
}
