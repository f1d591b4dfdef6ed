//! Subjects that are too wide for the table: with many windows, or large numbers. Usually there are none.

use hashbrown::HashTable;
use tollgate_core::limit::{Counter, Window};

use super::{
    fingerprint::Fingerprint,
    subject::{self, Windows},
};

#[derive(Default)]
pub(super) struct WideSubjects {
    subjects: HashTable<Wide>,
    // Where the last sweep ended.
    swept_to: usize,
}

struct Wide {
    name: Fingerprint,
    // Apart, or the free places of the map would be as large as those that are taken.
    windows: Box<[(Window, Counter)]>,
}

impl WideSubjects {
    pub(super) fn len(&self) -> usize {
        self.subjects.len()
    }

    #[cfg(all(test, not(tollgate_loom)))]
    pub(super) fn places(&self) -> usize {
        self.subjects.capacity()
    }

    pub(super) fn get(&self, name: Fingerprint) -> Option<Windows> {
        let subject = self.subjects.find(name.place(), |subject| subject.name == name)?;
        Some(Windows::from_slice(&subject.windows))
    }

    pub(super) fn has(&self, name: Fingerprint) -> bool {
        self.subjects.find(name.place(), |subject| subject.name == name).is_some()
    }

    /// Takes over what was counted for a subject, if it is here.
    pub(super) fn replace(&mut self, name: Fingerprint, windows: &Windows) -> bool {
        let subject = self.subjects.find_mut(name.place(), |subject| subject.name == name);
        subject.is_some_and(|subject| {
            subject.windows = windows.as_slice().into();
            true
        })
    }

    pub(super) fn insert(&mut self, name: Fingerprint, windows: &Windows, second: u64) {
        if self.subjects.len() == self.subjects.capacity() {
            // Better to look everywhere once than to grow for counters that nobody needs.
            self.subjects.retain(|subject| !subject.is_idle(second));
        }
        let windows = windows.as_slice().into();
        self.subjects.insert_unique(name.place(), Wide { name, windows }, Wide::place);
    }

    /// Drops those subjects whose windows have passed, of so many places; whether these were more than a quarter.
    pub(super) fn sweep(&mut self, places: usize, second: u64) -> bool {
        let all = self.subjects.num_buckets();
        let places = places.min(all);
        let before = self.subjects.len();
        for _ in 0..places {
            self.swept_to = (self.swept_to + 1) % all;
            if let Ok(entry) = self.subjects.get_bucket_entry(self.swept_to)
                && entry.get().is_idle(second)
            {
                entry.remove();
            }
        }
        let removed = before - self.subjects.len();
        if self.subjects.len() < self.subjects.capacity() / 8 {
            self.subjects.shrink_to(self.subjects.len() * 2, Wide::place);
        }
        removed > places / 4
    }
}

impl Wide {
    fn place(&self) -> u64 {
        self.name.place()
    }

    fn is_idle(&self, second: u64) -> bool {
        self.windows.iter().all(|(window, counter)| subject::idle_from(*window, *counter) <= second)
    }
}
