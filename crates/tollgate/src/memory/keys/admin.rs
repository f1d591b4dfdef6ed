//! The management of the keys in memory: changes, lists, history and usage.

use std::{
    iter::Peekable,
    ops::Bound,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tollgate_core::{
    answer::Answer,
    bounds::MAX_PAGE_BYTES,
    denial::Unavailable,
    manage::{
        Command, HistoryQuery, KeyAdmin, KeyAdminError, KeyChange, KeyDetails, KeyEvent, KeyQuery, Page,
        TenantChange, TenantDetails,
    },
    usage::{StoredUsage, UsageBatch, UsageQuery, UsageStore},
};

use super::{MemoryKeys, lock};

impl KeyAdmin for MemoryKeys {
    fn change(&self, command: Command<KeyChange>) -> Answer<Result<KeyDetails, KeyAdminError>> {
        let Command { change, actor, at, .. } = command;
        let is_deleted = matches!(change, KeyChange::Delete { .. });
        let outcome = self.0.change(|ledger, records| match change {
            KeyChange::Issue { details, digest } => ledger.issue(records, *details, digest, &actor),
            KeyChange::Update { id, update } => ledger.update(records, &id, *update, &actor, at),
            KeyChange::Rotate { id, digest, display_prefix, former_until } => {
                ledger.rotate(records, &id, (digest, display_prefix), former_until, &actor, at)
            }
            KeyChange::Revoke { id } => ledger.revoke(records, &id, &actor, at),
            KeyChange::Delete { id } => ledger.delete(records, &id, &actor, at),
            _ => Err(KeyAdminError::Invalid(
                "the key store in memory does not support this kind of change".into(),
            )),
        });
        let outcome = outcome.map(|details| self.with_last_use(details));
        if let (true, Ok(details)) = (is_deleted, &outcome) {
            self.0.usage.forget(&details.id);
        }
        Answer::Now(outcome)
    }

    fn change_tenant(&self, command: Command<TenantChange>) -> Answer<Result<TenantDetails, KeyAdminError>> {
        let Command { change, actor, at, .. } = command;
        if actor.tenant().is_some() {
            return Answer::Now(Err(KeyAdminError::NotPermitted));
        }
        Answer::Now(Ok(self.0.change(|ledger, records| ledger.change_tenant(records, &change, &actor, at))))
    }

    fn tenant(&self, tenant: &str) -> Answer<Result<TenantDetails, KeyAdminError>> {
        Answer::Now(Ok(lock(&self.0.ledger).tenant(tenant)))
    }

    fn list(&self, query: &KeyQuery) -> Answer<Result<Page<KeyDetails>, KeyAdminError>> {
        let Ok(before) = query.after.as_deref().map(Cursor::read).transpose() else {
            return Answer::Now(Err(KeyAdminError::InvalidCursor));
        };
        let ledger = lock(&self.0.ledger);
        let end = before.map_or(Bound::Unbounded, |cursor| Bound::Excluded((cursor.created_at, cursor.id)));
        let keys = ledger.by_age.range((Bound::Unbounded, end)).rev();
        let mut wanted = keys
            .filter_map(|(_, id)| ledger.keys.get(id).map(|key| &key.details))
            .filter(|details| is_wanted(details, query))
            .peekable();
        let items = take_page(&mut wanted, query.page_size(), KeyDetails::text_bytes);
        let items: Vec<_> = items.into_iter().map(|details| self.with_last_use(details.clone())).collect();
        let next = wanted.next().and(items.last()).map(|last| Cursor::of(last).write());
        Answer::Now(Ok(Page::new(items, next)))
    }

    fn history(&self, query: &HistoryQuery) -> Answer<Result<Page<KeyEvent>, KeyAdminError>> {
        let Ok(before) = query.after.as_deref().map(str::parse::<u64>).transpose() else {
            return Answer::Now(Err(KeyAdminError::InvalidCursor));
        };
        let ledger = lock(&self.0.ledger);
        let mut wanted = ledger.history.select(query, before).peekable();
        let items = take_page(&mut wanted, query.page_size(), |event| event.detail.len());
        let items: Vec<_> = items.into_iter().cloned().collect();
        let next = wanted.next().and(items.last()).map(|last| last.generation.to_string().into());
        Answer::Now(Ok(Page::new(items, next)))
    }
}

impl MemoryKeys {
    /// The last use is stored beside the keys, since it changes with every flush.
    fn with_last_use(&self, details: KeyDetails) -> KeyDetails {
        let mut details = details;
        details.last_used_at = self.0.usage.last_used_at(&details.id);
        details
    }
}

impl UsageStore for MemoryKeys {
    fn add(&self, batch: UsageBatch) -> Answer<Result<(), Unavailable>> {
        let ledger = lock(&self.0.ledger);
        self.0.usage.add_known(&batch, |key| ledger.keys.contains_key(key));
        Answer::Now(Ok(()))
    }

    fn usage(&self, query: &UsageQuery<'_>) -> Answer<Result<StoredUsage, Unavailable>> {
        self.0.usage.usage(query)
    }
}

/// Takes what a page holds: so many entries, and no more text than a page may have, but at least one entry.
fn take_page<'a, T>(
    wanted: &mut Peekable<impl Iterator<Item = &'a T>>,
    size: u32,
    text_bytes: impl Fn(&T) -> usize,
) -> Vec<&'a T> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let (mut page, mut bytes) = (Vec::new(), 0_usize);
    while page.len() < size
        && let Some(next) = wanted.peek()
    {
        bytes += text_bytes(next);
        if bytes > MAX_PAGE_BYTES && !page.is_empty() {
            break;
        }
        page.extend(wanted.next());
    }
    page
}

fn is_wanted(details: &KeyDetails, query: &KeyQuery) -> bool {
    let begins_with =
        |prefix: &str| details.name.starts_with(prefix) || details.display_prefix.starts_with(prefix);
    query.id.as_ref().is_none_or(|id| *id == details.id)
        && (query.tenant.is_none() || query.tenant == details.tenant)
        && query.status.is_none_or(|status| status == details.status)
        && query.search.as_deref().is_none_or(begins_with)
}

/// The end of a page: the last key on it.
struct Cursor {
    created_at: SystemTime,
    id: Box<str>,
}

impl Cursor {
    fn of(details: &KeyDetails) -> Self {
        Self { created_at: details.created_at, id: details.id.clone() }
    }

    /// Nanoseconds since the Unix epoch, a full stop, the identifier.
    fn write(&self) -> Box<str> {
        let since_epoch = self.created_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{}.{}", since_epoch.as_nanos(), self.id).into()
    }

    fn read(text: &str) -> Result<Self, KeyAdminError> {
        let read = || {
            let (nanos, id) = text.split_once('.')?;
            let created_at = UNIX_EPOCH.checked_add(Duration::from_nanos(nanos.parse().ok()?))?;
            Some(Self { created_at, id: id.into() })
        };
        read().ok_or(KeyAdminError::InvalidCursor)
    }
}
