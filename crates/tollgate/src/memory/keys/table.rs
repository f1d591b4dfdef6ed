//! Records by digest: read on every request, changed hardly ever.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use hashbrown::HashTable;
use tollgate_core::{key::Digest, store::KeyRecord};

/// So many that a part of a million keys is moved in less than a millisecond when it grows.
const PARTS: usize = 64;

/// Records by digest. Each part has eight locks. Whoever reads takes the one that an eighth of the threads share; whoever
/// changes takes all, and so has waited for everybody who saw the part as it was before.
pub(super) struct Table {
    parts: Box<[Part]>,
    // What was taken out or replaced. A principal holds what is the application's, and dropping that may use the store.
    gone: Mutex<Vec<KeyRecord>>,
}

type Part = ShardedLock<HashTable<Entry>>;

struct Entry {
    digest: Digest,
    record: KeyRecord,
}

impl Table {
    pub(super) fn find(&self, digest: &Digest) -> Option<KeyRecord> {
        let part = read(self.part(digest)?);
        part.find(hash(digest), |entry| entry.digest == *digest).map(|entry| entry.record.clone())
    }

    /// Puts a record in the place of the one that the key has, if it has one.
    pub(super) fn insert(&self, digest: Digest, record: KeyRecord) {
        let Some(part) = self.part(&digest) else { return };
        let mut part = write(part);
        match part.find_mut(hash(&digest), |entry| entry.digest == digest) {
            Some(entry) => self.gone().push(mem::replace(&mut entry.record, record)),
            None => {
                part.insert_unique(hash(&digest), Entry { digest, record }, |entry| hash(&entry.digest));
            }
        }
    }

    pub(super) fn remove(&self, digest: &Digest) {
        let Some(part) = self.part(digest) else { return };
        if let Ok(entry) = write(part).find_entry(hash(digest), |entry| entry.digest == *digest) {
            let (removed, _) = entry.remove();
            self.gone().push(removed.record);
        }
    }

    /// What has gone since this was last asked, to be dropped when no lock is held.
    pub(super) fn take_gone(&self) -> Vec<KeyRecord> {
        mem::take(&mut *self.gone())
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| read(part).len()).sum()
    }

    fn gone(&self) -> MutexGuard<'_, Vec<KeyRecord>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never absent: the number is taken modulo how many there are.
    fn part(&self, digest: &Digest) -> Option<&Part> {
        // Other bytes than the hash is made of, or each part would use a part of its places.
        let [.., number] = digest.as_bytes();
        self.parts.get(usize::from(*number) % PARTS)
    }
}

impl Default for Table {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| Part::default()).collect(), gone: Mutex::default() }
    }
}

/// A digest is as good as a hash already. Only issued keys are ever inserted, so that no stranger can choose digests
/// which collide.
fn hash(digest: &Digest) -> u64 {
    digest.as_bytes().first_chunk().map_or(0, |first| u64::from_ne_bytes(*first))
}

// Nothing in a part is ever left half changed, so a panic of another thread has left it whole.

fn read(part: &Part) -> ShardedLockReadGuard<'_, HashTable<Entry>> {
    part.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(part: &Part) -> ShardedLockWriteGuard<'_, HashTable<Entry>> {
    part.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use tollgate_core::{key::PepperId, store::KeyStatus, verify::Principal};

    use super::*;

    fn record(generation: u64) -> KeyRecord {
        KeyRecord::new(Arc::new(Principal::new("key")), KeyStatus::Active, generation)
    }

    fn generation(table: &Table, digest: &Digest) -> Option<u64> {
        table.find(digest).map(|record| record.generation())
    }

    /// Digests that share their hash and their part, as far as they differ in neither.
    fn alike() -> Vec<Digest> {
        let mut digests = Vec::new();
        for pepper in [None, Some(PepperId::new(0)), Some(PepperId::new(1))] {
            for number in 0..=u8::MAX {
                let mut bytes = [7; 32];
                bytes[15] = number;
                digests.push(Digest::from_parts(bytes, pepper));
                bytes[0] = number;
                bytes[31] = number.wrapping_mul(3);
                digests.push(Digest::from_parts(bytes, pepper));
            }
        }
        digests
    }

    #[test]
    fn keeps_what_a_map_would_keep_also_where_digests_are_alike() {
        let (table, mut model, digests) = (Table::default(), HashMap::new(), alike());
        let steps = digests.iter().chain(digests.iter().step_by(3)).zip(1..);
        for (digest, step) in steps {
            if step % 5 == 4 {
                table.remove(digest);
                model.remove(digest);
                assert_eq!(generation(&table, digest), None);
            } else {
                table.insert(*digest, record(step));
                model.insert(*digest, step);
            }
        }
        assert_eq!(table.len(), model.len());
        assert!(model.len() < digests.len(), "some were removed");
        for digest in &digests {
            assert_eq!(generation(&table, digest), model.get(digest).copied());
        }
    }
}
