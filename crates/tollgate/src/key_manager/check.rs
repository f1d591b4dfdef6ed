//! Validates the details of keys. Each error says what to do.

use std::time::{Duration, SystemTime};

use tollgate_core::{manage::KeyAdminError, scope::Scopes};

const LONGEST_NAME: usize = 100;
const LONGEST_TENANT: usize = 200;
/// Longer use of two secrets needs two keys: 366 days.
const LONGEST_OVERLAP: Duration = Duration::from_secs(366 * 24 * 60 * 60);

fn invalid(reason: impl Into<Box<str>>) -> KeyAdminError {
    KeyAdminError::Invalid(reason.into())
}

/// Names are shown in lists and terminals.
pub(super) fn name(name: &str) -> Result<(), KeyAdminError> {
    let length = name.chars().count();
    if name.trim().is_empty() || length > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(invalid(
            "a key's name is 1 to 100 characters without control characters, and not only spaces",
        ));
    }
    Ok(())
}

pub(super) fn tenant(tenant: Option<&str>) -> Result<(), KeyAdminError> {
    let Some(tenant) = tenant else { return Ok(()) };
    if tenant.is_empty() || tenant.len() > LONGEST_TENANT || tenant.chars().any(char::is_control) {
        return Err(invalid("a tenant is 1 to 200 bytes without control characters"));
    }
    Ok(())
}

pub(super) fn scopes(scopes: &Scopes, known: Option<&Scopes>) -> Result<(), KeyAdminError> {
    let Some(known) = known else { return Ok(()) };
    let Some(unknown) = scopes.iter().find(|scope| !known.iter().any(|known| known == *scope)) else {
        return Ok(());
    };
    let known: Vec<_> = known.iter().map(|scope| format!("`{scope}`")).collect();
    Err(invalid(format!("unknown scope `{unknown}`: known scopes are {}", known.join(", "))))
}

pub(super) fn expiry(expires_at: Option<SystemTime>, now: SystemTime) -> Result<(), KeyAdminError> {
    match expires_at {
        Some(expires_at) if expires_at <= now => {
            Err(invalid("the expiry is in the past: use a later one, or none"))
        }
        _ => Ok(()),
    }
}

/// The instant at which the former secret ends; `None`: immediately.
pub(super) fn overlap(
    overlap: Option<Duration>,
    now: SystemTime,
) -> Result<Option<SystemTime>, KeyAdminError> {
    match overlap {
        None | Some(Duration::ZERO) => Ok(None),
        Some(overlap) if overlap > LONGEST_OVERLAP => {
            Err(invalid("the overlap is longer than 366 days: issue a second key instead"))
        }
        Some(overlap) => Ok(now.checked_add(overlap)),
    }
}
