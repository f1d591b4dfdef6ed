//! A key store on a table of the application's own in PostgreSQL, which is notified of every change.

// --- guide
use std::{
    collections::HashSet,
    error::Error,
    sync::{Arc, Weak},
    time::Duration,
};

use sqlx::{PgPool, postgres::PgListener, query_as, query_scalar};
use tokio::time::{sleep, timeout};
use tollgate::{
    Answer, Principal,
    denial::Unavailable,
    store::{
        EndReason, EndSignals, KeyLookup, KeyRecord, KeyStatus, KeyStore, Listeners, StoreEvent,
        StoreListener, Subscription,
    },
};

#[derive(Clone)]
pub(crate) struct LiveTokens {
    pool: PgPool,
    signals: EndSignals,
    listeners: Arc<Listeners>,
}

impl LiveTokens {
    /// Listens for changes until the pool is closed.
    pub(crate) fn new(pool: PgPool) -> Self {
        let tokens = Self { pool, signals: EndSignals::new(), listeners: Arc::default() };
        tokio::spawn(tokens.clone().follow());
        tokens
    }

    async fn follow(self) {
        while !self.pool.is_closed() {
            // Returns when the connection is lost. Until there is a new one, the cache asks for every request.
            let _ = self.listen().await;
            self.publish(&StoreEvent::Disconnected);
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn listen(&self) -> Result<(), sqlx::Error> {
        let mut notifications = PgListener::connect_with(&self.pool).await?;
        notifications.eager_reconnect(false);
        notifications.listen("api_tokens").await?;
        // Look-ups that began before are stale, and principals that were found before may have ended.
        self.signals.end(&StoreEvent::Disconnected);
        self.publish_changes(self.signals.held()).await?;
        self.publish(&StoreEvent::Connected);
        while let Some(notification) = notifications.try_recv().await? {
            self.publish_changes(vec![notification.payload().into()]).await?;
        }
        Ok(())
    }

    async fn publish_changes(&self, ids: Vec<Box<str>>) -> Result<(), sqlx::Error> {
        let sql = "SELECT id FROM api_tokens WHERE id = ANY($1) AND revoked_at IS NULL";
        let active = query_scalar::<_, String>(sql).bind(&ids).fetch_all(&self.pool).await?;
        let active: HashSet<String> = active.into_iter().collect();
        for id in ids {
            let end = (!active.contains(&*id)).then_some(EndReason::Revoked);
            self.publish(&StoreEvent::Key { id, generation: 1, end });
        }
        Ok(())
    }

    fn publish(&self, event: &StoreEvent) {
        self.signals.end(event);
        self.listeners.notify(event);
    }

    async fn look_up(self, digests: Vec<Vec<u8>>) -> Result<Option<KeyRecord>, sqlx::Error> {
        let sql = "SELECT id, customer, revoked_at IS NOT NULL FROM api_tokens WHERE digest = ANY($1)";
        loop {
            let lookup = self.signals.begin();
            let row =
                query_as::<_, (String, String, bool)>(sql).bind(&digests).fetch_optional(&self.pool).await?;
            let Some((id, customer, is_revoked)) = row else { return Ok(None) };
            let principal = Principal::new(id).with_tenant(customer);
            let status = if is_revoked { KeyStatus::Revoked } else { KeyStatus::Active };
            if let Ok(record) = lookup.finish(KeyRecord::new(Arc::new(principal), status, 0)) {
                return Ok(Some(record));
            }
        }
    }
}

impl KeyStore for LiveTokens {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        let digests = lookup.digests.iter().map(|digest| digest.as_bytes().to_vec()).collect();
        let found = timeout(Duration::from_secs(5), self.clone().look_up(digests));
        Answer::later(async { found.await.map_err(unavailable)?.map_err(unavailable) })
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        self.listeners.subscribe(listener)
    }
}

fn unavailable(error: impl Error + Send + Sync + 'static) -> Unavailable {
    Unavailable::new("the table of API tokens").with_source(error)
}
