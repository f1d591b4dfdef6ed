//! The events of changes in a store that does not notify of them.

use std::time::SystemTime;

use tollgate_core::{
    manage::{KeyAdminError, KeyChange, TenantChange},
    store::{EndReason, StoreEvent},
};

/// The event of a change that may have been made.
#[derive(Debug)]
pub(super) struct Expected {
    event: StoreEvent,
    /// Whether the store must be asked which principals have ended.
    is_unclear: bool,
}

impl Expected {
    /// The event of a change that is made at `at`.
    pub(super) fn of_key(change: &KeyChange, at: SystemTime) -> Self {
        let (end, is_unclear) = match change {
            KeyChange::Revoke { .. } | KeyChange::Delete { .. } => (Some(EndReason::Revoked), false),
            KeyChange::Rotate { former_until, .. } if former_until.is_none_or(|until| until <= at) => {
                (Some(EndReason::Revoked), false)
            }
            KeyChange::Issue { .. } | KeyChange::Update { .. } => (None, false),
            // After a rotation with an overlap, the secret of an earlier one has ended, if there was one.
            _ => (None, true),
        };
        // The records of such a store may all have the same generation.
        let event = StoreEvent::Key { id: change.id().into(), generation: u64::MAX, end };
        Self { event, is_unclear }
    }

    pub(super) fn of_tenant(change: &TenantChange) -> Self {
        let (end, is_unclear) = match change {
            TenantChange::Suspend { .. } => (Some(EndReason::TenantSuspended), false),
            TenantChange::Resume { .. } | TenantChange::SetPlan { .. } => (None, false),
            _ => (None, true),
        };
        let event = StoreEvent::Tenant { tenant: change.tenant().into(), generation: u64::MAX, end };
        Self { event, is_unclear }
    }

    /// The event, and whether the store must be asked which principals have ended. `None` if nothing was changed.
    pub(super) fn after<T>(mut self, outcome: &Result<T, KeyAdminError>) -> Option<(StoreEvent, bool)> {
        match outcome {
            Ok(_) => Some((self.event, self.is_unclear)),
            // It may have been made.
            Err(KeyAdminError::Unavailable(_)) => {
                if let StoreEvent::Key { end, .. } | StoreEvent::Tenant { end, .. } = &mut self.event {
                    *end = None;
                }
                Some((self.event, true))
            }
            Err(_) => None,
        }
    }
}
