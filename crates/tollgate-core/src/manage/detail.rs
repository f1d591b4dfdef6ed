//! The detail of an event in the history. Never contains a secret; of metadata it says only that it changed.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{KeyAction, KeyDetails, TenantDetails};
use crate::{bounds::MAX_DETAIL_BYTES, verify::Plan};

impl KeyAction {
    /// The [detail](super::KeyEvent::detail) of an event, from the key `before` and `after` it. If only one of them is known,
    /// pass it twice.
    ///
    /// Every store uses this function, so histories look the same in all stores. What users have chosen is quoted and escaped, so that
    /// a name cannot look like another change. It is at most [`MAX_DETAIL_BYTES`] long.
    ///
    /// [`MAX_DETAIL_BYTES`]: crate::bounds::MAX_DETAIL_BYTES
    ///
    /// ```
    /// # use std::time::SystemTime;
    /// use tollgate_core::{
    ///     manage::{KeyAction, KeyDetails, KeyUpdate},
    ///     scope::Scopes,
    /// };
    ///
    /// let before = KeyDetails::new("key_1", "build", SystemTime::UNIX_EPOCH);
    /// let mut after = before.clone();
    /// KeyUpdate::new().with_name("deploy").with_scopes(Scopes::new(["read"])?).apply(&mut after);
    /// assert_eq!(KeyAction::Updated.detail(&before, &after), r#"name: "build" -> "deploy", scopes: none -> "read""#);
    /// assert_eq!(KeyAction::Deleted.detail(&after, &after), r#"name: "deploy""#);
    /// # Ok::<(), tollgate_core::scope::InvalidScope>(())
    /// ```
    pub fn detail(self, before: &KeyDetails, after: &KeyDetails) -> String {
        let detail = match self {
            Self::Issued | Self::Deleted => format!("name: {:?}", after.name),
            Self::Updated => changes(before, after),
            Self::Rotated => match after.former_until {
                Some(_) => format!("the former secret is valid until {}", Timestamp(after.former_until)),
                None => "the former secret has ended".to_owned(),
            },
            Self::Revoked | Self::TenantSuspended | Self::TenantResumed | Self::TenantUpdated => {
                String::new()
            }
        };
        shortened(detail)
    }

    /// The [detail](super::KeyEvent::detail) of an event of a tenant, from the tenant before and after it. Every store uses this
    /// function, too.
    pub fn tenant_detail(self, before: &TenantDetails, after: &TenantDetails) -> String {
        match self {
            Self::TenantUpdated => {
                format!("plan: {} -> {}", plan(before.plan.as_ref()), plan(after.plan.as_ref()))
            }
            _ => String::new(),
        }
    }
}

/// A key that is older than the bounds can have many more scopes.
fn shortened(mut detail: String) -> String {
    const ELLIPSIS: char = '…';
    if detail.len() > MAX_DETAIL_BYTES {
        let most = MAX_DETAIL_BYTES - ELLIPSIS.len_utf8();
        let end = (0..=most).rev().find(|end| detail.is_char_boundary(*end));
        detail.truncate(end.unwrap_or(0));
        detail.push(ELLIPSIS);
    }
    detail
}

fn changes(before: &KeyDetails, after: &KeyDetails) -> String {
    let mut changes = Vec::new();
    if before.name != after.name {
        changes.push(format!("name: {:?} -> {:?}", before.name, after.name));
    }
    if before.scopes != after.scopes {
        changes.push(format!("scopes: {} -> {}", scopes(before), scopes(after)));
    }
    if before.plan != after.plan {
        changes.push(format!("plan: {} -> {}", plan(before.plan.as_ref()), plan(after.plan.as_ref())));
    }
    if before.expires_at != after.expires_at {
        changes.push(format!("expiry: {} -> {}", Timestamp(before.expires_at), Timestamp(after.expires_at)));
    }
    if before.quotas != after.quotas {
        changes.push(format!("quotas: {} -> {}", quotas(before), quotas(after)));
    }
    if before.allowed_networks != after.allowed_networks {
        changes.push(format!("networks: {} -> {}", before.allowed_networks, after.allowed_networks));
    }
    if before.metadata != after.metadata {
        changes.push("metadata: changed".to_owned());
    }
    changes.join(", ")
}

const NONE: &str = "none";

fn scopes(key: &KeyDetails) -> String {
    // A scope can be `->`.
    if key.scopes.is_empty() { NONE.to_owned() } else { format!("{:?}", key.scopes.to_string()) }
}

fn plan(plan: Option<&Plan>) -> String {
    match plan {
        None => NONE.to_owned(),
        Some(plan) => format!("{:?}{}", plan.tier(), if plan.is_active() { "" } else { " (lapsed)" }),
    }
}

fn quotas(key: &KeyDetails) -> String {
    let quotas: Vec<_> = key.quotas.iter().map(|(policy, quota)| format!("{policy:?} {quota}")).collect();
    if quotas.is_empty() { NONE.to_owned() } else { quotas.join("; ") }
}

/// An instant in the history: `2026-07-31T12:00:00Z`, or `never`.
struct Timestamp(Option<SystemTime>);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(instant) = self.0 else { return f.write_str("never") };
        let seconds = whole_seconds(instant);
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Years start in March, in eras of 400 years, so that the leap day is the last day of a year.
        let days = days + 719_468;
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Whole seconds since 1970, rounded down.
fn whole_seconds(instant: SystemTime) -> i64 {
    match instant.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration().as_nanos().div_ceil(1_000_000_000);
            i64::try_from(before).map_or(i64::MIN, |before| -before)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        limit::PerWindow as _,
        manage::{KeyUpdate, Metadata},
        network::Networks,
        scope::Scopes,
        verify::Plan,
    };

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn an_update_shows_old_and_new_values() {
        let bare = KeyDetails::new("key_1", "build", at(0));
        let mut full = bare.clone();
        let quotas = vec![("default".into(), 60.per_minute()), ("exports".into(), 5.per_day().sliding())];
        KeyUpdate::new()
            .with_name("deploy")
            .with_scopes(Scopes::new(["read", "write"]).unwrap())
            .with_plan(Some(Plan::active("pro")))
            .with_expiry(Some(at(60)))
            .with_quotas(quotas)
            .with_allowed_networks(Networks::new(["192.0.2.7", "2001:db8::/32"]).unwrap())
            .with_metadata(r#"{"owner":"do not show"}"#.parse::<Metadata>().unwrap())
            .apply(&mut full);
        assert_eq!(
            KeyAction::Updated.detail(&bare, &full),
            "name: \"build\" -> \"deploy\", scopes: none -> \"read write\", plan: none -> \"pro\", \
             expiry: never -> 1970-01-01T00:01:00Z, \
             quotas: none -> \"default\" 60 per minute; \"exports\" 5 per sliding day, \
             networks: anywhere -> 192.0.2.7/32 2001:db8::/32, metadata: changed"
        );
        let mut lapsed = full.clone();
        lapsed.plan = Some(Plan::lapsed("pro"));
        lapsed.expires_at = None;
        assert_eq!(
            KeyAction::Updated.detail(&full, &lapsed),
            "plan: \"pro\" -> \"pro\" (lapsed), expiry: 1970-01-01T00:01:00Z -> never"
        );
        assert_eq!(KeyAction::Updated.detail(&full, &full), "");
    }

    /// By the choice of a name or a scope, a user could make the history say that the expiry was changed.
    #[test]
    fn a_name_cannot_look_like_another_change() {
        let mut before = KeyDetails::new("key_1", "a, expiry: 2030-01-01T00:00:00Z -> never", at(0));
        before.plan = Some(Plan::active("pro\" (lapsed)"));
        let mut after = before.clone();
        after.name = "b\u{202e}\n".into();
        after.scopes = Scopes::new(["->", "expiry:", "never"]).unwrap();
        after.plan = Some(Plan::active("max"));
        assert_eq!(
            KeyAction::Updated.detail(&before, &after),
            r#"name: "a, expiry: 2030-01-01T00:00:00Z -> never" -> "b\u{202e}\n", "#.to_owned()
                + r#"scopes: none -> "-> expiry: never", plan: "pro\" (lapsed)" -> "max""#
        );
    }

    #[test]
    fn a_long_detail_is_shortened() {
        let before = KeyDetails::new("key_1", "ü", at(0));
        let mut after = before.clone();
        after.scopes = Scopes::new((0..10_000).map(|number| format!("scope:{number}"))).unwrap();
        let detail = KeyAction::Updated.detail(&before, &after);
        assert_eq!(detail.len(), MAX_DETAIL_BYTES);
        assert!(detail.starts_with("scopes: none -> \"") && detail.ends_with('…'), "{detail}");
    }

    #[test]
    fn a_change_of_a_tenant_shows_its_plans() {
        let before = TenantDetails::new("acme");
        let mut after = before.clone();
        after.plan = Some(Plan::lapsed("pro"));
        assert_eq!(KeyAction::TenantUpdated.tenant_detail(&before, &after), "plan: none -> \"pro\" (lapsed)");
        assert_eq!(KeyAction::TenantSuspended.tenant_detail(&before, &after), "");
    }

    #[test]
    fn a_rotation_shows_when_the_former_secret_ends() {
        let mut key = KeyDetails::new("key_1", "build", at(0));
        assert_eq!(KeyAction::Rotated.detail(&key, &key), "the former secret has ended");
        key.former_until = Some(at(60));
        assert_eq!(
            KeyAction::Rotated.detail(&key, &key),
            "the former secret is valid until 1970-01-01T00:01:00Z"
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_826_154, "2000-02-29T12:09:14Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp(Some(at(seconds))).to_string(), expected);
        }
        assert_eq!(Timestamp(Some(at(0) - Duration::from_nanos(1))).to_string(), "1969-12-31T23:59:59Z");
        assert_eq!(Timestamp(None).to_string(), "never");
    }
}
