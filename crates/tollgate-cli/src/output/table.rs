//! Tables for terminals.

mod credits;
#[cfg(feature = "redis")]
mod limits;

use std::{
    env,
    io::{self, IsTerminal as _},
    time::SystemTime,
};

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, presets,
};
use jiff::Timestamp;
use tollgate::{
    Plan,
    manage::{KeyDetails, KeyEvent, KeyState, TenantDetails},
    usage::HourlyUsage,
};

pub(crate) use self::credits::{balance, grants, ledger};
#[cfg(feature = "redis")]
pub(crate) use self::limits::{counters, resets};
use super::visible;

/// The output stream of a table. A terminal limits its width and allows colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Keys, one on a line, without empty columns.
pub(crate) fn keys(keys: &[KeyDetails], now: SystemTime, stream: Stream) -> String {
    let mut columns = filled(
        keys,
        &[
            ("ID", &|key| key.id.to_string()),
            ("NAME", &|key| key.name.to_string()),
            ("PREFIX", &|key| key.display_prefix.to_string()),
            ("TENANT", &|key| key.tenant.as_deref().unwrap_or_default().to_owned()),
            ("SCOPES", &|key| key.scopes.to_string()),
            ("PLAN", &|key| plan(key.effective_plan())),
            ("CREATED", &|key| day(Some(key.created_at))),
            ("EXPIRES", &|key| day(key.expires_at)),
            ("LAST USED", &|key| day(key.last_used_at)),
        ],
    );
    let statuses = keys.iter().map(|key| status(key.state(now), stream)).collect();
    columns.push(("STATUS", statuses));
    let mut table = of_columns(columns, stream);
    // Users copy identifiers, so they are not wrapped.
    keep_whole(&mut table, 0);
    finished(table)
}

/// One key with all its details.
pub(crate) fn key(details: &KeyDetails, now: SystemTime, stream: Stream) -> String {
    let mut table = empty(stream);
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            table.add_row([heading(name, stream), cell(value)]);
        }
    };
    add("id", details.id.to_string());
    add("name", details.name.to_string());
    add("prefix", details.display_prefix.to_string());
    add("tenant", details.tenant.as_deref().unwrap_or_default().to_owned());
    add("environment", details.environment.to_string());
    add("scopes", if details.scopes.is_empty() { "none".to_owned() } else { details.scopes.to_string() });
    let of_tenant =
        if details.plan.is_none() && details.tenant_plan.is_some() { ", of its tenant" } else { "" };
    add("plan", format!("{}{of_tenant}", plan(details.effective_plan())));
    add("role", details.role.as_deref().unwrap_or_default().to_owned());
    for (policy, quota) in &details.quotas {
        add("quota", format!("{policy}: {quota}"));
    }
    for network in details.allowed_networks.iter() {
        add("network", network.to_string());
    }
    if !details.metadata.is_empty() {
        add("metadata", details.metadata.to_string());
    }
    add("created", instant(Some(details.created_at)));
    add("expires", details.expires_at.map_or("never".to_owned(), |at| instant(Some(at))));
    add("last used", instant(details.last_used_at));
    add("revoked", instant(details.revoked_at));
    add(
        "former secret",
        details.former_until.map_or(String::new(), |at| format!("valid until {}", instant(Some(at)))),
    );
    let status = status(details.state(now), stream);
    table.add_row([heading("status", stream), status]);
    finished(table)
}

/// A tenant.
pub(crate) fn tenant(details: &TenantDetails, stream: Stream) -> String {
    let mut table = empty(stream);
    let plan = match plan(details.plan.as_ref()) {
        plan if plan.is_empty() => "none".to_owned(),
        plan => plan,
    };
    table.add_row([heading("tenant", stream), cell(&details.tenant)]);
    table.add_row([heading("plan", stream), cell(plan)]);
    let state = if details.is_suspended { KeyState::Suspended } else { KeyState::Active };
    table.add_row([heading("status", stream), status(state, stream)]);
    finished(table)
}

/// The history, one event on a line.
pub(crate) fn events(events: &[KeyEvent], stream: Stream) -> String {
    let mut table = empty(stream);
    table.set_header(["WHEN", "WHAT", "WHO", "DETAIL"].map(|name| heading(name, stream)));
    for event in events {
        let row = [&instant(Some(event.at)), event.action.as_str(), &event.actor, &event.detail];
        table.add_row(row.map(cell));
    }
    keep_whole(&mut table, 0);
    finished(table)
}

/// The usage of more hours is shown by day.
const MAX_HOURS: usize = 48;

/// The usage of a key by hour, or by day.
pub(crate) fn usage(hours: &[HourlyUsage], stream: Stream) -> String {
    let by_day = hours.len() > MAX_HOURS;
    let mut rows: Vec<(String, u64)> = Vec::new();
    for used in hours {
        let begins = if by_day { day(Some(used.hour)) } else { minute(used.hour) };
        match rows.last_mut() {
            Some((last, requests)) if *last == begins => *requests += used.requests,
            _ => rows.push((begins, used.requests)),
        }
    }
    let mut table = empty(stream);
    let first = if by_day { "DAY (UTC)" } else { "HOUR (UTC)" };
    table.set_header([heading(first, stream), heading("REQUESTS", stream)]);
    for (begins, requests) in rows {
        table.add_row([cell(begins), number(requests)]);
    }
    let total = hours.iter().map(|hour| hour.requests).sum();
    table.add_row([cell("total"), number(total)]);
    finished(table)
}

fn number(number: u64) -> Cell {
    cell(number.to_string()).set_alignment(CellAlignment::Right)
}

/// A plan, or an empty text.
pub(crate) fn plan(plan: Option<&Plan>) -> String {
    let Some(plan) = plan else { return String::new() };
    let lapsed = if plan.is_active() { "" } else { " (lapsed)" };
    format!("{}{lapsed}", plan.tier())
}

fn status(state: KeyState, stream: Stream) -> Cell {
    let cell = cell(state.as_str());
    if !has_colours(stream) {
        return cell;
    }
    cell.fg(match state {
        KeyState::Active => Color::Green,
        KeyState::Expired | KeyState::Suspended => Color::Yellow,
        // Includes states that this version does not know.
        _ => Color::Red,
    })
}

fn heading(name: &str, stream: Stream) -> Cell {
    let heading = Cell::new(name);
    if has_colours(stream) { heading.add_attribute(Attribute::Bold) } else { heading }
}

/// A column: its name, and its text for an item.
type Column<'c, T> = (&'static str, &'c dyn Fn(&T) -> String);

/// The columns that have text for at least one of the items.
fn filled<T>(items: &[T], columns: &[Column<'_, T>]) -> Vec<(&'static str, Vec<Cell>)> {
    let mut filled = Vec::new();
    for (name, text) in columns {
        let texts: Vec<_> = items.iter().map(text).collect();
        if texts.iter().any(|text| !text.is_empty()) {
            filled.push((*name, texts.iter().map(cell).collect()));
        }
    }
    filled
}

/// A table of columns of equal length.
fn of_columns(columns: Vec<(&str, Vec<Cell>)>, stream: Stream) -> Table {
    let mut table = empty(stream);
    table.set_header(columns.iter().map(|(name, _)| heading(name, stream)));
    let rows = columns.first().map_or(0, |(_, cells)| cells.len());
    let mut cells: Vec<_> = columns.into_iter().map(|(_, cells)| cells.into_iter()).collect();
    for _ in 0..rows {
        table.add_row(cells.iter_mut().filter_map(Iterator::next));
    }
    table
}

/// A cell with text of unknown origin.
fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(visible(text.as_ref()))
}

/// A table without lines. On a terminal, it is wrapped to the width of the terminal.
fn empty(stream: Stream) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if stream == Stream::Err {
        table.use_stderr();
    }
    if is_terminal(stream) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

fn finished(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

fn keep_whole(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
}

fn align_right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn is_terminal(stream: Stream) -> bool {
    match stream {
        Stream::Out => io::stdout().is_terminal(),
        Stream::Err => io::stderr().is_terminal(),
    }
}

/// See <https://no-color.org>.
fn has_colours(stream: Stream) -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    is_terminal(stream)
        && !is_set("NO_COLOR")
        && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// An instant with a precision of one second.
pub(crate) fn instant(instant: Option<SystemTime>) -> String {
    format(instant, "%Y-%m-%d %H:%M:%S UTC")
}

fn minute(instant: SystemTime) -> String {
    format(Some(instant), "%Y-%m-%d %H:%M")
}

fn day(instant: Option<SystemTime>) -> String {
    format(instant, "%Y-%m-%d")
}

fn format(instant: Option<SystemTime>, format: &str) -> String {
    // An instant outside the calendar, from before the bound existed, is shown as the last one: an empty cell means never.
    let instant = instant.map(|instant| Timestamp::try_from(instant).unwrap_or(Timestamp::MAX));
    instant.map_or(String::new(), |instant| instant.strftime(format).to_string())
}
