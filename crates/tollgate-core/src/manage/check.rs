//! Checks commands against the [bounds](crate::bounds). Each error names the bound.

use std::time::SystemTime;

use super::{Actor, Command, KeyAdminError, KeyChange, KeyDetails, KeyUpdate, TenantChange};
use crate::{
    bounds::{
        MAX_ACTOR_CHARS, MAX_DISPLAY_PREFIX_BYTES, MAX_ID_BYTES, MAX_NAME_CHARS, MAX_POLICY_BYTES,
        MAX_QUOTAS, MAX_ROLE_BYTES, MAX_SCOPES, MAX_SCOPES_BYTES, MAX_TENANT_BYTES, MAX_TIER_BYTES,
        MAX_WINDOWS, is_in_calendar,
    },
    limit::Quota,
    scope::{Scope, Scopes},
    verify::Plan,
};

type Checked = Result<(), KeyAdminError>;

impl Command<KeyChange> {
    /// Checks everything that a store would keep against the [bounds](crate::bounds). A `KeyManager` calls this for every store.
    /// Call it where your own code passes commands to a store.
    ///
    /// ```
    /// use std::time::SystemTime;
    /// use tollgate_core::{
    ///     key::Digest,
    ///     manage::{Actor, Command, KeyChange, KeyDetails},
    /// };
    ///
    /// let mut details = KeyDetails::new("key_1", "build", SystemTime::now());
    /// details.tenant = Some("x".repeat(1_000).into());
    /// let issue = KeyChange::Issue { details: Box::new(details), digest: Digest::of("secret") };
    /// let error = Command::new(issue, Actor::new("cli:ada"), SystemTime::now()).check().unwrap_err();
    /// assert_eq!(error.to_string(), "a tenant is 1 to 200 bytes without control characters");
    /// ```
    ///
    /// # Errors
    /// [`KeyAdminError::Invalid`], which names the bound. [`KeyAdminError::NotFound`] for the identifier of a key that no key can
    /// have.
    pub fn check(&self) -> Checked {
        check_actor(&self.actor)?;
        match &self.change {
            KeyChange::Issue { details, .. } => check_details(details),
            KeyChange::Update { id, update } => {
                check_id(id)?;
                check_update(update)
            }
            KeyChange::Rotate { id, display_prefix, former_until, .. } => {
                check_id(id)?;
                check_display_prefix(display_prefix)?;
                check_instant("the end of the overlap", *former_until)
            }
            KeyChange::Revoke { id } | KeyChange::Delete { id } => check_id(id),
        }
    }
}

impl Command<TenantChange> {
    /// Checks everything that a store would keep against the [bounds](crate::bounds), as for
    /// [changes of keys](Command::<KeyChange>::check).
    ///
    /// # Errors
    /// [`KeyAdminError::Invalid`], which names the bound.
    pub fn check(&self) -> Checked {
        check_actor(&self.actor)?;
        check_tenant(self.change.tenant())?;
        match &self.change {
            TenantChange::SetPlan { plan: Some(plan), .. } => check_plan(plan),
            _ => Ok(()),
        }
    }
}

fn check_details(details: &KeyDetails) -> Checked {
    check_text("a key's identifier", &details.id, MAX_ID_BYTES)?;
    check_name(&details.name)?;
    check_display_prefix(&details.display_prefix)?;
    details.tenant.as_deref().map_or(Ok(()), check_tenant)?;
    check_scopes(&details.scopes)?;
    details.plan.as_ref().map_or(Ok(()), check_plan)?;
    details.role.as_deref().map_or(Ok(()), |role| check_text("a role", role, MAX_ROLE_BYTES))?;
    check_quotas(&details.quotas)?;
    check_instant("the time of issue", Some(details.created_at))?;
    check_instant("the expiry", details.expires_at)
}

fn check_update(update: &KeyUpdate) -> Checked {
    update.name.as_deref().map_or(Ok(()), check_name)?;
    update.scopes.as_ref().map_or(Ok(()), check_scopes)?;
    update.plan.iter().flatten().try_for_each(check_plan)?;
    update.quotas.as_deref().map_or(Ok(()), check_quotas)?;
    check_instant("the expiry", update.expires_at.flatten())
}

/// No key has such an identifier.
fn check_id(id: &str) -> Checked {
    let is_possible = check_text("a key's identifier", id, MAX_ID_BYTES).is_ok();
    if is_possible { Ok(()) } else { Err(KeyAdminError::NotFound) }
}

/// Names are shown in lists and terminals.
fn check_name(name: &str) -> Checked {
    let is_valid = !name.trim().is_empty()
        && name.chars().count() <= MAX_NAME_CHARS
        && !name.chars().any(char::is_control);
    check(is_valid, || {
        format!(
            "a key's name is 1 to {MAX_NAME_CHARS} characters without control characters, and not only spaces"
        )
    })
}

fn check_tenant(tenant: &str) -> Checked {
    check_text("a tenant", tenant, MAX_TENANT_BYTES)
}

fn check_display_prefix(prefix: &str) -> Checked {
    check(prefix.len() <= MAX_DISPLAY_PREFIX_BYTES, || {
        format!("a display prefix is at most {MAX_DISPLAY_PREFIX_BYTES} bytes")
    })
}

fn check_scopes(scopes: &Scopes) -> Checked {
    let spaces = scopes.len().saturating_sub(1);
    let bytes = scopes.iter().map(Scope::as_str).map(str::len).sum::<usize>() + spaces;
    check(scopes.len() <= MAX_SCOPES && bytes <= MAX_SCOPES_BYTES, || {
        format!(
            "a key has at most {MAX_SCOPES} scopes of together at most {MAX_SCOPES_BYTES} bytes, these are {} of {bytes} \
             bytes: use a wildcard, or fewer scopes",
            scopes.len()
        )
    })
}

fn check_plan(plan: &Plan) -> Checked {
    check(!plan.tier().trim().is_empty(), || {
        "the name of the plan is empty: leave the plan out for a key without one".to_owned()
    })?;
    check_text("the name of a plan", plan.tier(), MAX_TIER_BYTES)
}

fn check_quotas(quotas: &[(Box<str>, Quota)]) -> Checked {
    check(quotas.len() <= MAX_QUOTAS, || format!("a key has at most {MAX_QUOTAS} quotas of its own"))?;
    for (policy, quota) in quotas {
        check_text("the name of a policy", policy, MAX_POLICY_BYTES)?;
        check(quota.limits().len() <= MAX_WINDOWS, || {
            format!("the quota of a key for one policy has at most {MAX_WINDOWS} windows")
        })?;
    }
    Ok(())
}

fn check_actor(actor: &Actor) -> Checked {
    check(actor.name().chars().count() <= MAX_ACTOR_CHARS, || {
        format!("the name of an actor is at most {MAX_ACTOR_CHARS} characters")
    })
}

fn check_instant(what: &str, instant: Option<SystemTime>) -> Checked {
    check(instant.is_none_or(is_in_calendar), || {
        format!("{what} is not before the year 9999: leave it out for a key that never expires")
    })
}

fn check_text(what: &str, text: &str, most: usize) -> Checked {
    let is_valid = !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control);
    check(is_valid, || format!("{what} is 1 to {most} bytes without control characters"))
}

fn check(is_valid: bool, error: impl FnOnce() -> String) -> Checked {
    if is_valid { Ok(()) } else { Err(KeyAdminError::Invalid(error().into())) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{bounds::END_OF_CALENDAR_SECONDS, key::Digest, limit::Window};

    fn issue(change: impl FnOnce(&mut KeyDetails)) -> Result<(), String> {
        let mut details = KeyDetails::new("key_1", "build", UNIX_EPOCH);
        change(&mut details);
        let issue = KeyChange::Issue { details: Box::new(details), digest: Digest::of("secret") };
        checked(Command::new(issue, Actor::new("ada"), UNIX_EPOCH).check())
    }

    fn update(update: KeyUpdate) -> Result<(), String> {
        let change = KeyChange::Update { id: "key_1".into(), update: Box::new(update) };
        checked(Command::new(change, Actor::new("ada"), UNIX_EPOCH).check())
    }

    fn checked(outcome: Checked) -> Result<(), String> {
        outcome.map_err(|error| error.to_string())
    }

    fn scopes(number: usize, length: usize) -> Scopes {
        Scopes::new((0..number).map(|number| format!("{number:0length$}"))).unwrap()
    }

    fn quota(windows: u32) -> Quota {
        let window = |seconds: u32| Window::lasting(Duration::from_secs(seconds.into()));
        (1..=windows).fold(Quota::unlimited(), |quota, seconds| quota.and(Quota::new(9, window(seconds))))
    }

    /// One more than each bound is refused, and the error names the bound.
    #[test]
    fn what_exceeds_a_bound_is_refused_with_its_name() {
        let long = |length: usize| Some(Box::<str>::from("x".repeat(length)));
        let far = UNIX_EPOCH + Duration::from_secs(END_OF_CALENDAR_SECONDS);
        let quotas =
            |number: usize| (0..number).map(|number| (number.to_string().into(), quota(1))).collect();
        for (outcome, named) in [
            (issue(|key| key.id = "x".repeat(257).into()), "identifier is 1 to 256 bytes"),
            (issue(|key| key.name = "ü".repeat(101).into()), "name is 1 to 100 characters"),
            (issue(|key| key.display_prefix = "x".repeat(65).into()), "at most 64 bytes"),
            (issue(|key| key.tenant = long(201)), "a tenant is 1 to 200 bytes"),
            (issue(|key| key.tenant = Some("\0acme".into())), "without control characters"),
            (issue(|key| key.scopes = scopes(257, 3)), "at most 256 scopes"),
            (issue(|key| key.scopes = scopes(64, 128)), "these are 64 of 8255 bytes"),
            (issue(|key| key.plan = Some(Plan::active("x".repeat(101)))), "1 to 100 bytes"),
            (issue(|key| key.plan = Some(Plan::lapsed(""))), "leave the plan out"),
            (issue(|key| key.role = long(101)), "a role is 1 to 100 bytes"),
            (issue(|key| key.quotas = quotas(17)), "at most 16 quotas"),
            (issue(|key| key.quotas = vec![("a".into(), quota(9))]), "at most 8 windows"),
            (issue(|key| key.quotas = vec![("x".repeat(101).into(), quota(1))]), "policy is 1 to 100 bytes"),
            (issue(|key| key.expires_at = Some(far)), "the expiry is not before the year 9999"),
            (issue(|key| key.created_at = far), "not before the year 9999"),
            (update(KeyUpdate::new().with_name("x".repeat(101))), "name is 1 to 100 characters"),
            (update(KeyUpdate::new().with_scopes(scopes(257, 3))), "at most 256 scopes"),
            (update(KeyUpdate::new().with_plan(Some(Plan::active(" ")))), "leave the plan out"),
            (update(KeyUpdate::new().with_expiry(Some(far))), "not before the year 9999"),
            (update(KeyUpdate::new().with_quotas(quotas(17))), "at most 16 quotas"),
        ] {
            let error = outcome.unwrap_err();
            assert!(error.contains(named), "{named}: {error}");
        }
        let by = Actor::new("x".repeat(257));
        let revoke = Command::new(KeyChange::Revoke { id: "key_1".into() }, by.clone(), UNIX_EPOCH);
        assert!(checked(revoke.check()).unwrap_err().contains("at most 256 characters"));
        let suspend = TenantChange::Suspend { tenant: "x".repeat(201).into() };
        assert!(Command::new(suspend, Actor::new("ada"), UNIX_EPOCH).check().is_err());
        let plan = Some(Plan::active("x".repeat(101)));
        let plan = Command::new(
            TenantChange::SetPlan { tenant: "acme".into(), plan },
            Actor::new("ada"),
            UNIX_EPOCH,
        );
        assert!(checked(plan.check()).unwrap_err().contains("1 to 100 bytes"));
        let unknown = KeyChange::Delete { id: "x".repeat(257).into() };
        let unknown = Command::new(unknown, Actor::new("ada"), UNIX_EPOCH).check();
        assert!(matches!(unknown, Err(KeyAdminError::NotFound)), "{unknown:?}");
    }

    #[test]
    fn what_reaches_every_bound_is_accepted() {
        let outcome = issue(|key| {
            key.id = "x".repeat(256).into();
            key.name = "ü".repeat(100).into();
            key.display_prefix = "x".repeat(64).into();
            key.tenant = Some("x".repeat(200).into());
            key.scopes = scopes(256, 31);
            key.plan = Some(Plan::active("x".repeat(100)));
            key.role = Some("x".repeat(100).into());
            key.quotas = (0..16).map(|number| (format!("{number:0100}").into(), quota(8))).collect();
            key.expires_at = Some(UNIX_EPOCH + Duration::from_secs(END_OF_CALENDAR_SECONDS - 1));
        });
        assert_eq!(outcome, Ok(()));
        let change = KeyUpdate::new().with_plan(None).with_expiry(None).with_scopes(Scopes::none());
        assert_eq!(update(change), Ok(()));
    }
}
