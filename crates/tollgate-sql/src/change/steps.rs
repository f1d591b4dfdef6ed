//! The steps that changes consist of.

use tollgate_core::{
    key::Digest,
    manage::{Actor, KeyAction, KeyAdminError, KeyDetails},
    store::{EndReason, KeyStatus},
};

use crate::{
    database::{Connection, Value},
    event::{Event, reason_word},
    fault::Fault,
    message::payload_of_change,
    record::{changeable, digest_columns, read_listed, select_listed},
};

/// A change in its transaction.
pub(super) struct Work<'c> {
    pub(super) connection: &'c mut Connection,
    pub(super) channel: Option<String>,
    pub(super) at: i64,
    pub(super) actor: Actor,
}

impl Work<'_> {
    /// Locks and reads a key that the actor manages and that is not revoked.
    pub(super) async fn unrevoked_key(&mut self, id: &str) -> Result<KeyDetails, KeyAdminError> {
        let key = self.locked_key(id).await?;
        if key.status == KeyStatus::Revoked { Err(KeyAdminError::Revoked) } else { Ok(key) }
    }

    /// Locks and reads a key that the actor manages. Locks its tenant first, as `issue` does.
    pub(super) async fn locked_key(&mut self, id: &str) -> Result<KeyDetails, KeyAdminError> {
        refuse_nul([Some(id)]).map_err(|_| KeyAdminError::NotFound)?;
        let tenant = self.lock_tenant_of_key_shared(id).await?;
        let sql =
            self.connection.locking(concat!(select_listed!(), " WHERE k.id = $1"), "FOR NO KEY UPDATE OF k");
        let row = self.connection.row(sql, [id.into()]).await?.ok_or(KeyAdminError::NotFound)?;
        let key = read_listed(&row)?;
        // The tenant differs if, during the wait for the lock, the key was deleted and its identifier used again.
        if tenant != key.tenant || !self.actor.manages(key.tenant.as_deref()) {
            return Err(KeyAdminError::NotFound);
        }
        Ok(key)
    }

    /// Reads a key after its change.
    pub(super) async fn read(&mut self, id: &str) -> Result<KeyDetails, Fault> {
        let sql = concat!(select_listed!(), " WHERE k.id = $1");
        let row = self.connection.row(sql, [id.into()]).await?.ok_or(Fault::Unreadable("a changed key"))?;
        read_listed(&row)
    }

    /// Inserts the row of a tenant, unless it exists.
    pub(super) async fn insert_tenant(&mut self, tenant: &str) -> Result<(), Fault> {
        let sql = "INSERT INTO tollgate_tenants (tenant, is_suspended, generation, ended) VALUES ($1, 0, 0, 0) \
                   ON CONFLICT DO NOTHING";
        self.connection.execute(sql, [tenant.into()]).await?;
        Ok(())
    }

    /// Prevents a change of the tenant until the end of this transaction.
    pub(super) async fn lock_tenant_shared(&mut self, tenant: &str) -> Result<(), Fault> {
        let sql = "SELECT tenant FROM tollgate_tenants WHERE tenant = $1";
        let sql = self.connection.locking(sql, "FOR SHARE");
        self.connection.row(sql, [tenant.into()]).await?;
        Ok(())
    }

    /// The same for the tenant of a key, if the key exists and has a tenant.
    async fn lock_tenant_of_key_shared(&mut self, id: &str) -> Result<Option<Box<str>>, Fault> {
        let sql = "SELECT t.tenant FROM tollgate_keys k JOIN tollgate_tenants t ON t.tenant = k.tenant WHERE k.id = $1";
        let sql = self.connection.locking(sql, "FOR SHARE OF t");
        self.connection.row(sql, [id.into()]).await?.map(|row| row.text(0)).transpose()
    }

    pub(super) async fn is_digest_taken(&mut self, digest: &Digest) -> Result<bool, Fault> {
        let sql = "SELECT key_id FROM tollgate_digests WHERE digest = $1 AND pepper = $2";
        Ok(self.connection.row(sql, digest_columns(digest)).await?.is_some())
    }

    pub(super) async fn insert_digest(&mut self, id: &str, digest: &Digest) -> Result<(), KeyAdminError> {
        let sql = "INSERT INTO tollgate_digests (digest, pepper, key_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        let values = digest_columns(digest).into_iter().chain([id.into()]);
        match self.connection.execute(sql, values).await? {
            0 => Err(KeyAdminError::KeyTaken),
            _ => Ok(()),
        }
    }

    /// Writes the columns of a key that can change.
    pub(super) async fn write(&mut self, key: &KeyDetails) -> Result<(), KeyAdminError> {
        let sql = "UPDATE tollgate_keys SET name = $2, display_prefix = $3, scopes = $4, plan = $5, plan_is_active = $6, \
                   quotas = $7, metadata = $8, expires_at = $9, former_until = $10, allowed_networks = $11 WHERE id = $1";
        match self.connection.execute(sql, changeable(key)).await {
            // The name is the only one of these columns that must be unique.
            Err(fault) if fault.is_taken() => Err(KeyAdminError::NameTaken),
            written => Ok(written.map(drop)?),
        }
    }

    /// Sets the generation of a key to that of its latest change.
    pub(super) async fn set_generation(
        &mut self,
        id: &str,
        generation: i64,
        has_ended: bool,
    ) -> Result<(), Fault> {
        let sql = "UPDATE tollgate_keys SET generation = $2, ended = CASE $3 WHEN 1 THEN $2 ELSE ended END WHERE id = $1";
        let values = [id.into(), generation.into(), i64::from(has_ended).into()];
        self.connection.execute(sql, values).await?;
        Ok(())
    }

    /// Records a change of a key in the history.
    pub(super) async fn record_key(
        &mut self,
        action: KeyAction,
        (before, after): (&KeyDetails, &KeyDetails),
        ended: Option<EndReason>,
    ) -> Result<Event, Fault> {
        let detail = action.detail(before, after);
        self.record(action, Some(&after.id), after.tenant.as_deref(), ended, detail).await
    }

    /// Records a change in the history. PostgreSQL notifies other processes when the transaction commits.
    pub(super) async fn record(
        &mut self,
        action: KeyAction,
        key: Option<&str>,
        tenant: Option<&str>,
        ended: Option<EndReason>,
        detail: String,
    ) -> Result<Event, Fault> {
        let sql = "INSERT INTO tollgate_history (at, operator, action, key_id, tenant, ended, detail) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING generation";
        let values: [Value; 7] = [
            self.at.into(),
            self.actor.name().into(),
            action.as_str().into(),
            key.into(),
            tenant.into(),
            ended.map(reason_word).into(),
            detail.into(),
        ];
        let row =
            self.connection.row(sql, values).await?.ok_or(Fault::Unreadable("a new entry of the history"))?;
        let event = Event {
            generation: row.number(0)?,
            key: key.map(Into::into),
            tenant: tenant.map(Into::into),
            ended,
        };
        if let Some(channel) = &self.channel {
            let values = [(&**channel).into(), payload_of_change(event.generation).into()];
            self.connection.execute("SELECT pg_notify($1, $2)", values).await?;
        }
        Ok(event)
    }
}

/// Refuses texts that PostgreSQL cannot store and that SQLite truncates.
pub(super) fn refuse_nul<'t>(texts: impl IntoIterator<Item = Option<&'t str>>) -> Result<(), KeyAdminError> {
    if texts.into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(KeyAdminError::Invalid("a text contains a NUL character: remove it".into()));
    }
    Ok(())
}
