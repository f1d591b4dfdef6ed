//! Looks again at the keys whose principals somebody holds, after news were lost.

use std::collections::HashSet;

use sqlx::AssertSqlSafe;
use tollgate_core::store::{EndReason, StoreEvent};

use crate::{
    database::{Connection, Value},
    fault::Fault,
    keys::Shared,
    record::generation,
};

/// How many keys are asked for at once.
const BATCH: usize = 500;

/// Ends the principals that have ended while news were lost. News must flow again already: what changes from now on is told.
pub(super) async fn recheck(shared: &Shared) -> Result<(), Fault> {
    // Look-ups that began before the news flowed may have read what has ended since, and are not yet among those handed out.
    shared.events.signals.end(&StoreEvent::Disconnected);
    for ids in shared.events.signals.held().chunks(BATCH) {
        let asked = ids.to_vec();
        let limit = shared.settings.admin_deadline;
        let endings = shared.database.read(limit, |connection| Box::pin(endings(connection, asked))).await?;
        for change in endings {
            shared.events.signals.end(&change);
        }
    }
    Ok(())
}

async fn endings(connection: &mut Connection, ids: Vec<Box<str>>) -> Result<Vec<StoreEvent>, Fault> {
    // Always as many, so that the statement is prepared once.
    let places: Vec<_> = (1..=BATCH).map(|number| format!("${number}")).collect();
    let sql = format!(
        "SELECT k.id, k.ended, t.ended FROM tollgate_keys k \
         LEFT JOIN tollgate_tenants t ON t.tenant = k.tenant WHERE k.id IN ({})",
        places.join(", ")
    );
    let padding = BATCH.saturating_sub(ids.len());
    let values = ids.iter().map(|id| Value::from(&**id)).chain((0..padding).map(|_| Value::Text(None)));
    let mut gone: HashSet<_> = ids.iter().cloned().collect();
    let mut endings = Vec::new();
    for row in connection.rows(AssertSqlSafe(sql), values).await? {
        let id = row.text(0)?;
        gone.remove(&id);
        let ended = [
            (row.number(1)?, EndReason::Revoked),
            (row.some_number(2)?.unwrap_or(0), EndReason::TenantSuspended),
        ];
        endings.extend(ended.into_iter().filter(|(ended, _)| *ended > 0).map(|(ended, reason)| {
            StoreEvent::Key { id: id.clone(), generation: generation(ended), end: Some(reason) }
        }));
    }
    // Whatever was known of what was deleted has ended.
    endings.extend(gone.into_iter().map(|id| StoreEvent::Key {
        id,
        generation: u64::MAX,
        end: Some(EndReason::Revoked),
    }));
    Ok(endings)
}
