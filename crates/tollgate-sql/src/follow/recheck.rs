//! Reads again the keys whose principals are in use, after notifications were missed.

use std::collections::HashSet;

use sqlx::AssertSqlSafe;
use tollgate_core::store::{EndReason, StoreEvent};

use crate::{
    database::{Connection, Value},
    fault::Fault,
    record::generation,
    shared::Shared,
};

/// How many keys one statement reads.
const BATCH: usize = 500;

/// Ends the principals that have ended while notifications were missed. Notifications must arrive again before this is
/// called, so no change falls in between.
pub(super) async fn recheck(shared: &Shared) -> Result<(), Fault> {
    let signals = &shared.notifier.signals;
    // Lookups in progress may have read a state that is outdated by now, and `held` does not list them: they start again.
    signals.end(&StoreEvent::Disconnected);
    for ids in signals.held().chunks(BATCH) {
        let batch = ids.to_vec();
        let limit = shared.settings.admin_deadline;
        let events = shared.database.read(limit, |connection| Box::pin(ended(connection, batch))).await?;
        for event in events {
            signals.end(&event);
        }
    }
    Ok(())
}

/// Ends all principals: the database was replaced by another one, and nothing in it says which of them are still valid.
#[cfg(feature = "sqlite")]
pub(super) fn end_all(shared: &Shared) {
    let signals = &shared.notifier.signals;
    // Before `held`, for lookups in progress: as in `recheck`.
    signals.end(&StoreEvent::Disconnected);
    for id in signals.held() {
        signals.end(&StoreEvent::Key { id, generation: u64::MAX, end: Some(EndReason::Revoked) });
    }
}

/// The events that end principals of these keys.
async fn ended(connection: &mut Connection, ids: Vec<Box<str>>) -> Result<Vec<StoreEvent>, Fault> {
    // The number of parameters is constant, so the statement is prepared once.
    let parameters: Vec<_> = (1..=BATCH).map(|number| format!("${number}")).collect();
    let sql = format!(
        "SELECT k.id, k.ended, t.ended FROM tollgate_keys k \
         LEFT JOIN tollgate_tenants t ON t.tenant = k.tenant WHERE k.id IN ({})",
        parameters.join(", ")
    );
    let padding = BATCH.saturating_sub(ids.len());
    let values = ids.iter().map(|id| Value::from(&**id)).chain((0..padding).map(|_| Value::Text(None)));
    let mut deleted: HashSet<_> = ids.iter().cloned().collect();
    let mut events = Vec::new();
    for row in connection.rows(AssertSqlSafe(sql), values).await? {
        let id = row.text(0)?;
        deleted.remove(&id);
        let ended = [
            (row.number(1)?, EndReason::Revoked),
            (row.optional_number(2)?.unwrap_or(0), EndReason::TenantSuspended),
        ];
        events.extend(ended.into_iter().filter(|(ended, _)| *ended > 0).map(|(ended, reason)| {
            StoreEvent::Key { id: id.clone(), generation: generation(ended), end: Some(reason) }
        }));
    }
    // All principals of a deleted key have ended, of whatever generation.
    events.extend(deleted.into_iter().map(|id| StoreEvent::Key {
        id,
        generation: u64::MAX,
        end: Some(EndReason::Revoked),
    }));
    Ok(events)
}
