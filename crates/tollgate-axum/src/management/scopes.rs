//! The scopes that callers may choose for their keys.

use tollgate::{Scopes, manage::KeyManager, scope::Scope};

use super::refused::Refused;

#[derive(Clone, Debug, Default)]
pub(super) enum Choice {
    /// The manager's known scopes, without wildcards.
    #[default]
    Known,
    /// These.
    Listed(Scopes),
    /// Whatever the manager allows.
    Any,
}

impl Choice {
    /// Reads the scopes of a body.
    pub(super) fn read(&self, names: Vec<String>, manager: &KeyManager) -> Result<Scopes, Refused> {
        let wanted = Scopes::new(names).map_err(|error| Refused::invalid(format!("`scopes`: {error}")))?;
        let allowed: Vec<&Scope> = match self {
            Self::Any => return Ok(wanted),
            Self::Listed(listed) => listed.iter().collect(),
            Self::Known => {
                manager.known_scopes().into_iter().flatten().filter(|scope| !scope.is_wildcard()).collect()
            }
        };
        let Some(other) = wanted.iter().find(|scope| !allowed.contains(scope)) else { return Ok(wanted) };
        if allowed.is_empty() {
            return Err(Refused::invalid(format!(
                "`scopes`: `{other}` cannot be chosen, leave out the scopes"
            )));
        }
        let allowed: Vec<_> = allowed.into_iter().map(|scope| format!("`{scope}`")).collect();
        let allowed = allowed.join(", ");
        Err(Refused::invalid(format!("`scopes`: `{other}` cannot be chosen, choose from {allowed}")))
    }
}
