//! The ledger of one account, bounded.

use std::collections::{HashMap, VecDeque};

use tollgate_core::{
    credits::{GrantId, LedgerChange, LedgerEntry, LedgerQuery},
    manage::Page,
};

/// The entries of an account that can be read.
const MAX_ENTRIES: usize = 10_000;

/// The latest entries, and the sums of older ones, so that the account can still be computed from them.
#[derive(Default)]
pub(super) struct Ledger {
    entries: VecDeque<LedgerChange>,
    // The number of entries that are no longer kept. Entries are numbered from 1.
    dropped: u64,
    // The amounts of these by grant. Sums of 0 are left out.
    dropped_sums: HashMap<Option<GrantId>, i64>,
}

impl Ledger {
    pub(super) fn add(&mut self, entries: Vec<LedgerChange>) {
        self.entries.extend(entries);
        let surplus = self.entries.len().saturating_sub(MAX_ENTRIES);
        self.dropped += surplus as u64;
        for dropped in self.entries.drain(..surplus) {
            *self.dropped_sums.entry(dropped.grant).or_default() += dropped.amount;
        }
        self.dropped_sums.retain(|_, sum| *sum != 0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The sums of all amounts by grant, those of entries included that are no longer kept.
    pub(super) fn sums(&self) -> HashMap<Option<GrantId>, i64> {
        let mut sums = self.dropped_sums.clone();
        for entry in &self.entries {
            *sums.entry(entry.grant.clone()).or_default() += entry.amount;
        }
        sums
    }

    /// The entries with a lower number than `before`, the latest first.
    pub(super) fn page(&self, query: &LedgerQuery, before: Option<u64>) -> Page<LedgerEntry> {
        let size = usize::try_from(query.page_size()).unwrap_or(1);
        let end = before.map_or(u64::MAX, |number| number.saturating_sub(self.dropped + 1));
        let end = usize::try_from(end).unwrap_or(usize::MAX).min(self.entries.len());
        let start = end.saturating_sub(size);
        let numbers = self.dropped + 1 + start as u64..;
        let mut items: Vec<_> = numbers
            .zip(self.entries.range(start..end))
            .map(|(number, change)| LedgerEntry::new(number, query.account.clone(), change.clone()))
            .collect();
        items.reverse();
        let next = items.last().filter(|_| start > 0).map(|last| last.number.to_string().into());
        Page::new(items, next)
    }
}
