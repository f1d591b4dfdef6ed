//! Changes of keys and tenants. Each is one transaction: the change, its entry in the history, and its notification.
//!
//! The number of the entry is the generation of the change. Generations rise within a key and within its tenant, since each is
//! assigned under a lock. SQLite locks the whole database. PostgreSQL locks the row of the tenant first: changes of keys share
//! that lock, and changes of the tenant hold it exclusively. Then it locks the row of the key.

mod steps;

use tollgate_core::{
    key::Digest,
    manage::{Command, KeyAction, KeyAdminError, KeyChange, KeyDetails, TenantChange, TenantDetails},
    store::{EndReason, KeyStatus},
    verify::Plan,
};

use self::steps::{Work, refuse_nul};
use crate::{
    database::{Done, Urgency},
    event::Event,
    instant::to_micros,
    record::{changeable, generation, lasting, plan_columns, truncate},
    shared::Shared,
    tenant::read_tenant,
};

/// Changes a key, and notifies listeners before it returns.
pub(crate) async fn change(
    shared: &Shared,
    command: Command<KeyChange>,
) -> Result<KeyDetails, KeyAdminError> {
    let channel = shared.channel.clone();
    let limit = shared.settings.admin_deadline;
    let changed = shared.database.transact(limit, Urgency::Now, |connection| {
        let Command { change, actor, at, .. } = command;
        let work = Work { connection, channel, at: to_micros(at), actor };
        Box::pin(work.change_key(change))
    });
    let (details, event) = changed.await?;
    notify(shared, event);
    Ok(details)
}

/// Changes a tenant, and notifies listeners before it returns.
pub(crate) async fn change_tenant(
    shared: &Shared,
    command: Command<TenantChange>,
) -> Result<TenantDetails, KeyAdminError> {
    let channel = shared.channel.clone();
    let limit = shared.settings.admin_deadline;
    let changed = shared.database.transact(limit, Urgency::Now, |connection| {
        let Command { change, actor, at, .. } = command;
        let work = Work { connection, channel, at: to_micros(at), actor };
        Box::pin(work.change_tenant(change))
    });
    let (details, event) = changed.await?;
    notify(shared, event);
    Ok(details)
}

fn notify(shared: &Shared, event: Option<Event>) {
    if let Some(event) = event.and_then(|event| event.to_store_event()) {
        shared.notifier.publish_own(&event);
    }
}

/// A key after a change, and the event of the change; `None` if nothing changed.
type Changed = (KeyDetails, Option<Event>);

impl Work<'_> {
    async fn change_key(mut self, change: KeyChange) -> Result<Done<Changed>, KeyAdminError> {
        refuse_nul([Some(self.actor.name())])?;
        let changed = match change {
            KeyChange::Issue { details, digest } => self.issue(*details, &digest).await?,
            KeyChange::Update { id, update } => {
                let before = self.unrevoked_key(&id).await?;
                let mut after = before.clone();
                update.apply(&mut after);
                truncate(&mut after);
                self.update(&before, &after).await?
            }
            KeyChange::Rotate { id, digest, display_prefix, former_until } => {
                let mut key = self.unrevoked_key(&id).await?;
                key.display_prefix = display_prefix;
                key.former_until = former_until;
                truncate(&mut key);
                self.rotate(key, &digest).await?
            }
            KeyChange::Revoke { id } => self.revoke(&id).await?,
            KeyChange::Delete { id } => self.delete(&id).await?,
            _ => {
                return Err(KeyAdminError::Invalid(
                    "this store does not support the change: upgrade tollgate-sql".into(),
                ));
            }
        };
        Ok(if changed.1.is_some() { Done::Commit(changed) } else { Done::RollBack(changed) })
    }

    async fn issue(&mut self, mut details: KeyDetails, digest: &Digest) -> Result<Changed, KeyAdminError> {
        if !self.actor.manages(details.tenant.as_deref()) {
            return Err(KeyAdminError::NotPermitted);
        }
        truncate(&mut details);
        details.former_until = None;
        let plan = details.plan.as_ref().map(Plan::tier);
        refuse_nul([Some(&*details.id), Some(&details.name), Some(&details.display_prefix)])?;
        refuse_nul([details.tenant.as_deref(), details.role.as_deref(), plan])?;
        if let Some(tenant) = &details.tenant {
            self.insert_tenant(tenant).await?;
            self.lock_tenant_shared(tenant).await?;
        }
        let sql = "INSERT INTO tollgate_keys (id, name, display_prefix, scopes, plan, plan_is_active, quotas, metadata, \
                   expires_at, former_until, allowed_networks, tenant, environment, role, created_at, generation, ended) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 0, 0) ON CONFLICT DO NOTHING";
        let values = changeable(&details).into_iter().chain(lasting(&details));
        if self.connection.execute(sql, values).await? == 0 {
            let sql = "SELECT id FROM tollgate_keys WHERE id = $1";
            let is_id_taken = self.connection.row(sql, [(&*details.id).into()]).await?.is_some();
            let is_taken = is_id_taken || self.is_digest_taken(digest).await?;
            return Err(if is_taken { KeyAdminError::KeyTaken } else { KeyAdminError::NameTaken });
        }
        self.insert_digest(&details.id, digest).await?;
        let event = self.record_key(KeyAction::Issued, (&details, &details), None).await?;
        // Principals of a deleted key with the same identifier have ended.
        self.set_generation(&details.id, event.generation, true).await?;
        Ok((self.read(&details.id).await?, Some(event)))
    }

    async fn update(&mut self, before: &KeyDetails, after: &KeyDetails) -> Result<Changed, KeyAdminError> {
        if before == after {
            return Ok((before.clone(), None));
        }
        refuse_nul([Some(&*after.name), after.plan.as_ref().map(Plan::tier)])?;
        self.write(after).await?;
        let event = self.record_key(KeyAction::Updated, (before, after), None).await?;
        self.set_generation(&after.id, event.generation, false).await?;
        Ok((self.read(&after.id).await?, Some(event)))
    }

    async fn rotate(&mut self, key: KeyDetails, digest: &Digest) -> Result<Changed, KeyAdminError> {
        refuse_nul([Some(&*key.display_prefix)])?;
        if self.is_digest_taken(digest).await? {
            return Err(KeyAdminError::KeyTaken);
        }
        let sql = "SELECT key_id FROM tollgate_digests WHERE key_id = $1 AND valid_until > $2";
        let had_former = self.connection.row(sql, [(&*key.id).into(), self.at.into()]).await?.is_some();
        let former_until = key.former_until.map(to_micros);
        // A principal does not record which of two valid secrets it was verified with. So if one of them ends, all
        // principals of the key end.
        let stay_valid = former_until.is_some_and(|until| until > self.at) && !had_former;
        let ended = (!stay_valid).then_some(EndReason::Revoked);

        let sql =
            "DELETE FROM tollgate_digests WHERE key_id = $1 AND (valid_until IS NOT NULL OR $2 IS NULL)";
        self.connection.execute(sql, [(&*key.id).into(), former_until.into()]).await?;
        let sql = "UPDATE tollgate_digests SET valid_until = $2 WHERE key_id = $1";
        self.connection.execute(sql, [(&*key.id).into(), former_until.into()]).await?;
        self.insert_digest(&key.id, digest).await?;
        self.write(&key).await?;
        let event = self.record_key(KeyAction::Rotated, (&key, &key), ended).await?;
        self.set_generation(&key.id, event.generation, ended.is_some()).await?;
        Ok((self.read(&key.id).await?, Some(event)))
    }

    async fn revoke(&mut self, id: &str) -> Result<Changed, KeyAdminError> {
        let key = self.locked_key(id).await?;
        if key.status == KeyStatus::Revoked {
            return Ok((key, None));
        }
        let sql = "UPDATE tollgate_keys SET revoked_at = $2, former_until = NULL WHERE id = $1";
        self.connection.execute(sql, [id.into(), self.at.into()]).await?;
        // The former secret is refused as revoked, not as expired or unknown.
        let sql =
            "UPDATE tollgate_digests SET valid_until = NULL WHERE key_id = $1 AND valid_until IS NOT NULL";
        self.connection.execute(sql, [id.into()]).await?;
        let event = self.record_key(KeyAction::Revoked, (&key, &key), Some(EndReason::Revoked)).await?;
        self.set_generation(id, event.generation, true).await?;
        Ok((self.read(id).await?, Some(event)))
    }

    async fn delete(&mut self, id: &str) -> Result<Changed, KeyAdminError> {
        let key = self.locked_key(id).await?;
        // Foreign keys delete its digests and its usage.
        self.connection.execute("DELETE FROM tollgate_keys WHERE id = $1", [id.into()]).await?;
        let event = self.record_key(KeyAction::Deleted, (&key, &key), Some(EndReason::Revoked)).await?;
        Ok((key, Some(event)))
    }

    async fn change_tenant(
        mut self,
        change: TenantChange,
    ) -> Result<Done<(TenantDetails, Option<Event>)>, KeyAdminError> {
        if self.actor.tenant().is_some() {
            return Err(KeyAdminError::NotPermitted);
        }
        let tenant = change.tenant();
        refuse_nul([Some(tenant), Some(self.actor.name())])?;
        self.insert_tenant(tenant).await?;
        let before = read_tenant(self.connection, tenant, "FOR UPDATE").await?;
        let mut after = before.clone();
        change.apply(&mut after);
        refuse_nul([after.plan.as_ref().map(Plan::tier)])?;
        if after == before {
            return Ok(Done::RollBack((after, None)));
        }
        let (action, is_suspension) = (change.action(), after.is_suspended && !before.is_suspended);
        let ended = is_suspension.then_some(EndReason::TenantSuspended);
        let detail = action.tenant_detail(&before, &after);
        let event = self.record(action, None, Some(tenant), ended, detail).await?;
        after.generation = generation(event.generation);
        let sql = "UPDATE tollgate_tenants SET is_suspended = $2, generation = $3, \
                   ended = CASE $4 WHEN 1 THEN $3 ELSE ended END, plan = $5, plan_is_active = $6 WHERE tenant = $1";
        let [tier, plan_is_active] = plan_columns(after.plan.as_ref());
        let values = [
            tenant.into(),
            i64::from(after.is_suspended).into(),
            event.generation.into(),
            i64::from(is_suspension).into(),
            tier,
            plan_is_active,
        ];
        self.connection.execute(sql, values).await?;
        Ok(Done::Commit((after, Some(event))))
    }
}
