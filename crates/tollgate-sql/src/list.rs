//! Lists: of keys, the newest first, and of what happened, the latest first. Pages go on by where the one before ended, not by a
//! number of entries, so that each is read by an index and nothing is shown twice when keys come and go.

use sqlx::AssertSqlSafe;
use tollgate_core::{
    manage::{HistoryQuery, KeyAction, KeyAdminError, KeyDetails, KeyEvent, KeyQuery, Page},
    store::KeyStatus,
};

use crate::{
    database::{Row, Value},
    fault::Fault,
    instant::{from_micros, to_micros},
    keys::Shared,
    record::{generation, read_listed, select_listed},
};

pub(crate) async fn keys(shared: &Shared, query: KeyQuery) -> Result<Page<KeyDetails>, KeyAdminError> {
    let texts = [query.id.as_deref(), query.tenant.as_deref(), query.search.as_deref()];
    let after = query.after.as_deref().map(read_place).transpose()?;
    if cannot_be(texts) {
        return Ok(Page::new(Vec::new(), None));
    }
    let mut statement = Statement::new(select_listed!());
    if let Some(id) = &query.id {
        statement.only("k.id = $", [(&**id).into()]);
    }
    if let Some(tenant) = &query.tenant {
        statement.only("k.tenant = $", [(&**tenant).into()]);
    }
    match query.status {
        None => {}
        Some(KeyStatus::Active) => {
            statement.only("k.revoked_at IS NULL AND COALESCE(t.is_suspended, 0) = 0", []);
        }
        Some(KeyStatus::Revoked) => statement.only("k.revoked_at IS NOT NULL", []),
        Some(KeyStatus::TenantSuspended) => {
            statement.only(
                "k.revoked_at IS NULL AND k.tenant IN (SELECT tenant FROM tollgate_tenants WHERE is_suspended = 1)",
                [],
            );
        }
        // A status that this version does not know is no key's.
        Some(_) => return Ok(Page::new(Vec::new(), None)),
    }
    if let Some(beginning) = query.search.as_deref().filter(|beginning| !beginning.is_empty()) {
        match successor(beginning) {
            Some(end) => statement.only(
                "(k.name >= $ AND k.name < $ OR k.display_prefix >= $ AND k.display_prefix < $)",
                [beginning.into(), (&*end).into(), beginning.into(), (&*end).into()],
            ),
            None => {
                statement
                    .only("(k.name >= $ OR k.display_prefix >= $)", [beginning.into(), beginning.into()]);
            }
        }
    }
    if let Some((created_at, id)) = after {
        statement.only("(k.created_at, k.id) < ($, $)", [created_at.into(), (&*id).into()]);
    }
    let rows = statement.page(shared, "k.created_at DESC, k.id DESC", query.page_size()).await?;
    let keys: Vec<_> = rows.iter().map(read_listed).collect::<Result<_, _>>()?;
    let place = |key: &KeyDetails| format!("k{}.{}", to_micros(key.created_at), key.id);
    Ok(to_page(keys, query.page_size(), place))
}

pub(crate) async fn history(shared: &Shared, query: HistoryQuery) -> Result<Page<KeyEvent>, KeyAdminError> {
    let after = query.after.as_deref().map(|next| read_number(next, "e")).transpose()?;
    if cannot_be([query.key.as_deref(), query.tenant.as_deref(), None]) {
        return Ok(Page::new(Vec::new(), None));
    }
    let mut statement = Statement::new(
        "SELECT generation, at, operator, action, key_id, tenant, detail FROM tollgate_history",
    );
    if let Some(key) = &query.key {
        statement.only("key_id = $", [(&**key).into()]);
    }
    if let Some(tenant) = &query.tenant {
        statement.only("tenant = $", [(&**tenant).into()]);
    }
    if let Some(generation) = after {
        statement.only("generation < $", [generation.into()]);
    }
    let rows = statement.page(shared, "generation DESC", query.page_size()).await?;
    let events: Vec<_> = rows.iter().map(read_event).collect::<Result<_, _>>()?;
    Ok(to_page(events, query.page_size(), |event: &KeyEvent| format!("e{}", event.generation)))
}

fn read_event(row: &Row) -> Result<KeyEvent, Fault> {
    let action = KeyAction::from_name(&row.text(3)?).ok_or(Fault::Unreadable("the history"))?;
    let mut event =
        KeyEvent::new(generation(row.number(0)?), from_micros(row.number(1)?), row.text(2)?, action);
    event.key = row.some_text(4)?;
    event.tenant = row.some_text(5)?;
    event.detail = row.text(6)?;
    Ok(event)
}

/// A query that is put together: fixed pieces only, with whatever a caller says among the values.
struct Statement {
    sql: String,
    values: Vec<Value>,
}

impl Statement {
    fn new(select: &str) -> Self {
        Self { sql: format!("{select} WHERE 1 = 1"), values: Vec::new() }
    }

    /// One more condition; each `$` stands for one of the values.
    fn only(&mut self, condition: &'static str, values: impl IntoIterator<Item = Value>) {
        self.sql.push_str(" AND ");
        let mut values = values.into_iter();
        for piece in condition.split_inclusive('$') {
            self.sql.push_str(piece);
            if piece.ends_with('$') {
                self.values.extend(values.next());
                self.sql.push_str(&self.values.len().to_string());
            }
        }
    }

    /// So many rows in this order, and one more, if there is one.
    async fn page(mut self, shared: &Shared, order: &'static str, size: u32) -> Result<Vec<Row>, Fault> {
        self.values.push(i64::from(size).saturating_add(1).into());
        let Self { sql, values } = self;
        let sql = format!("{sql} ORDER BY {order} LIMIT ${}", values.len());
        let limit = shared.settings.admin_deadline;
        shared
            .database
            .read(limit, |connection| Box::pin(connection.rows_of_once(AssertSqlSafe(sql), values)))
            .await
    }
}

/// A page of entries, of which there is one more than it holds if another page follows.
fn to_page<T>(mut items: Vec<T>, size: u32, place: impl Fn(&T) -> String) -> Page<T> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let has_more = items.len() > size;
    items.truncate(size);
    let next = items.last().filter(|_| has_more).map(|last| place(last).into());
    Page::new(items, next)
}

/// Where a list of keys goes on: after the key that was issued then and has this identifier.
fn read_place(next: &str) -> Result<(i64, Box<str>), KeyAdminError> {
    let (created_at, id) = next.split_once('.').ok_or(KeyAdminError::InvalidCursor)?;
    if id.contains('\0') {
        return Err(KeyAdminError::InvalidCursor);
    }
    Ok((read_number(created_at, "k")?, id.into()))
}

/// A number behind the letter of its list, so that none is taken for the other.
fn read_number(next: &str, letter: &str) -> Result<i64, KeyAdminError> {
    next.strip_prefix(letter).and_then(|number| number.parse().ok()).ok_or(KeyAdminError::InvalidCursor)
}

/// Whether a text is asked for that no table holds.
fn cannot_be(texts: [Option<&str>; 3]) -> bool {
    texts.into_iter().flatten().any(|text| text.contains('\0'))
}

/// The first text after all that begin so, byte by byte; `None` if there is none.
fn successor(beginning: &str) -> Option<String> {
    let mut end = beginning.to_owned();
    while let Some(last) = end.pop() {
        // The characters after a surrogate's place are the next ones; the last of all has none.
        if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_ends_before_its_successor() {
        for (beginning, expected) in [
            ("a", Some("b")),
            ("a%_", Some("a%`")),
            ("a\u{10ffff}", Some("b")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("\u{10ffff}\u{10ffff}", None),
            ("", None),
        ] {
            let end = successor(beginning);
            assert_eq!(end.as_deref(), expected);
            for text in ["", "!", "zz", "\u{10ffff}"].map(|rest| format!("{beginning}{rest}")) {
                assert!(text.as_str() >= beginning && end.as_deref().is_none_or(|end| text.as_str() < end));
            }
        }
    }

    #[test]
    fn a_place_is_what_a_page_said_and_nothing_else() {
        assert_eq!(read_place("k-5.key.1").unwrap(), (-5, "key.1".into()));
        for next in ["", "k5", "k.key", "kx.key", "e5.key", "5.key", "k5.a\0b", "k99999999999999999999.key"] {
            assert!(matches!(read_place(next), Err(KeyAdminError::InvalidCursor)), "{next:?}");
        }
    }
}
