//! The application's table of tokens, as Tollgate asks for it. The table may be any, in any database:
//!
//! | port | is asked for | answers by |
//! |---|---|---|
//! | `KeyStore::find` | a token that the cache does not know | the row with its digest |
//! | `KeyStore::subscribe` | news, by the cache | `Listeners` |
//! | `LegacyKeys::candidates` | a token whose digest no row has | the rows with its prefix that have no digest yet |
//! | `LegacyKeys::upgrade` | the token that one of these is of | writing the digest into the row |

use std::{
    error::Error,
    sync::{Arc, Weak},
};

use serde::Serialize;
use sqlx::{
    Row as _, Sqlite, SqlitePool, query,
    query::QueryScalar,
    query_as, query_scalar,
    sqlite::{SqliteArguments, SqliteRow},
};
use tollgate::{
    Answer, Environment, KeyFormat, Plan, Principal, Scopes,
    denial::Unavailable,
    key::{ApiKey, Digest},
    store::{
        EndReason, EndSignals, KeyLookup, KeyRecord, KeyStatus, KeyStore, LegacyKey, LegacyKeys, Listeners,
        StoreEvent, StoreListener,
    },
};

/// Clones are the same table. What another process changes in it, such as the old service, is obeyed when the cache's time is
/// up: after half a minute at most.
#[derive(Clone, Debug)]
pub(crate) struct TokenTable {
    database: SqlitePool,
    handed_out: EndSignals,
    listeners: Arc<Listeners>,
}

/// What the operators see of a token.
#[derive(Debug, Serialize)]
pub(crate) struct Token {
    id: String,
    customer: String,
    prefix: String,
    /// Whether it is found by its digest; the others have not been used since the move.
    is_upgraded: bool,
    is_revoked: bool,
}

impl KeyStore for TokenTable {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        let (table, digests) = (self.clone(), lookup.digests.to_vec());
        Answer::later(async move {
            // There are more than one only while a pepper is changed for another.
            for digest in digests {
                if let Some(record) = table.record(digest).await.map_err(unavailable)? {
                    return Ok(Some(record));
                }
            }
            Ok(None)
        })
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) {
        let told_first = listener.upgrade();
        self.listeners.add(listener);
        // A cache keeps nothing until it hears that news flow. From within a process they always do.
        if let Some(listener) = told_first {
            listener.on_event(&StoreEvent::Connected);
        }
    }
}

impl LegacyKeys for TokenTable {
    fn candidates(&self, prefix: &str) -> Answer<Result<Vec<LegacyKey>, Unavailable>> {
        // Revoked ones as well: once upgraded, they are told from unknown ones in the log, and hashed no more.
        let sql = "SELECT id, hash FROM api_tokens WHERE prefix = ? AND digest IS NULL";
        let (table, asked) = (self.clone(), query_as::<_, (String, String)>(sql).bind(prefix.to_owned()));
        Answer::later(async move {
            let rows = asked.fetch_all(&table.database).await.map_err(unavailable)?;
            Ok(rows.into_iter().map(|(id, hash)| LegacyKey::new(id, hash)).collect())
        })
    }

    fn upgrade(&self, id: &str, digest: Digest) -> Answer<Result<(), Unavailable>> {
        // The hash stays, so that the old service can go on beside this one, or come back.
        let sql =
            "UPDATE api_tokens SET digest = ?, generation = generation + 1 WHERE id = ? RETURNING generation";
        let update = query_scalar(sql).bind(digest.as_bytes().to_vec()).bind(id.to_owned());
        let (table, id) = (self.clone(), id.to_owned());
        Answer::later(async move { table.change(id, update, None).await.map(|_| ()) })
    }
}

impl TokenTable {
    pub(crate) fn new(database: SqlitePool) -> Self {
        Self { database, handed_out: EndSignals::new(), listeners: Arc::default() }
    }

    /// Issues a token of the new kind, which has a digest from the beginning, and no other hash.
    pub(crate) async fn issue(
        &self,
        format: &KeyFormat,
        customer: &str,
        scopes: &str,
    ) -> Result<ApiKey, Box<dyn Error>> {
        let token = format.generate(Environment::Live)?;
        let sql = "INSERT INTO api_tokens (id, customer, plan, scopes, prefix, hash, created_at, digest) \
                   VALUES ('tok_' || lower(hex(randomblob(8))), ?, 'standard', ?, ?, '', CURRENT_TIMESTAMP, ?)";
        let row = query(sql).bind(customer).bind(scopes).bind(token.display_prefix());
        let digest = Digest::of(token.expose_secret());
        // Nobody is told: nobody has asked for it yet.
        row.bind(&digest.as_bytes()[..]).execute(&self.database).await?;
        Ok(token)
    }

    /// Revokes a token: no request that comes after this gets in by it, and streams that it has opened end. `false` if there
    /// is none.
    pub(crate) async fn revoke(&self, id: &str) -> Result<bool, Unavailable> {
        let sql = "UPDATE api_tokens SET revoked_at = coalesce(revoked_at, CURRENT_TIMESTAMP), \
                   generation = generation + 1 WHERE id = ? RETURNING generation";
        self.change(id.to_owned(), query_scalar(sql).bind(id.to_owned()), Some(EndReason::Revoked)).await
    }

    pub(crate) async fn tokens(&self) -> Result<Vec<Token>, Unavailable> {
        let sql = "SELECT id, customer, prefix, digest IS NOT NULL, revoked_at IS NOT NULL FROM api_tokens ORDER BY id";
        let rows = query_as(sql).fetch_all(&self.database).await.map_err(unavailable)?;
        let tokens = rows.into_iter().map(|(id, customer, prefix, is_upgraded, is_revoked)| Token {
            id,
            customer,
            prefix,
            is_upgraded,
            is_revoked,
        });
        Ok(tokens.collect())
    }

    async fn record(&self, digest: Digest) -> Result<Option<KeyRecord>, sqlx::Error> {
        let sql =
            "SELECT id, customer, plan, scopes, revoked_at, generation FROM api_tokens WHERE digest = ?";
        loop {
            // Begun before the database is asked: what is revoked while its row is on the way is not handed out.
            let lookup = self.handed_out.begin();
            let row = query(sql).bind(&digest.as_bytes()[..]).fetch_optional(&self.database).await?;
            let Some(row) = row else { return Ok(None) };
            if let Ok(record) = lookup.finish(to_record(&row)?) {
                return Ok(Some(record));
            }
        }
    }

    /// Makes a change of a token, and tells everybody. `false` if there is no such token.
    async fn change(&self, id: String, update: Update, end: Option<EndReason>) -> Result<bool, Unavailable> {
        let table = self.clone();
        // In a task of its own: a caller who goes away in the middle must not leave a change of which nobody was told.
        let changing = tokio::spawn(async move {
            let mut transaction = table.database.begin().await?;
            let Some(generation) = update.fetch_optional(&mut *transaction).await? else { return Ok(false) };
            // Before anybody is told, since they may look at once.
            transaction.commit().await?;
            let change = StoreEvent::Key { id: id.into(), generation, end };
            table.handed_out.end(&change);
            table.listeners.notify(&change);
            Ok(true)
        });
        match changing.await {
            Ok(changed) => changed.map_err(unavailable),
            Err(_) => Err(Unavailable::new("the change of a token was broken off")),
        }
    }
}

/// A change of a row, which gives its new generation.
type Update = QueryScalar<'static, Sqlite, u64, SqliteArguments>;

fn to_record(row: &SqliteRow) -> Result<KeyRecord, sqlx::Error> {
    let text = |column| row.try_get::<String, _>(column);
    // Comma-separated, as the old service has always written them.
    let scopes = Scopes::new(text("scopes")?.split(',').map(str::to_owned));
    let principal = Principal::new(text("id")?)
        .with_tenant(text("customer")?)
        .with_plan(Plan::active(text("plan")?))
        .with_scopes(scopes.map_err(|error| sqlx::Error::Decode(error.into()))?);
    let is_revoked = row.try_get::<Option<String>, _>("revoked_at")?.is_some();
    let status = if is_revoked { KeyStatus::Revoked } else { KeyStatus::Active };
    Ok(KeyRecord::new(Arc::new(principal), status, row.try_get("generation")?))
}

/// Whatever fails lets nobody in: the caller is answered 503.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn unavailable(error: sqlx::Error) -> Unavailable {
    Unavailable::new(format!("the table of tokens: {error}"))
}
