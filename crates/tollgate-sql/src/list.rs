//! Lists of keys and of the history, both newest first. A page starts after the last entry of the page before, not at an offset:
//! it is read by an index, and a concurrent change repeats no entry.

use sqlx::AssertSqlSafe;
use tollgate_core::{
    bounds::MAX_PAGE_BYTES,
    manage::{HistoryQuery, KeyAction, KeyAdminError, KeyDetails, KeyEvent, KeyQuery, Page},
    store::KeyStatus,
};

use crate::{
    database::{Row, Value},
    fault::Fault,
    instant::{from_micros, to_micros},
    record::{generation, read_listed, select_listed},
    shared::Shared,
};

pub(crate) async fn keys(shared: &Shared, query: KeyQuery) -> Result<Page<KeyDetails>, KeyAdminError> {
    let texts = [query.id.as_deref(), query.tenant.as_deref(), query.search.as_deref()];
    let after = query.after.as_deref().map(read_key_cursor).transpose()?;
    if has_nul(texts) {
        return Ok(Page::new(Vec::new(), None));
    }
    let mut statement = Statement::new(select_listed!());
    if let Some(id) = &query.id {
        statement.and("k.id = $", [(&**id).into()]);
    }
    if let Some(tenant) = &query.tenant {
        statement.and("k.tenant = $", [(&**tenant).into()]);
    }
    match query.status {
        None => {}
        Some(KeyStatus::Active) => {
            statement.and("k.revoked_at IS NULL AND COALESCE(t.is_suspended, 0) = 0", []);
        }
        Some(KeyStatus::Revoked) => statement.and("k.revoked_at IS NOT NULL", []),
        Some(KeyStatus::TenantSuspended) => {
            statement.and(
                "k.revoked_at IS NULL AND k.tenant IN (SELECT tenant FROM tollgate_tenants WHERE is_suspended = 1)",
                [],
            );
        }
        // No key has a status that this version does not know.
        Some(_) => return Ok(Page::new(Vec::new(), None)),
    }
    if let Some(prefix) = query.search.as_deref().filter(|prefix| !prefix.is_empty()) {
        match successor(prefix) {
            Some(end) => statement.and(
                "(k.name >= $ AND k.name < $ OR k.display_prefix >= $ AND k.display_prefix < $)",
                [prefix.into(), (&*end).into(), prefix.into(), (&*end).into()],
            ),
            None => {
                statement.and("(k.name >= $ OR k.display_prefix >= $)", [prefix.into(), prefix.into()]);
            }
        }
    }
    if let Some((created_at, id)) = after {
        statement.and("(k.created_at, k.id) < ($, $)", [created_at.into(), (&*id).into()]);
    }
    let size = if query.id.is_some() { 1 } else { query.page_size() };
    let texts = "LENGTH(scopes) + LENGTH(quotas) + LENGTH(metadata)";
    let (rows, size) = statement.page(shared, "k.created_at DESC, k.id DESC", size, texts).await?;
    let keys: Vec<_> = rows.iter().map(read_listed).collect::<Result<_, _>>()?;
    let cursor = |key: &KeyDetails| format!("k{}.{}", to_micros(key.created_at), key.id);
    Ok(to_page(keys, size, cursor))
}

pub(crate) async fn history(shared: &Shared, query: HistoryQuery) -> Result<Page<KeyEvent>, KeyAdminError> {
    let after = query.after.as_deref().map(|cursor| read_number(cursor, "e")).transpose()?;
    if has_nul([query.key.as_deref(), query.tenant.as_deref(), None]) {
        return Ok(Page::new(Vec::new(), None));
    }
    let mut statement = Statement::new(
        "SELECT generation, at, operator, action, key_id, tenant, detail FROM tollgate_history",
    );
    if let Some(key) = &query.key {
        statement.and("key_id = $", [(&**key).into()]);
    }
    if let Some(tenant) = &query.tenant {
        statement.and("tenant = $", [(&**tenant).into()]);
    }
    if let Some(generation) = after {
        statement.and("generation < $", [generation.into()]);
    }
    let (rows, size) = statement.page(shared, "generation DESC", query.page_size(), "LENGTH(detail)").await?;
    let events: Vec<_> = rows.iter().map(read_event).collect::<Result<_, _>>()?;
    Ok(to_page(events, size, |event: &KeyEvent| format!("e{}", event.generation)))
}

fn read_event(row: &Row) -> Result<KeyEvent, Fault> {
    let action = KeyAction::from_name(&row.text(3)?).ok_or(Fault::Unreadable("an action in the history"))?;
    let mut event =
        KeyEvent::new(generation(row.number(0)?), from_micros(row.number(1)?), row.text(2)?, action);
    event.key = row.optional_text(4)?;
    event.tenant = row.optional_text(5)?;
    event.detail = row.text(6)?;
    Ok(event)
}

/// A query under construction. Its text consists of literals; what callers pass is bound as values.
struct Statement {
    sql: String,
    values: Vec<Value>,
}

impl Statement {
    fn new(select: &str) -> Self {
        Self { sql: format!("{select} WHERE 1 = 1"), values: Vec::new() }
    }

    /// Adds a condition. Each `$` stands for one of the values.
    fn and(&mut self, condition: &'static str, values: impl IntoIterator<Item = Value>) {
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

    /// Reads a page in this order, and one more row, which says whether another page follows. Also returns the size of the page. It
    /// is less than `size` if the texts of the rows are too long together; `texts` adds up the lengths of a row.
    async fn page(
        self,
        shared: &Shared,
        order: &'static str,
        size: u32,
        texts: &'static str,
    ) -> Result<(Vec<Row>, u32), Fault> {
        let Self { sql, values } = self;
        let limit = shared.settings.admin_deadline;
        let read = shared.database.read(limit, |connection| {
            Box::pin(async move {
                let mut size = size;
                if size > 1 {
                    // Only the lengths leave the database.
                    let rows = format!("{sql} ORDER BY {order} LIMIT {size}");
                    let lengths = format!("SELECT CAST({texts} AS BIGINT) FROM ({rows}) AS page");
                    let rows = connection.rows_unprepared(AssertSqlSafe(lengths), values.clone()).await?;
                    let lengths = rows.iter().map(|row| row.number(0)).collect::<Result<Vec<_>, _>>()?;
                    size = fitting(&lengths).unwrap_or(size);
                }
                let sql = format!("{sql} ORDER BY {order} LIMIT {}", u64::from(size) + 1);
                Ok::<_, Fault>((connection.rows_unprepared(AssertSqlSafe(sql), values).await?, size))
            })
        });
        read.await
    }
}

/// How many of these texts fit into a page, at least one; `None` if all do.
fn fitting(lengths: &[i64]) -> Option<u32> {
    let most = i64::try_from(MAX_PAGE_BYTES).unwrap_or(i64::MAX);
    let totals = lengths.iter().scan(0_i64, |total, length| {
        *total = total.saturating_add(*length);
        Some(*total)
    });
    let fitting = totals.take_while(|total| *total <= most).count();
    (fitting < lengths.len()).then(|| u32::try_from(fitting.max(1)).unwrap_or(u32::MAX))
}

/// The page of these entries, which may be one more than the page holds.
fn to_page<T>(mut items: Vec<T>, size: u32, cursor: impl Fn(&T) -> String) -> Page<T> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let has_more = items.len() > size;
    items.truncate(size);
    let next = items.last().filter(|_| has_more).map(|last| cursor(last).into());
    Page::new(items, next)
}

/// Reads the cursor of a list of keys: the creation time and the identifier of the last key.
fn read_key_cursor(cursor: &str) -> Result<(i64, Box<str>), KeyAdminError> {
    let (created_at, id) = cursor.split_once('.').ok_or(KeyAdminError::InvalidCursor)?;
    if id.contains('\0') {
        return Err(KeyAdminError::InvalidCursor);
    }
    Ok((read_number(created_at, "k")?, id.into()))
}

/// Reads a number after the letter of its list, which tells the cursors of the lists apart.
fn read_number(cursor: &str, letter: &str) -> Result<i64, KeyAdminError> {
    cursor.strip_prefix(letter).and_then(|number| number.parse().ok()).ok_or(KeyAdminError::InvalidCursor)
}

/// Whether one of the texts contains a NUL character. No row does.
fn has_nul(texts: [Option<&str>; 3]) -> bool {
    texts.into_iter().flatten().any(|text| text.contains('\0'))
}

/// The smallest text, compared by bytes, that is greater than all texts with this prefix; `None` if there is none.
fn successor(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // Skips the surrogates, which are not characters. The last character has no next one.
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
    fn texts_with_a_prefix_are_less_than_its_successor() {
        for (prefix, expected) in [
            ("a", Some("b")),
            ("a%_", Some("a%`")),
            ("a\u{10ffff}", Some("b")),
            ("\u{d7ff}", Some("\u{e000}")),
            ("\u{10ffff}\u{10ffff}", None),
            ("", None),
        ] {
            let end = successor(prefix);
            assert_eq!(end.as_deref(), expected);
            for text in ["", "!", "zz", "\u{10ffff}"].map(|rest| format!("{prefix}{rest}")) {
                assert!(text.as_str() >= prefix && end.as_deref().is_none_or(|end| text.as_str() < end));
            }
        }
    }

    #[test]
    fn a_page_has_as_many_texts_as_fit_and_at_least_one() {
        let most = i64::try_from(MAX_PAGE_BYTES).unwrap();
        for (lengths, expected) in [
            (&[][..], None),
            (&[most], None),
            (&[most - 1, 1], None),
            (&[most, 1], Some(1)),
            (&[1, 1, most - 1, 1], Some(2)),
            (&[most + 1], Some(1)),
            (&[i64::MAX, i64::MAX], Some(1)),
        ] {
            assert_eq!(fitting(lengths), expected, "{lengths:?}");
        }
    }

    #[test]
    fn only_cursors_of_a_key_list_are_read() {
        assert_eq!(read_key_cursor("k-5.key.1").unwrap(), (-5, "key.1".into()));
        for cursor in ["", "k5", "k.key", "kx.key", "e5.key", "5.key", "k5.a\0b", "k99999999999999999999.key"]
        {
            assert!(matches!(read_key_cursor(cursor), Err(KeyAdminError::InvalidCursor)), "{cursor:?}");
        }
    }
}
