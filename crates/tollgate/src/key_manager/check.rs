//! What a key may be. Each error says what to do.

use std::time::{Duration, SystemTime};

use tollgate_core::{manage::KeyAdminError, scope::Scopes};

const LONGEST_NAME: usize = 100;
const LONGEST_TENANT: usize = 200;
/// Longer, and it is no rotation but two keys.
const LONGEST_OVERLAP: Duration = Duration::from_secs(366 * 24 * 60 * 60);

fn invalid(reason: impl Into<Box<str>>) -> KeyAdminError {
    KeyAdminError::Invalid(reason.into())
}

/// Names are shown in lists and in terminals.
pub(super) fn name(name: &str) -> Result<(), KeyAdminError> {
    let length = name.chars().count();
    if name.trim().is_empty() || length > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(invalid(
            "a key's name is 1 to 100 characters, not all of them spaces, and none of them control characters",
        ));
    }
    Ok(())
}

pub(super) fn tenant(tenant: Option<&str>) -> Result<(), KeyAdminError> {
    let Some(tenant) = tenant else { return Ok(()) };
    if tenant.is_empty() || tenant.len() > LONGEST_TENANT || tenant.chars().any(char::is_control) {
        return Err(invalid("a tenant is 1 to 200 bytes, none of them control characters"));
    }
    Ok(())
}

pub(super) fn scopes(scopes: &Scopes, known: Option<&Scopes>) -> Result<(), KeyAdminError> {
    let Some(known) = known else { return Ok(()) };
    let Some(unknown) = scopes.iter().find(|scope| !known.iter().any(|known| known == *scope)) else {
        return Ok(());
    };
    let known: Vec<_> = known.iter().map(|scope| format!("`{scope}`")).collect();
    Err(invalid(format!("unknown scope `{unknown}`: there are {}", known.join(", "))))
}

pub(super) fn expiry(expires_at: Option<SystemTime>, now: SystemTime) -> Result<(), KeyAdminError> {
    match expires_at {
        Some(expires_at) if expires_at <= now => {
            Err(invalid("the expiry lies in the past: give a later one, or none"))
        }
        _ => Ok(()),
    }
}

/// Until when a former secret is good.
pub(super) fn overlap(
    overlap: Option<Duration>,
    now: SystemTime,
) -> Result<Option<SystemTime>, KeyAdminError> {
    match overlap {
        None | Some(Duration::ZERO) => Ok(None),
        Some(overlap) if overlap > LONGEST_OVERLAP => {
            Err(invalid("two secrets overlap for at most a year: issue a second key instead"))
        }
        Some(overlap) => Ok(now.checked_add(overlap)),
    }
}
