//! `prune`.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tollgate_sql::{Retention, SqlKeys};

use super::now;
use crate::{
    arguments::Prune,
    failure::{Exit, Failure},
    output::{self, describe, table},
    store::show_waiting,
};

pub(super) async fn run(prune: Prune, store: &SqlKeys, is_json: bool) -> Result<Exit, Failure> {
    let now = now();
    // An instant before 1970 keeps everything.
    let since = |age: Duration| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    let (history, usage) = (prune.history_older_than.map(since), prune.usage_older_than.map(since));
    let mut retention = Retention::everything();
    if let Some(instant) = history {
        retention = retention.with_history_since(instant);
    }
    if let Some(instant) = usage {
        retention = retention.with_usage_since(instant);
    }
    let pruned = if prune.yes {
        show_waiting("Deleting", store.prune(retention)).await?
    } else {
        show_waiting("Counting", store.count_prunable(retention)).await?
    };
    let parts =
        [("entries of the history", history, pruned.history), ("hours of usage", usage, pruned.usage)];
    if is_json {
        let part = |since: Option<SystemTime>, rows: u64| {
            since.map_or(
                Value::Null,
                |since| json!({ "before": describe::instant(Some(since)), "rows": rows }),
            )
        };
        let [history, usage] = parts.map(|(_, since, rows)| part(since, rows));
        let reservations = json!({ "rows": pruned.reservations });
        output::json(&json!({
            "history": history,
            "usage": usage,
            "reservations": reservations,
            "deleted": prune.yes,
        }))?;
        return Ok(Exit::Done);
    }
    let verb = if prune.yes { "Deleted" } else { "Would delete" };
    let lines = parts.into_iter().filter_map(|(what, since, rows)| {
        Some(format!("{verb} {rows} {what} from before {}.", table::instant(Some(since?))))
    });
    let mut lines: Vec<_> = lines.collect();
    if pruned.reservations > 0 {
        lines.push(format!(
            "{verb} {} reservations of credits that have no effect any more.",
            pruned.reservations
        ));
    }
    output::result(&lines.join("\n"))?;
    if !prune.yes {
        output::note("Nothing was deleted: pass --yes to delete.");
    }
    Ok(Exit::Done)
}
