//! News of changes: told to whoever watches, and by which principals end.

mod event;
#[cfg(feature = "postgres")]
mod listen;
#[cfg(feature = "postgres")]
mod message;
#[cfg(feature = "sqlite")]
mod poll;
mod recheck;

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{sync::watch, task::JoinHandle};
use tollgate_core::store::{EndSignals, Listeners, LookupInProgress, StoreEvent, StoreListener};

use crate::{
    connect_error::ConnectError,
    database::{Connection, Database, Done},
    fault::Fault,
    keys::Shared,
};

pub(crate) use event::{Event, reason_word};

/// The principals that were handed out, those who watch, and whether news flow.
#[derive(Default)]
pub(crate) struct Events {
    signals: EndSignals,
    listeners: Listeners,
    // How often news were lost or resumed: they flow while it is odd.
    turns: AtomicU64,
    // The generations that this process has told of itself, and that it will hear of from its database as well.
    told: Mutex<HashSet<u64>>,
}

/// How many generations are kept that were not heard of yet. To tell of one twice does no harm.
const MOST_TOLD: usize = 1_024;

impl Events {
    /// Begins a look-up, before the database is asked.
    pub(crate) fn begin_lookup(&self) -> LookupInProgress {
        self.signals.begin()
    }

    /// Tells of a change that this process has made.
    pub(crate) fn notify_first(&self, change: &StoreEvent) {
        if let Some(generation) = generation_of(change) {
            let mut told = self.told();
            if told.len() >= MOST_TOLD {
                told.clear();
            }
            told.insert(generation);
        }
        self.notify(change);
    }

    /// Tells of a change that the database tells of: of another process, or of this one, which was told already.
    fn hear(&self, change: &StoreEvent) {
        let was_told = generation_of(change).is_some_and(|generation| self.told().remove(&generation));
        if !was_told {
            self.notify(change);
        }
    }

    fn told(&self) -> MutexGuard<'_, HashSet<u64>> {
        // Nothing is ever left half changed, so a panic of another thread has left it whole.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what a change has ended, then tells whoever watches.
    fn notify(&self, change: &StoreEvent) {
        self.signals.end(change);
        self.listeners.notify(change);
    }

    /// From now on news may be missed.
    pub(crate) fn lost(&self) {
        if self.turn(true) {
            self.notify(&StoreEvent::Disconnected);
        }
    }

    /// From now on no news are missed.
    pub(crate) fn resumed(&self) {
        if self.turn(false) {
            self.listeners.notify(&StoreEvent::Connected);
        }
    }

    /// Only what runs in the background and whoever closes the store take turns.
    fn turn(&self, is_odd: bool) -> bool {
        let turn = |turns: u64| ((turns % 2 == 1) == is_odd).then(|| turns.wrapping_add(1));
        self.turns.fetch_update(Ordering::SeqCst, Ordering::SeqCst, turn).is_ok()
    }

    /// One more who watches, and is told at once that news flow, if they do.
    pub(crate) fn subscribe(&self, listener: Weak<dyn StoreListener>) {
        let Some(told) = listener.upgrade() else { return };
        self.listeners.add(listener);
        // No lock is held, since a listener may use the store. So what is told here may come late, and is told again until
        // nothing has happened meanwhile: the last word is right.
        loop {
            let turns = self.turns.load(Ordering::SeqCst);
            if turns % 2 == 1 {
                told.on_event(&StoreEvent::Connected);
            }
            if self.turns.load(Ordering::SeqCst) == turns {
                return;
            }
            told.on_event(&StoreEvent::Disconnected);
        }
    }
}

fn generation_of(change: &StoreEvent) -> Option<u64> {
    match change {
        StoreEvent::Key { generation, .. } | StoreEvent::Tenant { generation, .. } => Some(*generation),
        _ => None,
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let are_flowing = self.turns.load(Ordering::SeqCst) % 2 == 1;
        f.debug_struct("Events").field("are_flowing", &are_flowing).finish_non_exhaustive()
    }
}

/// What news are sent under between processes that share these tables: none for SQLite, which has nobody to send them. It is
/// asked in a transaction that could write, so that a database which may only be read is found out at once.
pub(crate) async fn channel(connection: &mut Connection) -> Result<Done<Option<String>>, Fault> {
    connection.execute("UPDATE tollgate_keys SET generation = generation WHERE 1 = 0", []).await?;
    if !connection.is_postgres() {
        return Ok(Done::RollBack(None));
    }
    // Other schemas of the database may have tables of the same names.
    let sql = "SELECT relnamespace::int8 FROM pg_class WHERE oid = 'tollgate_keys'::regclass";
    let row = connection.row(sql, []).await?.ok_or(Fault::Unreadable("the tables"))?;
    Ok(Done::RollBack(Some(format!("tollgate_{}", row.number(0)?))))
}

/// Begins to follow what other processes change, until it is stopped; what runs on then is the task.
pub(crate) async fn follow(
    shared: &Arc<Shared>,
    stopped: watch::Receiver<()>,
) -> Result<Option<JoinHandle<()>>, ConnectError> {
    match &shared.database {
        #[cfg(feature = "sqlite")]
        Database::Sqlite(pools) if pools.is_in_memory() => {
            // Nobody else can change it.
            shared.events.resumed();
            Ok(None)
        }
        #[cfg(feature = "sqlite")]
        Database::Sqlite(pools) => poll::follow(shared, pools, stopped).await.map(Some),
        #[cfg(feature = "postgres")]
        Database::Postgres(pool) => listen::follow(shared, pool, stopped).await.map(Some),
    }
}
