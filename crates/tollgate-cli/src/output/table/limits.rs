//! Tables about limits.

use tollgate_redis::{CounterState, LimitReset};

use super::{Stream, align_right, cell, empty, filled, finished, heading, instant, keep_whole, of_columns};

/// Counters, one on a line.
pub(crate) fn counters(counters: &[CounterState], stream: Stream) -> String {
    let columns = filled(
        counters,
        &[
            ("TENANT", &|counter| counter.group.to_string()),
            ("POLICY", &|counter| counter.policy.to_string()),
            ("SUBJECT", &|counter| counter.subject.to_string()),
            ("LIMIT", &|counter| counter.limit.to_string()),
            ("USED", &|counter| counter.used.to_string()),
            ("REMAINING", &|counter| counter.remaining().to_string()),
            ("RESETS", &|counter| instant(Some(counter.resets_at))),
        ],
    );
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let mut table = of_columns(columns, stream);
    for (at, name) in names.into_iter().enumerate() {
        match name {
            "USED" | "REMAINING" => align_right(&mut table, at),
            // Users copy identifiers, so they are not wrapped.
            "SUBJECT" => keep_whole(&mut table, at),
            _ => {}
        }
    }
    finished(table)
}

/// Resets, and where the counters stood before, one counter on a line.
pub(crate) fn resets(resets: &[LimitReset], stream: Stream) -> String {
    let mut table = empty(stream);
    let names = ["WHEN", "WHO", "TENANT", "POLICY", "SUBJECT", "SUBJECTS", "STOOD AT"];
    table.set_header(names.map(|name| heading(name, stream)));
    for reset in resets {
        let text = |part: &Option<Box<str>>| part.as_deref().unwrap_or("all").to_owned();
        let stood = |counter: &CounterState| {
            format!("{} {}: {} of {}", counter.policy, counter.subject, counter.used, counter.limit)
        };
        let stood: Vec<_> = reset.before.iter().map(stood).collect();
        let row = [
            instant(Some(reset.at)),
            reset.actor.to_string(),
            text(&reset.query.group),
            text(&reset.query.policy),
            text(&reset.query.subject),
            reset.subjects.to_string(),
            stood.join("; "),
        ];
        table.add_row(row.map(cell));
    }
    keep_whole(&mut table, 0);
    align_right(&mut table, 5);
    finished(table)
}
