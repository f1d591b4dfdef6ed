//! Follows the changes that other processes make, and notices when it would miss them.

#[cfg(feature = "postgres")]
mod listen;
#[cfg(feature = "sqlite")]
mod poll;
mod recheck;

use std::sync::Arc;

use tokio::{sync::watch, task::JoinHandle};

use crate::{connect_error::ConnectError, database::Pools, shared::Shared};

/// Begins to follow. Returns the background task, which runs until the sender of `stopped` is dropped.
pub(crate) async fn follow(
    shared: &Arc<Shared>,
    stopped: watch::Receiver<()>,
) -> Result<Option<JoinHandle<()>>, ConnectError> {
    match &shared.database.pools {
        #[cfg(feature = "sqlite")]
        Pools::Sqlite(pools) if pools.is_in_memory() => {
            // No other process can change it.
            shared.notifier.connected();
            Ok(None)
        }
        #[cfg(feature = "sqlite")]
        Pools::Sqlite(pools) => poll::follow(shared, pools, stopped).await.map(Some),
        #[cfg(feature = "postgres")]
        Pools::Postgres(pool) => listen::follow(shared, pool, stopped).await.map(Some),
    }
}
