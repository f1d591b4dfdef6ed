//! Which keys and events to list, page by page.

use crate::store::KeyStatus;

/// Which keys to list. What is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyQuery {
    /// The key with this identifier.
    pub id: Option<Box<str>>,
    /// The keys of this tenant.
    pub tenant: Option<Box<str>>,
    /// Those with this status. One that has expired still has the status that it had.
    pub status: Option<KeyStatus>,
    /// Those whose name or display prefix begins like this. Case counts.
    pub search: Option<Box<str>>,
    /// How many, at most: 1 to 1,000; 100 if it is 0.
    pub limit: u32,
    /// What the page before said to go on with.
    pub after: Option<Box<str>>,
}

/// How many entries a page has if nobody says.
const DEFAULT_LIMIT: u32 = 100;
/// How many a page has at most.
const MAX_LIMIT: u32 = 1_000;

impl KeyQuery {
    /// All keys.
    pub fn all() -> Self {
        Self::default()
    }

    /// One key.
    pub fn one(id: impl Into<Box<str>>) -> Self {
        Self { id: Some(id.into()), ..Self::default() }
    }

    /// Only those of this tenant.
    pub fn of_tenant(mut self, tenant: impl Into<Box<str>>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Only those with this status.
    pub fn with_status(mut self, status: KeyStatus) -> Self {
        self.status = Some(status);
        self
    }

    /// Only those whose name or display prefix begins like this.
    pub fn search(mut self, beginning: impl Into<Box<str>>) -> Self {
        self.search = Some(beginning.into());
        self
    }

    /// So many at most.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Goes on where a page ended.
    pub fn after(mut self, next: impl Into<Box<str>>) -> Self {
        self.after = Some(next.into());
        self
    }

    /// How many keys a page has.
    pub fn page_size(&self) -> u32 {
        page_size(self.limit)
    }
}

/// Which events to list. What is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryQuery {
    /// What happened to the key with this identifier.
    pub key: Option<Box<str>>,
    /// What happened to this tenant, and to its keys.
    pub tenant: Option<Box<str>>,
    /// How many, at most: 1 to 1,000; 100 if it is 0.
    pub limit: u32,
    /// What the page before said to go on with.
    pub after: Option<Box<str>>,
}

impl HistoryQuery {
    /// All that happened.
    pub fn all() -> Self {
        Self::default()
    }

    /// What happened to one key.
    pub fn of_key(id: impl Into<Box<str>>) -> Self {
        Self { key: Some(id.into()), ..Self::default() }
    }

    /// Only what happened to this tenant, and to its keys.
    pub fn of_tenant(mut self, tenant: impl Into<Box<str>>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// So many at most.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Goes on where a page ended.
    pub fn after(mut self, next: impl Into<Box<str>>) -> Self {
        self.after = Some(next.into());
        self
    }

    /// How many events a page has.
    pub fn page_size(&self) -> u32 {
        page_size(self.limit)
    }
}

fn page_size(limit: u32) -> u32 {
    if limit == 0 { DEFAULT_LIMIT } else { limit.min(MAX_LIMIT) }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// What to ask for the entries after these with; `None` if there are none.
    pub next: Option<Box<str>>,
}

impl<T> Page<T> {
    /// A part of a list, and how to go on.
    pub fn new(items: Vec<T>, next: Option<Box<str>>) -> Self {
        Self { items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_never_empty_nor_endless() {
        let sizes = [0, 1, 7, 1_000, 1_001, u32::MAX].map(|limit| KeyQuery::all().limit(limit).page_size());
        assert_eq!(sizes, [100, 1, 7, 1_000, 1_000, 1_000]);
    }
}
