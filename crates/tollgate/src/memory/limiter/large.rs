//! Subjects that do not fit into the table: many windows, or large numbers. Usually there are none.

use hashbrown::HashTable;
use tollgate_core::limit::{Counter, Window};

use super::{
    fingerprint::Fingerprint,
    subject::{self, Windows},
};

#[derive(Default)]
pub(super) struct LargeSubjects {
    subjects: HashTable<LargeSubject>,
    // The end of the last sweep.
    swept_to: usize,
}

struct LargeSubject {
    name: Fingerprint,
    // Boxed, so that the free slots of the hash table stay small.
    windows: Box<[(Window, Counter)]>,
}

impl LargeSubjects {
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

    /// Replaces the windows of a subject, if it is here.
    pub(super) fn replace(&mut self, name: Fingerprint, windows: &Windows) -> bool {
        let subject = self.subjects.find_mut(name.place(), |subject| subject.name == name);
        subject.is_some_and(|subject| {
            subject.windows = windows.as_slice().into();
            true
        })
    }

    pub(super) fn insert(&mut self, name: Fingerprint, windows: &Windows, second: u64) {
        if self.subjects.len() == self.subjects.capacity() {
            // One scan of all subjects is better than growing for counters that are no longer needed.
            self.subjects.retain(|subject| !subject.is_idle(second));
        }
        let windows = windows.as_slice().into();
        self.subjects.insert_unique(name.place(), LargeSubject { name, windows }, LargeSubject::place);
    }

    /// Drops idle subjects in the next `places` slots. Returns whether it dropped more than a quarter of `places`.
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
            self.subjects.shrink_to(self.subjects.len() * 2, LargeSubject::place);
        }
        removed > places / 4
    }
}

impl LargeSubject {
    fn place(&self) -> u64 {
        self.name.place()
    }

    fn is_idle(&self, second: u64) -> bool {
        self.windows.iter().all(|(window, counter)| subject::idle_from(*window, *counter) <= second)
    }
}
