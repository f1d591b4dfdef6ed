//! Records by digest: read on every request, changed rarely.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use hashbrown::HashTable;
use tollgate_core::{key::Digest, store::KeyRecord};

/// With this many shards and a million keys, a shard that grows is moved in less than a millisecond.
const SHARDS: usize = 64;

/// Records by digest. Each shard has eight locks (`ShardedLock`). A reader takes one, which an eighth of the threads share. A writer
/// takes all, so it waits for all readers that still see the earlier state.
pub(super) struct Table {
    shards: Box<[Shard]>,
    // Removed records. A principal holds the application's values, which may use the store when they are dropped.
    removed: Mutex<Vec<KeyRecord>>,
}

type Shard = ShardedLock<HashTable<Entry>>;

struct Entry {
    digest: Digest,
    record: KeyRecord,
}

impl Table {
    pub(super) fn find(&self, digest: &Digest) -> Option<KeyRecord> {
        let shard = read(self.shard(digest)?);
        shard.find(hash(digest), |entry| entry.digest == *digest).map(|entry| entry.record.clone())
    }

    /// Inserts a record, or replaces the one for the same digest.
    pub(super) fn insert(&self, digest: Digest, record: KeyRecord) {
        let Some(shard) = self.shard(&digest) else { return };
        let mut shard = write(shard);
        match shard.find_mut(hash(&digest), |entry| entry.digest == digest) {
            Some(entry) => self.removed().push(mem::replace(&mut entry.record, record)),
            None => {
                shard.insert_unique(hash(&digest), Entry { digest, record }, |entry| hash(&entry.digest));
            }
        }
    }

    pub(super) fn remove(&self, digest: &Digest) {
        let Some(shard) = self.shard(digest) else { return };
        if let Ok(entry) = write(shard).find_entry(hash(digest), |entry| entry.digest == *digest) {
            let (entry, _) = entry.remove();
            self.removed().push(entry.record);
        }
    }

    /// The records that were removed since the last call, to be dropped when no lock is held.
    pub(super) fn take_removed(&self) -> Vec<KeyRecord> {
        mem::take(&mut *self.removed())
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| read(shard).len()).sum()
    }

    fn removed(&self) -> MutexGuard<'_, Vec<KeyRecord>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never `None`: the index is taken modulo the number of shards.
    fn shard(&self, digest: &Digest) -> Option<&Shard> {
        // Not a byte of the hash, or each shard would use a fraction of its buckets.
        let [.., number] = digest.as_bytes();
        self.shards.get(usize::from(*number) % SHARDS)
    }
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), removed: Mutex::default() }
    }
}

/// A digest is a hash already. Only issued keys are inserted, so that clients cannot choose digests that collide.
fn hash(digest: &Digest) -> u64 {
    digest.as_bytes().first_chunk().map_or(0, |first| u64::from_ne_bytes(*first))
}

// No code panics between two related changes, so a panic on another thread leaves the records valid.

fn read(shard: &Shard) -> ShardedLockReadGuard<'_, HashTable<Entry>> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &Shard) -> ShardedLockWriteGuard<'_, HashTable<Entry>> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
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

    /// Digests that collide: many share a shard and a hash.
    fn colliding() -> Vec<Digest> {
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
    fn holds_what_a_map_holds_even_if_digests_collide() {
        let (table, mut model, digests) = (Table::default(), HashMap::new(), colliding());
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
