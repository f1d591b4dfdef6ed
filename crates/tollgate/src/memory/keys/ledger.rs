//! The state that only changes need, and the changes.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::SystemTime,
};

use tollgate_core::{
    key::{Digest, Environment},
    manage::{
        Actor, KeyAction, KeyAdminError, KeyDetails, KeyEvent, KeyUpdate, Metadata, TenantChange,
        TenantDetails,
    },
    store::{EndReason, EndSignal, KeyRecord, KeyStatus, StoreEvent},
    verify::{Plan, Principal},
};

use super::{history::History, table::Table};

/// All keys by their identifiers, and their history. A change puts the records of the changed keys into the table, and prepares
/// the notifications.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) keys: HashMap<Box<str>, StoredKey>,
    // In the order of lists.
    pub(super) by_age: BTreeSet<(SystemTime, Box<str>)>,
    names: HashMap<Name, Box<str>>,
    // The tenants that were changed.
    tenants: HashMap<Box<str>, TenantDetails>,
    pub(super) history: History,
    // The generation of the newest change of all keys, so that a key which is issued again after its deletion is newer than before.
    generation: u64,
    notifications: Notifications,
}

/// A name, which is unique within a tenant.
type Name = (Option<Box<str>>, Box<str>);

pub(super) struct StoredKey {
    pub(super) details: KeyDetails,
    // Its extensions are not in the details.
    principal: Arc<Principal>,
    digest: Digest,
    former: Option<Digest>,
}

/// The notifications of a change, to be sent when no lock is held.
#[derive(Default)]
pub(super) struct Notifications {
    pub(super) ended: Vec<(EndSignal, EndReason)>,
    pub(super) event: Option<StoreEvent>,
}

impl Ledger {
    pub(super) fn take_notifications(&mut self) -> Notifications {
        std::mem::take(&mut self.notifications)
    }

    /// Issues or replaces the key of a principal, without any check: see `MemoryKeys::import`.
    pub(super) fn put(
        &mut self,
        records: &Table,
        digest: Digest,
        display_prefix: &str,
        principal: Principal,
        now: SystemTime,
    ) {
        // A key has a signal of its own, or revoking it would end another key that was made of the same principal. A key that is
        // imported again keeps its signal, since streams may wait for it.
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
            let Some(replaced) = self.remove(replaced) else { continue };
            // The record of the same secret is replaced later, so that it is never absent.
            replaced
                .digests()
                .filter(|replaced| *replaced != digest)
                .for_each(|replaced| records.remove(&replaced));
            let replaced = replaced.principal.end_signal();
            if !replaced.is(&signal) {
                self.notifications.ended.push((replaced.clone(), EndReason::Revoked));
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
        details.allowed_networks = principal.allowed_networks().clone();
        details.metadata = principal.extension::<Metadata>().cloned().unwrap_or_default();
        details.expires_at = principal.expires_at();
        details.tenant_plan = self.tenant_plan(&details);
        let principal = principal.with_plan(details.effective_plan().cloned());
        let principal = Arc::new(principal.with_end_signal(signal));
        self.add(records, details, principal, digest, &super::in_process());
    }

    pub(super) fn issue(
        &mut self,
        records: &Table,
        mut details: KeyDetails,
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
        details.tenant_plan = self.tenant_plan(&details);
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
        let key = StoredKey { details, principal, digest, former: None };
        key.publish(records);
        let details = key.details.clone();
        self.keys.insert(id, key);
        self.record_key_event((&details, &details), KeyAction::Issued, None, actor, at);
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
            self.free_name(&before);
            self.names.insert(name_of(&details), details.id.clone());
        }
        details.generation = self.next_generation();
        self.replace(records, id, |key| {
            let signal = key.principal.end_signal().clone();
            let principal = details.to_principal(signal).with_extensions_of(&key.principal);
            key.principal = Arc::new(principal.with_extension(details.metadata.clone()));
            key.details = details.clone();
        });
        self.record_key_event((&before, &details), KeyAction::Updated, None, actor, at);
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
        self.replace(records, id, |key| {
            let had_former = key.details.former_until.is_some_and(|until| until > at);
            // It is not known by which of two secrets a held principal was verified: if one of them ends, the principal ends.
            let continues = former_until.is_some_and(|until| until > at) && !had_former;
            if !continues {
                ended = Some(key.principal.end_signal().clone());
                let signal = EndSignal::new();
                if key.details.status == KeyStatus::TenantSuspended {
                    signal.end(EndReason::TenantSuspended);
                }
                key.principal = Arc::new(Principal::clone(&key.principal).with_end_signal(signal));
            }
            // Only the latest former secret stays valid for a while.
            key.former.take().into_iter().for_each(|older| records.remove(&older));
            if former_until.is_some() {
                key.former = Some(key.digest);
            } else {
                records.remove(&key.digest);
            }
            key.digest = digest;
            key.details.display_prefix = display_prefix;
            key.details.former_until = former_until;
            key.details.generation = generation;
            details = Some(key.details.clone());
        });
        let details = details.ok_or(KeyAdminError::NotFound)?;
        let end = ended.is_some().then_some(EndReason::Revoked);
        self.notifications.ended.extend(ended.map(|signal| (signal, EndReason::Revoked)));
        self.record_key_event((&details, &details), KeyAction::Rotated, end, actor, at);
        Ok(details)
    }

    pub(super) fn revoke(
        &mut self,
        records: &Table,
        id: &str,
        actor: &Actor,
        at: SystemTime,
    ) -> Result<KeyDetails, KeyAdminError> {
        let key = self.managed(id, actor)?;
        if key.details.status == KeyStatus::Revoked {
            return Ok(key.details.clone());
        }
        let generation = self.next_generation();
        let mut details = None;
        self.replace(records, id, |key| {
            key.details.status = KeyStatus::Revoked;
            key.details.revoked_at = Some(at);
            key.details.former_until = None;
            key.details.generation = generation;
            details = Some((key.details.clone(), key.principal.end_signal().clone()));
        });
        let (details, signal) = details.ok_or(KeyAdminError::NotFound)?;
        self.notifications.ended.push((signal, EndReason::Revoked));
        self.record_key_event((&details, &details), KeyAction::Revoked, Some(EndReason::Revoked), actor, at);
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
        let key = self.remove(id).ok_or(KeyAdminError::NotFound)?;
        key.digests().for_each(|digest| records.remove(&digest));
        self.notifications.ended.push((key.principal.end_signal().clone(), EndReason::Revoked));
        let mut gone = key.details.clone();
        gone.generation = self.next_generation();
        self.record_key_event((&gone, &gone), KeyAction::Deleted, Some(EndReason::Revoked), actor, at);
        Ok(key.details)
    }

    pub(super) fn change_tenant(
        &mut self,
        records: &Table,
        change: &TenantChange,
        actor: &Actor,
        at: SystemTime,
    ) -> TenantDetails {
        let before = self.tenant(change.tenant());
        let mut after = before.clone();
        change.apply(&mut after);
        if after == before {
            return after;
        }
        after.generation = self.next_generation();
        self.tenants.insert(after.tenant.clone(), after.clone());
        let of_tenant = |key: &&mut StoredKey| key.details.tenant.as_deref() == Some(&*after.tenant);
        for key in self.keys.values_mut().filter(of_tenant) {
            if before.is_suspended != after.is_suspended && key.details.status != KeyStatus::Revoked {
                let ended = key.set_suspended(after.is_suspended);
                self.notifications.ended.extend(ended.map(|signal| (signal, EndReason::TenantSuspended)));
            }
            key.details.tenant_plan.clone_from(&after.plan);
            key.details.generation = after.generation;
            let plan = key.details.effective_plan().cloned();
            key.principal = Arc::new(Principal::clone(&key.principal).with_plan(plan));
            key.publish(records);
        }
        self.record_tenant_event((&before, &after), change.action(), actor, at);
        after
    }

    // --- Parts of the changes -----------------------------------------------------------------------------------

    fn next_generation(&mut self) -> u64 {
        self.generation = self.generation.saturating_add(1);
        self.generation
    }

    pub(super) fn tenant(&self, tenant: &str) -> TenantDetails {
        self.tenants.get(tenant).cloned().unwrap_or_else(|| TenantDetails::new(tenant))
    }

    fn tenant_plan(&self, key: &KeyDetails) -> Option<Plan> {
        self.tenants.get(key.tenant.as_deref()?)?.plan.clone()
    }

    fn is_suspended(&self, tenant: Option<&str>) -> bool {
        tenant.and_then(|tenant| self.tenants.get(tenant)).is_some_and(|tenant| tenant.is_suspended)
    }

    fn managed(&self, id: &str, actor: &Actor) -> Result<&StoredKey, KeyAdminError> {
        let key = self.keys.get(id).filter(|key| actor.manages(key.details.tenant.as_deref()));
        key.ok_or(KeyAdminError::NotFound)
    }

    fn changeable(&self, id: &str, actor: &Actor) -> Result<&StoredKey, KeyAdminError> {
        let key = self.managed(id, actor)?;
        if key.details.status == KeyStatus::Revoked { Err(KeyAdminError::Revoked) } else { Ok(key) }
    }

    fn replace(&mut self, records: &Table, id: &str, change: impl FnOnce(&mut StoredKey)) {
        if let Some(key) = self.keys.get_mut(id) {
            change(key);
            key.publish(records);
        }
    }

    fn remove(&mut self, id: &str) -> Option<StoredKey> {
        let key = self.keys.remove(id)?;
        self.by_age.remove(&(key.details.created_at, id.into()));
        self.free_name(&key.details);
        Some(key)
    }

    /// Frees the name of a key, unless another key has it: keys that are put here without a check may share one.
    fn free_name(&mut self, details: &KeyDetails) {
        let name = name_of(details);
        if self.names.get(&name) == Some(&details.id) {
            self.names.remove(&name);
        }
    }

    fn record_key_event(
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
        self.history.add(event);
        self.notifications.event =
            Some(StoreEvent::Key { id: after.id.clone(), generation: after.generation, end });
    }

    fn record_tenant_event(
        &mut self,
        (before, after): (&TenantDetails, &TenantDetails),
        action: KeyAction,
        actor: &Actor,
        at: SystemTime,
    ) {
        let mut event = KeyEvent::new(after.generation, at, actor.name(), action);
        event.tenant = Some(after.tenant.clone());
        event.detail = action.tenant_detail(before, after).into();
        self.history.add(event);
        let end = (action == KeyAction::TenantSuspended).then_some(EndReason::TenantSuspended);
        self.notifications.event =
            Some(StoreEvent::Tenant { tenant: after.tenant.clone(), generation: after.generation, end });
    }
}

impl StoredKey {
    fn digests(&self) -> impl Iterator<Item = Digest> + use<> {
        [Some(self.digest), self.former].into_iter().flatten()
    }

    /// Suspends or resumes it with its tenant. Returns the signal to send, if it is suspended.
    fn set_suspended(&mut self, is_suspended: bool) -> Option<EndSignal> {
        if is_suspended {
            self.details.status = KeyStatus::TenantSuspended;
            return Some(self.principal.end_signal().clone());
        }
        self.details.status = KeyStatus::Active;
        // A signal cannot be taken back.
        self.principal = Arc::new(Principal::clone(&self.principal).with_end_signal(EndSignal::new()));
        None
    }

    /// Puts its records into the table, and replaces those that are there.
    fn publish(&self, records: &Table) {
        let record = |principal| KeyRecord::new(principal, self.details.status, self.details.generation);
        records.insert(self.digest, record(Arc::clone(&self.principal)));
        if let Some(former) = self.former {
            let mut principal = Arc::clone(&self.principal);
            // The overlap ends by itself, like an expiry.
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
