//! The steps that changes are made of.

use tollgate_core::{
    key::Digest,
    manage::{KeyAction, KeyAdminError, KeyDetails},
    store::{EndReason, KeyStatus},
};

use super::Work;
use crate::{
    database::Value,
    events::{Event, reason_word},
    fault::Fault,
    record::{changeable, digest_columns, read_listed, select_listed},
};

impl Work<'_> {
    /// A key that is not revoked, locked.
    pub(super) async fn good_key(&mut self, id: &str) -> Result<KeyDetails, KeyAdminError> {
        let key = self.key_of(id).await?;
        if key.status == KeyStatus::Revoked { Err(KeyAdminError::Revoked) } else { Ok(key) }
    }

    /// A key that the actor manages, locked. Its tenant is locked first, as by whoever issues one.
    pub(super) async fn key_of(&mut self, id: &str) -> Result<KeyDetails, KeyAdminError> {
        refuse_unstorable([Some(id)]).map_err(|_| KeyAdminError::NotFound)?;
        let tenant = self.share_tenant_of_key(id).await?;
        let sql =
            self.connection.locking(concat!(select_listed!(), " WHERE k.id = $1"), "FOR NO KEY UPDATE OF k");
        let row = self.connection.row(sql, [id.into()]).await?.ok_or(KeyAdminError::NotFound)?;
        let key = read_listed(&row)?;
        // Another tenant: while the lock was waited for, the key was deleted and its identifier given to somebody else.
        if tenant != key.tenant || !self.actor.manages(key.tenant.as_deref()) {
            return Err(KeyAdminError::NotFound);
        }
        Ok(key)
    }

    /// A key as it is now.
    pub(super) async fn read(&mut self, id: &str) -> Result<KeyDetails, Fault> {
        let sql = concat!(select_listed!(), " WHERE k.id = $1");
        let row =
            self.connection.row(sql, [id.into()]).await?.ok_or(Fault::Unreadable("what became of a key"))?;
        read_listed(&row)
    }

    /// Makes the row of a tenant, if it has none.
    pub(super) async fn make_tenant(&mut self, tenant: &str) -> Result<(), Fault> {
        let sql = "INSERT INTO tollgate_tenants (tenant, is_suspended, generation, ended) VALUES ($1, 0, 0, 0) \
                   ON CONFLICT DO NOTHING";
        self.connection.execute(sql, [tenant.into()]).await?;
        Ok(())
    }

    /// Keeps a tenant from being suspended or resumed until this transaction has ended.
    pub(super) async fn share_tenant(&mut self, tenant: &str) -> Result<(), Fault> {
        let sql = "SELECT tenant FROM tollgate_tenants WHERE tenant = $1";
        let sql = self.connection.locking(sql, "FOR SHARE");
        self.connection.row(sql, [tenant.into()]).await?;
        Ok(())
    }

    /// The same for the tenant of a key, if the key and a tenant are there.
    async fn share_tenant_of_key(&mut self, id: &str) -> Result<Option<Box<str>>, Fault> {
        let sql = "SELECT t.tenant FROM tollgate_keys k JOIN tollgate_tenants t ON t.tenant = k.tenant WHERE k.id = $1";
        let sql = self.connection.locking(sql, "FOR SHARE OF t");
        self.connection.row(sql, [id.into()]).await?.map(|row| row.text(0)).transpose()
    }

    pub(super) async fn is_digest_taken(&mut self, digest: &Digest) -> Result<bool, Fault> {
        let sql = "SELECT key_id FROM tollgate_digests WHERE digest = $1 AND pepper = $2";
        Ok(self.connection.row(sql, digest_columns(digest)).await?.is_some())
    }

    pub(super) async fn add_digest(&mut self, id: &str, digest: &Digest) -> Result<(), KeyAdminError> {
        let sql = "INSERT INTO tollgate_digests (digest, pepper, key_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        let values = digest_columns(digest).into_iter().chain([id.into()]);
        match self.connection.execute(sql, values).await? {
            0 => Err(KeyAdminError::KeyTaken),
            _ => Ok(()),
        }
    }

    /// Writes all of a key that may be changed.
    pub(super) async fn write(&mut self, key: &KeyDetails) -> Result<(), KeyAdminError> {
        let sql = "UPDATE tollgate_keys SET name = $2, display_prefix = $3, scopes = $4, plan = $5, plan_is_active = $6, \
                   quotas = $7, metadata = $8, expires_at = $9, former_until = $10 WHERE id = $1";
        match self.connection.execute(sql, changeable(key)).await {
            // Nothing else that is written here is no other key's.
            Err(fault) if fault.is_taken() => Err(KeyAdminError::NameTaken),
            written => Ok(written.map(drop)?),
        }
    }

    /// Gives a key the generation of what happened to it.
    pub(super) async fn stamp(&mut self, id: &str, generation: i64, has_ended: bool) -> Result<(), Fault> {
        let sql = "UPDATE tollgate_keys SET generation = $2, ended = CASE $3 WHEN 1 THEN $2 ELSE ended END WHERE id = $1";
        let values = [id.into(), generation.into(), i64::from(has_ended).into()];
        self.connection.execute(sql, values).await?;
        Ok(())
    }

    pub(super) async fn note_key(
        &mut self,
        action: KeyAction,
        (before, after): (&KeyDetails, &KeyDetails),
        ended: Option<EndReason>,
    ) -> Result<Event, Fault> {
        let detail = action.detail(before, after);
        self.note(action, Some(&after.id), after.tenant.as_deref(), ended, detail).await
    }

    /// Puts what happens into the history and among the news.
    pub(super) async fn note(
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
        let row = self.connection.row(sql, values).await?.ok_or(Fault::Unreadable("the history"))?;
        let event = Event {
            generation: row.number(0)?,
            key: key.map(Into::into),
            tenant: tenant.map(Into::into),
            ended,
        };
        if let Some(channel) = &self.channel {
            let values = [(&**channel).into(), event.to_payload().into()];
            self.connection.execute("SELECT pg_notify($1, $2)", values).await?;
        }
        Ok(event)
    }
}

/// Refuses what PostgreSQL cannot store and SQLite stores in part.
pub(super) fn refuse_unstorable<'t>(
    texts: impl IntoIterator<Item = Option<&'t str>>,
) -> Result<(), KeyAdminError> {
    if texts.into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(KeyAdminError::Invalid("texts hold no NUL character: leave it out".into()));
    }
    Ok(())
}
