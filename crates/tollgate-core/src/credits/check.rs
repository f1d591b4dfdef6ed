//! Checks commands against the [bounds](crate::bounds). Each error names the bound.

use super::{CreditAdminError, NewGrant, Refill, WithdrawGrant};
use crate::{
    bounds::{
        MAX_ACTOR_CHARS, MAX_CREDITS, MAX_GRANT_ID_BYTES, MAX_NOTE_CHARS, MAX_TENANT_BYTES, is_in_calendar,
    },
    manage::{Actor, Command},
};

type Checked = Result<(), CreditAdminError>;

impl Command<NewGrant> {
    /// Checks the actor, and everything that a store would keep, against the [bounds](crate::bounds).
    ///
    /// # Errors
    /// [`CreditAdminError::NotPermitted`] for an actor of a tenant, and [`CreditAdminError::Invalid`], which names the bound.
    pub fn check(&self) -> Checked {
        check_actor(&self.actor)?;
        let NewGrant { account, amount, id, expires_at, refill, note, .. } = &self.change;
        check_text("an account", account, MAX_TENANT_BYTES)?;
        id.as_deref().map_or(Ok(()), |id| check_text("the identifier of a grant", id, MAX_GRANT_ID_BYTES))?;
        check((1..=MAX_CREDITS).contains(amount), || {
            format!("the amount of a grant is 1 to {MAX_CREDITS} credits: count in a larger unit")
        })?;
        check(note.chars().count() <= MAX_NOTE_CHARS && !note.chars().any(char::is_control), || {
            format!("the note of a grant is at most {MAX_NOTE_CHARS} characters without control characters")
        })?;
        check(expires_at.is_none_or(is_in_calendar), || {
            "the expiry is not before the year 9999: leave it out for a grant that never expires".to_owned()
        })?;
        let has_day = !matches!(refill, Some(Refill::Monthly { day }) if !(1..=31).contains(day));
        check(has_day, || "the day of a monthly refill is 1 to 31: with 31, each month's last day".to_owned())
    }
}

impl Command<WithdrawGrant> {
    /// Checks the actor, and whether an account can have such a name.
    ///
    /// # Errors
    /// [`CreditAdminError::NotPermitted`] for an actor of a tenant, and [`CreditAdminError::Invalid`].
    pub fn check(&self) -> Checked {
        check_actor(&self.actor)?;
        check_text("an account", &self.change.account, MAX_TENANT_BYTES)?;
        check_text("the identifier of a grant", &self.change.id, MAX_GRANT_ID_BYTES)
    }
}

/// A tenant must not grant credits to itself.
fn check_actor(actor: &Actor) -> Checked {
    if actor.tenant().is_some() {
        return Err(CreditAdminError::NotPermitted);
    }
    check(actor.name().chars().count() <= MAX_ACTOR_CHARS, || {
        format!("the name of an actor is at most {MAX_ACTOR_CHARS} characters")
    })
}

fn check_text(what: &str, text: &str, most: usize) -> Checked {
    let is_valid = !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control);
    check(is_valid, || format!("{what} is 1 to {most} bytes without control characters"))
}

fn check(is_valid: bool, error: impl FnOnce() -> String) -> Checked {
    if is_valid { Ok(()) } else { Err(CreditAdminError::Invalid(error().into())) }
}
