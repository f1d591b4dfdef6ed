//! Queries for keys and events, with paging.

use crate::{bounds::MAX_PAGE_ITEMS, store::KeyStatus};

/// Selects keys. A field that is `None` does not restrict the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyQuery {
    /// The key with this identifier.
    pub id: Option<Box<str>>,
    /// The keys of this tenant.
    pub tenant: Option<Box<str>>,
    /// The keys with this status. An expired key keeps its status.
    pub status: Option<KeyStatus>,
    /// The keys whose name or display prefix starts with this text. Case-sensitive.
    pub search: Option<Box<str>>,
    /// The page size: 1 to 1,000. 0 means 100.
    pub limit: u32,
    /// The cursor: `next` of the previous page.
    pub after: Option<Box<str>>,
}

/// The default page size.
const DEFAULT_LIMIT: u32 = 100;

impl KeyQuery {
    /// All keys.
    pub fn all() -> Self {
        Self::default()
    }

    /// One key.
    pub fn one(id: impl Into<Box<str>>) -> Self {
        Self { id: Some(id.into()), ..Self::default() }
    }

    /// Selects only keys of this tenant.
    pub fn with_tenant(mut self, tenant: impl Into<Box<str>>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Selects only keys with this status.
    pub fn with_status(mut self, status: KeyStatus) -> Self {
        self.status = Some(status);
        self
    }

    /// Selects only keys whose name or display prefix starts with this text.
    pub fn with_search(mut self, beginning: impl Into<Box<str>>) -> Self {
        self.search = Some(beginning.into());
        self
    }

    /// Sets the page size: 1 to 1,000. Default: 100.
    pub fn with_limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Continues after a page: takes the `next` of that page.
    pub fn with_after(mut self, next: impl Into<Box<str>>) -> Self {
        self.after = Some(next.into());
        self
    }

    /// The maximum number of keys in a page.
    pub fn page_size(&self) -> u32 {
        page_size(self.limit)
    }
}

/// Selects events. A field that is `None` does not restrict the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryQuery {
    /// The events of the key with this identifier.
    pub key: Option<Box<str>>,
    /// The events of this tenant and of its keys.
    pub tenant: Option<Box<str>>,
    /// The page size: 1 to 1,000. 0 means 100.
    pub limit: u32,
    /// The cursor: `next` of the previous page.
    pub after: Option<Box<str>>,
}

impl HistoryQuery {
    /// All events.
    pub fn all() -> Self {
        Self::default()
    }

    /// The events of one key.
    pub fn of_key(id: impl Into<Box<str>>) -> Self {
        Self { key: Some(id.into()), ..Self::default() }
    }

    /// Selects only events of this tenant and of its keys.
    pub fn with_tenant(mut self, tenant: impl Into<Box<str>>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Sets the page size: 1 to 1,000. Default: 100.
    pub fn with_limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Continues after a page: takes the `next` of that page.
    pub fn with_after(mut self, next: impl Into<Box<str>>) -> Self {
        self.after = Some(next.into());
        self
    }

    /// The maximum number of events in a page.
    pub fn page_size(&self) -> u32 {
        page_size(self.limit)
    }
}

fn page_size(limit: u32) -> u32 {
    if limit == 0 { DEFAULT_LIMIT } else { limit.min(MAX_PAGE_ITEMS) }
}

/// One page of a list. It may have fewer entries than were asked for although more pages follow: a page has at most
/// [`MAX_PAGE_BYTES`](crate::bounds::MAX_PAGE_BYTES) of text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// The cursor for the next page; `None` after the last one.
    pub next: Option<Box<str>>,
}

impl<T> Page<T> {
    /// A page with its entries and its cursor.
    pub fn new(items: Vec<T>, next: Option<Box<str>>) -> Self {
        Self { items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_size_is_bounded() {
        let sizes =
            [0, 1, 7, 1_000, 1_001, u32::MAX].map(|limit| KeyQuery::all().with_limit(limit).page_size());
        assert_eq!(sizes, [100, 1, 7, 1_000, 1_000, 1_000]);
    }
}
