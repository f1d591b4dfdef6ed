//! Validates requests by the rules of a manager. The rules for every key are in
//! [`Command::check`](tollgate_core::manage::Command::check). Each error says what to do.

use std::time::{Duration, SystemTime};

use tollgate_core::{bounds::MAX_OVERLAP, manage::KeyAdminError, scope::Scopes};

fn invalid(reason: impl Into<Box<str>>) -> KeyAdminError {
    KeyAdminError::Invalid(reason.into())
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
        Some(overlap) if overlap > MAX_OVERLAP => {
            Err(invalid("the overlap is longer than 366 days: issue a second key instead"))
        }
        Some(overlap) => Ok(now.checked_add(overlap)),
    }
}
