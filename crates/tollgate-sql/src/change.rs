//! Changes of keys and tenants. Each is one transaction: the change, its event in the history, and the news of it.
//!
//! A generation is the number of an event. It rises from change to change of one key and of its tenant, since it is taken under
//! a lock: of the whole database in SQLite; in PostgreSQL of the tenant, which whoever changes keys shares and whoever
//! suspends the tenant has alone, and then of the key.

mod steps;

use tollgate_core::{
    key::Digest,
    manage::{Actor, Command, KeyAction, KeyAdminError, KeyChange, KeyDetails, TenantChange},
    store::{EndReason, KeyStatus},
    verify::Plan,
};

use self::steps::refuse_unstorable;
use crate::{
    database::{Connection, Done},
    events::Event,
    instant::to_micros,
    keys::Shared,
    record::{changeable, lasting, truncate},
};

/// Makes a change, and tells of it before anybody is answered.
pub(crate) async fn change(
    shared: &Shared,
    command: Command<KeyChange>,
) -> Result<KeyDetails, KeyAdminError> {
    let channel = shared.channel.clone();
    let limit = shared.settings.admin_deadline;
    let made = shared.database.transact(limit, |connection| {
        let Command { change, actor, at, .. } = command;
        let work = Work { connection, channel, at: to_micros(at), actor };
        Box::pin(work.key(change))
    });
    let (details, events) = made.await?;
    tell(shared, events);
    Ok(details)
}

/// Suspends or resumes a tenant, and tells of it before anybody is answered.
pub(crate) async fn change_tenant(
    shared: &Shared,
    command: Command<TenantChange>,
) -> Result<(), KeyAdminError> {
    let channel = shared.channel.clone();
    let limit = shared.settings.admin_deadline;
    let made = shared.database.transact(limit, |connection| {
        let Command { change, actor, at, .. } = command;
        let work = Work { connection, channel, at: to_micros(at), actor };
        Box::pin(work.tenant(change))
    });
    tell(shared, made.await?);
    Ok(())
}

fn tell(shared: &Shared, events: Option<Event>) {
    if let Some(change) = events.and_then(|event| event.to_store_event()) {
        shared.events.notify_first(&change);
    }
}

/// A key as it is after a change, and what to tell of that; nothing, if nothing has changed.
type Made = (KeyDetails, Option<Event>);

/// A transaction that is under way.
struct Work<'c> {
    connection: &'c mut Connection,
    channel: Option<String>,
    at: i64,
    actor: Actor,
}

impl Work<'_> {
    async fn key(mut self, change: KeyChange) -> Result<Done<Made>, KeyAdminError> {
        refuse_unstorable([Some(self.actor.name())])?;
        let made = match change {
            KeyChange::Issue { details, digest } => self.issue(*details, &digest).await?,
            KeyChange::Update { id, update } => {
                let before = self.good_key(&id).await?;
                let mut after = before.clone();
                update.apply(&mut after);
                truncate(&mut after);
                self.update(&before, &after).await?
            }
            KeyChange::Rotate { id, digest, display_prefix, former_until } => {
                let mut key = self.good_key(&id).await?;
                key.display_prefix = display_prefix;
                key.former_until = former_until;
                truncate(&mut key);
                self.rotate(key, &digest).await?
            }
            KeyChange::Revoke { id } => self.revoke(&id).await?,
            KeyChange::Delete { id } => self.delete(&id).await?,
            _ => {
                return Err(KeyAdminError::Invalid(
                    "this store does not know how: update tollgate-sql".into(),
                ));
            }
        };
        Ok(if made.1.is_some() { Done::Commit(made) } else { Done::RollBack(made) })
    }

    async fn issue(&mut self, mut details: KeyDetails, digest: &Digest) -> Result<Made, KeyAdminError> {
        if !self.actor.manages(details.tenant.as_deref()) {
            return Err(KeyAdminError::NotPermitted);
        }
        truncate(&mut details);
        details.former_until = None;
        let plan = details.plan.as_ref().map(Plan::tier);
        refuse_unstorable([Some(&*details.id), Some(&details.name), Some(&details.display_prefix)])?;
        refuse_unstorable([details.tenant.as_deref(), details.role.as_deref(), plan])?;
        if let Some(tenant) = &details.tenant {
            self.make_tenant(tenant).await?;
            self.share_tenant(tenant).await?;
        }
        let sql = "INSERT INTO tollgate_keys (id, name, display_prefix, scopes, plan, plan_is_active, quotas, metadata, \
                   expires_at, former_until, tenant, environment, role, created_at, generation, ended) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0, 0) ON CONFLICT DO NOTHING";
        let values = changeable(&details).into_iter().chain(lasting(&details));
        if self.connection.execute(sql, values).await? == 0 {
            let sql = "SELECT id FROM tollgate_keys WHERE id = $1";
            let is_id_taken = self.connection.row(sql, [(&*details.id).into()]).await?.is_some();
            let is_taken = is_id_taken || self.is_digest_taken(digest).await?;
            return Err(if is_taken { KeyAdminError::KeyTaken } else { KeyAdminError::NameTaken });
        }
        self.add_digest(&details.id, digest).await?;
        // Whatever was known of a key of this identifier that was deleted is older.
        let event = self.note_key(KeyAction::Issued, (&details, &details), None).await?;
        self.stamp(&details.id, event.generation, true).await?;
        Ok((self.read(&details.id).await?, Some(event)))
    }

    async fn update(&mut self, before: &KeyDetails, after: &KeyDetails) -> Result<Made, KeyAdminError> {
        if before == after {
            return Ok((before.clone(), None));
        }
        refuse_unstorable([Some(&*after.name), after.plan.as_ref().map(Plan::tier)])?;
        self.write(after).await?;
        let event = self.note_key(KeyAction::Updated, (before, after), None).await?;
        self.stamp(&after.id, event.generation, false).await?;
        Ok((self.read(&after.id).await?, Some(event)))
    }

    async fn rotate(&mut self, key: KeyDetails, digest: &Digest) -> Result<Made, KeyAdminError> {
        refuse_unstorable([Some(&*key.display_prefix)])?;
        if self.is_digest_taken(digest).await? {
            return Err(KeyAdminError::KeyTaken);
        }
        let sql = "SELECT key_id FROM tollgate_digests WHERE key_id = $1 AND valid_until > $2";
        let had_former = self.connection.row(sql, [(&*key.id).into(), self.at.into()]).await?.is_some();
        let former_until = key.former_until.map(to_micros);
        // Nobody knows by which of two secrets a principal was proved that somebody holds: if one of them ends, it ends.
        let goes_on = former_until.is_some_and(|until| until > self.at) && !had_former;
        let ended = (!goes_on).then_some(EndReason::Revoked);

        let sql =
            "DELETE FROM tollgate_digests WHERE key_id = $1 AND (valid_until IS NOT NULL OR $2 IS NULL)";
        self.connection.execute(sql, [(&*key.id).into(), former_until.into()]).await?;
        let sql = "UPDATE tollgate_digests SET valid_until = $2 WHERE key_id = $1";
        self.connection.execute(sql, [(&*key.id).into(), former_until.into()]).await?;
        self.add_digest(&key.id, digest).await?;
        self.write(&key).await?;
        let event = self.note_key(KeyAction::Rotated, (&key, &key), ended).await?;
        self.stamp(&key.id, event.generation, ended.is_some()).await?;
        Ok((self.read(&key.id).await?, Some(event)))
    }

    async fn revoke(&mut self, id: &str) -> Result<Made, KeyAdminError> {
        let key = self.key_of(id).await?;
        if key.status == KeyStatus::Revoked {
            return Ok((key, None));
        }
        let sql = "UPDATE tollgate_keys SET revoked_at = $2, former_until = NULL WHERE id = $1";
        self.connection.execute(sql, [id.into(), self.at.into()]).await?;
        // Also by its former secret it is known as revoked from now on.
        let sql =
            "UPDATE tollgate_digests SET valid_until = NULL WHERE key_id = $1 AND valid_until IS NOT NULL";
        self.connection.execute(sql, [id.into()]).await?;
        let event = self.note_key(KeyAction::Revoked, (&key, &key), Some(EndReason::Revoked)).await?;
        self.stamp(id, event.generation, true).await?;
        Ok((self.read(id).await?, Some(event)))
    }

    async fn delete(&mut self, id: &str) -> Result<Made, KeyAdminError> {
        let key = self.key_of(id).await?;
        // Its digests and its usage go with it.
        self.connection.execute("DELETE FROM tollgate_keys WHERE id = $1", [id.into()]).await?;
        let event = self.note_key(KeyAction::Deleted, (&key, &key), Some(EndReason::Revoked)).await?;
        Ok((key, Some(event)))
    }

    async fn tenant(mut self, change: TenantChange) -> Result<Done<Option<Event>>, KeyAdminError> {
        if self.actor.tenant().is_some() {
            return Err(KeyAdminError::NotPermitted);
        }
        let tenant = change.tenant();
        refuse_unstorable([Some(tenant), Some(self.actor.name())])?;
        self.make_tenant(tenant).await?;
        let sql = "SELECT is_suspended FROM tollgate_tenants WHERE tenant = $1";
        let sql = self.connection.locking(sql, "FOR UPDATE");
        let row = self.connection.row(sql, [tenant.into()]).await?;
        let was_suspended = row.map_or(Ok(0), |row| row.number(0))? == 1;
        if was_suspended == change.suspends() {
            return Ok(Done::RollBack(None));
        }
        let (action, ended) = if change.suspends() {
            (KeyAction::TenantSuspended, Some(EndReason::TenantSuspended))
        } else {
            (KeyAction::TenantResumed, None)
        };
        let event = self.note(action, None, Some(tenant), ended, String::new()).await?;
        let sql = "UPDATE tollgate_tenants SET is_suspended = $2, generation = $3, \
                   ended = CASE $2 WHEN 1 THEN $3 ELSE ended END WHERE tenant = $1";
        let values = [tenant.into(), i64::from(change.suspends()).into(), event.generation.into()];
        self.connection.execute(sql, values).await?;
        Ok(Done::Commit(Some(event)))
    }
}
