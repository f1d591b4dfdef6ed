//! A key store on a table of the application's own, which reads it, and needs no events.

// --- guide
use std::{
    error::Error,
    sync::{Arc, Weak},
    time::Duration,
};

use sqlx::{SqlitePool, query_as};
use tokio::time::timeout;
use tollgate::{
    Answer, Principal,
    denial::Unavailable,
    store::{KeyLookup, KeyRecord, KeyStatus, KeyStore, StoreListener, Subscription},
};

pub(crate) struct Tokens(pub(crate) SqlitePool);

impl KeyStore for Tokens {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        let (pool, digests) = (self.0.clone(), lookup.digests.to_vec());
        Answer::later(async move {
            // More than one digest only while a pepper is changed.
            for digest in digests {
                let sql = "SELECT id, customer, revoked_at IS NOT NULL FROM api_tokens WHERE digest = ?";
                let row = query_as::<_, (String, String, bool)>(sql)
                    .bind(digest.as_bytes().to_vec())
                    .fetch_optional(&pool);
                let row = timeout(Duration::from_secs(5), row).await.map_err(unavailable)?;
                if let Some((id, customer, is_revoked)) = row.map_err(unavailable)? {
                    let principal = Principal::new(id).with_tenant(customer);
                    let status = if is_revoked { KeyStatus::Revoked } else { KeyStatus::Active };
                    return Ok(Some(KeyRecord::new(Arc::new(principal), status, 0)));
                }
            }
            Ok(None)
        })
    }

    fn subscribe(&self, _: Weak<dyn StoreListener>) -> Subscription {
        Subscription::trust_for(Duration::from_secs(10))
    }
}

fn unavailable(error: impl Error + Send + Sync + 'static) -> Unavailable {
    Unavailable::new("the table of API tokens").with_source(error)
}
