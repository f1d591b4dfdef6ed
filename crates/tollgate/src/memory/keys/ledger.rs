//! What only changes need to know, and the changes themselves.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::SystemTime,
};

use tollgate_core::{
    key::{Digest, Environment},
    manage::{Actor, KeyAction, KeyAdminError, KeyDetails, KeyEvent, KeyUpdate, Metadata},
    store::{EndReason, EndSignal, KeyRecord, KeyStatus, StoreEvent},
    verify::Principal,
};

use super::table::Table;

/// The last so many events are kept.
const MAX_HISTORY: usize = 10_000;

/// All keys by their identifiers, and what happened to them. Each change puts the records of the keys that it concerns into the
/// table, and notes whom to tell.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) keys: HashMap<Box<str>, Held>,
    // The order of lists.
    pub(super) by_age: BTreeSet<(SystemTime, Box<str>)>,
    names: HashMap<Name, Box<str>>,
    suspended: HashSet<Box<str>>,
    pub(super) history: VecDeque<KeyEvent>,
    // The newest record's: it rises over all keys, so that one which comes back after it was deleted is newer than before.
    generation: u64,
    events: Events,
}

/// A name, which is one key's within a tenant.
type Name = (Option<Box<str>>, Box<str>);

/// A key.
pub(super) struct Held {
    pub(super) details: KeyDetails,
    // Whom it proves, with data of the application's own that the details do not have.
    principal: Arc<Principal>,
    digest: Digest,
    former: Option<Digest>,
}

/// Whom to tell once no lock is held.
#[derive(Default)]
pub(super) struct Events {
    pub(super) ended: Vec<(EndSignal, EndReason)>,
    pub(super) change: Option<StoreEvent>,
}

impl Ledger {
    pub(super) fn take_events(&mut self) -> Events {
        std::mem::take(&mut self.events)
    }

    /// Issues or replaces a key as a principal says, without any check: see `MemoryKeys::import`.
    pub(super) fn put(
        &mut self,
        records: &Table,
        digest: Digest,
        display_prefix: &str,
        principal: Principal,
        now: SystemTime,
    ) {
        // A key has a signal of its own, or revoking it would end another that was made of the same principal. It keeps the
        // one it has, since streams may wait for that.
        let mut signal = EndSignal::new();
        let former = records.find(&digest);
        if let Some(former) = &former
            && former.principal().id() == principal.id()
            && former.principal().end_signal().reason().is_none()
            && !self.is_suspended(principal.tenant())
        {
            signal = former.principal().end_signal().clone();
        }
        for replaced in former.iter().map(|former| former.principal().id()).chain([principal.id()]) {
            let Some(replaced) = self.take_out(replaced) else { continue };
            // The record of this very secret is replaced, and not absent in between.
            replaced
                .digests()
                .filter(|replaced| *replaced != digest)
                .for_each(|replaced| records.remove(&replaced));
            let replaced = replaced.principal.end_signal();
            if !replaced.is(&signal) {
                self.events.ended.push((replaced.clone(), EndReason::Revoked));
            }
        }

        let mut details = KeyDetails::new(principal.id(), principal.id(), now);
        details.display_prefix = display_prefix.into();
        details.tenant = principal.tenant().map(Into::into);
        details.scopes = principal.scopes().clone();
        details.plan = principal.plan().map(|plan| (**plan).clone());
        details.environment = principal.environment().unwrap_or(Environment::Live);
        details.role = principal.role().map(Into::into);
        details.quotas = principal.quotas().to_vec();
        details.metadata = principal.extension::<Metadata>().cloned().unwrap_or_default();
        details.expires_at = principal.expires_at();
        let principal = Arc::new(principal.with_end_signal(signal));
        self.add(records, details, principal, digest, &super::in_process());
    }

    pub(super) fn issue(
        &mut self,
        records: &Table,
        details: KeyDetails,
        digest: Digest,
        actor: &Actor,
    ) -> Result<KeyDetails, KeyAdminError> {
        if !actor.manages(details.tenant.as_deref()) {
            return Err(KeyAdminError::NotPermitted);
        }
        if self.keys.contains_key(&details.id) || records.find(&digest).is_some() {
            return Err(KeyAdminError::KeyTaken);
        }
        if self.names.contains_key(&name_of(&details)) {
            return Err(KeyAdminError::NameTaken);
        }
        self.names.insert(name_of(&details), details.id.clone());
        let principal = Arc::new(details.to_principal(EndSignal::new()));
        Ok(self.add(records, details, principal, digest, actor))
    }

    fn add(
        &mut self,
        records: &Table,
        mut details: KeyDetails,
        principal: Arc<Principal>,
        digest: Digest,
        actor: &Actor,
    ) -> KeyDetails {
        details.status = KeyStatus::Active;
        if self.is_suspended(details.tenant.as_deref()) {
            details.status = KeyStatus::TenantSuspended;
            principal.end_signal().end(EndReason::TenantSuspended);
        }
        details.generation = self.next_generation();
        let (at, id) = (details.created_at, details.id.clone());
        self.by_age.insert((at, id.clone()));
        let held = Held { details, principal, digest, former: None };
        held.enter(records);
        let details = held.details.clone();
        self.keys.insert(id, held);
        self.tell_key((&details, &details), KeyAction::Issued, None, actor, at);
        details
    }

    pub(super) fn update(
        &mut self,
        records: &Table,
        id: &str,
        update: KeyUpdate,
        actor: &Actor,
        at: SystemTime,
    ) -> Result<KeyDetails, KeyAdminError> {
        let before = self.changeable(id, actor)?.details.clone();
        let mut details = before.clone();
        update.apply(&mut details);
        if details == before {
            return Ok(details);
        }
        if details.name != before.name {
            if self.names.contains_key(&name_of(&details)) {
                return Err(KeyAdminError::NameTaken);
            }
            self.forget_name(&before);
            self.names.insert(name_of(&details), details.id.clone());
        }
        details.generation = self.next_generation();
        self.replace(records, id, |held| {
            let signal = held.principal.end_signal().clone();
            let principal = details.to_principal(signal).with_extensions_of(&held.principal);
            held.principal = Arc::new(principal.with_extension(details.metadata.clone()));
            held.details = details.clone();
        });
        self.tell_key((&before, &details), KeyAction::Updated, None, actor, at);
        Ok(details)
    }

    pub(super) fn rotate(
        &mut self,
        records: &Table,
        id: &str,
        (digest, display_prefix): (Digest, Box<str>),
        former_until: Option<SystemTime>,
        actor: &Actor,
        at: SystemTime,
    ) -> Result<KeyDetails, KeyAdminError> {
        self.changeable(id, actor)?;
        if records.find(&digest).is_some() {
            return Err(KeyAdminError::KeyTaken);
        }
        let generation = self.next_generation();
        let (mut ended, mut details) = (None, None);
        self.replace(records, id, |held| {
            let had_former = held.details.former_until.is_some_and(|until| until > at);
            // Nobody knows by which of two secrets a principal was proved that somebody holds: if one of them ends, it ends.
            let goes_on = former_until.is_some_and(|until| until > at) && !had_former;
            if !goes_on {
                ended = Some(held.principal.end_signal().clone());
                let signal = EndSignal::new();
                if held.details.status == KeyStatus::TenantSuspended {
                    signal.end(EndReason::TenantSuspended);
                }
                held.principal = Arc::new(Principal::clone(&held.principal).with_end_signal(signal));
            }
            // Only the latest of the former secrets is good for a while.
            held.former.take().into_iter().for_each(|older| records.remove(&older));
            if former_until.is_some() {
                held.former = Some(held.digest);
            } else {
                records.remove(&held.digest);
            }
            held.digest = digest;
            held.details.display_prefix = display_prefix;
            held.details.former_until = former_until;
            held.details.generation = generation;
            details = Some(held.details.clone());
        });
        let details = details.ok_or(KeyAdminError::NotFound)?;
        let end = ended.is_some().then_some(EndReason::Revoked);
        self.events.ended.extend(ended.map(|signal| (signal, EndReason::Revoked)));
        self.tell_key((&details, &details), KeyAction::Rotated, end, actor, at);
        Ok(details)
    }

    pub(super) fn revoke(
        &mut self,
        records: &Table,
        id: &str,
        actor: &Actor,
        at: SystemTime,
    ) -> Result<KeyDetails, KeyAdminError> {
        let held = self.managed(id, actor)?;
        if held.details.status == KeyStatus::Revoked {
            return Ok(held.details.clone());
        }
        let generation = self.next_generation();
        let mut details = None;
        self.replace(records, id, |held| {
            held.details.status = KeyStatus::Revoked;
            held.details.revoked_at = Some(at);
            held.details.former_until = None;
            held.details.generation = generation;
            details = Some((held.details.clone(), held.principal.end_signal().clone()));
        });
        let (details, signal) = details.ok_or(KeyAdminError::NotFound)?;
        self.events.ended.push((signal, EndReason::Revoked));
        self.tell_key((&details, &details), KeyAction::Revoked, Some(EndReason::Revoked), actor, at);
        Ok(details)
    }

    pub(super) fn delete(
        &mut self,
        records: &Table,
        id: &str,
        actor: &Actor,
        at: SystemTime,
    ) -> Result<KeyDetails, KeyAdminError> {
        self.managed(id, actor)?;
        let held = self.take_out(id).ok_or(KeyAdminError::NotFound)?;
        held.digests().for_each(|digest| records.remove(&digest));
        self.events.ended.push((held.principal.end_signal().clone(), EndReason::Revoked));
        let mut gone = held.details.clone();
        gone.generation = self.next_generation();
        self.tell_key((&gone, &gone), KeyAction::Deleted, Some(EndReason::Revoked), actor, at);
        Ok(held.details)
    }

    pub(super) fn suspend(&mut self, records: &Table, tenant: &str, actor: &Actor, at: SystemTime) {
        if self.suspended.insert(tenant.into()) {
            self.turn_all(records, tenant, KeyStatus::TenantSuspended);
            self.tell_tenant(tenant, KeyAction::TenantSuspended, actor, at);
        }
    }

    pub(super) fn resume(&mut self, records: &Table, tenant: &str, actor: &Actor, at: SystemTime) {
        if self.suspended.remove(tenant) {
            self.turn_all(records, tenant, KeyStatus::Active);
            self.tell_tenant(tenant, KeyAction::TenantResumed, actor, at);
        }
    }

    fn turn_all(&mut self, records: &Table, tenant: &str, status: KeyStatus) {
        let generation = self.next_generation();
        let of_tenant = |held: &&mut Held| held.details.tenant.as_deref() == Some(tenant);
        for held in self.keys.values_mut().filter(of_tenant) {
            if held.details.status == KeyStatus::Revoked {
                continue;
            }
            held.details.status = status;
            held.details.generation = generation;
            if status == KeyStatus::TenantSuspended {
                self.events.ended.push((held.principal.end_signal().clone(), EndReason::TenantSuspended));
            } else {
                // A signal cannot be taken back.
                held.principal =
                    Arc::new(Principal::clone(&held.principal).with_end_signal(EndSignal::new()));
            }
            held.enter(records);
        }
    }

    // --- What the changes are made of ---------------------------------------------------------------------------

    fn next_generation(&mut self) -> u64 {
        self.generation = self.generation.saturating_add(1);
        self.generation
    }

    fn is_suspended(&self, tenant: Option<&str>) -> bool {
        tenant.is_some_and(|tenant| self.suspended.contains(tenant))
    }

    fn managed(&self, id: &str, actor: &Actor) -> Result<&Held, KeyAdminError> {
        let held = self.keys.get(id).filter(|held| actor.manages(held.details.tenant.as_deref()));
        held.ok_or(KeyAdminError::NotFound)
    }

    fn changeable(&self, id: &str, actor: &Actor) -> Result<&Held, KeyAdminError> {
        let held = self.managed(id, actor)?;
        if held.details.status == KeyStatus::Revoked { Err(KeyAdminError::Revoked) } else { Ok(held) }
    }

    fn replace(&mut self, records: &Table, id: &str, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.keys.get_mut(id) {
            change(held);
            held.enter(records);
        }
    }

    fn take_out(&mut self, id: &str) -> Option<Held> {
        let held = self.keys.remove(id)?;
        self.by_age.remove(&(held.details.created_at, id.into()));
        self.forget_name(&held.details);
        Some(held)
    }

    /// Gives a name back, if it is this key's: those of keys that are put here without any check are not.
    fn forget_name(&mut self, details: &KeyDetails) {
        let name = name_of(details);
        if self.names.get(&name) == Some(&details.id) {
            self.names.remove(&name);
        }
    }

    fn tell_key(
        &mut self,
        (before, after): (&KeyDetails, &KeyDetails),
        action: KeyAction,
        end: Option<EndReason>,
        actor: &Actor,
        at: SystemTime,
    ) {
        let mut event = KeyEvent::new(after.generation, at, actor.name(), action);
        event.key = Some(after.id.clone());
        event.tenant.clone_from(&after.tenant);
        event.detail = action.detail(before, after).into();
        self.remember(event);
        self.events.change =
            Some(StoreEvent::Key { id: after.id.clone(), generation: after.generation, end });
    }

    fn tell_tenant(&mut self, tenant: &str, action: KeyAction, actor: &Actor, at: SystemTime) {
        let mut event = KeyEvent::new(self.generation, at, actor.name(), action);
        event.tenant = Some(tenant.into());
        self.remember(event);
        let end = (action == KeyAction::TenantSuspended).then_some(EndReason::TenantSuspended);
        self.events.change =
            Some(StoreEvent::Tenant { tenant: tenant.into(), generation: self.generation, end });
    }

    fn remember(&mut self, event: KeyEvent) {
        if self.history.len() >= MAX_HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(event);
    }
}

impl Held {
    fn digests(&self) -> impl Iterator<Item = Digest> + use<> {
        [Some(self.digest), self.former].into_iter().flatten()
    }

    /// Puts its records into the table, in the place of those that are there.
    fn enter(&self, records: &Table) {
        let record = |principal| KeyRecord::new(principal, self.details.status, self.details.generation);
        records.insert(self.digest, record(Arc::clone(&self.principal)));
        if let Some(former) = self.former {
            let mut principal = Arc::clone(&self.principal);
            // The end of an overlap comes by itself, as an expiry.
            if let Some(until) = self.details.former_until {
                let until = self.details.expires_at.map_or(until, |expires_at| expires_at.min(until));
                principal = Arc::new(Principal::clone(&principal).with_expiry(until));
            }
            records.insert(former, record(principal));
        }
    }
}

fn name_of(details: &KeyDetails) -> Name {
    (details.tenant.clone(), details.name.clone())
}
