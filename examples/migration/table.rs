//! The application's table of tokens as a key store. Any table in any database will do:
//!
//! | method | called | does |
//! |---|---|---|
//! | `KeyStore::find` | for a token that is not in the cache | finds the row by the token's digest |
//! | `KeyStore::subscribe` | once, by the cache | adds the cache to the `Listeners` |
//! | `LegacyKeys::candidates` | for a token whose digest is in no row | finds the rows with its prefix and without a digest |
//! | `LegacyKeys::upgrade` | when the token matches the hash of a candidate | writes the digest into the row |

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
        StoreEvent, StoreListener, Subscription,
    },
};

/// Clones share one table. A change by another process, such as the old service, takes effect when the cache entry expires:
/// after at most 30 seconds.
#[derive(Clone, Debug)]
pub(crate) struct TokenTable {
    database: SqlitePool,
    end_signals: EndSignals,
    listeners: Arc<Listeners>,
}

/// A token as operators see it.
#[derive(Debug, Serialize)]
pub(crate) struct Token {
    id: String,
    customer: String,
    prefix: String,
    /// Whether the row has a digest. A token gets one when it is first used after the migration.
    is_upgraded: bool,
    is_revoked: bool,
}

impl KeyStore for TokenTable {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        let (table, digests) = (self.clone(), lookup.digests.to_vec());
        Answer::later(async move {
            // There is more than one digest only while a pepper is rotated.
            for digest in digests {
                if let Some(record) = table.record(digest).await.map_err(unavailable)? {
                    return Ok(Some(record));
                }
            }
            Ok(None)
        })
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        self.listeners.subscribe(listener)
    }
}

impl LegacyKeys for TokenTable {
    fn candidates(&self, prefix: &str) -> Answer<Result<Vec<LegacyKey>, Unavailable>> {
        // Includes revoked tokens: once upgraded, the log shows them as revoked, and they cost no more slow hashes.
        let sql = "SELECT id, hash FROM api_tokens WHERE prefix = ? AND digest IS NULL";
        let (table, asked) = (self.clone(), query_as::<_, (String, String)>(sql).bind(prefix.to_owned()));
        Answer::later(async move {
            let rows = asked.fetch_all(&table.database).await.map_err(unavailable)?;
            Ok(rows.into_iter().map(|(id, hash)| LegacyKey::new(id, hash)).collect())
        })
    }

    fn upgrade(&self, id: &str, digest: Digest) -> Answer<Result<(), Unavailable>> {
        // The hash stays, so that the old service can run beside this one, or be restored.
        let sql =
            "UPDATE api_tokens SET digest = ?, generation = generation + 1 WHERE id = ? RETURNING generation";
        let update = query_scalar(sql).bind(digest.as_bytes().to_vec()).bind(id.to_owned());
        let (table, id) = (self.clone(), id.to_owned());
        Answer::later(async move { table.change(id, update, None).await.map(|_| ()) })
    }
}

impl TokenTable {
    pub(crate) fn new(database: SqlitePool) -> Self {
        Self { database, end_signals: EndSignals::new(), listeners: Arc::new(Listeners::connected()) }
    }

    /// Issues a token in the new format. It has a digest from the start, and no legacy hash.
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
        // No event: a new token is in no cache.
        row.bind(&digest.as_bytes()[..]).execute(&self.database).await?;
        Ok(token)
    }

    /// Revokes a token: later requests with it are refused, and its open streams end. Returns `false` if no token has this ID.
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
            // Starts before the query, so that a token revoked during the query is not returned as active.
            let lookup = self.end_signals.begin();
            let row = query(sql).bind(&digest.as_bytes()[..]).fetch_optional(&self.database).await?;
            let Some(row) = row else { return Ok(None) };
            if let Ok(record) = lookup.finish(to_record(&row)?) {
                return Ok(Some(record));
            }
        }
    }

    /// Changes a token and notifies the listeners. Returns `false` if no token has this ID.
    async fn change(&self, id: String, update: Update, end: Option<EndReason>) -> Result<bool, Unavailable> {
        let table = self.clone();
        // A separate task completes even if the caller goes away: a committed change must not lose its notification.
        let changing = tokio::spawn(async move {
            let mut transaction = table.database.begin().await?;
            let Some(generation) = update.fetch_optional(&mut *transaction).await? else { return Ok(false) };
            // Before the notification, because a listener may read the row at once.
            transaction.commit().await?;
            let change = StoreEvent::Key { id: id.into(), generation, end };
            table.end_signals.end(&change);
            table.listeners.notify(&change);
            Ok(true)
        });
        match changing.await {
            Ok(changed) => changed.map_err(unavailable),
            Err(_) => Err(Unavailable::new("the task that changes a token panicked")),
        }
    }
}

/// An update of a row that returns its new generation.
type Update = QueryScalar<'static, Sqlite, u64, SqliteArguments>;

fn to_record(row: &SqliteRow) -> Result<KeyRecord, sqlx::Error> {
    let text = |column| row.try_get::<String, _>(column);
    // The old service separates scopes by commas.
    let scopes = Scopes::new(text("scopes")?.split(',').map(str::to_owned));
    let principal = Principal::new(text("id")?)
        .with_tenant(text("customer")?)
        .with_plan(Plan::active(text("plan")?))
        .with_scopes(scopes.map_err(|error| sqlx::Error::Decode(error.into()))?);
    let is_revoked = row.try_get::<Option<String>, _>("revoked_at")?.is_some();
    let status = if is_revoked { KeyStatus::Revoked } else { KeyStatus::Active };
    Ok(KeyRecord::new(Arc::new(principal), status, row.try_get("generation")?))
}

/// A database error refuses the request with 503.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn unavailable(error: sqlx::Error) -> Unavailable {
    Unavailable::new(format!("token table: {error}"))
}
