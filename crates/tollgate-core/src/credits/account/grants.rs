//! Grants: made, withdrawn, expired, and filled up again.

use std::time::SystemTime;

use super::{Account, AccountGrant, Cause, signed};
use crate::{
    bounds::MAX_GRANTS,
    credits::{CreditAdminError, EntryKind, Grant, NewGrant, WithdrawGrant},
    manage::Command,
};

impl Account {
    /// Grants credits. `id` is the identifier of the grant: [`NewGrant::id_or_random`].
    ///
    /// If the account has a grant with this identifier, it is returned and nothing changes. The debt is paid at once.
    ///
    /// # Errors
    /// What [`Command::<NewGrant>::check`] returns, and [`CreditAdminError::Invalid`] if the expiry has passed or the account has
    /// [`MAX_GRANTS`] grants that have not ended.
    pub fn grant(&mut self, command: &Command<NewGrant>, id: &str) -> Result<Grant, CreditAdminError> {
        command.check()?;
        let Command { change, actor, at, .. } = command;
        if let Some(existing) = self.find(id) {
            return Ok(existing.grant.clone());
        }
        if change.expires_at.is_some_and(|expires_at| expires_at <= *at) {
            return Err(CreditAdminError::Invalid(
                "the expiry of a grant is not in the future: choose a later one".into(),
            ));
        }
        if self.grants.iter().filter(|grant| !grant.has_ended).count() >= MAX_GRANTS {
            return Err(CreditAdminError::Invalid(
                format!(
                    "the account has {MAX_GRANTS} grants that have not ended: withdraw one, or grant larger amounts"
                )
                .into(),
            ));
        }

        let period = change.refill.map_or(0, |refill| refill.period_of(*at));
        let mut granted = AccountGrant::new(Grant::new(id, change.clone(), *at), period, false);
        granted.is_changed = true;
        self.grants.push(granted);
        let cause = Cause { at: *at, kind: EntryKind::Granted, reservation: None };
        self.changes.record(cause, signed(change.amount), Some(id));
        if let Some(entry) = self.changes.entries.last_mut() {
            entry.actor = Some(actor.name().into());
            entry.note = change.note.clone();
        }
        self.repay(*at);
        self.find(id).map(|granted| granted.grant.clone()).ok_or(CreditAdminError::NotFound)
    }

    /// Takes back what is left of a grant, and ends it. If it has ended already, it is returned and nothing changes.
    ///
    /// # Errors
    /// What [`Command::<WithdrawGrant>::check`] returns, and [`CreditAdminError::NotFound`].
    pub fn withdraw(&mut self, command: &Command<WithdrawGrant>) -> Result<Grant, CreditAdminError> {
        command.check()?;
        let grant = self.grants.iter_mut().find(|grant| grant.grant.id == command.change.id);
        let grant = grant.ok_or(CreditAdminError::NotFound)?;
        if grant.has_ended {
            return Ok(grant.grant.clone());
        }
        let left = std::mem::take(&mut grant.grant.remaining);
        grant.has_ended = true;
        grant.is_changed = true;
        if left > 0 {
            let cause = Cause { at: command.at, kind: EntryKind::Withdrawn, reservation: None };
            self.changes.record(cause, -signed(left), Some(&grant.grant.id));
            if let Some(entry) = self.changes.entries.last_mut() {
                entry.actor = Some(command.actor.name().into());
            }
        }
        Ok(grant.grant.clone())
    }

    /// Ends the grants that have expired, and fills up those with a new period.
    pub(super) fn roll(&mut self, now: SystemTime) {
        let lapsed = Cause { at: now, kind: EntryKind::Lapsed, reservation: None };
        let refilled = Cause { at: now, kind: EntryKind::Refilled, reservation: None };
        for grant in self.grants.iter_mut().filter(|grant| !grant.has_ended) {
            let has_expired = grant.grant.expires_at.is_some_and(|expires_at| expires_at <= now);
            let period = grant.grant.refill.map_or(0, |refill| refill.period_of(now));
            if !has_expired && period <= grant.period {
                continue;
            }
            let left = std::mem::take(&mut grant.grant.remaining);
            if left > 0 {
                self.changes.record(lapsed, -signed(left), Some(&grant.grant.id));
            }
            if has_expired {
                grant.has_ended = true;
            } else {
                grant.period = period;
                grant.grant.remaining = grant.grant.amount;
                self.changes.record(refilled, signed(grant.grant.amount), Some(&grant.grant.id));
            }
            grant.is_changed = true;
        }
    }

    fn find(&self, id: &str) -> Option<&AccountGrant> {
        self.grants.iter().find(|grant| &*grant.grant.id == id)
    }
}
